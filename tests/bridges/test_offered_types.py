"""What introspection offers works: read in every format, filtered by, and ordered by, from one page to the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import sqlite3

import pytest

from lensway.bridges.contract import AddressPolicy
from lensway.errors import LenswayError
from lensway.testing.postgres import PostgresCluster
from tests.bridges.asking import Asked

# The column's type, a literal, and what is offered: a type, a list of it, or nothing.
TYPES = [
    ("text", "'a'", "text"),
    ("varchar(5)", "'a'", "text"),
    ("char(3)", "'a'", "text"),
    ("name", "'a'", "text"),
    ("citext", "'Ab'", "text"),
    ("mood", "'fine'", "text"),
    ("bigint", "7", "integer"),
    ("oid", "7", "integer"),
    ("numeric(10,2)", "1.50", "decimal"),
    ("real", "1.5", "number"),
    ("boolean", "true", "boolean"),
    ("date", "'2024-01-01'", "date"),
    ("timetz", "'12:00+02'", "time"),
    ("timestamptz", "'2024-01-01'", "timestamp"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", "uuid"),
    ("bytea", "'\\x00ff'", "bytes"),
    ("jsonb", "'{}'", "json"),
    ("json", "'{}'", "json"),
    ("inet", "'10.0.0.1'", "text"),
    ("cidr", "'10.0.0.0/8'", "text"),
    ("macaddr", "'08:00:2b:01:02:03'", "text"),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'", "text"),
    ("bit(4)", "'0101'", "text"),
    ("varbit", "'010'", "text"),
    ("tsvector", "'a b'", "text"),
    ("pg_lsn", "'16/B374D848'", "text"),
    ("money", "'1.50'", "text"),
    ("interval", "'1 day'", "text"),
    ("int4range", "'[1,3)'", "text"),
    ("numrange", "'(1.50,)'", "text"),
    ("daterange", "'[2024-01-01,2024-02-01)'", "text"),
    ("tstzrange", "'[2024-01-01,2024-02-01)'", "text"),
    ("hours", "'[09:00,17:00)'", "text"),
    ("datemultirange", "'{[2024-01-01,2024-02-01),[2024-05-01,)}'", "text"),
    ("ltree", "'top.science'", "text"),
    ("cube", "'(1,2)'", "text"),
    ("isbn", "'978-0-393-04002-9'", "text"),
    # Types that have the names of PostgreSQL's own.
    ("app.uuid", "'a'", "text"),
    ("app.money", "row(1,2)::app.money", None),
    ("small_text", "'ab'", "text"),
    ("smaller_text", "'ab'", "text"),
    ("positive", "3", "integer"),
    ("price", "1.50", "decimal"),
    ("stamp", "'2024-01-01'", "timestamp"),
    ("mood_domain", "'fine'", "text"),
    ("mood_domains", "'fine'", "text"),
    ("span", "'[1,3)'", "text"),
    ("branch", "'top.science'", "text"),
    ("tags", "'{a,b}'", "list"),
    ("text[]", "'{a}'", "list"),
    ("mood[]", "'{fine,NULL}'", "list"),
    ("mood_domain[]", "'{fine}'", "list"),
    ("citext[]", "'{Ab}'", "list"),
    ("app.uuid[]", "'{a}'", "list"),
    ("positive[]", "'{3,NULL}'", "list"),
    ("price[]", "'{1.50}'", "list"),
    ("stamp[]", "'{2024-01-01}'", "list"),
    ("daterange[]", "ARRAY['[2024-01-01,2024-02-01)'::daterange]", "list"),
    ("ltree[]", "'{a.b}'", "list"),
    ("hstore[]", "ARRAY['a=>1'::hstore]", "list"),
    # PostgreSQL orders it, and has no operators by the usual names to compare it by.
    ("hstore", "'a=>1, b=>NULL'", None),
    ("point", "'(1,2)'", None),
    ("xml", "'<a/>'", None),
    ("lquery", "'a.*'", None),
    ('"char"', "'x'", None),
    ('"char"[]', "'{x}'", None),
    ("box", "'(3,4),(1,2)'", None),
    ("tsquery", "'a & b'", None),
    ("jsonpath", "'$.a'", None),
    ("regclass", "'pg_class'", None),
    ("xid", "'5'", None),
    ("refcursor", "'a'", None),
    ("int2vector", "'1 2'", None),
    ("oidvector", "'1 2'", None),
    ("pair", "row(1,2)::pair", None),
    ("pair[]", "ARRAY[row(1,2)::pair]", None),
]
READ_AS_TEXT = {"hstore", "point", "xml", "lquery"}
"""Those without a type that a lens can declare as text all the same."""


@pytest.fixture(scope="module")
def source(postgres: PostgresCluster) -> dict[str, object]:
    columns = ", ".join(f"c{number} {type}" for number, (type, _, _) in enumerate(TYPES))
    values = ", ".join(literal for _, literal, _ in TYPES)

    async def make() -> None:
        await postgres.create_role_and_database("offered", "secret", "offered")
        for statement in (
            "CREATE TYPE mood AS ENUM ('low', 'fine')",
            "CREATE TYPE pair AS (a int, b int)",
            "CREATE DOMAIN small_text AS varchar(9) CHECK (VALUE <> '')",
            "CREATE DOMAIN smaller_text AS small_text",
            "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
            "CREATE DOMAIN price AS numeric(10,2)",
            "CREATE DOMAIN stamp AS timestamptz",
            "CREATE DOMAIN tags AS text[]",
            "CREATE EXTENSION citext",
            "CREATE EXTENSION hstore",
            "CREATE EXTENSION ltree",
            "CREATE EXTENSION cube",
            "CREATE EXTENSION isn",
            "CREATE SCHEMA app",
            "CREATE TYPE app.uuid AS ENUM ('a')",
            "CREATE TYPE app.money AS (amount int, currency int)",
            "CREATE TYPE hours AS RANGE (subtype = time)",
            "CREATE DOMAIN span AS int4range",
            "CREATE DOMAIN branch AS ltree",
            "GRANT USAGE ON SCHEMA app TO offered",
            "CREATE DOMAIN mood_domain AS mood",
            "CREATE DOMAIN mood_domains AS mood_domain",
            f"CREATE TABLE t (id bigint PRIMARY KEY, {columns})",
            f"INSERT INTO t SELECT n, {values} FROM generate_series(1, 3) n",
        ):
            await postgres.execute(statement, database="offered")

    asyncio.run(make())
    return {"url": postgres.url("offered", "secret", "offered")}


async def works(asked: Asked, column: dict, key: dict) -> None:
    lens = asked.declared(
        "public.t" if asked.bridge == "postgres" else "t",
        {
            "id": {"type": "integer", "column": key["name"], "primaryKey": True},
            "x": {"type": column["type"], "column": column["name"], "list": column.get("list", False)},
        },
    )
    rows = await asked.rows(lens)
    assert [row["id"] for row in rows] == [1, 2, 3]
    for format in ("ndjson", "csv", "arrow"):
        assert await asked.rows(lens, format=format)
        assert await asked.export(lens, format)
    assert [json.loads(line) for line in (await asked.export(lens, "ndjson")).splitlines()] == rows
    if column.get("list") or column["type"] == "json":
        return
    value = rows[0]["x"]
    for where in ({"x": value}, {"x": {"$in": [value]}}, {"x": {"$gte": value}}):
        assert len(await asked.rows(lens, where=where)) == 3, where
    for direction in ("asc", "desc"):
        assert len(await asked.rows(lens, order_by={"field": "x", "dir": direction})) == 3


def test_postgres(source) -> None:
    async def run() -> None:
        async with Asked("postgres", source) as asked:
            key, *columns = (await asked.table("public.t"))["columns"]
            assert len(columns) == len(TYPES)
            for column, (type, _, offered) in zip(columns, TYPES, strict=True):
                found = "list" if column.get("list") and column["type"] else column["type"]
                assert found == offered, type
                assert (column["reason"] is None) is (offered is not None)
                if offered is not None:
                    await works(asked, column, key)

    asyncio.run(run())


@pytest.mark.parametrize("type", [type for type, _, offered in TYPES if offered is None])
def test_what_is_not_offered_is_read_as_text_everywhere_or_nowhere(source, type: str) -> None:
    number = [each for each, _, _ in TYPES].index(type)
    formats = ("json", "ndjson", "csv", "arrow")

    async def run() -> None:
        async with Asked("postgres", source) as asked:
            fields = {
                "id": {"type": "integer", "primaryKey": True},
                "x": {"type": "text", "column": f"c{number}", "list": type.endswith("[]")},
            }
            lens = asked.declared("public.t", fields)
            column = (await asked.table("public.t"))["columns"][number + 1]
            if type in READ_AS_TEXT:
                assert column["types"] == ["text"]
                assert "to be read only" in column["reason"]
                rows = await asked.rows(lens)
                assert [json.loads(line) for line in (await asked.export(lens, "ndjson")).splitlines()] == rows
                for format in formats[1:]:
                    assert await asked.rows(lens, format=format)
                    assert await asked.export(lens, format)
                assert len(await asked.rows(lens, where={"x": {"$contains": rows[0]["x"][:1]}})) == 3
                return
            assert column["types"] == []
            assert "Cast it in a view" in column["reason"]
            for format in formats:
                for work in (asked.rows(lens, format=format), asked.export(lens, format)):
                    with pytest.raises(LenswayError) as caught:
                        await work
                    failure = caught.value.failure
                    assert failure.details["class"] == "type_mismatch"
                    assert failure.details["field"] == "x"
                    assert "Cast it in a view" in (failure.hint or "")

    asyncio.run(run())


@pytest.mark.parametrize("type", ["point", "xml", "lquery", "hstore"])
def test_a_comparison_that_postgres_lacks_is_refused_by_field_and_type(source, type: str) -> None:
    number = [each for each, _, _ in TYPES].index(type)

    async def run() -> None:
        async with Asked("postgres", source) as asked:
            fields = {
                "id": {"type": "integer", "primaryKey": True},
                "x": {"type": "text", "column": f"c{number}"},
            }
            lens = asked.declared("public.t", fields)
            works = [
                asked.rows(lens, where={"x": {"$gt": "a"}}),
                asked.export(lens, "ndjson", where={"x": {"$gt": "a"}}),
                asked.rows(lens, format="arrow", where={"x": {"$gt": "a"}}),
            ]
            if type != "hstore":
                works.append(asked.rows(lens, order_by={"field": "x", "dir": "asc"}))
            for work in works:
                with pytest.raises(LenswayError) as caught:
                    await work
                failure = caught.value.failure
                assert failure.message == (
                    f"The field 'x' cannot be filtered or ordered: PostgreSQL cannot compare values of type {type}"
                )
                assert "Cast the column in a view" in (failure.hint or "")

    asyncio.run(run())


def test_sqlite_generated_columns(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "made.db"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, twice INTEGER GENERATED ALWAYS AS (n * 2) VIRTUAL,"
            " label TEXT AS ('n' || n) STORED, price DECIMAL(10,2), at TIMESTAMP, d DATE, b BLOB, r REAL, f BOOLEAN)"
        )
        file.executemany(
            "INSERT INTO t (id, n, price, at, d, b, r, f)"
            " VALUES (?, 4, '1.50', '2024-01-01T00:00:00', '2024-01-01', x'00', 1.5, 1)",
            [(1,), (2,), (3,)],
        )
        file.execute("CREATE VIRTUAL TABLE words USING fts5(body)")
        file.commit()

    async def run() -> None:
        async with Asked("sqlite", {"path": str(path)}, AddressPolicy(source_dirs=(str(tmp_path),))) as asked:
            key, *columns = (await asked.table("t"))["columns"]
            assert [column["name"] for column in columns] == ["n", "twice", "label", "price", "at", "d", "b", "r", "f"]
            for column in columns:
                await works(asked, column, key)
            assert [column["name"] for column in (await asked.table("words"))["columns"]] == ["body"]

    asyncio.run(run())
