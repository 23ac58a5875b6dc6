"""Pages visit every row once, whatever kind of number orders them: the key of a page's last row is exact."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sqlite3

import pyarrow as pa

from lensway.api.shapes import QueryRequest
from lensway.query.planner import plan_rows
from lensway.testing.postgres import Database
from tests.bridges.test_bridges import CURSOR_KEY, Reader, lens

# A real is shown as the shortest text of it, which as a double is another number; doubles do not hold these integers.
REALS = ("0.1", "0.2", "'NaN'", "'-Infinity'", "3.4028235e38", "1e-45", "'-0'", "16777217", "NULL")
INTEGERS = (2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, -(2**53), 7)
LENS = {"id": ("integer", "key"), "value": ("number", "")}


async def ids_by_pages(reader: Reader, *, format: str, direction: str, limit: int, rows_max: int) -> list[int]:
    seen: list[int] = []
    cursor = None
    while True:
        asked = QueryRequest(order_by=[{"field": "value", "dir": direction}], limit=limit, cursor=cursor)
        planned = plan_rows(reader.definition, asked, reader.capabilities, cursor_key=CURSOR_KEY, environment="e")
        body, end = await reader.run(planned.plan, format=format)
        if format == "arrow":
            seen += pa.ipc.open_stream(body).read_all().column("id").to_pylist()
        else:
            seen += [row["id"] for row in json.loads(b"[" + body + b"]")]
        cursor = planned.next_cursor(end)
        if cursor is None or len(seen) > rows_max:
            return seen


async def check_pages(config: dict, bridge: str, table: str, formats: tuple[str, ...], count: int) -> None:
    reader = Reader(bridge, config, lens(table, **LENS))
    try:
        for format in formats:
            for direction in ("asc", "desc"):
                for limit in (1, 4):
                    seen = await ids_by_pages(
                        reader, format=format, direction=direction, limit=limit, rows_max=2 * count
                    )
                    assert sorted(seen) == list(range(1, count + 1)), (table, format, direction, limit)
    finally:
        await reader.library.close()


def test_pages_over_reals_and_large_integers_of_postgres(database: Database) -> None:
    async def run() -> None:
        twice = [(value, number) for number, value in enumerate((*REALS, *REALS), start=1)]
        reals = ", ".join(f"({id}, {value}::real)" for value, id in twice)
        integers = ", ".join(f"({id}, {value})" for id, value in enumerate((*INTEGERS, *INTEGERS), start=1))
        await database.execute(
            "CREATE TABLE reals (id int PRIMARY KEY, value real)",
            f"INSERT INTO reals VALUES {reals}",
            "CREATE TABLE integers (id int PRIMARY KEY, value bigint)",
            f"INSERT INTO integers VALUES {integers}",
        )
        config = {"url": database.reader_url}
        await check_pages(config, "postgres", "reals", ("json", "arrow"), 2 * len(REALS))
        await check_pages(config, "postgres", "integers", ("json", "arrow"), 2 * len(INTEGERS))

    asyncio.run(run())


def test_pages_over_large_integers_of_sqlite(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "numbers.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE integers (id INTEGER PRIMARY KEY, value INTEGER)")
        rows = list(enumerate((*INTEGERS, *INTEGERS), start=1))
        connection.executemany("INSERT INTO integers VALUES (?, ?)", rows)
    connection.close()
    asyncio.run(check_pages({"path": str(path)}, "sqlite", "integers", ("json", "arrow"), 2 * len(INTEGERS)))
