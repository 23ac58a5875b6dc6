"""Tables whose names hold dots, quotes and spaces: what is listed can be described, declared and read, in every format."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sqlite3

import pytest

from lensway.bridges.contract import AddressPolicy
from lensway.errors import ErrorCode, LenswayError
from lensway.testing.postgres import PostgresCluster
from tests.bridges.asking import Asked

TABLES = ["plain", "dot.table", 'a "b" c', "Upper Case", "...", "main.plain", "é.ü"]
FORMATS = ("json", "ndjson", "csv", "arrow")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def read_everything(asked: Asked, expected: dict[str, int]) -> None:
    names = await asked.tables()
    assert set(expected) <= set(names)
    for name, value in expected.items():
        lens = await asked.lens(name)
        assert await asked.rows(lens) == [{"f0": value, "f1": "x.y"}]
        for format in FORMATS:
            if format == "csv":
                assert str(value).encode() in await asked.rows(lens, format=format)
            assert await asked.export(lens, format)
        await asked.job("test", b"\x90")


def test_postgres(postgres: PostgresCluster) -> None:
    schemas = ["public", "my.schema", 'q"s']
    statements, expected = [], {}
    for number, schema in enumerate(schemas):
        statements += [
            f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}",
            f"GRANT USAGE ON SCHEMA {quoted(schema)} TO dotter",
        ]
        for at, table in enumerate(TABLES):
            place = f"{quoted(schema)}.{quoted(table)}"
            value = number * 100 + at
            statements += [
                f'CREATE TABLE {place} ("i.d" bigint PRIMARY KEY, "te""xt" text)',
                f"INSERT INTO {place} VALUES ({value}, 'x.y')",
                f"GRANT SELECT ON {place} TO dotter",
            ]
            listed = [quoted(part) if "." in part or '"' in part else part for part in (schema, table)]
            expected[".".join(listed)] = value

    async def run() -> None:
        await postgres.create_role_and_database("dotter", "secret", "dotted")
        for statement in statements:
            await postgres.execute(statement, database="dotted")
        url = postgres.url("dotter", "secret", "dotted")
        async with Asked("postgres", {"url": url}) as asked:
            await read_everything(asked, expected)
            short = asked.declared('"dot.table"', {"id": {"type": "integer", "column": "i.d", "primaryKey": True}})
            assert await asked.rows(short) == [{"id": 1}]
            for unknown in ("my.schema.t", "dot.table", '"nothing.here".t', '"', "", "a.b.c"):
                with pytest.raises(LenswayError) as refused:
                    await asked.table(unknown)
                assert refused.value.code is ErrorCode.NOT_FOUND

    asyncio.run(run())


def test_sqlite(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "dots.db"
    expected = {}
    with contextlib.closing(sqlite3.connect(path)) as file:
        for at, table in enumerate(TABLES):
            file.execute(f'CREATE TABLE {quoted(table)} ("i.d" INTEGER PRIMARY KEY, "te""xt" TEXT)')
            file.execute(f"INSERT INTO {quoted(table)} VALUES (?, 'x.y')", (at,))
            expected[quoted(table) if "." in table or '"' in table else table] = at
        file.commit()

    async def run() -> None:
        async with Asked("sqlite", {"path": str(path)}, AddressPolicy(source_dirs=(str(tmp_path),))) as asked:
            await read_everything(asked, expected)
            assert (await asked.table("main.plain"))["name"] == "plain"
            whole = asked.declared('main."dot.table"', {"id": {"type": "integer", "column": "i.d", "primaryKey": True}})
            assert await asked.rows(whole) == [{"id": 1}]
            for unknown in ("dot.table", "temp.plain", '"', ""):
                with pytest.raises(LenswayError) as refused:
                    await asked.table(unknown)
                assert refused.value.code is ErrorCode.NOT_FOUND

    asyncio.run(run())
