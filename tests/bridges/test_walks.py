"""Walks by cursor over every type that has an order: every row once, or `key_not_unique`, and never a silent end."""

from __future__ import annotations

import asyncio
import pathlib
import random
import sqlite3

import asyncpg
import pyarrow as pa
import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.dialects.sqlite_functions import FUNCTIONS
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import LensDefinition
from lensway.query.result import RowFormat
from lensway.testing.postgres import Database
from lensway.testing.walks import RandomCase, Walker, lens, violations, wrong

SIZES = (1, 2, 7)
DIRECTIONS = ("asc", "desc")
# Declared type, column type, values that differ, and values that equal one of those for the database.
POSTGRES_TYPES = [
    ("text", "text", ["''", "'a'", "'A'", "'é'", "E'\\n'", "'a b'"], ["'a'"]),
    ("text", "varchar(9)", ["'a'", "'b'", "'B'"], ["'b'"]),
    ("text", "char(4)", ["'a'", "'b'", "'ab'"], ["'a   '"]),
    ("text", "name", ["'a'", "'b'"], ["'a'"]),
    ("text", "citext", ["'a'", "'b'", "'é'"], ["'A'", "'B'"]),
    ("text", 'text COLLATE "insensitive"', ["'a'", "'b'", "'ss'"], ["'A'", "'SS'"]),
    ("text", "mood", ["'fine'", "'bad'", "'awful'"], ["'bad'"]),
    ("text", "mood_domain", ["'fine'", "'bad'", "'awful'"], ["'bad'"]),
    ("text", "mood_domains", ["'fine'", "'bad'", "'awful'"], ["'bad'"]),
    ("text", "folded", ["'a'", "'b'", "'é'"], ["'A'", "'B'"]),
    ("text", "int4range", ["'empty'", "'[1,3)'", "'(,3)'", "'[1,)'"], ["'[1,2]'"]),
    ("text", "tstzrange", ["'[2024-01-01,2024-02-01)'", "'[2024-01-01,)'"], ["'[2024-01-01,)'"]),
    ("text", "ltree", ["'a'", "'a.b'", "'b'"], ["'a.b'"]),
    ("text", "interval", ["'1 month'", "'-1 day'", "'00:00:01'", "'1 day'"], ["'24:00:00'", "'30 days'"]),
    ("text", "inet", ["'10.0.0.1/8'", "'::1'", "'10.0.0.1'"], ["'::1/128'"]),
    ("text", "macaddr", ["'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"], ["'08002b:010203'"]),
    ("text", "money", ["'1.10'", "'-2'", "'92233720368547758.07'"], ["'1.1'"]),
    ("text", "bit varying", ["'101'", "'1'", "''"], ["'1'"]),
    ("text", "pg_lsn", ["'0/1'", "'16/B374D848'"], ["'0/01'"]),
    ("text", "uuid", ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'00000000-0000-0000-0000-000000000000'"], []),
    ("integer", "smallint", ["-32768", "0", "32767"], ["0"]),
    ("integer", "bigint", ["-9223372036854775808", "9223372036854775807", "9007199254740993"], ["9007199254740993"]),
    ("integer", "oid", ["0", "4294967295"], ["0"]),
    ("integer", "positive", ["1", "2"], ["2"]),
    ("number", "real", ["0.1", "'NaN'", "'-Infinity'", "3.4028235e38", "1e-45", "16777217"], ["'-0'", "'0'", "'NaN'"]),
    ("number", "double precision", ["0.1", "5e-324", "'NaN'", "'Infinity'", "-1.7976931348623157e308"], ["'-0'", "'0'", "'NaN'"]),
    ("number", "bigint", ["9007199254740992", "9007199254740993", "9007199254740994"], ["9007199254740993"]),
    ("decimal", "numeric", ["1.0", "'NaN'", "'Infinity'", "-1e-40", "1e60", "12345678901234567890.123456789"], ["1.00", "'NaN'"]),
    ("decimal", "numeric(9,3)", ["1.001", "-1", "0"], ["0.000"]),
    ("boolean", "boolean", ["true", "false"], ["true", "false"]),
    ("date", "date", ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'10000-01-01'", "'2013-01-31'"], ["'infinity'"]),
    ("time", "time", ["'24:00'", "'00:00'", "'23:59:59.999999'"], ["'24:00:00'"]),
    ("time", "timetz", ["'17:05+02'", "'15:05+00'", "'17:05:00.5-11:30'", "'24:00+15:59:59'"], ["'17:05+02'"]),
    ("timestamp", "timestamp", ["'infinity'", "'0044-03-15 12:00 BC'", "'2013-01-31 17:05:00.000001'"], ["'infinity'"]),
    (
        "timestamp",
        "timestamptz",
        ["'infinity'", "'-infinity'", "'4713-01-01 00:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'2013-01-31 17:05Z'"],
        ["'2013-01-31 18:05+01'"],
    ),
    ("uuid", "uuid", ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"], []),
    ("bytes", "bytea", ["'\\x'", "'\\x00'", "'\\x0001'", "'\\xff'"], ["'\\x00'"]),
]  # fmt: skip
SQLITE_TYPES = [
    ("text", "TEXT", ["''", "'a'", "'A'", "'é'", "'a' || char(0) || 'b'", "'a' || char(0)", "char(0)"], ["'a'"]),
    ("text", "TEXT COLLATE NOCASE", ["'a'", "'b'", "'É'"], ["'A'", "'B'"]),
    ("text", "TEXT COLLATE RTRIM", ["'a'", "'b'"], ["'a  '"]),
    ("text", "BLOB", ["'a'", "'b'"], ["'b'"]),
    ("integer", "INTEGER", ["-9223372036854775808", "9223372036854775807", "9007199254740993"], ["9007199254740993"]),
    ("integer", "BLOB", ["1", "2.0", "3"], ["1.0", "3.0"]),
    ("number", "REAL", ["0.1", "9e999", "-9e999", "5e-324", "1"], ["-0.0", "0.0"]),
    ("number", "INTEGER", ["9007199254740992", "9007199254740993", "9007199254740994"], ["9007199254740993"]),
    ("decimal", "TEXT", ["'1.0'", "'-1e-7'", "'12345678901234567890.12'", "'12345678901234567890.13'"], ["'1.00'", "'1'"]),
    ("decimal", "REAL", ["0.1", "-2.5", "1e300"], ["0.1"]),
    ("boolean", "INTEGER", ["0", "1"], ["0", "1"]),
    ("date", "TEXT", ["'2013-01-31'", "'0001-01-01'", "'9999-12-31'"], ["'2013-01-31 12:30:00'"]),
    ("time", "TEXT", ["'24:00:00'", "'17:05'", "'17:05:00.5'"], ["'17:05:00'"]),
    ("timestamp", "BLOB", ["'2013-01-31T17:05:00Z'", "'2012-02-29'", "2456324.0"], ["1359651900", "'2013-01-31 18:05:00+01:00'"]),
    ("uuid", "TEXT", ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"], []),
    ("bytes", "BLOB", ["x''", "x'00'", "x'0001'", "x'ff'"], ["x'00'"]),
]  # fmt: skip


def arrow_ids(body: bytes) -> list[int]:
    found: list[int] = pa.ipc.open_stream(body).read_all().column("id").to_pylist()
    return found


def rows_of(values: list[str]) -> str:
    return ", ".join(f"({id}, {value})" for id, value in enumerate(values, start=1))


# --- PostgreSQL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(3))
def test_walks_over_every_type_of_postgres(database: Database, part: int) -> None:
    async def run() -> None:
        await database.execute(
            "CREATE EXTENSION citext",
            "CREATE EXTENSION ltree",
            "CREATE TYPE mood AS ENUM ('fine', 'bad', 'awful')",
            "CREATE DOMAIN mood_domain AS mood",
            "CREATE DOMAIN mood_domains AS mood_domain",
            "CREATE DOMAIN folded AS citext",
            "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
            "CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        owner = await asyncpg.connect(database.owner_url)
        walker = Walker("postgres", {"url": database.reader_url}, arrow_ids)
        try:
            for number, (declared, column, values, twins) in list(enumerate(POSTGRES_TYPES))[part::3]:
                u, n, d = f"u{number}", f"n{number}", f"d{number}"
                many = [*values, *twins, "NULL", values[0], "NULL", "NULL"]
                await owner.execute(
                    f"CREATE TABLE {u} (id int, c {column} PRIMARY KEY); INSERT INTO {u} VALUES {rows_of(values)};"
                    f"CREATE TABLE {n} (id int PRIMARY KEY, c {column}); INSERT INTO {n} VALUES {rows_of(many)};"
                    f"CREATE TABLE {d} (id int, c {column}); INSERT INTO {d} VALUES {rows_of(many)};"
                    f"CREATE VIEW v{u} AS TABLE {u}; CREATE VIEW v{n} AS TABLE {n}; CREATE VIEW v{d} AS TABLE {d};"
                    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"
                )
                for table in (u, f"v{u}", d, f"v{d}"):
                    await check_postgres(owner, walker, lens(table, key=["c"], id="integer", c=declared))
                for table in (n, f"v{n}"):
                    await check_postgres(owner, walker, lens(table, key=["id"], id="integer", c=declared))
        finally:
            await walker.close()
            await owner.close()

    asyncio.run(run())


async def check_postgres(owner: asyncpg.Connection, walker: Walker, definition: LensDefinition) -> None:
    is_by_id = definition.fields["id"].primary_key
    for direction in DIRECTIONS:
        order = f"ORDER BY c {direction}" + (", id" if is_by_id else "")
        found = await owner.fetch(f"SELECT id, rank() OVER ({order}) FROM {definition.table} {order}")
        ranked = [(row[0], row[1]) for row in found]
        order_by = [{"field": "c", "dir": direction}]
        for limit in SIZES:
            walk = await walker.walk(definition, order_by, limit)
            assert wrong(walk, ranked, limit) is None, (definition.table, direction, limit, ranked)
        # Not every day and moment has a place in Arrow.
        has_arrow = direction == "asc" and definition.fields["c"].type.value not in ("date", "timestamp", "time")
        for format in (RowFormat.ARROW if has_arrow else RowFormat.NDJSON,) if definition.table[0] in "dn" else ():
            walk = await walker.walk(definition, order_by, 2, format=format)
            assert wrong(walk, ranked, 2) is None, (definition.table, direction, format)


def test_a_key_that_was_unique_a_moment_ago_loses_no_row(database: Database) -> None:
    async def run() -> None:
        await database.execute(
            "CREATE TABLE t (id int, c int PRIMARY KEY)",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 9) i",
            "GRANT SELECT ON t TO PUBLIC",
        )
        walker = Walker("postgres", {"url": database.reader_url})
        definition = lens("t", key=["c"], id="integer", c="integer")
        try:
            assert (await walker.walk(definition, None, 4)).ids == list(range(1, 10))
            await database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey", "INSERT INTO t VALUES (10, 4)")
            assert (await walker.walk(definition, None, 4)).failure == "key_not_unique"
        finally:
            await walker.close()

    asyncio.run(run())


def test_large_pages_and_ends_between_two_fetches_of_postgres(database: Database) -> None:
    async def run() -> None:
        await database.execute(
            "CREATE TABLE big (id int PRIMARY KEY, c int, wide text)",
            "INSERT INTO big SELECT i, nullif(i % 50, 7), repeat('x', 4000) FROM generate_series(1, 2600) i",
            # Rows 10 and 11 share a key: a cursor's first fetch ends between them.
            "CREATE TABLE few (id int, c int)",
            "INSERT INTO few SELECT i, CASE i WHEN 11 THEN 10 ELSE i END FROM generate_series(1, 30) i",
            "GRANT SELECT ON big, few TO PUBLIC",
        )
        owner = await asyncpg.connect(database.owner_url)
        walker = Walker("postgres", {"url": database.reader_url}, arrow_ids)
        try:
            found = await owner.fetch("SELECT id, row_number() OVER (ORDER BY c, id) FROM big ORDER BY c, id")
            ranked = [(row[0], row[1]) for row in found]
            # 900 rows of 4 kB are too much for one statement; the rows with NULL come by a second one.
            for fields in ({"c": "integer"}, {"c": "integer", "wide": "text"}):
                big = lens("big", key=["id"], id="integer", **fields)
                for format, limit in ((RowFormat.JSON, 900), (RowFormat.JSON, 1100), (RowFormat.ARROW, 900)):
                    walk = await walker.walk(big, [{"field": "c"}], limit, format=format)
                    assert wrong(walk, ranked, limit) is None, (fields, format, limit)
            few = lens("few", key=["c"], id="integer", c="integer")
            for format in (RowFormat.JSON, RowFormat.NDJSON, RowFormat.ARROW):
                assert (await walker.walk(few, None, 10, format=format)).failure == "key_not_unique"
                assert len((await walker.walk(few, None, 11, format=format)).ids) == 30
        finally:
            await walker.close()
            await owner.close()

    asyncio.run(run())


def test_random_walks_over_postgres(database: Database) -> None:
    async def run() -> list[str]:
        owner = await asyncpg.connect(database.owner_url)
        walker = Walker("postgres", {"url": database.reader_url}, arrow_ids)
        chance = random.Random(2)
        try:
            found = []
            for number in range(20):
                case = RandomCase.made(chance, f"r{number}", is_sqlite=False)
                await owner.execute("; ".join(case.statements))
                rows = await owner.fetch(case.ranks)
                found += await violations(walker, case, [(row[0], row[1]) for row in rows])
            return found
        finally:
            await walker.close()
            await owner.close()

    assert asyncio.run(run()) == []


# --- SQLite -----------------------------------------------------------------------------------------------------------------


def test_walks_over_every_type_of_sqlite(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "walks.db"
    owner = sqlite3.connect(path, isolation_level=None, factory=GuardedConnection)
    owner.add_functions()

    async def run() -> None:
        walker = Walker("sqlite", {"path": str(path)}, arrow_ids)
        try:
            for number, (declared, column, values, twins) in enumerate(SQLITE_TYPES):
                many = [*values, *twins, "NULL", values[0], "NULL", "NULL"]
                tables = {
                    # An INTEGER PRIMARY KEY has no NULLs: SQLite would choose a number.
                    f"u{number}": (
                        f"(id INT, c {column} PRIMARY KEY)",
                        values if column == "INTEGER" else many,
                        ["c"],
                    ),
                    f"w{number}": (f"(id INT, c {column} PRIMARY KEY) WITHOUT ROWID", many, ["c"]),
                    f"n{number}": (f"(id INTEGER PRIMARY KEY, c {column})", many, ["id"]),
                    f"d{number}": (f"(id INT, c {column})", many, ["c"]),
                }
                for table, (columns, stored, key) in tables.items():
                    owner.execute(f"CREATE TABLE {table} {columns}")
                    owner.execute(f"INSERT OR IGNORE INTO {table} VALUES {rows_of(stored)}")
                    owner.execute(f"CREATE VIEW v{table} AS SELECT * FROM {table}")
                    for name in (table, f"v{table}"):
                        definition = lens(name, key=key, id="integer", c=declared)
                        await check_sqlite(owner, walker, definition, is_total=name[0] in "un" or name[0] == "d")
        finally:
            await walker.close()

    asyncio.run(run())
    owner.close()


def test_a_changed_key_of_sqlite_is_noticed_and_exports_put_nulls_last(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "changed.db"
    with sqlite3.connect(path) as owner:
        owner.execute("CREATE TABLE t (id INT, c TEXT PRIMARY KEY)")
        owner.executemany("INSERT INTO t VALUES (?, ?)", [(1, None), (2, "b"), (3, None), (4, "a")])

    async def run() -> list[int]:
        definition = lens("t", key=["c"], id="integer", c="text")
        walker = Walker("sqlite", {"path": str(path)}, arrow_ids)
        try:
            first, end, cursor = await walker.page(definition, QueryRequest(limit=3))
            assert (first, end.has_more) == ([4, 2, 1], True)
            exported = await walker.export(definition)
            with sqlite3.connect(path) as owner:
                owner.execute("ALTER TABLE t RENAME TO old")
                owner.execute("CREATE VIEW t AS SELECT * FROM old")
            owner.close()
        finally:
            await walker.close()
        walker = Walker("sqlite", {"path": str(path)}, arrow_ids)
        try:
            with pytest.raises(LenswayError) as caught:
                await walker.page(definition, QueryRequest(limit=3, cursor=cursor))
            assert caught.value.code is ErrorCode.INVALID_CURSOR
        finally:
            await walker.close()
        return exported

    assert asyncio.run(run()) == [4, 2, 1, 3]


def test_random_walks_over_sqlite(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "random.db"
    owner = sqlite3.connect(path, isolation_level=None)

    async def run() -> list[str]:
        walker = Walker("sqlite", {"path": str(path)}, arrow_ids)
        chance = random.Random(3)
        try:
            found = []
            for number in range(25):
                case = RandomCase.made(chance, f"r{number}", is_sqlite=True)
                owner.executescript("; ".join(case.statements))
                found += await violations(walker, case, owner.execute(case.ranks).fetchall())
            return found
        finally:
            await walker.close()

    assert asyncio.run(run()) == []
    owner.close()


async def check_sqlite(
    owner: sqlite3.Connection, walker: Walker, definition: LensDefinition, *, is_total: bool
) -> None:
    field = definition.fields["c"]
    column = f"lensway_{field.type.value}(c)" if f"lensway_{field.type.value}" in FUNCTIONS else "c"
    column = "c" if field.type.value == "number" else column
    for direction in DIRECTIONS:
        order = f"ORDER BY {column} {direction} NULLS {'LAST' if direction == 'asc' else 'FIRST'}"
        order += ", id" if definition.fields["id"].primary_key else ""
        ranked = owner.execute(f"SELECT id, rank() OVER ({order}) FROM {definition.table} {order}").fetchall()
        order_by = [{"field": "c", "dir": direction}]
        for limit in SIZES:
            for format in (RowFormat.JSON, RowFormat.CSV)[: 1 + (limit == 2)]:
                walk = await walker.walk(definition, order_by, limit, format=format)
                assert wrong(walk, ranked, limit, is_total=is_total) is None, (definition.table, direction, limit)
