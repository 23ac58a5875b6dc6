"""Types of extensions whose schema is not on the login's search path are compared and ordered as where it is."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pytest

from lensway.query.result import RowFormat
from lensway.testing.postgres import Database
from lensway.testing.walks import Walker
from tests.bridges.asking import Asked


def arrow_ids(body: bytes) -> list[int]:
    found: list[int] = pa.ipc.open_stream(body).read_all().column("id").to_pylist()
    return found


@pytest.mark.parametrize("pooler", ["session", "transaction"])
def test_operators_are_found_where_the_extension_is(database: Database, pooler: str) -> None:
    config: dict[str, object] = {"url": database.reader_url, "pooler": pooler}

    async def run() -> None:
        await database.execute(
            'CREATE SCHEMA "my, extensions"',
            'CREATE EXTENSION citext SCHEMA "my, extensions"',
            'CREATE EXTENSION ltree SCHEMA "my, extensions"',
            "CREATE SCHEMA hidden",
            "CREATE EXTENSION cube SCHEMA hidden",
            'GRANT USAGE ON SCHEMA "my, extensions" TO PUBLIC',
            'CREATE TABLE t (id int PRIMARY KEY, c "my, extensions".citext COLLATE "C", l "my, extensions".ltree)',
            "INSERT INTO t VALUES (1, 'a', 'a'), (2, 'B', 'a.b'), (3, 'c', 'c'), (4, 'D', NULL), (5, NULL, 'd')",
            # A table of the same name in the extension's schema is not the lens's.
            'CREATE TABLE "my, extensions".t (id int PRIMARY KEY, c text, l text)',
            'GRANT SELECT ON t, "my, extensions".t TO PUBLIC',
        )
        walker = Walker("postgres", config, arrow_ids)
        async with Asked("postgres", config) as asked:
            columns = (await asked.table("public.t"))["columns"]
            assert [column["type"] for column in columns] == ["integer", "text", "text"]
            for table in ("public.t", "t"):
                fields = {name: {"type": "text"} for name in ("c", "l")}
                lens = asked.declared(table, {"id": {"type": "integer", "primaryKey": True}, **fields})
                for field, order in (("c", [1, 2, 3, 4, 5]), ("l", [1, 2, 3, 5, 4])):
                    for format in (RowFormat.JSON, RowFormat.ARROW):
                        walk = await walker.walk(lens, [{"field": field, "dir": "asc"}], 1, format=format)
                        assert (walk.ids, walk.failure) == (order, None), (table, field, format)
                for where, expected in (
                    ({"c": "A"}, [1]),
                    ({"c": {"$in": ["b", "C"]}}, [2, 3]),
                    ({"c": {"$lt": "C"}}, [1, 2]),
                    ({"l": {"$gte": "a.b"}}, [2, 3, 5]),
                ):
                    assert [row["id"] for row in await asked.rows(lens, where=where)] == expected, where
                    lines = (await asked.export(lens, "ndjson", where=where)).splitlines()
                    assert [json.loads(line)["id"] for line in lines] == expected, where
        await walker.close()

    asyncio.run(run())
