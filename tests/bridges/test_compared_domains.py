"""Columns that PostgreSQL does not compare as they are: domains over enums, and names."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from lensway.bridges.postgres.keys import table_facts
from lensway.dialects.compile import compile_shape
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import LensDefinition
from lensway.query.ordering import judge
from lensway.query.plan import decode_shape
from lensway.testing.postgres import Database
from lensway.testing.walks import Walker
from tests.bridges.asking import Asked

# In the order of the enum, which is not that of the texts.
MOODS = ["sad", "ok", "happy"]
TYPES = [
    "CREATE SCHEMA elsewhere",
    "CREATE TYPE elsewhere.\"odd \"\"mood\" AS ENUM ('sad', 'ok', 'happy')",
    'CREATE DOMAIN inner_mood AS elsewhere."odd ""mood"',
    "CREATE DOMAIN mood AS inner_mood",
]
FILTERS = [
    ({"d": "ok"}, {"ok"}),
    ({"d": {"$ne": "ok"}}, {"sad", "happy"}),
    ({"d": {"$in": ["ok", "sad", None]}}, {"ok", "sad"}),
    ({"d": {"$nin": ["ok"]}}, {"sad", "happy"}),
    ({"d": {"$gt": "sad"}}, {"ok", "happy"}),
    ({"d": {"$lte": "ok"}}, {"sad", "ok"}),
    ({"$not": {"d": {"$gte": "ok"}}}, {"sad"}),
    ({"$or": [{"d": "happy"}, {"d": {"$lt": "ok"}}]}, {"sad", "happy"}),
    ({"d": {"$like": "%a%"}}, {"sad", "happy"}),
    ({"d": {"$contains": "AP"}}, {"happy"}),
    ({"d": {"$startsWith": "o"}}, {"ok"}),
    ({"d": {"$endsWith": "D"}}, {"sad"}),
    ({"d": None}, {None}),
    ({"d": {"$exists": True}}, {"sad", "ok", "happy"}),
]


async def make(database: Database) -> None:
    rows = ", ".join(
        f"({id}, {value}, {id % 2})"
        for id, value in enumerate([*(repr(mood) for mood in MOODS * 4), "NULL", "NULL"], 1)
    )
    await database.execute(
        *TYPES,
        "CREATE TABLE t (id int PRIMARY KEY, d mood, n int)",
        f"INSERT INTO t VALUES {rows}",
        "CREATE INDEX ON t (d, id)",
        "CREATE VIEW v AS TABLE t",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
    )


def lens(asked: Asked, table: str, *, key: tuple[str, ...] = ("id",)) -> LensDefinition:
    types = {"id": "integer", "d": "text", "n": "integer"}
    fields = {name: {"type": type, "primaryKey": name in key} for name, type in types.items()}
    return asked.declared(table, fields)


@pytest.mark.parametrize("table", ["public.t", "public.v"])
def test_every_operator_takes_a_domain_over_an_enum(database: Database, table: str) -> None:
    async def run() -> None:
        await make(database)
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            keyed, plain = lens(asked, table), lens(asked, table, key=())
            for where, expected in FILTERS:
                rows = await asked.rows(keyed, where=where)
                assert {row["d"] for row in rows} == expected, where
                assert rows == sorted(rows, key=lambda row: row["id"])
                for definition in (keyed, plain):
                    exported = (await asked.export(definition, "ndjson", where=where)).splitlines()
                    assert sorted(map(json.loads, exported), key=lambda row: row["id"]) == rows, where
                    assert len(await asked.rows(definition, where=where)) == len(rows)

    asyncio.run(run())


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_follow_the_order_of_the_enum_behind_a_domain(database: Database, direction: str) -> None:
    orders = [[("d", direction)], [("d", direction), ("n", "asc")], [("n", "desc"), ("d", direction)]]

    async def run() -> None:
        await make(database)
        walker = Walker("postgres", {"url": database.reader_url})
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            for order in orders:
                for table, key in (("public.t", ("id",)), ("public.v", ("id",)), ("public.t", ("d", "id"))):
                    terms = ", ".join(f"{field} {way}" for field, way in order)
                    rest = ", ".join(name for name in key if name not in dict(order))
                    found = await database.fetch(f"SELECT id FROM t ORDER BY {terms}, {rest}")
                    order_by = [{"field": field, "dir": way} for field, way in order]
                    walk = await walker.walk(lens(asked, table, key=key), order_by, 3)
                    assert walk.failure is None
                    assert walk.ids == [row["id"] for row in found], (order, table, key)
        await walker.close()

    asyncio.run(run())


def test_an_index_serves_a_filter_on_a_domain_over_an_enum(database: Database) -> None:
    async def run() -> None:
        await make(database)
        await database.execute("INSERT INTO t SELECT n, 'sad', n FROM generate_series(100, 20000) n", "ANALYZE t")
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            plan = asked.page(lens(asked, "public.t"), where={"d": "ok"}, limit=3)
        driver = await asyncpg.connect(database.reader_url)
        try:
            shape = decode_shape(plan.shape)
            compiled = compile_shape(plan.shape, "postgres", judge(shape, await table_facts(driver, shape)))
            assert 'CASE WHEN TRUE THEN "d"' in compiled.sql
            await driver.execute(f"PREPARE asked AS {compiled.sql}")
            shown = await driver.fetch("EXPLAIN EXECUTE asked ('ok', 4)")
        finally:
            await driver.close()
        assert any("Index Cond" in row[0] for row in shown), shown

    asyncio.run(run())


def test_a_column_that_becomes_a_domain_and_back_is_compared_at_once(database: Database) -> None:
    to_domain = "ALTER TABLE t ALTER d TYPE mood"
    to_enum = 'ALTER TABLE t ALTER d TYPE elsewhere."odd ""mood"'

    async def run() -> None:
        await make(database)
        await database.execute("DROP VIEW v")
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            definition = lens(asked, "public.t")
            for change in (to_enum, to_domain, to_enum):
                await database.execute(change)
                assert len(await asked.rows(definition, where={"d": "ok"})) == 4, change
                assert len((await asked.export(definition, "ndjson", where={"d": "ok"})).splitlines()) == 4
            # Another type in the place of the one that comparisons were cast to.
            await database.execute(to_domain)
            assert len(await asked.rows(definition, where={"d": "ok"})) == 4
            await database.execute(
                "ALTER TABLE t ALTER d TYPE text",
                "DROP DOMAIN mood, inner_mood",
                'DROP TYPE elsewhere."odd ""mood"',
            )
            assert len(await asked.rows(definition, where={"d": "ok"})) == 4
            assert len((await asked.export(definition, "ndjson", where={"d": "ok"})).splitlines()) == 4

    asyncio.run(run())


def test_a_value_that_the_enum_behind_a_domain_lacks_is_named(database: Database) -> None:
    async def run() -> None:
        await make(database)
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            with pytest.raises(LenswayError) as caught:
                await asked.rows(lens(asked, "public.t"), where={"d": "glad"})
        failure = caught.value.failure
        assert failure.code is ErrorCode.SOURCE_QUERY_FAILED
        assert failure.details["field"] == "d"
        assert failure.hint == "Allowed values: sad, ok, happy."

    asyncio.run(run())


def test_a_name_is_compared_with_the_whole_value(database: Database) -> None:
    longest = "a" * 63

    async def run() -> None:
        await database.execute(
            "CREATE DOMAIN label AS name",
            "CREATE TABLE t (id int PRIMARY KEY, n name, d label)",
            f"INSERT INTO t VALUES (1, '{longest}', '{longest}'), (2, 'b', 'b')",
            "GRANT SELECT ON t TO PUBLIC",
        )
        async with Asked("postgres", {"url": database.reader_url}) as asked:
            fields = {name: {"type": "text", "column": column} for name, column in (("x", "n"), ("y", "d"))}
            definition = asked.declared("public.t", {"id": {"type": "integer", "primaryKey": True}, **fields})
            for field in ("x", "y"):
                for where, expected in (
                    ({field: longest}, [1]),
                    # PostgreSQL cuts a name to 63 bytes, and would find the row.
                    ({field: longest + "a"}, []),
                    ({field: {"$in": [longest + "a", "b"]}}, [2]),
                    ({field: {"$ne": longest + "a"}}, [1, 2]),
                    ({field: {"$lt": longest + "a"}}, [1]),
                ):
                    assert [row["id"] for row in await asked.rows(definition, where=where)] == expected, where
                    lines = (await asked.export(definition, "ndjson", where=where)).splitlines()
                    assert [json.loads(line)["id"] for line in lines] == expected, where

    asyncio.run(run())
