"""What each kind of bridge can push down into its database. Closed: what is not listed is refused, never emulated wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from lensway.errors import ErrorCode, LenswayError
from lensway.query.plan import Operator


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of bridge. ``dialect`` is the SQL it speaks; ``folds_unicode`` says that case-insensitive operators fold beyond
    ASCII (where the database's collation does). ``has_special_values``: it knows NaN, infinite decimals and days, years
    before 1 and after 9999, and times of day with a zone. ``pattern_bytes_max``: longest pattern that it takes."""

    bridge: str
    dialect: str
    operators: frozenset[Operator] = frozenset(Operator)
    has_lists: bool = False
    folds_unicode: bool = False
    has_special_values: bool = True
    pattern_bytes_max: int | None = None


_KNOWN: Final[Mapping[str, Capabilities]] = {
    each.bridge: each
    for each in (
        Capabilities(bridge="postgres", dialect="postgres", has_lists=True, folds_unicode=True),
        # SQLITE_MAX_LIKE_PATTERN_LENGTH, as SQLite is built by default.
        Capabilities(bridge="sqlite", dialect="sqlite", has_special_values=False, pattern_bytes_max=50_000),
    )
}

BRIDGES: Final = ("postgres", "mysql", "sqlite", "duckdb", "files", "sqlalchemy", "adbc")
"""Every bridge of the contract; the ones without capabilities are not built yet."""


def capabilities_of(bridge: str) -> Capabilities:
    """What the bridge can do. Raises LenswayError INVALID_REQUEST for a bridge that is not built yet."""
    found = _KNOWN.get(bridge)
    if found is None:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"bridge {bridge!r} is not available in this version",
            hint=f"available: {', '.join(sorted(_KNOWN))}",
        )
    return found


def is_available(bridge: str) -> bool:
    """True when the bridge is built."""
    return bridge in _KNOWN
