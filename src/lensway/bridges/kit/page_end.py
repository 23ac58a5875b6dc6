"""Where a page ends: the key of its last row, and the refusal of a page that ends, or begins, between rows with equal keys.

The next page starts behind the key of the last row, so a row with the same key would be lost. Bridges give the *tail* of a row:
the values of the keys, and behind them its row id or its rank, if the statement has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from lensway.bridges.kit.failures import key_not_unique
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.cursor import is_short, too_long

Tail: TypeAlias = tuple[Any, ...]
_FIRST_RANK: Final = 1


class PageEnd:
    """The boundaries of one page of one statement. ``positions`` are the columns of a tail."""

    __slots__ = ("_compiled", "_keys", "positions")

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._keys = len(compiled.key_positions)
        mark = compiled.row_id_position if compiled.rank_position is None else compiled.rank_position
        self.positions = compiled.key_positions if mark is None else (*compiled.key_positions, mark)

    def tail(self, row: Sequence[Any]) -> Tail:
        """The tail of a row of the statement."""
        return tuple([row[position] for position in self.positions])

    def begins_with(self, tail: Tail) -> None:
        """Check the first row of a page by offset. Raises LenswayError key_not_unique if the row before it has the same key."""
        # The statement steps over the row before the page, and so the page begins with the second rank.
        if self._compiled.rank_position is not None and tail[-1] == _FIRST_RANK:
            raise self._refusal()

    def ends_between(self, last: Tail, following: Tail) -> None:
        """Check the end of the page. Raises LenswayError key_not_unique if the row behind it has the same key."""
        if not self._keys or self._compiled.row_id_position is not None:
            return
        # Ranks are the database's own word for equality. Without them the catalog calls the key unique; that it may do so no
        # longer shows at least where the values are the same.
        is_tied = last[-1] == following[-1] if self._compiled.rank_position is not None else last == following
        if is_tied:
            raise self._refusal()

    def key(self, tail: Tail, *, has_more: bool) -> tuple[Tail | None, int | None]:
        """Key and row id of the last row, where a cursor may be needed.

        Raises:
            LenswayError: LIMIT_EXCEEDED when one is needed that cannot hold the key.
        """
        key = tail[: self._keys]
        if not is_short(key):
            if has_more:
                raise too_long()
            return None, None  # an end mark with it would not fit the link of a runner
        return key, None if self._compiled.row_id_position is None else tail[-1]

    def _refusal(self) -> LenswayError:
        shape = self._compiled.shape
        return key_not_unique(shape.lens, [column.name for column in shape.keys])


class PageOfBatches:
    """The rows of a page while they come in batches. ``page_rows`` None has no end."""

    def __init__(self, compiled: Compiled, *, page_rows: int | None, is_offset: bool) -> None:
        self._page = PageEnd(compiled)
        self._left = page_rows
        self._is_offset = is_offset
        self._last: Tail | None = None
        self._last_of_statement: Tail | None = None
        self.has_more = False

    @property
    def positions(self) -> Sequence[int]:
        """The columns of a tail."""
        return self._page.positions

    def begin_statement(self) -> None:
        """The rows from here on are of another statement than those before, and so not equal to them in the order."""
        self._last_of_statement = None

    def take(self, rows: int, tail: Callable[[int], Tail]) -> int:
        """How many rows of the next batch belong to the page; ``tail`` gives the tail of each.

        Raises:
            LenswayError: key_not_unique for a page that begins or ends between equal keys.
        """
        count = rows if self._left is None else min(rows, self._left)
        if rows and self._page.positions:
            if self._last is None and self._is_offset:
                self._page.begins_with(tail(0))
            last = tail(count - 1) if count else self._last_of_statement
            if count < rows and last is not None:
                self._page.ends_between(last, tail(count))
            if count:
                self._last = self._last_of_statement = last
        self.has_more = self.has_more or count < rows
        if self._left is not None:
            self._left -= count
        return count

    def key(self) -> tuple[Tail | None, int | None]:
        """Key and row id of the last row, as `PageEnd.key`. Raises LenswayError LIMIT_EXCEEDED."""
        return (None, None) if self._last is None else self._page.key(self._last, has_more=self.has_more)
