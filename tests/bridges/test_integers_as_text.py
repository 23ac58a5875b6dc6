"""Columns of 64-bit integers declared as text or decimal: every digit in every format, compared and ordered as numbers."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.compile import compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_count, plan_export, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database
from lensway.testing.postgres import PostgresCluster

POSTGRES = capabilities_of("postgres")
BIG = (9, 10, 100, -9, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, -(2**63), 0)
ORDERED = [str(each) for each in sorted(BIG)]


def lens_of(type: str, *, column: str = "id") -> LensDefinition:
    fields = {
        "id": Field(name="id", column=column, type=FieldType(type), primary_key=True),
        "many": Field(name="many", column="many", type=FieldType(type), is_list=True),
        "small": Field(name="small", column="small", type=FieldType(type)),
    }
    return LensDefinition(name="ids", table="ids", fields=fields)


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class Source:
    """A PostgreSQL source as the service and runners use it."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._config = {"url": url}
        self._loop = loop
        self._library = ExecutionLibrary(AddressPolicy())

    def run(self, plan: Any, format: RowFormat = RowFormat.JSON, *, is_export: bool = False) -> tuple[bytes, ResultEnd]:
        execution = Execution(
            deadline=time.monotonic() + 30,
            format=format,
            limits=ResultLimits(rows_max=100_000, bytes_max=10**8, row_bytes_max=10**6),
            tag="ids/1",
            is_export=is_export,
        )
        sink = Sink()
        end = self._loop.run_until_complete(
            self._library.perform(
                "ids", "postgres", self._config, kind="rows", payload=plan.encode(), execution=execution, sink=sink
            )
        )
        return sink.data, end

    def rows(self, lens: LensDefinition, **asked: Any) -> list[dict[str, Any]]:
        return json.loads(b"[" + self.run(page(lens, **asked).plan)[0] + b"]")

    def count(self, lens: LensDefinition, where: object) -> int:
        return int(json.loads(self.run(plan_count(lens, where, POSTGRES))[0])["count"])

    def close(self) -> None:
        self._loop.run_until_complete(self._library.close())


def page(lens: LensDefinition, **asked: Any) -> Any:
    return plan_rows(lens, QueryRequest(**asked), POSTGRES, cursor_key=b"k" * 32, environment="e")


@pytest.fixture(scope="module")
def source(postgres: PostgresCluster) -> Iterator[Source]:
    loop = asyncio.new_event_loop()
    database = loop.run_until_complete(fresh_database(postgres))
    lines = ", ".join(f"({each}, '{{{each},NULL}}', {each % 100})" for each in BIG)
    loop.run_until_complete(
        database.execute(
            "CREATE TABLE ids (id bigint PRIMARY KEY, many bigint[], small int)",
            f"INSERT INTO ids VALUES {lines}",
            "INSERT INTO ids SELECT i, NULL, NULL FROM generate_series(100000, 104999) i",
            "GRANT SELECT ON ids TO PUBLIC",
            "ANALYZE ids",
        )
    )
    source = Source(database.reader_url, loop)
    yield source
    source.close()
    loop.close()


FEW = {"small": {"$exists": True}}


@pytest.mark.parametrize("type", ["text", "decimal"])
def test_every_format_writes_every_digit_as_text(source: Source, type: str) -> None:
    lens = lens_of(type)
    expected = [{"id": str(each), "many": [str(each), None], "small": str(each % 100)} for each in sorted(BIG)]
    assert source.rows(lens, where=FEW) == expected
    for is_export in (False, True):
        request = QueryRequest(where=FEW)
        plan = plan_export(lens, request, POSTGRES) if is_export else page(lens, where=FEW).plan
        lines = source.run(plan, RowFormat.NDJSON, is_export=is_export)[0].splitlines()
        assert [json.loads(line) for line in lines] == expected
        arrow = pa.ipc.open_stream(source.run(plan, RowFormat.ARROW, is_export=is_export)[0]).read_all()
        assert arrow.to_pylist() == expected
        text = source.run(plan, RowFormat.CSV, is_export=is_export)[0].decode()
        assert [line["id"] for line in csv.DictReader(io.StringIO(text))] == ORDERED
    parquet = source.run(plan_export(lens, ExportRequest(where=FEW), POSTGRES), RowFormat.PARQUET, is_export=True)[0]
    assert pq.read_table(io.BytesIO(parquet)).to_pylist() == expected
    # Without lists, the database writes the lines of an export.
    request = QueryRequest(where=FEW, select=["id", "small"])
    for format in (RowFormat.NDJSON, RowFormat.CSV):
        whole = source.run(plan_export(lens, request, POSTGRES), format, is_export=True)[0]
        assert whole == source.run(page(lens, where=FEW, select=["id", "small"]).plan, format)[0]


