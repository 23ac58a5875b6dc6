"""What a database can evaluate itself. Closed: an unlisted operator is refused, never emulated wrongly."""

from __future__ import annotations

import msgspec

from lensway.query.conditions import Operator


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of database: ``dialect`` is the SQL it speaks, ``bridge`` its name in messages.

    ``folds_unicode`` says that case-insensitive operators fold beyond ASCII (where the database's collation does).
    ``has_special_values``: it knows NaN, infinite decimals and days, years before 1 and after 9999, and times of day with a zone.
    """

    dialect: str
    bridge: str = ""
    operators: frozenset[Operator] = frozenset(Operator)
    has_lists: bool = False
    folds_unicode: bool = False
    has_special_values: bool = True
