"""One statement on DuckDB while its rows are read as text, in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb

from lensway import limits
from lensway.bridges.duckdb.columns import Columns, wrapped

_FETCH_ROWS: Final = 1_000
"""Rows read at once. Some milliseconds of encoding: the loop serves others in between."""
_FIRST_ROWS: Final = 16
"""Rows read at first, when it is not known how large they are."""


class Reading:
    """A statement and its rows. `start` and `next` block, and raise duckdb.Error."""

    def __init__(self, columns: Columns, sql: str, values: Sequence[Any], tag: str) -> None:
        expressions, self._shows = columns.text()
        self._sql = wrapped(sql, expressions, len(columns.columns), tag)
        self._values = values
        self._rows = _FIRST_ROWS

    def start(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Execute it."""
        connection.execute(self._sql, list(self._values))

    def next(self, connection: duckdb.DuckDBPyConnection) -> tuple[list[tuple[Any, ...]], bool]:
        """The next rows, and whether they are the last ones."""
        found = connection.fetchmany(self._rows)
        size = sum(len(value) for row in found for value in row if isinstance(value, str | bytes))
        is_last = len(found) < self._rows
        fitting = len(found) * limits.ARROW_BATCH_BYTES // max(1, size)
        self._rows = max(1, min(_FETCH_ROWS, fitting, 4 * self._rows))
        shows = self._shows
        if not any(shows):
            return found, is_last
        return [
            tuple(
                value if value is None or show is None else show(value) for value, show in zip(row, shows, strict=True)
            )
            for row in found
        ], is_last

    def close(self) -> None:
        """The next statement of the connection ends it."""
