"""The stage of PostgreSQL: a private cluster, and a database with a login that can only read."""

from __future__ import annotations

import functools
import pathlib
import random
import secrets
import socket
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import asyncpg

from lensway.bridges.contract import Stage as TestStage
from lensway.errors import ErrorCode
from lensway.kinds import BUILT_IN, Kind
from lensway.query.fields import FieldType
from lensway.testing import odd_values
from lensway.testing.bridges.stage import (
    FAILING,
    Column,
    Failure,
    OddColumn,
    Situation,
    Stage,
    Stored,
    quoted,
    text_literal,
)
from lensway.testing.fixtures import let_pass
from lensway.testing.postgres import PostgresCluster

_TYPES: Final[Mapping[FieldType, str]] = {
    FieldType.TEXT: "text",
    FieldType.INTEGER: "bigint",
    FieldType.NUMBER: "double precision",
    FieldType.DECIMAL: "numeric",
    FieldType.BOOLEAN: "boolean",
    FieldType.DATE: "date",
    FieldType.TIME: "time",
    FieldType.TIMESTAMP: "timestamptz",
    FieldType.UUID: "uuid",
    FieldType.JSON: "jsonb",
    FieldType.BYTES: "bytea",
}
_HOURS: Final = ("+00", "+02", "-05:30", "+13:45", "-00:00:07")


def _odd(type: FieldType, column_type: str, make: odd_values.Make) -> OddColumn:
    return OddColumn(type, column_type, lambda chance: text_literal(str(make(chance))))


def _odd_list(of: OddColumn) -> OddColumn:
    def literal(chance: random.Random) -> str:
        items = ", ".join(chance.choice(("NULL", of.literal(chance))) for _ in range(chance.randrange(4)))
        return f"ARRAY[{items}]::{of.column_type}[]"

    return OddColumn(of.type, of.column_type + "[]", literal, is_list=True)


_ODD: Final[Mapping[str, OddColumn]] = {
    "words": _odd(FieldType.TEXT, "text", odd_values.text),
    "short": _odd(FieldType.TEXT, "varchar(40)", lambda chance: odd_values.text(chance)[:40]),
    "padded": _odd(FieldType.TEXT, "char(6)", lambda chance: chance.choice(("", "ab", 'a\\b"', "é"))),
    "span": _odd(
        FieldType.TEXT, "interval", lambda chance: chance.choice(("1 year 2 mons", "-3 days 04:05:06.7", "0"))
    ),
    "net": _odd(FieldType.TEXT, "inet", lambda chance: chance.choice(("10.0.0.1/8", "::1"))),
    "small": _odd(FieldType.INTEGER, "smallint", lambda chance: chance.choice((-(2**15), 0, 2**15 - 1))),
    "big": _odd(FieldType.INTEGER, "bigint", odd_values.integer),
    "double": _odd(FieldType.NUMBER, "double precision", odd_values.double),
    "single": _odd(
        FieldType.NUMBER,
        "real",
        lambda chance: chance.choice(("0.1", "NaN", "-Infinity", "3.4028235e38", "1e-45", "1e15", "16777216")),
    ),
    "whole": _odd(FieldType.NUMBER, "integer", lambda chance: chance.choice((-(2**31), 7))),
    "exact": _odd(FieldType.DECIMAL, "numeric", lambda chance: chance.choice(odd_values.DECIMALS)),
    "price": _odd(FieldType.DECIMAL, "numeric(12,2)", lambda chance: f"{chance.uniform(-1e9, 1e9):.2f}"),
    "flag": _odd(FieldType.BOOLEAN, "boolean", lambda chance: chance.choice(("true", "false"))),
    "day": _odd(FieldType.DATE, "date", lambda chance: chance.choice((*odd_values.DATES, *odd_values.FAR_DATES))),
    "clock": _odd(FieldType.TIME, "time", lambda chance: chance.choice(odd_values.CLOCKS)),
    "zoned": _odd(
        FieldType.TIME,
        "timetz",
        lambda chance: chance.choice((*odd_values.CLOCKS, "24:00:00")) + chance.choice(_HOURS),
    ),
    "moment": _odd(FieldType.TIMESTAMP, "timestamptz", odd_values.moment),
    "local": _odd(FieldType.TIMESTAMP, "timestamp", odd_values.moment),
    "ref": _odd(FieldType.UUID, "uuid", lambda chance: f"{chance.getrandbits(128):032x}"),
    "document": _odd(FieldType.JSON, "json", lambda chance: chance.choice(odd_values.JSONS)),
    "binary": _odd(
        FieldType.JSON, "jsonb", lambda chance: chance.choice([each for each in odd_values.JSONS if "e400" not in each])
    ),
    "raw": _odd(
        FieldType.BYTES,
        "bytea",
        lambda chance: "\\x" + chance.randbytes(chance.choice((0, 1, 57, 58, 200))).hex(),
    ),
}