@pytest.mark.parametrize("type", ["text", "decimal"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
def test_pages_follow_the_order_of_the_numbers(source: Source, type: str, direction: str, format: RowFormat) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        planned = page(
            lens_of(type),
            where=FEW,
            order_by={"field": "id", "dir": direction},
            select=["id"],
            limit=3,
            cursor=cursor,
        )
        data, end = source.run(planned.plan, format)
        found = (
            json.loads(b"[" + data + b"]")
            if format is RowFormat.JSON
            else pa.ipc.open_stream(data).read_all().to_pylist()
        )
        seen += [row["id"] for row in found]
        cursor = planned.next_cursor(end)
        if cursor is None:
            break
    assert seen == (ORDERED if direction == "asc" else ORDERED[::-1])


@pytest.mark.parametrize("type", ["text", "decimal"])
def test_comparisons_are_those_of_numbers(source: Source, type: str) -> None:
    lens = lens_of(type)
    for value in BIG:
        assert source.rows(lens, where={"id": str(value)}, select=["id"]) == [{"id": str(value)}]
        below = sum(each < value for each in BIG)
        assert source.count(lens, {"id": {"$lt": str(value)}, **FEW}) == below
        assert source.count(lens, {"id": {"$gte": str(value)}, **FEW}) == len(BIG) - below
        assert source.count(lens, {"id": {"$ne": str(value)}, **FEW}) == len(BIG) - 1
        assert source.count(lens, {"id": [str(value), "77", None]}) == 1
        assert source.count(lens, {"id": {"$nin": [str(value), "77"]}, **FEW}) == len(BIG) - 1


def test_patterns_see_the_digits(source: Source) -> None:
    assert source.count(lens_of("text"), {"id": {"$startsWith": "90071"}}) == 3
    assert source.count(lens_of("text"), {"id": {"$like": "%775807"}}) == 1


@pytest.mark.parametrize("value", ["abc", "1.5", "", "9" * 30, "٣"])
def test_a_text_that_is_no_such_integer_is_the_querys_fault(source: Source, value: str) -> None:
    for where in ({"id": value}, {"id": [value]}):
        with pytest.raises(LenswayError) as caught:
            source.rows(lens_of("text"), where=where)
        assert caught.value.code is ErrorCode.SOURCE_QUERY_FAILED
        assert caught.value.failure.details["class"] in ("invalid_value", "out_of_range")
    assert len(source.rows(lens_of("text"), where=FEW)) == len(BIG)


def test_large_pages_and_exports_by_cursor_write_digits_too(source: Source) -> None:
    lens = lens_of("text")
    rows = source.rows(lens, where={"small": None}, limit=5_000)
    assert len(rows) == 5_000
    assert {type(row["id"]) for row in rows} == {str}
    lines = source.run(
        plan_export(lens, ExportRequest(where={"small": None}), POSTGRES), RowFormat.NDJSON, is_export=True
    )[0]
    assert [json.loads(line) for line in lines.splitlines()] == rows


@pytest.mark.parametrize("type", ["text", "decimal", "integer"])
def test_columns_of_integers_are_never_compared_as_numerics(type: str) -> None:
    """No index of theirs would serve that."""
    for value in ("104999", ["104999", "7"]):
        asked = [int(each) for each in value] if isinstance(value, list) else int(value)
        plan = page(lens_of(type), where={"id": value if type != "integer" else asked}, select=["id"]).plan
        assert "numeric" not in compile_shape(plan.shape, "postgres").sql
