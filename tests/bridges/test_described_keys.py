"""Introspection of keys: the primary key in its own order, unique keys, foreign keys, and every type that a lens can give."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import sqlite3
import time
from collections.abc import Mapping

import pytest

from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database

LIMITS = ResultLimits(rows_max=1, bytes_max=1 << 20, row_bytes_max=1 << 20)
POSTGRES = (
    "CREATE TABLE a (x int, y int, z int, w int UNIQUE DEFERRABLE, PRIMARY KEY (y, x) INCLUDE (z))",
    "CREATE UNIQUE INDEX ON a (z, x)",
    "CREATE UNIQUE INDEX ON a (w) WHERE w > 0",
    "CREATE UNIQUE INDEX ON a (abs(z))",
    "CREATE TABLE log (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE b (id int PRIMARY KEY, ax int, ay int, day date, FOREIGN KEY (ay, ax) REFERENCES a,"
    " FOREIGN KEY (id, day) REFERENCES log)",
    "CREATE TYPE mood AS ENUM ('good')",
    "CREATE TABLE types (a int, b text, c mood, d numeric[], e int4range)",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
)
SQLITE = """
CREATE TABLE a (x INT, y INT, z INT, w INT, PRIMARY KEY (y, x));
CREATE UNIQUE INDEX one ON a (z, x);
CREATE UNIQUE INDEX two ON a (w) WHERE w > 0;
CREATE UNIQUE INDEX three ON a (abs(z));
CREATE TABLE b (id INTEGER PRIMARY KEY, ax INT, ay INT, FOREIGN KEY (ay, ax) REFERENCES A, FOREIGN KEY (ax) REFERENCES nowhere);
CREATE TABLE types (a INT, b VARCHAR(9), c, d BLOB, e DATE, f REAL, g INT AS (a + 1) STORED);
"""


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def described(
    bridge: str, config: Mapping[str, object], *tables: str, kind: str = "table", **execution: object
) -> list[dict]:
    """The tables as the execution library describes them."""

    async def run() -> list[dict]:
        library = ExecutionLibrary(AddressPolicy())
        found = []
        try:
            for table in tables:
                sink = Sink()
                job = Execution(
                    deadline=time.monotonic() + 10, format=RowFormat.DOCUMENT, limits=LIMITS, tag="t/1", **execution
                )
                await library.perform(
                    "key", bridge, config, kind=kind, payload=table.encode(), execution=job, sink=sink
                )
                found.append(json.loads(sink.data))
        finally:
            await library.close()
        return found

    return asyncio.run(run())


def types_of(table: dict) -> dict[str, tuple[str | None, list[str]]]:
    return {column["name"]: (column["type"], column["types"]) for column in table["columns"]}


@pytest.fixture(scope="module")
def postgres_config(postgres) -> dict[str, str]:
    database = asyncio.run(fresh_database(postgres))
    asyncio.run(database.execute(*POSTGRES))
    return {"url": database.reader_url}


@pytest.fixture
def sqlite_config(tmp_path: pathlib.Path) -> dict[str, str]:
    path = tmp_path / "keys.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE)
    return {"path": str(path)}


def test_postgresql_describes_keys(postgres_config) -> None:
    a, b, log, types = described("postgres", postgres_config, "public.a", "public.b", "public.log", "public.types")
    assert [column["name"] for column in a["columns"] if column["primaryKey"]] == ["x", "y"]
    assert a["key"] == ["y", "x"]
    assert a["uniqueKeys"] == [["z", "x"]], "no partial, computed or deferrable one"
    assert b["foreignKeys"] == [
        {"columns": ["ay", "ax"], "table": "public.a", "references": ["y", "x"]},
        {"columns": ["id", "day"], "table": "public.log", "references": ["id", "day"]},
    ], "the partitions of a table are no further targets"
    assert (log["key"], log["foreignKeys"]) == (["id", "day"], [])
    assert types_of(types) == {
        "a": ("integer", ["text", "integer", "number", "decimal"]),
        "b": ("text", ["text"]),
        "c": ("text", ["text"]),
        "d": ("decimal", ["decimal"]),
        "e": ("text", ["text"]),
    }


def test_tables_in_which_a_virtual_table_keeps_its_data_are_not_listed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "texts.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE VIRTUAL TABLE texts USING fts5(body); CREATE TABLE texts_data_too (id INT);")
    (listed,) = described("sqlite", {"path": str(path)}, "", kind="tables")
    assert [table["name"] for table in listed] == ["texts", "texts_data_too"]


def test_sqlite_describes_keys(sqlite_config) -> None:
    a, b, types = described("sqlite", sqlite_config, "a", "B", "main.types")
    assert a["key"] == ["y", "x"]
    assert a["uniqueKeys"] == [["z", "x"]]
    assert b["name"] == "b"
    assert b["key"] == ["id"]
    assert b["foreignKeys"] == [{"columns": ["ay", "ax"], "table": "a", "references": ["y", "x"]}]
    found = types_of(types)
    assert set(found) == set("abcdefg"), "generated columns are data"
    assert "text" not in found["a"][1], "a column of integers stores digits as an integer"
    assert "integer" not in found["b"][1], "a column of text stores a number as text"
    assert found["c"][0] is None
    assert len(found["c"][1]) == len(found["d"][1]) == len(found["e"][1]) == 11


@pytest.mark.parametrize("bridge", ["postgres", "sqlite"])
def test_a_foreign_key_names_no_table_that_the_policy_forbids(bridge, postgres_config, sqlite_config) -> None:
    config, schema = (postgres_config, "public.") if bridge == "postgres" else (sqlite_config, "")
    allowed = {f"{schema}b", f"{schema}log"}
    (b,) = described(bridge, config, f"{schema}b", allows_table=lambda table: table in allowed)
    assert [key["table"] for key in b["foreignKeys"]] == (["public.log"] if bridge == "postgres" else [])
