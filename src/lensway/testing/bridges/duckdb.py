"""The stage of DuckDB: a file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pathlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final

import duckdb

from lensway import limits
from lensway.bridges.contract import Stage as TestStage
from lensway.errors import ErrorCode
from lensway.kinds import BUILT_IN, Kind
from lensway.query.fields import FieldType
from lensway.testing import odd_values
from lensway.testing.bridges.stage import Column, Failure, OddColumn, Situation, Stage, Stored, quoted, text_literal

_TYPES: Final[Mapping[FieldType, str]] = {
    FieldType.TEXT: "VARCHAR",
    FieldType.INTEGER: "BIGINT",
    FieldType.NUMBER: "DOUBLE",
    FieldType.DECIMAL: "DECIMAL(38,10)",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
    FieldType.TIME: "TIME",
    FieldType.TIMESTAMP: "TIMESTAMPTZ",
    FieldType.UUID: "UUID",
    FieldType.JSON: "JSON",
    FieldType.BYTES: "BLOB",
}
_SERVER_ONLY: Final = "a file has no server, no login and no address"
_BUSY_SECONDS: Final = 0.005
_KEPT_SECONDS: Final = 0.2
"""Longer than a source keeps the file behind its last statement."""


def _odd(type: FieldType, make: odd_values.Make, column_type: str | None = None) -> OddColumn:
    def literal(chance: Any) -> str:
        value = make(chance)
        return "NULL" if value is None else text_literal(str(value))

    return OddColumn(type, column_type or _TYPES[type], literal)


class DuckdbStage(Stage):
    """One file, which the engine locks while a source has it open."""

    kind: ClassVar[Kind] = next(kind for kind in BUILT_IN if kind.name == "duckdb")
    title = "DuckDB"
    lacks: ClassVar[Mapping[Situation, str]] = {
        Situation.NO_PERMISSION: "DuckDB has no permissions on tables",
        Situation.WRONG_LOGIN: _SERVER_ONLY,
        Situation.REFUSED: _SERVER_ONLY,
        Situation.UNKNOWN_HOST: _SERVER_ONLY,
    }
    skipped_stages = frozenset({TestStage.DNS, TestStage.TCP, TestStage.TLS})
    memory_bytes_max = 128 * limits.MIB
    """The engine works in this process, with a memory of its own: up to 96 MiB were seen."""
    notices_seconds = 0.0
    odd_columns: ClassVar[Mapping[str, OddColumn]] = {
        "words": _odd(FieldType.TEXT, odd_values.text),
        "big": _odd(FieldType.INTEGER, odd_values.integer),
        "double": _odd(FieldType.NUMBER, odd_values.double),
        "exact": _odd(FieldType.DECIMAL, lambda chance: f"{chance.uniform(-1e9, 1e9):.4f}", "DECIMAL(18,4)"),
        "flag": _odd(FieldType.BOOLEAN, lambda chance: chance.choice(("true", "false"))),
        "day": _odd(FieldType.DATE, lambda chance: chance.choice(("2013-01-31", "0001-01-01", "infinity"))),
        "clock": _odd(FieldType.TIME, lambda chance: chance.choice(("17:05:00.000001", "00:00:00"))),
        "moment": _odd(FieldType.TIMESTAMP, lambda chance: chance.choice(("2000-02-29 10:00:00+02", "infinity"))),
        "ref": _odd(FieldType.UUID, lambda chance: str(uuid.UUID(int=chance.getrandbits(128)))),
        "document": _odd(FieldType.JSON, lambda chance: chance.choice(odd_values.JSONS)),
        "raw": OddColumn(
            FieldType.BYTES, "BLOB", lambda chance: f"from_hex('{chance.randbytes(chance.choice((0, 1, 57))).hex()}')"
        ),
    }
    cells: ClassVar[Mapping[str, Stored]] = {
        "text: plain": Stored("VARCHAR", "'abc'"),
        "text: empty": Stored("VARCHAR", "''"),
        "text: quotes, commas, lines": Stored("VARCHAR", "'a\"b,' || chr(13) || chr(10) || 'c'"),
        "text: beyond ASCII": Stored("VARCHAR", "'é漢😀'"),
        "text: an integer": Stored("BIGINT", "9007199254740993"),
        "text list: list of integers": Stored("BIGINT[]", "[9007199254740993, NULL]"),
        "text: NULL": Stored("VARCHAR", "NULL"),
        "integer: 64 bits": Stored("BIGINT", "9223372036854775807"),
        "integer: lowest": Stored("BIGINT", "-9223372036854775808"),
        "integer: smallint": Stored("SMALLINT", "-3"),
        "integer: NULL": Stored("INTEGER", "NULL"),
        "number: double": Stored("DOUBLE", "0.1"),
        "number: large": Stored("DOUBLE", "1e300"),
        "number: small": Stored("DOUBLE", "0.00001"),
        "number: whole": Stored("DOUBLE", "7"),
        "number: real, as it reads": Stored("FLOAT", "0.1"),
        "number: not a number": Stored("DOUBLE", "'NaN'"),
        "number: infinity": Stored("DOUBLE", "'Infinity'"),
        "number: -infinity": Stored("FLOAT", "'-Infinity'"),
        "number: NULL": Stored("DOUBLE", "NULL"),
        "decimal: any digits": Stored("DECIMAL(38,10)", "12345678901234567890.1234567890", "decimal128(38, 10)"),
        "decimal: bounded digits": Stored("DECIMAL(6,2)", "1.5"),
        "decimal: an integer": Stored("BIGINT", "9007199254740993"),
        "decimal list: list of integers": Stored("INTEGER[]", "[-7, NULL]"),
        "decimal: NULL": Stored("DECIMAL(6,2)", "NULL"),
        "boolean: true": Stored("BOOLEAN", "true"),
        "boolean: false": Stored("BOOLEAN", "false"),
        "boolean: NULL": Stored("BOOLEAN", "NULL"),
        "date: a day": Stored("DATE", "'2013-01-31'"),
        "date: before Christ": Stored("DATE", "'0044-03-15 (BC)'"),
        "date: beyond 9999": Stored("DATE", "'12345-01-01'"),
        "date: infinity": Stored("DATE", "'infinity'"),
        "date: -infinity": Stored("DATE", "'-infinity'"),
        "date: NULL": Stored("DATE", "NULL"),
        "time: a time": Stored("TIME", "'17:05:00'"),
        "time: NULL": Stored("TIME", "NULL"),
        "timestamp: with a zone": Stored("TIMESTAMPTZ", "'2013-01-31 17:05:00.123456+02'"),
        "timestamp: without one": Stored("TIMESTAMP", "'2013-01-31 17:05:00.1'"),
        "timestamp: NULL": Stored("TIMESTAMPTZ", "NULL"),
        "uuid: a uuid": Stored("UUID", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        "uuid: NULL": Stored("UUID", "NULL"),
        "json: a document as text": Stored("JSON", "'{\"a\":[1]}'"),
        "json: JSON's own null": Stored("JSON", "'null'"),
        "json: NULL": Stored("JSON", "NULL"),
        "bytes: bytes": Stored("BLOB", "from_hex('FF00')"),
        "bytes: none": Stored("BLOB", "''"),
        "bytes: NULL": Stored("BLOB", "NULL"),
    }

    async def start(self, directory: pathlib.Path) -> None:
        """Make the file."""
        self._directory = directory
        self._path = directory / "staged.duckdb"
        await self.execute("SELECT 1")

    async def stop(self) -> None:
        """The file stays; the directory is the suite's."""

    @property
    def config(self) -> Mapping[str, object]:
        """The path."""
        return {"path": str(self._path)}

    async def execute(self, *statements: str) -> None:
        """Run statements once no source has the file open."""
        async with self._writable() as connection:
            for statement in statements:
                connection.execute(statement)

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask once no source has the file open."""
        async with self._writable() as connection:
            return connection.execute(statement).fetchall()

    def column_type(self, column: Column) -> str:
        """The type of the same name."""
        return _TYPES[column.type] + ("[]" if column.is_list else "")

    def literal(self, value: object, column: Column) -> str:
        """The value as a text that DuckDB reads."""
        if value is None:
            return "NULL"
        if isinstance(value, list):
            items = ", ".join(self.literal(each, Column(name="", type=column.type)) for each in value)
            return f"[{items}]"
        if column.type is FieldType.BYTES:
            return f"from_hex('{base64.b64decode(str(value)).hex()}')"
        if column.type is FieldType.INTEGER:
            return text_literal(str(value).removesuffix(".0"))
        return text_literal(str(value))

    async def create_series(self, name: str, rows: int, text_bytes: int) -> None:
        """Made from a range."""
        await self.execute(
            f"CREATE TABLE {quoted(name)} (id BIGINT PRIMARY KEY, note VARCHAR)",
            f"INSERT INTO {quoted(name)} SELECT i, repeat('x', {text_bytes}) FROM range(1, {rows} + 1) t(i)",
        )

    async def create_slow_view(self, name: str) -> None:
        """A view that multiplies a million numbers with a million."""
        await self.execute(
            f"CREATE VIEW {quoted(name)} AS SELECT count(*) AS id FROM range(1000000) a(i), range(1000000) b(i)"
            " WHERE a.i * b.i % 7 = 3"
        )

    async def is_executing(self) -> bool:
        """A source holds the file while it works on a statement, and a moment longer when the statement ended by itself."""
        give_up = time.monotonic() + _KEPT_SECONDS
        while (connection := self._connected()) is None:
            if time.monotonic() > give_up:
                return True
            await asyncio.sleep(_BUSY_SECONDS)
        connection.close()
        return False

    async def failure(self, situation: Situation) -> Failure:
        """DuckDB's own classes."""
        failed, unreachable = ErrorCode.SOURCE_QUERY_FAILED, ErrorCode.SOURCE_UNREACHABLE
        match situation:
            case Situation.UNKNOWN_TABLE:
                return Failure(code=failed, cause="undefined_table")
            case Situation.UNKNOWN_COLUMN:
                return Failure(code=failed, cause="undefined_column")
            case Situation.WRONG_TYPE:
                return Failure(code=failed, cause="type_mismatch")
            case Situation.NO_DATABASE:
                config = {"path": str(self._directory / "Canary-missing.duckdb")}
                return Failure(code=unreachable, cause="no_file", stage=TestStage.LOGIN, config=config)
            case Situation.NOT_A_DATABASE:
                path = self._directory / "notes.txt"
                path.write_text("Canary: no database at all. " * 100)
                config = {"path": str(path)}
                return Failure(code=unreachable, cause="not_a_database", stage=TestStage.LOGIN, config=config)
            case _:
                raise NotImplementedError(self.lacks[situation])

    @contextlib.asynccontextmanager
    async def _writable(self) -> AsyncIterator[duckdb.DuckDBPyConnection]:
        # Whether it is free can only be asked by taking it: a runner's probe may open the file at any moment.
        while (connection := self._connected()) is None:
            await asyncio.sleep(_BUSY_SECONDS)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()

    def _connected(self) -> duckdb.DuckDBPyConnection | None:
        try:
            return duckdb.connect(str(self._path))
        except (duckdb.ConnectionException, duckdb.IOException):
            return None


STAGE: Final = DuckdbStage
