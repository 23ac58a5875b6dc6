"""What introspection offers works: read in every format, filtered by, and ordered by, from one page to the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import sqlite3

import pytest

from lensway.bridges.contract import AddressPolicy
from lensway.testing.postgres import PostgresCluster
from tests.bridges.asking import Asked

# The column's type, a literal, and what is offered: a type, a list of it, or nothing.
TYPES = [
    ("text", "'a'", "text"),
    ("varchar(5)", "'a'", "text"),
    ("char(3)", "'a'", "text"),
    ('"char"', "'x'", None),
    ("name", "'a'", "text"),
    ("mood", "'fine'", "text"),
    ("bigint", "7", "integer"),
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
    ("money", "'1.50'", "text"),
    ("interval", "'1 day'", "text"),
    ("small_text", "'ab'", "text"),
    ("smaller_text", "'ab'", "text"),
    ("positive", "3", "integer"),
    ("price", "1.50", "decimal"),
    ("stamp", "'2024-01-01'", "timestamp"),
    ("tags", "'{a,b}'", "list"),
    ("text[]", "'{a}'", "list"),
    ("point", "'(1,2)'", None),
    ("xml", "'<a/>'", None),
    ("mood_domain", "'fine'", "text"),
    ("mood_domains", "'fine'", "text"),
    ("int4range", "'[1,2)'", None),
    ("pair", "row(1,2)::pair", None),
]


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
                if offered is not None:
                    await works(asked, column, key)

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
