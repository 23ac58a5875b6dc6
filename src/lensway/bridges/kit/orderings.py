"""Statements by shape, compiled for what a database's catalog says of their tables; looked up again after a while.

A shape that was asked lately costs one look into a dictionary.
"""

from __future__ import annotations

import enum
import math
import time
from typing import Final

from lensway import limits
from lensway.dialects.compile import Compiled, compile_shape
from lensway.dialects.registry import dialect_of
from lensway.query.cache import BoundedCache
from lensway.query.fields import TableName
from lensway.query.ordering import TableFacts, compares_text, judge
from lensway.query.plan import Shape, decode_shape

_FACTS_BYTES: Final = 1_024


KEY_NOT_UNIQUE: Final = "key_not_unique"


class EqualKeys(enum.Enum):
    """What a connection test finds of rows that share a primary key."""

    NONE = enum.auto()
    POSSIBLE = enum.auto()
    SEEN = enum.auto()


def key_warning(shape: Shape, found: EqualKeys) -> dict[str, str] | None:
    """The warning of a connection test about the primary key of a lens, if there is a reason."""
    if found is EqualKeys.NONE:
        return None
    keys = ", ".join(column.name for column in shape.keys)
    reason = (
        f"rows of {shape.table} share values of its primary key ({keys})"
        if found is EqualKeys.SEEN
        else f"no unique index of {shape.table} covers its primary key ({keys}), without NULLs"
    )
    message = (
        f"Lens '{shape.lens}': {reason}. Lensway refuses a page that would end between such rows. Declare a unique key."
    )
    return {"code": KEY_NOT_UNIQUE, "message": message}


def equal_keys_sql(shape: Shape, rows: int) -> str:
    """Standard SQL that gives a row if any of the first rows of the table share the primary key of the lens."""
    names = ", ".join(f"t.{_quoted(column.column)} AS k{at}" for at, column in enumerate(shape.keys))
    place = ".".join(_quoted(part) for part in (shape.table.schema, shape.table.name) if part)
    keys = ", ".join(f"k{at}" for at in range(len(shape.keys)))
    return (
        f"SELECT 1 FROM (SELECT {names} FROM {place} AS t LIMIT {rows}) AS looked"  # noqa: S608 - names are quoted
        f" GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    )


class Orderings:
    """The statements of one source. ``seconds`` is how long the facts of a table hold.

    ``are_exports_ordered`` and ``are_texts_judged`` say that the catalog is asked for exports with an order, and for each
    statement that compares texts, too.
    """

    def __init__(
        self, dialect: str, *, seconds: float, are_exports_ordered: bool, are_texts_judged: bool = False
    ) -> None:
        dialect_of(dialect)  # its module is read now: later there may be no descriptor to read it with
        self._dialect = dialect
        self._seconds = seconds
        self._are_exports_ordered = are_exports_ordered
        self._are_texts_judged = are_texts_judged
        self.forget()

    def ready(self, shape: bytes) -> Compiled | None:
        """The statement for this shape; None when the catalog must be asked first: then call `learned`.

        Raises:
            LenswayError: as `compile_shape`.
        """
        found = self._compiled.get(shape)
        now = time.monotonic()
        if found is not None and found[1] > now:
            return found[0]
        decoded = decode_shape(shape)
        if not self._is_judged(decoded):
            return self._keep(shape, compile_shape(shape, self._dialect), math.inf)
        facts = self._facts.get(decoded.table)
        if facts is None or facts[1] <= now:
            return None
        return self._judged(shape, *facts)

    def learned(self, shape: bytes, facts: TableFacts) -> Compiled:
        """The statement for this shape, whose table the catalog says this of. Raises LenswayError as `compile_shape`."""
        decoded = decode_shape(shape)
        until = time.monotonic() + self._seconds
        self._facts.put(decoded.table, (facts, until), _FACTS_BYTES)
        return self._judged(shape, facts, until)

    def forget(self) -> None:
        """Ask again: a table has changed."""
        entries, size = limits.COMPILED_PLANS_MAX, limits.COMPILED_SHAPES_BYTES_MAX
        self._compiled: BoundedCache[bytes, tuple[Compiled, float]] = BoundedCache(entries_max=entries, bytes_max=size)
        self._facts: BoundedCache[TableName, tuple[TableFacts, float]] = BoundedCache(
            entries_max=entries, bytes_max=size
        )

    def _is_judged(self, shape: Shape) -> bool:
        if shape.keys or (self._are_exports_ordered and shape.order):
            return True
        return self._are_texts_judged and compares_text(shape)

    def _judged(self, shape: bytes, facts: TableFacts, until: float) -> Compiled:
        ordering = judge(decode_shape(shape), facts)
        return self._keep(shape, compile_shape(shape, self._dialect, ordering), until)

    def _keep(self, shape: bytes, compiled: Compiled, until: float) -> Compiled:
        self._compiled.put(shape, (compiled, until), len(shape))
        return compiled


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
