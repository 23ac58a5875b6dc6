"""The stage of SQLite: a file."""

from __future__ import annotations

import base64
import contextlib
import pathlib
import random
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from lensway.bridges.contract import Stage as TestStage
from lensway.errors import ErrorCode
from lensway.kinds import BUILT_IN, Kind
from lensway.query.fields import FieldType
from lensway.testing import odd_values
from lensway.testing.bridges.cells import MOMENT
from lensway.testing.bridges.stage import Column, Failure, OddColumn, Situation, Stage, Stored, quoted, text_literal

_TYPES: Final[Mapping[FieldType, str]] = {
    FieldType.TEXT: "TEXT",
    FieldType.INTEGER: "INTEGER",
    FieldType.NUMBER: "DOUBLE",
    # Without a type: SQLite makes floats of what looks like a number in a column that is declared as decimal.
    FieldType.DECIMAL: "",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
    FieldType.TIME: "TIME",
    FieldType.TIMESTAMP: "TIMESTAMP",
    FieldType.UUID: "UUID",
    FieldType.JSON: "JSON",
    FieldType.BYTES: "BLOB",
}
_SERVER_ONLY: Final = "a file has no server, no login and no address"


def _odd(type: FieldType, make: Callable[[random.Random], object]) -> OddColumn:
    # Without a column's type, so that every value stays as it was spelled.
    return OddColumn(type, "", lambda chance: _stored(make(chance)))


