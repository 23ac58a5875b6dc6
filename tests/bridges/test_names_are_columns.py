"""A field's column is an identifier in every position: never a function of that name, the whole row, or a text."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.base import TABLE_ALIAS
from lensway.dialects.compile import compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.errors import LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_export, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.postgres import Database

KEY = b"k" * 32
NAMES = ("danger", "upper", "name", "text", "random", "t", "e", "things", "count")


def lens(column: str) -> LensDefinition:
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, nullable=False, primary_key=True),
        "odd": Field(name="odd", column=column, type=FieldType.TEXT),
    }
    return LensDefinition(name="l", table="things", fields=fields)


def plans(definition: LensDefinition, dialect: str) -> dict[str, Plan]:
    capabilities = capabilities_of(dialect)

    def rows(**asked: Any) -> Any:
        return plan_rows(definition, QueryRequest(**asked), capabilities, cursor_key=KEY, environment="e")

    order = [{"field": "odd", "dir": "desc"}]
    first = rows(order_by=order, select=["id"])
    cursor = first.next_cursor(ResultEnd(rows=1, bytes=1, has_more=True, last_key=("x", 7)))
    return {
        "select": rows(select=["odd"]).plan,
        "where": rows(where={"odd": "x"}, select=["id"]).plan,
        "where null": rows(where={"odd": None}, select=["id"]).plan,
        "where in": rows(where={"odd": ["x", "y"]}, select=["id"]).plan,
        "where like": rows(where={"odd": {"$contains": "x"}}, select=["id"]).plan,
        "order": rows(order_by=order, select=["id"]).plan,
        "cursor": rows(order_by=order, select=["id"], cursor=cursor).plan,
        "total": rows(where={"odd": "x"}, select=["id"], total=True).plan,
        "count": plan_count(definition, {"odd": {"$exists": True}}, capabilities),
        "export": plan_export(definition, ExportRequest(select=["odd"]), capabilities),
        "export order": plan_export(definition, ExportRequest(select=["id"], order_by=order), capabilities),
    }


class Sink:
    async def write(self, chunk: bytes) -> None:
        pass


async def outcomes(bridge: str, config: dict[str, str], column: str) -> dict[str, object]:
    library, found = ExecutionLibrary(AddressPolicy(source_dirs=("/",))), {}
    for position, plan in plans(lens(column), bridge).items():
        for format in (RowFormat.JSON, RowFormat.ARROW) if position != "count" else (RowFormat.JSON,):
            execution = Execution(
                deadline=time.monotonic() + 10,
                format=format,
                limits=ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=10**6),
                tag="test/1",
                is_export=position.startswith("export"),
            )
            kind = "export" if execution.is_export else "rows"
            try:
                await library.perform(
                    "key", bridge, config, kind=kind, payload=plan.encode(), execution=execution, sink=Sink()
                )
                found[f"{position} as {format.value}"] = "rows"
            except LenswayError as error:
                found[f"{position} as {format.value}"] = error.failure.details.get("class")
    await library.close()
    return found


def test_a_column_that_postgres_does_not_have_is_never_something_else(database: Database) -> None:
    async def run() -> dict[str, object]:
        await database.execute(
            "CREATE TABLE things (id bigint PRIMARY KEY)",
            "INSERT INTO things VALUES (1), (2)",
            "CREATE TABLE calls (n int)",
            "CREATE FUNCTION danger(things) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE SQLSTATE 'XX111'; END$$",
            "CREATE FUNCTION upper(things) RETURNS text LANGUAGE sql AS $$SELECT 'called'$$",
        )
        found: dict[str, object] = {}
        for column in (*NAMES, "lensway"):
            each = await outcomes("postgres", {"url": database.reader_url}, column)
            found |= {f"{column}: {position}": outcome for position, outcome in each.items()}
        return found

    found = asyncio.run(run())
    assert found == dict.fromkeys(found, "undefined_column")


@pytest.mark.parametrize("column", NAMES)
def test_a_column_that_sqlite_does_not_have_is_never_something_else(tmp_path: Path, column: str) -> None:
    path = tmp_path / "things.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO things VALUES (1), (2)")
    connection.close()
    found = asyncio.run(outcomes("sqlite", {"path": str(path)}, column))
    assert "rows" not in found.values(), found
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("column", NAMES)
def test_a_column_named_like_a_function_is_read(database: Database, tmp_path: Path, column: str) -> None:
    path = tmp_path / "things.db"
    create = f'CREATE TABLE things (id bigint PRIMARY KEY, "{column}" text)'
    with sqlite3.connect(path) as connection:
        connection.execute(create)
        connection.execute("INSERT INTO things VALUES (1, 'x')")
    connection.close()

    async def run() -> list[dict[str, object]]:
        await database.execute(create, "INSERT INTO things VALUES (1, 'x')")
        postgres = await outcomes("postgres", {"url": database.reader_url}, column)
        return [postgres, await outcomes("sqlite", {"path": str(path)}, column)]

    for found in asyncio.run(run()):
        assert found == dict.fromkeys(found, "rows")


def test_an_index_serves_the_order_of_a_column_that_is_not_selected(database: Database) -> None:
    definition = msgspec.structs.replace(lens("name"))
    plan = plan_export(
        definition, ExportRequest(select=["id"], order_by=[{"field": "odd"}]), capabilities_of("postgres")
    )
    compiled = compile_shape(plan.shape, "postgres")

    async def run() -> str:
        await database.execute(
            "CREATE DOMAIN label AS text",
            "CREATE TABLE things (id bigint PRIMARY KEY, name label NOT NULL)",
            "CREATE INDEX by_name ON things (name, id)",
        )
        connection = await asyncpg.connect(database.owner_url)
        try:
            await connection.execute("SET enable_sort = off; SET enable_seqscan = off")
            steps = await connection.fetch(f"EXPLAIN {compiled.sql}", *compiled.bind(plan))
            return "\n".join(step[0] for step in steps)
        finally:
            await connection.close()

    steps = asyncio.run(run())
    assert "by_name" in steps, steps
    assert "Sort" not in steps, steps


def test_the_alias_of_the_table_is_no_usual_name() -> None:
    assert TABLE_ALIAS not in NAMES
