"""One statement on SQLite while its rows are read, in a thread. Failures of values are told from failures of statements here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from lensway import limits
from lensway.bridges.kit.failures import query_failed, wrong_value
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.bridges.sqlite.values import class_of, key_of, shows_of
from lensway.dialects.compile import Compiled
from lensway.query.fields import FieldType

_FETCH_ROWS: Final = 1_000
"""Rows read at once; fewer when they are large. Some milliseconds of encoding: the loop serves others in between."""
_LENGTH_MIN: Final = 2 * limits.MIB
"""Longest value or row that is always read: what a request can bring, and what the file says of its tables."""
_TEXT_AFFINITIES: Final = ("CHAR", "CLOB", "TEXT", "BLOB", "REAL", "FLOA", "DOUB")


class Reading:
    """A statement and its rows. Every method blocks, and raises sqlite3.Error or LenswayError SOURCE_QUERY_FAILED."""

    def __init__(
        self,
        compiled: Compiled,
        sql: str,
        values: Sequence[Any],
        row_bytes_max: int,
        *,
        page_rows: int | None = None,
    ) -> None:
        self._compiled = compiled
        self._sql = sql
        self._left = page_rows
        self._shows = shows_of(compiled.columns)
        self._values = values
        self._row_bytes_max = row_bytes_max
        self._cursor: sqlite3.Cursor | None = None
        self._numeric: frozenset[str] | None = None

    def start(self, connection: GuardedConnection) -> None:
        """Execute it."""
        # SQLite itself refuses a larger value before it is in memory; what else is read here must fit too.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(self._row_bytes_max, _LENGTH_MIN))
        self._cursor = started(connection, self._sql, self._values)

    def next(self, connection: GuardedConnection) -> tuple[list[tuple[Any, ...]], bool]:
        """The next rows, and whether they are the last ones."""
        assert self._cursor is not None, "it was started"
        rows: list[tuple[Any, ...]] = []
        size = 0
        shows = self._shows
        try:
            for row in self._cursor:
                values = [None if value is None else show(value) for value, show in zip(row, shows, strict=True)]
                if self._left is not None:
                    self._left -= 1
                # The row behind the page only shows that there is more. Its faults belong to the next page.
                if None in values and self._left != -1:
                    self._check(connection, row, values)
                rows.append(tuple(values))
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if len(rows) == _FETCH_ROWS or size >= limits.ARROW_BATCH_BYTES:
                    return rows, False
        except sqlite3.OperationalError as error:
            # What the library itself says has a code; without one Python cannot read what it was given.
            code = getattr(error, "sqlite_errorcode", None)
            if code is None and self._left == 0:
                return [*rows, (None,) * len(shows)], True
            if code is None:
                self._name_unreadable(connection)
            if code in (None, sqlite3.SQLITE_ERROR):
                raise _failed_on_a_value() from None
            raise
        return rows, True

    def close(self) -> None:
        """End it: an open statement would hold a lock on the file, and keep what it has read before others changed it."""
        if self._cursor is not None:
            self._cursor.close()

    def _check(self, connection: GuardedConnection, row: Sequence[Any], values: list[Any]) -> None:
        """Show integers as digits where the field is a text and the column numeric; refuse what else is not of its type."""
        for position, column in enumerate(self._compiled.columns):
            value = row[position]
            if value is None or values[position] is not None:
                continue
            is_digits = column.type is FieldType.TEXT and isinstance(value, int) and not column.is_list
            if is_digits and column.column in self._numbers(connection):
                values[position] = str(value)
                continue
            wanted = f"a list of {column.type.value}" if column.is_list else column.type.value
            raise wrong_value(column.name, wanted, class_of(value), key_of(row, self._compiled))

    def _numbers(self, connection: GuardedConnection) -> frozenset[str]:
        """The columns that turn a text which is a number into one, as it is compared and stored; others tell 5 from '5'."""
        if self._numeric is None:
            table = self._compiled.shape.table
            schema = f"{_quoted(table.schema)}." if table.schema else ""
            found = connection.execute(f"PRAGMA {schema}table_xinfo({_quoted(table.name)})").fetchall()
            self._numeric = frozenset(name for _, name, type, *_ in found if _is_numeric(type.upper()))
        return self._numeric

    def _name_unreadable(self, connection: GuardedConnection) -> None:
        """Raise the failure that names the first text that is not UTF-8, if it is still there."""
        connection.text_factory = bytes
        try:
            for row in connection.execute(self._sql, self._values):
                for value, column in zip(row, self._compiled.columns, strict=True):
                    if isinstance(value, bytes) and column.type is not FieldType.BYTES and not _is_text(value):
                        key = key_of([_decoded(each) for each in row], self._compiled)
                        raise wrong_value(column.name, column.type.value, "a text that is not UTF-8", key)
        finally:
            connection.text_factory = str


def started(connection: GuardedConnection, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
    """The cursor of this statement. Raises sqlite3.Error, LenswayError SOURCE_QUERY_FAILED."""
    connection.forget_refusals()
    try:
        return connection.execute(sql, values)
    except sqlite3.DatabaseError as error:
        if connection.has_refused_writing:
            connection.guard()
            return connection.execute(sql, values)
        if connection.refused_function is not None:
            raise _refused(connection.refused_function) from None
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR and _is_sound(connection, sql, values):
            raise _failed_on_a_value() from None
        raise


def _is_sound(connection: GuardedConnection, sql: str, values: Sequence[Any]) -> bool:
    """Whether the statement itself can be prepared, so that what failed were values."""
    try:
        connection.execute(f"EXPLAIN {sql}", values).fetchone()
    except sqlite3.Error:
        return False
    return True


def _refused(function: str) -> Exception:
    return query_failed(
        "permission_denied",
        f"The table or view calls the function '{function}', which statements may not call",
        hint="Remove it from the view. Functions that only compute from their arguments are allowed.",
        function=function,
    )


def _failed_on_a_value() -> Exception:
    return query_failed(
        "invalid_value",
        "The database failed on a value while it read the table or view",
        hint="A function of the view may not accept the value, such as text that is not JSON, or a text is not valid UTF-8.",
    )


def _is_numeric(declared: str) -> bool:
    # https://www.sqlite.org/datatype3.html#determination_of_column_affinity
    return "INT" in declared or bool(declared and not any(word in declared for word in _TEXT_AFFINITIES))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