def _stored(value: object) -> str:
    """The literal of a value of Python's driver."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"x'{value.hex()}'"
        case str():
            return text_literal(value)
        case float() if value in (float("inf"), float("-inf")):
            return "9e999" if value > 0 else "-9e999"
        case _:
            return repr(value)


class SqliteStage(Stage):
    """One file. A statement that reads it holds a lock, by which anyone sees that it runs."""

    kind: ClassVar[Kind] = next(kind for kind in BUILT_IN if kind.name == "sqlite")
    title = "SQLite"
    lacks: ClassVar[Mapping[Situation, str]] = {
        Situation.NO_PERMISSION: "SQLite has no permissions on tables",
        Situation.WRONG_LOGIN: _SERVER_ONLY,
        Situation.REFUSED: _SERVER_ONLY,
        Situation.UNKNOWN_HOST: _SERVER_ONLY,
    }
    skipped_stages = frozenset({TestStage.DNS, TestStage.TCP, TestStage.TLS})
    notices_seconds = 0.0
    odd_columns: ClassVar[Mapping[str, OddColumn]] = {
        "words": _odd(FieldType.TEXT, odd_values.text),
        "big": _odd(FieldType.INTEGER, odd_values.integer),
        "double": _odd(FieldType.NUMBER, lambda chance: float(chance.choice(odd_values.FLOATS[1:]))),
        "exact": _odd(FieldType.DECIMAL, lambda chance: chance.choice((*odd_values.DECIMALS[1:6], 0.1, 1e300, 7))),
        "flag": _odd(FieldType.BOOLEAN, lambda chance: chance.randrange(2)),
        "day": _odd(FieldType.DATE, lambda chance: chance.choice((*odd_values.DATES, 0, 2451544.5))),
        "clock": _odd(FieldType.TIME, lambda chance: chance.choice((*odd_values.CLOCKS, "12:00"))),
        "moment": _odd(
            FieldType.TIMESTAMP,
            lambda chance: chance.choice(
                ("2000-02-29 10:00:00+02", "1970-01-01T00:00:00Z", "2013-01-31", 1, 2451544.25)
            ),
        ),
        "ref": _odd(FieldType.UUID, lambda chance: f"{chance.getrandbits(128):032x}"),
        "document": _odd(FieldType.JSON, lambda chance: chance.choice(odd_values.JSONS)),
        "raw": _odd(FieldType.BYTES, lambda chance: chance.randbytes(chance.choice((0, 1, 57, 200)))),
    }
    cells: ClassVar[Mapping[str, Stored]] = {
        "text: plain": Stored("", "'abc'"),
        "text: empty": Stored("", "''"),
        "text: quotes, commas, lines": Stored("", "'a\"b,\r\nc'"),
        "text: beyond ASCII": Stored("", "'é漢😀'"),
        "text: NULL": Stored("", "NULL"),
        "integer: 64 bits": Stored("", "9223372036854775807"),
        "integer: lowest": Stored("", "-9223372036854775808"),
        "integer: smallint": Stored("", "-3"),
        "integer: NULL": Stored("", "NULL"),
        "number: double": Stored("", "0.1"),
        "number: large": Stored("", "1e+300"),
        "number: small": Stored("", "1e-05"),
        "number: whole": Stored("", "7.0"),
        "number: infinity": Stored("", "9e999"),
        "number: -infinity": Stored("", "-9e999"),
        "number: NULL": Stored("", "NULL"),
        "decimal: any digits": Stored("", "'12345678901234567890.1234567890'"),
        "decimal: an integer": Stored("", "9007199254740993"),
        "decimal: NULL": Stored("", "NULL", "string"),
        "boolean: true": Stored("", "1"),
        "boolean: false": Stored("", "0"),
        "boolean: NULL": Stored("", "NULL"),
        "date: a day": Stored("", "'2013-01-31'"),
        "date: NULL": Stored("", "NULL"),
        "time: a time": Stored("", "'17:05'"),
        "time: NULL": Stored("", "NULL"),
        "timestamp: with a zone": Stored("", "'2013-01-31 17:05:00.123456+02'"),
        "timestamp: without one": Stored("", "'2013-01-31 17:05:00.1'", MOMENT),
        "timestamp: NULL": Stored("", "NULL"),
        "uuid: a uuid": Stored("", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        "uuid: NULL": Stored("", "NULL"),
        "json: a document as text": Stored("", "'{\"a\": [1]}'"),
        "json: JSON's own null": Stored("", "'null'"),
        "json: NULL": Stored("", "NULL"),
        "bytes: bytes": Stored("", "x'ff00'"),
        "bytes: none": Stored("", "x''"),
        "bytes: NULL": Stored("", "NULL"),
    }

    async def start(self, directory: pathlib.Path) -> None:
        """Make the file."""
        self._directory = directory
        self._path = directory / "staged.db"
        await self.execute("CREATE TABLE held (id INTEGER PRIMARY KEY)", "INSERT INTO held VALUES (1)")

    async def stop(self) -> None:
        """The file stays; the directory is the suite's."""

    @property
    def config(self) -> Mapping[str, object]:
        """The path."""
        return {"path": str(self._path)}

    async def execute(self, *statements: str) -> None:
        """Run statements on a connection that may write."""
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask on a connection of its own."""
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    def column_type(self, column: Column) -> str:
        """A type by which introspection knows the lens's type, where that changes no value."""
        return _TYPES[column.type]

    def literal(self, value: object, column: Column) -> str:
        """The value as programs write it into such columns."""
        if value is None:
            return "NULL"
        match column.type:
            case FieldType.BYTES:
                return _stored(base64.b64decode(str(value)))
            case FieldType.UUID:
                text = str(value).replace("-", "").lower()
                return text_literal("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))
            case FieldType.INTEGER:
                return str(value).removesuffix(".0")
            case FieldType.NUMBER:
                return _stored(float(str(value)))
            case FieldType.BOOLEAN:
                return "1" if value else "0"
            case _:
                return text_literal(str(value))

    async def create_series(self, name: str, rows: int, text_bytes: int) -> None:
        """Made by a recursive query."""
        await self.execute(
            f"CREATE TABLE {quoted(name)} (id INTEGER PRIMARY KEY, note TEXT)",
            f"INSERT INTO {quoted(name)} WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {rows})"
            f" SELECT n, printf('%.{text_bytes}c', 'x') FROM c",
        )

    async def create_slow_view(self, name: str) -> None:
        """A view that counts to a number that takes minutes, while it holds the lock of a reader."""
        await self.execute(
            f"CREATE VIEW {quoted(name)} AS WITH RECURSIVE c(n) AS"
            " (SELECT id FROM held UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000000) SELECT count(*) AS id FROM c"
        )

    async def is_executing(self) -> bool:
        """A statement that runs holds a lock on the file, so that no writer can have it alone."""
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=0.0)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    async def failure(self, situation: Situation) -> Failure:
        """SQLite's own classes."""
        failed, unreachable = ErrorCode.SOURCE_QUERY_FAILED, ErrorCode.SOURCE_UNREACHABLE
        match situation:
            case Situation.UNKNOWN_TABLE | Situation.UNKNOWN_COLUMN:
                # SQLite's code is the same for both.
                return Failure(code=failed, cause="undefined_column")
            case Situation.WRONG_TYPE:
                return Failure(code=failed, cause="type_mismatch")
            case Situation.NO_DATABASE:
                path = self._directory / "Canary-missing.db"
                return Failure(code=unreachable, cause="no_file", stage=TestStage.LOGIN, config={"path": str(path)})
            case Situation.NOT_A_DATABASE:
                path = self._directory / "notes.db"
                path.write_text("Canary: no database at all. " * 100)
                return Failure(
                    code=unreachable, cause="not_a_database", stage=TestStage.LOGIN, config={"path": str(path)}
                )
            case _:
                raise NotImplementedError(self.lacks[situation])

    def described_as(self, column: Column) -> str | None:
        """A column without a type fits none."""
        return None if column.type is FieldType.DECIMAL else column.type.value


STAGE: Final = SqliteStage
