"""Every cell of the table in docs/reference/types.md, on real databases, in every encoding."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database
from lensway.testing.postgres import PostgresCluster
from tools.type_table import CELLS, REFUSED

Fetch = Callable[[str, RowFormat], bytes]


def definition(bridge: str) -> LensDefinition:
    fields = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    for number, cell in enumerate(CELLS):
        if getattr(cell, bridge) is not None:
            name = f"c{number}"
            fields[name] = Field(name=name, column=name, type=FieldType(cell.type), is_list=cell.is_list)
    return LensDefinition(name="cells", table="cells", fields=fields)


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def fetcher(bridge: str, config: dict, loop: asyncio.AbstractEventLoop, library: ExecutionLibrary) -> Fetch:
    lens, capabilities = definition(bridge), capabilities_of(bridge)

    def fetch(name: str, format: RowFormat, where: object = None) -> bytes:
        is_page = format is RowFormat.JSON
        request = QueryRequest(select=[name], where=where)
        if is_page:
            plan = plan_rows(lens, request, capabilities, cursor_key=b"k" * 32, environment="e").plan
        else:
            plan = plan_export(lens, request, capabilities)
        execution = Execution(
            deadline=time.monotonic() + 30,
            format=format,
            limits=ResultLimits(rows_max=100, bytes_max=10**7, row_bytes_max=10**6),
            tag="cell/1",
            is_export=not is_page,
        )
        sink = Sink()
        kind = "rows" if is_page else "export"
        loop.run_until_complete(
            library.perform(bridge, bridge, config, kind=kind, payload=plan.encode(), execution=execution, sink=sink)
        )
        return sink.data

    return fetch


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def library(loop: asyncio.AbstractEventLoop) -> Iterator[ExecutionLibrary]:
    library = ExecutionLibrary(AddressPolicy())
    yield library
    loop.run_until_complete(library.close())


@pytest.fixture(scope="module")
def databases(
    postgres: PostgresCluster,
    tmp_path_factory: pytest.TempPathFactory,
    loop: asyncio.AbstractEventLoop,
    library: ExecutionLibrary,
) -> dict[str, Fetch]:
    numbered = list(enumerate(CELLS))
    held = [(number, *cell.postgres) for number, cell in numbered if cell.postgres is not None]
    columns = ", ".join(f"c{number} {column}" for number, column, _ in held)
    literals = ", ".join(literal for _, _, literal in held)
    database = loop.run_until_complete(fresh_database(postgres))
    loop.run_until_complete(
        database.execute(
            f"CREATE TABLE cells (id int PRIMARY KEY, {columns})",
            f"INSERT INTO cells VALUES (1, {literals})",
            "GRANT SELECT ON cells TO PUBLIC",
        )
    )
    path = tmp_path_factory.mktemp("cells") / "cells.db"
    stored = [(number, cell.sqlite[0]) for number, cell in numbered if cell.sqlite is not None]
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE cells (id INTEGER PRIMARY KEY, {', '.join(f'c{n}' for n, _ in stored)})")
        connection.execute(f"INSERT INTO cells VALUES (1{', ?' * len(stored)})", [value for _, value in stored])
    connection.close()
    return {
        "postgres": fetcher("postgres", {"url": database.reader_url}, loop, library),
        "sqlite": fetcher("sqlite", {"path": str(path)}, loop, library),
    }


def cases() -> list:
    return [
        pytest.param(bridge, number, id=f"{bridge}-{cell.type}-{cell.value.replace(' ', '-')}")
        for bridge in ("postgres", "sqlite")
        for number, cell in enumerate(CELLS)
        if getattr(cell, bridge) is not None
    ]


@pytest.mark.parametrize(("bridge", "number"), cases())
@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.NDJSON])
def test_json(databases, bridge: str, number: int, format: RowFormat) -> None:
    body = databases[bridge](f"c{number}", format)
    assert body.rstrip(b"\n") == f'{{"c{number}":{CELLS[number].json}}}'.encode()
    json.loads(body)


@pytest.mark.parametrize(("bridge", "number"), cases())
def test_csv(databases, bridge: str, number: int) -> None:
    body = databases[bridge](f"c{number}", RowFormat.CSV).decode()
    # A lone NULL is written as an empty text: an empty line is no record for many readers.
    cell = CELLS[number].csv or '""'
    assert body == f"c{number}\r\n{cell}\r\n"
    assert len(list(csv.reader(io.StringIO(body, newline="")))) == 2


@pytest.mark.parametrize(("bridge", "number"), cases())
@pytest.mark.parametrize("format", [RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET])
def test_arrow_and_parquet(databases, bridge: str, number: int, format: RowFormat) -> None:
    cell, name = CELLS[number], f"c{number}"
    fetch = databases[bridge]
    empty = table_of(fetch(name, format, {"id": 7}), format)
    wanted = cell.sqlite_arrow_type if bridge == "sqlite" and cell.sqlite_arrow_type else cell.arrow_type
    assert (empty.num_rows, str(empty.schema.field(name).type).replace("element:", "item:")) == (0, wanted)
    assert empty.schema.field(name).metadata[b"lensway:type"].decode() == cell.type
    if isinstance(cell.arrow, str) and cell.arrow == REFUSED:
        with pytest.raises(LenswayError) as error:
            fetch(name, format)
        assert error.value.code is ErrorCode.SOURCE_QUERY_FAILED
        assert error.value.failure.details["class"] == "not_representable"
        return
    table = table_of(fetch(name, format), format)
    assert table.schema.equals(empty.schema, check_metadata=True)
    assert same(stored(table.column(name)), cell.arrow)


def table_of(body: bytes, format: RowFormat) -> pa.Table:
    if format is RowFormat.PARQUET:
        return pq.read_table(io.BytesIO(body))
    return pa.ipc.open_stream(body).read_all()


def stored(column: pa.ChunkedArray) -> object:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_list(array.type):
        return None if array.null_count else [_stored(array.values, at) for at in range(len(array.values))]
    return _stored(array, 0)


def _stored(array: pa.Array, at: int) -> object:
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    value = array[at].as_py()
    return str(value) if pa.types.is_decimal(array.type) and value is not None else value


def same(found: object, wanted: object) -> bool:
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    return type(found) is type(wanted) and found == wanted


def test_every_type_stands_in_the_table() -> None:
    assert {cell.type for cell in CELLS} == {type.value for type in FieldType}
    for bridge in ("postgres", "sqlite"):
        nulls = {cell.type for cell in CELLS if getattr(cell, bridge) is not None and cell.csv == ""}
        assert nulls == {type.value for type in FieldType}