class PostgresStage(Stage):
    """A cluster of its own, which dies with this process."""

    kind: ClassVar[Kind] = next(kind for kind in BUILT_IN if kind.name == "postgres")
    title = "PostgreSQL"
    lacks: ClassVar[Mapping[Situation, str]] = {Situation.NOT_A_DATABASE: "a server answers, or it does not"}
    # The cluster has no certificate; the bridge asks for TLS and goes on without it on loopback.
    skipped_stages = frozenset({TestStage.TLS})
    odd_columns: ClassVar[Mapping[str, OddColumn]] = {
        **_ODD,
        **{f"l_{name}": _odd_list(_ODD[name]) for name in ("words", "double", "moment", "price")},
    }
    cells: ClassVar[Mapping[str, Stored]] = {
        "text: plain": Stored("text", "'abc'"),
        "text: empty": Stored("text", "''"),
        "text: quotes, commas, lines": Stored("text", "E'a\"b,\\r\\nc'"),
        "text: beyond ASCII": Stored("varchar(9)", "'é漢😀'"),
        "text: char(4), padded": Stored("char(4)", "'ab'"),
        "text: interval": Stored("interval", "'1 year 2 days 03:04:05.6'"),
        "text: inet": Stored("inet", "'10.0.0.1/8'"),
        "text: inet, one address": Stored("inet", "'::1'"),
        "text: an integer": Stored("bigint", "9007199254740993"),
        "text list: list of integers": Stored("bigint[]", "'{9007199254740993,NULL}'"),
        "text list: list of addresses": Stored("inet[]", "'{::1,10.0.0.1/8}'"),
        "text: NULL": Stored("text", "NULL"),
        "integer: 64 bits": Stored("bigint", "9223372036854775807"),
        "integer: lowest": Stored("bigint", "'-9223372036854775808'"),
        "integer: smallint": Stored("smallint", "-3"),
        "integer: NULL": Stored("integer", "NULL"),
        "number: double": Stored("double precision", "0.1"),
        "number: large": Stored("double precision", "1e300"),
        "number: small": Stored("double precision", "0.00001"),
        "number: whole": Stored("double precision", "7"),
        "number: real, as it reads": Stored("real", "0.1"),
        "number: not a number": Stored("double precision", "'NaN'"),
        "number: infinity": Stored("double precision", "'Infinity'"),
        "number: -infinity": Stored("real", "'-Infinity'"),
        "number: NULL": Stored("double precision", "NULL"),
        "decimal: any digits": Stored("numeric", "12345678901234567890.1234567890"),
        "decimal: bounded digits": Stored("numeric(6,2)", "1.5"),
        "decimal: an integer": Stored("bigint", "9007199254740993"),
        "decimal list: list of integers": Stored("int[]", "'{-7,NULL}'"),
        "decimal: infinity": Stored("numeric", "'-Infinity'"),
        "decimal: not a number": Stored("numeric", "'NaN'"),
        "decimal: not a number, bounded": Stored("numeric(6,2)", "'NaN'"),
        "decimal: NULL": Stored("numeric(6,2)", "NULL"),
        "boolean: true": Stored("boolean", "true"),
        "boolean: false": Stored("boolean", "false"),
        "boolean: NULL": Stored("boolean", "NULL"),
        "date: a day": Stored("date", "'2013-01-31'"),
        "date: before Christ": Stored("date", "'0044-03-15 BC'"),
        "date: beyond 9999": Stored("date", "'12345-01-01'"),
        "date: infinity": Stored("date", "'infinity'"),
        "date: -infinity": Stored("date", "'-infinity'"),
        "date list: list": Stored("date[]", "'{infinity,0044-03-15 BC,2013-01-31}'"),
        "date: NULL": Stored("date", "NULL"),
        "time: a time": Stored("time", "'17:05'"),
        "time: 24:00": Stored("time", "'24:00'"),
        "time: with a zone": Stored("timetz", "'17:05:00.5+02'"),
        "time list: list with 24:00": Stored("time[]", "'{24:00}'"),
        "time: NULL": Stored("time", "NULL"),
        "timestamp: with a zone": Stored("timestamptz", "'2013-01-31 17:05:00.123456+02'"),
        "timestamp: without one": Stored("timestamp", "'2013-01-31 17:05:00.1'"),
        "timestamp: before Christ": Stored("timestamptz", "'0044-03-15 12:00:00+00 BC'"),
        "timestamp: infinity": Stored("timestamptz", "'infinity'"),
        "timestamp: -infinity": Stored("timestamp", "'-infinity'"),
        "timestamp: beyond 64 bits": Stored("timestamp", "'294270-01-01'"),
        "timestamp: NULL": Stored("timestamptz", "NULL"),
        "uuid: a uuid": Stored("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
        "uuid: NULL": Stored("uuid", "NULL"),
        "json: a document": Stored("jsonb", "'{\"a\": [1, null]}'"),
        "json: a document as text": Stored("json", "'{\"a\":[1]}'"),
        "json: over several lines": Stored("json", "E'{\\n\"b\": 1}'"),
        "json: JSON's own null": Stored("jsonb", "'null'"),
        "json: NULL": Stored("jsonb", "NULL"),
        "bytes: bytes": Stored("bytea", "'\\xff00'"),
        "bytes: none": Stored("bytea", "''"),
        "bytes: NULL": Stored("bytea", "NULL"),
        "integer list: list": Stored("bigint[]", "'{1,NULL}'"),
        "text list: list": Stored("text[]", "'{a,\"b,c\",NULL}'"),
        "number list: list": Stored("real[]", "'{0.1,NaN}'"),
        "decimal list: list": Stored("numeric(6,2)[]", "'{1.5}'"),
        "timestamp list: list": Stored("timestamptz[]", "'{infinity}'"),
        "integer list: empty list": Stored("integer[]", "'{}'"),
        "integer list: list of lists": Stored("integer[]", "'{{1,2},{3,4}}'"),
        "integer list: NULL list": Stored("integer[]", "NULL"),
    }

    _DATABASE: Final = "staged"
    _READER: Final = "lens_reader"

    async def start(self, directory: pathlib.Path) -> None:
        """Start the cluster."""
        let_pass(directory)
        self._cluster = PostgresCluster(directory / "cluster")
        self._cluster.start()
        self._password = "reader:" + secrets.token_urlsafe(12)
        await self._cluster.create_role_and_database(self._READER, self._password, self._DATABASE)

    async def stop(self) -> None:
        """Stop the cluster."""
        self._cluster.stop("immediate")

    @property
    def config(self) -> Mapping[str, object]:
        """A login that can only read."""
        return {"url": self._cluster.url(self._READER, self._password, self._DATABASE)}

    @property
    def writer_config(self) -> Mapping[str, object]:
        """The owner's login."""
        return {"url": self._cluster.superuser_dsn(self._DATABASE)}

    async def execute(self, *statements: str) -> None:
        """Run statements as the superuser, in UTC."""
        connection = await self._connected()
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask as the superuser."""
        connection = await self._connected()
        try:
            return [tuple(row.values()) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def column_type(self, column: Column) -> str:
        """The type that holds every value of the lens's type."""
        return _TYPES[column.type] + ("[]" if column.is_list else "")

    def literal(self, value: object, column: Column) -> str:
        """A text, cast where PostgreSQL needs it."""
        if value is None:
            return "NULL"
        if column.is_list:
            assert isinstance(value, list)
            item = functools.partial(self.literal, column=Column(name=column.name, type=column.type))
            return f"ARRAY[{', '.join(map(item, value))}]::{_TYPES[column.type]}[]"
        text = text_literal(str(value))
        match column.type:
            case FieldType.BYTES:
                return f"decode({text}, 'base64')"
            case FieldType.INTEGER:
                return text_literal(str(value).removesuffix(".0")) + "::bigint"
            case _:
                return f"{text}::{_TYPES[column.type]}"

    async def create_series(self, name: str, rows: int, text_bytes: int) -> None:
        """Made by `generate_series`."""
        await self.execute(
            f"CREATE TABLE {quoted(name)} (id bigint PRIMARY KEY, note text)",
            f"INSERT INTO {quoted(name)} SELECT n, repeat('x', {text_bytes}) FROM generate_series(1, {rows}) n",
        )

    async def create_slow_view(self, name: str) -> None:
        """A view that sleeps for half a minute."""
        await self.execute(f"CREATE VIEW {quoted(name)} AS SELECT 1::bigint AS id FROM pg_sleep(30)")

    async def create_writing_view(self, name: str) -> str | None:
        """A view over a function that inserts."""
        await self.execute(
            f"CREATE TABLE {quoted(name + '_log')} (at timestamptz)",
            f"CREATE FUNCTION {quoted(name + '_write')}() RETURNS bigint LANGUAGE sql AS"
            f" $$ INSERT INTO {quoted(name + '_log')} VALUES (now()); SELECT 1::bigint $$",
            f"CREATE VIEW {quoted(name)} AS SELECT {quoted(name + '_write')}() AS id",
        )
        return f"SELECT count(*) FROM {quoted(name + '_log')}"

    async def is_executing(self) -> bool:
        """The server's own list of what runs."""
        found = await self.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return bool(found[0][0])

    async def is_connected(self) -> bool:
        """The server's own list of clients."""
        found = await self.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return bool(found[0][0])

    async def failure(self, situation: Situation) -> Failure:
        """SQLSTATEs, and errors of the socket."""
        failed, unreachable = ErrorCode.SOURCE_QUERY_FAILED, ErrorCode.SOURCE_UNREACHABLE
        match situation:
            case Situation.UNKNOWN_TABLE:
                return Failure(code=failed, cause="undefined_table")
            case Situation.UNKNOWN_COLUMN:
                return Failure(code=failed, cause="undefined_column")
            case Situation.WRONG_TYPE:
                return Failure(code=failed, cause="type_mismatch")
            case Situation.NO_PERMISSION:
                revoke = f"REVOKE SELECT ON {FAILING} FROM {self._READER}"
                return Failure(code=failed, cause="permission_denied", statements=(revoke,))
            case Situation.WRONG_LOGIN:
                url = self._cluster.url(self._READER, "Canary-not-the-password", self._DATABASE)
                return Failure(code=unreachable, cause="password", stage=TestStage.LOGIN, config={"url": url})
            case Situation.NO_DATABASE:
                url = self._cluster.url(self._READER, self._password, "Canary-no-database")
                return Failure(code=unreachable, cause="unknown_database", stage=TestStage.LOGIN, config={"url": url})
            case Situation.REFUSED:
                with socket.socket() as taken:  # bound and not listening: connections are refused
                    taken.bind(("127.0.0.1", 0))
                    url = f"postgresql://u:Canary@127.0.0.1:{taken.getsockname()[1]}/d"
                return Failure(code=unreachable, cause="refused", stage=TestStage.TCP, config={"url": url})
            case Situation.UNKNOWN_HOST:
                url = "postgresql://u:Canary@nowhere.invalid/d"
                return Failure(code=unreachable, cause="unknown_host", stage=TestStage.DNS, config={"url": url})
            case Situation.NOT_A_DATABASE:
                raise NotImplementedError(self.lacks[situation])

    def described_name(self, table: str) -> str:
        """Tables are shown with their schema."""
        return f"public.{table}"

    async def _connected(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._cluster.superuser_dsn(self._DATABASE),
            server_settings={"timezone": "UTC", "client_min_messages": "error"},
        )


STAGE: Final = PostgresStage
