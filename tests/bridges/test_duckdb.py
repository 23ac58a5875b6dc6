"""What is special to DuckDB: its types, its locks, what a plan must not reach, and its place in the model of queries."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.duckdb.bridge import DuckdbBridge, DuckdbSource
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing import query_model
from lensway.testing.query_model import Asked

DUCKDB = capabilities_of("duckdb")
KEY = b"k" * 32
DEFINITION = query_model.make_definition()
ROWS = query_model.make_rows(DEFINITION, count=40, has_special_values=False)
TYPES = {
    FieldType.TEXT: "VARCHAR",
    FieldType.INTEGER: "BIGINT",
    FieldType.NUMBER: "DOUBLE",
    FieldType.DECIMAL: "DECIMAL(38,10)",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
    FieldType.TIME: "TIME",
    FieldType.TIMESTAMP: "TIMESTAMPTZ",
    FieldType.UUID: "UUID",
    FieldType.JSON: "JSON",
    FieldType.BYTES: "BLOB",
}


class Sink:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


class Opened:
    """A source on a file, with a loop of its own."""

    def __init__(self, path: pathlib.Path, **config: object) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.source: DuckdbSource = self.loop.run_until_complete(
            DuckdbBridge().open({"path": str(path), **config}, policy=AddressPolicy())
        )

    def run(
        self, plan: Plan, format: RowFormat = RowFormat.JSON, *, seconds: float = 30, row_bytes: int = 10**6
    ) -> tuple[bytes, ResultEnd]:
        sink = Sink()
        execution = Execution(
            deadline=time.monotonic() + seconds,
            format=format,
            limits=ResultLimits(rows_max=10**7, bytes_max=10**10, row_bytes_max=row_bytes),
            tag="job/1",
        )
        end = self.loop.run_until_complete(self.source.run(Plan.decode(plan.encode()), execution, sink))
        return b"".join(sink.chunks), end

    def rows(self, plan: Plan) -> tuple[list[dict[str, Any]], ResultEnd]:
        data, end = self.run(plan)
        return json.loads(b"[" + data + b"]"), end

    def arrow(self, plan: Plan) -> tuple[pa.Table, ResultEnd]:
        data, end = self.run(plan, RowFormat.ARROW)
        return pa.ipc.open_stream(data).read_all(), end

    def pages(
        self, definition: LensDefinition, format: RowFormat = RowFormat.JSON, **asked: Any
    ) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            planned = plan_rows(
                definition, QueryRequest(cursor=cursor, **asked), DUCKDB, cursor_key=KEY, environment="env"
            )
            if format is RowFormat.JSON:
                page, end = self.rows(planned.plan)
            else:
                table, end = self.arrow(planned.plan)
                page = table.to_pylist()
            seen += page
            cursor = planned.next_cursor(end)
            assert (cursor is not None) == end.has_more
            if cursor is None:
                return seen

    def close(self) -> None:
        self.loop.run_until_complete(self.source.close())
        self.loop.close()


def made(path: pathlib.Path, *statements: str) -> pathlib.Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def lens(table: str, **fields: str) -> LensDefinition:
    """A lens whose first field is the key; a type may end with ``[]``."""
    found = {
        name: Field(
            name=name,
            column=name,
            type=FieldType(type.removesuffix("[]")),
            is_list=type.endswith("[]"),
            primary_key=at == 0,
        )
        for at, (name, type) in enumerate(fields.items())
    }
    return LensDefinition(name="l", table=table, fields=found)


def page(definition: LensDefinition, **asked: Any) -> Plan:
    return plan_rows(definition, QueryRequest(**asked), DUCKDB, cursor_key=KEY, environment="env").plan


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def stored(value: object, type: FieldType) -> object:
    if value is None:
        return None
    if type is FieldType.BYTES:
        return base64.b64decode(str(value))
    if type is FieldType.INTEGER:
        return int(str(value).removesuffix(".0"))
    return str(value)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    path = tmp_path_factory.mktemp("duckdb") / "things.duckdb"
    fields = list(DEFINITION.fields.values())
    columns = ", ".join(f"{quoted(f.column)} {TYPES[f.type]}{'[]' if f.is_list else ''}" for f in fields)
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE things ({columns})")
        for row in ROWS:
            connection.execute(
                f"INSERT INTO things VALUES ({', '.join('?' * len(fields))})",
                [None if field.is_list else stored(row[field.name], field.type) for field in fields],
            )
    opened = Opened(path)
    yield opened
    opened.close()


def keys(rows: Any) -> list[tuple[object, object]]:
    return [(row["key_a"], row["key_b"]) for row in rows]


@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
def test_pages_are_the_rows_of_the_model_in_its_order(things: Opened, format: RowFormat) -> None:
    @settings(max_examples=60, deadline=None)
    @given(asked=query_model.questions(DEFINITION, has_special_values=False))
    def check(asked: Asked) -> None:
        expected = keys(query_model.expected(ROWS, DEFINITION, asked.where, asked.order_by))
        found = things.pages(
            DEFINITION,
            format,
            where=asked.where,
            order_by=asked.order_by,
            limit=asked.limit,
            select=["key_b", "key_a", "decimal"],
        )
        assert keys(found) == expected

    check()


def test_every_operator_holds_for_every_value_as_in_the_model(things: Opened) -> None:
    for where in query_model.conditions(DEFINITION, has_special_values=False):
        expected = sum(query_model.matches(where, row, DEFINITION) for row in ROWS)
        assert things.rows(plan_count(DEFINITION, where, DUCKDB))[0][0]["count"] == expected, where


def test_totals_offsets_and_exports_are_of_the_same_rows(things: Opened) -> None:
    where = {"integer": {"$exists": True}}
    expected = query_model.expected(ROWS, DEFINITION, where, [])
    for format in (things.rows, things.arrow):
        _, end = format(page(DEFINITION, where=where, total=True, limit=1))
        assert end.total == len(expected)
    found, _ = things.rows(page(DEFINITION, where=where, offset=3, limit=5))
    assert keys(found) == keys(expected)[3:8]
    exported, _ = things.rows(plan_export(DEFINITION, ExportRequest(where=where), DUCKDB))
    assert sorted(keys(exported)) == sorted(keys(expected))


# --- types ------------------------------------------------------------------------------------------------------------------

ODD = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE TABLE odd (id INTEGER PRIMARY KEY, mood mood, big HUGEINT, wide UBIGINT, small UTINYINT, single FLOAT,"
    " price DECIMAL(10,2), exact DECIMAL(38,30), plain TIMESTAMP, seconds TIMESTAMP_S, nanos TIMESTAMP_NS,"
    " moment TIMESTAMPTZ, day DATE, clock TIME, ref UUID, raw BLOB, document JSON, pair STRUCT(a INTEGER, b VARCHAR),"
    " span INTERVAL, words VARCHAR[], numbers INTEGER[3], refs UUID[], days DATE[], moments TIMESTAMP[], flags BOOLEAN[],"
    " nested INTEGER[][], folded VARCHAR COLLATE NOCASE)",
    "INSERT INTO odd VALUES (1, 'sad', 170141183460469231731687303715884105727, 18446744073709551615, 255, 0.1, 1.5,"
    " 1.000000000000000000000000000001, '2013-01-31 17:05:00.1', '2013-01-31 17:05:00', '2013-01-31 17:05:00.123456789',"
    " '2013-01-31 17:05:00+02', '2013-01-31', '17:05:00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\xFF\\x00'::BLOB,"
    " '{\"a\":\n1}', {'a': 1, 'b': 'x'}, INTERVAL '1 day', ['a', NULL], [1, 2, 3],"
    " ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', NULL], ['2013-01-31'], ['2013-01-31 17:05:00'], [true, NULL], [[1], [2]], 'Ab')",
    "INSERT INTO odd (id, mood, big, single, exact, nanos, plain, day, folded) VALUES"
    " (2, 'happy', 5, 0.2, 1.000000000000000000000000000002, '2013-01-31 17:05:00.123456788', 'infinity', 'infinity', 'aB'),"
    " (3, 'ok', -7, 'nan', 1.000000000000000000000000000003, '2013-01-31 17:05:00.12345679', '0044-03-15 (BC) 12:00:00',"
    " '0044-03-15 (BC)', 'AB'), (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
)
SHOWN = {
    "mood": ("text", "sad", "sad"),
    "big": ("decimal", "170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
    "wide": ("text", "18446744073709551615", "18446744073709551615"),
    "small": ("integer", 255, 255),
    "single": ("number", 0.1, 0.1),
    "price": ("decimal", "1.50", "1.50"),
    "exact": ("decimal", "1.000000000000000000000000000001", "1.000000000000000000000000000001"),
    "plain": ("timestamp", "2013-01-31T17:05:00.100000", "2013-01-31 17:05:00.100000"),
    "seconds": ("timestamp", "2013-01-31T17:05:00.000000", "2013-01-31 17:05:00"),
    "nanos": ("timestamp", "2013-01-31T17:05:00.123456789", "2013-01-31 17:05:00.123456"),
    "moment": ("timestamp", "2013-01-31T15:05:00.000000Z", "2013-01-31 15:05:00+00:00"),
    "day": ("date", "2013-01-31", "2013-01-31"),
    "clock": ("time", "17:05:00.000000", "17:05:00"),
    "ref": ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "raw": ("bytes", "/wA=", r"b'\xff\x00'"),
    "document": ("json", {"a": 1}, '{"a": 1}'),
    "pair": ("json", {"a": 1, "b": "x"}, '{"a":1,"b":"x"}'),
    "span": ("text", "1 day", "1 day"),
    "words": ("text[]", ["a", None], "['a', None]"),
    "numbers": ("integer[]", [1, 2, 3], "[1, 2, 3]"),
    "refs": (
        "uuid[]",
        ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None],
        "[UUID('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), None]",
    ),
    "days": ("date[]", ["2013-01-31"], "[datetime.date(2013, 1, 31)]"),
    "moments": ("timestamp[]", ["2013-01-31T17:05:00.000000"], "[datetime.datetime(2013, 1, 31, 17, 5)]"),
    "flags": ("boolean[]", [True, None], "[True, None]"),
    "nested": ("json", [[1], [2]], "[[1],[2]]"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    opened = Opened(made(tmp_path_factory.mktemp("odd") / "odd.db", "SET TimeZone = 'UTC'", *ODD))
    yield opened
    opened.close()


def test_every_type_is_shown_in_text_and_taken_from_the_engine_as_arrow(odd: Opened) -> None:
    definition = lens("odd", id="integer", **{name: type for name, (type, _, _) in SHOWN.items()})
    rows, end = odd.rows(page(definition, limit=1))
    assert rows == [{"id": 1, **{name: text for name, (_, text, _) in SHOWN.items()}}]
    table, arrow_end = odd.arrow(page(definition, limit=1))
    assert {name: str(value) for name, value in table.to_pylist()[0].items()} == {
        "id": "1",
        **{name: str(text) for name, (_, _, text) in SHOWN.items()},
    }
    assert arrow_end.last_key == end.last_key == (1,)
    assert odd.rows(page(definition, where={"id": 4}))[0][0]["words"] is None
    assert odd.arrow(page(definition, where={"id": 4}))[0]["words"].to_pylist() == [None]


@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(
    ("field", "ascending"),
    [
        ("mood", [1, 3, 2, 4]),
        ("big", [3, 2, 1, 4]),
        ("single", [1, 2, 3, 4]),
        ("exact", [1, 2, 3, 4]),
        ("nanos", [2, 1, 3, 4]),
        ("plain", [3, 1, 2, 4]),
        ("day", [3, 1, 2, 4]),
        ("folded", [1, 2, 3, 4]),
    ],
)
def test_a_cursor_brings_back_every_digit(
    odd: Opened, field: str, ascending: list[int], direction: str, format: RowFormat
) -> None:
    type = {"mood": "text", "folded": "text"}.get(field) or SHOWN[field][0]
    definition = lens("odd", id="integer", **{field: type})
    order = [{"field": field, "dir": direction}, {"field": "id", "dir": direction}]
    found = odd.pages(definition, format, order_by=order, limit=1, select=["id"])
    assert [row["id"] for row in found] == (ascending if direction == "asc" else ascending[::-1])


def test_integers_declared_as_text_are_ordered_as_numbers_and_found_as_text(odd: Opened) -> None:
    definition = lens("odd", id="text")
    assert [row["id"] for row in odd.pages(definition, limit=1)] == ["1", "2", "3", "4"]
    for where, count in (
        ({"id": "3"}, 1),
        ({"id": "x"}, 0),
        ({"id": {"$nin": ["3", "x"]}}, 3),
        ({"id": {"$gt": "3"}}, 1),
    ):
        assert odd.rows(plan_count(definition, where, DUCKDB))[0][0]["count"] == count, where


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"price": "1.500"}, 1),
        ({"price": {"$gt": "1.4999999999999999999999999999999999"}}, 1),
        ({"price": "1.5000000000000000000000000000000001"}, 0),
        ({"price": {"$lt": "1e300"}}, 1),
        ({"price": ["1.5", "1e300", "1.50000000000000000000000000000000000001"]}, 1),
        ({"big": "170141183460469231731687303715884105727"}, 1),
        ({"big": {"$gt": "170141183460469231731687303715884105726"}}, 1),
        ({"plain": "2013-01-31T18:05:00.1+01:00"}, 1),
        ({"moment": "2013-01-31T15:05:00"}, 1),
        ({"moment": ["2013-01-31T17:05:00+02:00"]}, 1),
        ({"day": ["2013-01-31", None]}, 1),
        ({"ref": "A0EEBC999C0B4EF8BB6D6BB9BD380A11"}, 1),
        ({"mood": ["sad", "unknown"]}, 1),
        ({"mood": "unknown"}, 0),
        ({"mood": {"$contains": "A"}}, 2),
        ({"span": "1 day"}, 1),
    ],
)
def test_values_are_compared_with_columns_as_they_are(odd: Opened, where: dict[str, object], count: int) -> None:
    definition = lens("odd", id="integer", **{name: type for name, (type, _, _) in SHOWN.items()})
    assert odd.rows(plan_count(definition, where, DUCKDB))[0][0]["count"] == count


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"id": "integer", "price": "number"}, "type_mismatch"),
        ({"id": "integer", "words": "text"}, "type_mismatch"),
        ({"id": "integer", "mood": "timestamp"}, "type_mismatch"),
        ({"id": "integer", "absent": "text"}, "undefined_column"),
        ({"id": "integer", "big": "integer"}, "invalid_value"),
    ],
)
@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
def test_what_does_not_fit_is_named(odd: Opened, fields: dict[str, str], cause: str, format: RowFormat) -> None:
    with pytest.raises(LenswayError) as caught:
        odd.run(page(lens("odd", **fields)), format)
    assert caught.value.code is ErrorCode.SOURCE_QUERY_FAILED
    assert caught.value.failure.details["class"] == cause


def test_introspection_tells_every_type(odd: Opened, things: Opened) -> None:
    found = odd.loop.run_until_complete(odd.source.table("odd", deadline=time.monotonic() + 5))
    shown = {column.name: (column.type or "") + ("[]" if column.is_list else "") for column in found.columns}
    expected = {name: type for name, (type, _, _) in SHOWN.items()} | {
        "id": "integer",
        "folded": "text",
        "wide": "decimal",
    }
    assert shown == expected
    assert [column.name for column in found.columns if column.primary_key] == ["id"]
    listed = things.loop.run_until_complete(things.source.tables(deadline=time.monotonic() + 5))
    assert [(each.name, each.kind) for each in listed] == [("things", "table")]
    with pytest.raises(LenswayError) as caught:
        odd.loop.run_until_complete(odd.source.table("nothing", deadline=time.monotonic() + 5))
    assert caught.value.code is ErrorCode.NOT_FOUND


# --- pages over equal keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
def test_equal_keys_are_told_apart_by_the_row_id_or_the_page_is_refused(
    tmp_path: pathlib.Path, format: RowFormat
) -> None:
    opened = Opened(
        made(
            tmp_path / "a.db",
            "CREATE TABLE doubled AS SELECT i // 2 AS id, i AS n FROM range(9) t(i)",
            "CREATE VIEW seen AS SELECT * FROM doubled",
        )
    )
    try:
        found = opened.pages(lens("doubled", id="integer", n="integer"), format, limit=3)
        assert sorted(row["n"] for row in found) == list(range(9))
        with pytest.raises(LenswayError) as caught:
            opened.pages(lens("seen", id="integer", n="integer"), format, limit=3)
        assert caught.value.failure.details["class"] == "key_not_unique"
        probes = [plan_probe(lens("seen", id="integer")), plan_probe(lens("doubled", id="integer"))]
        report = opened.loop.run_until_complete(opened.source.test(probes, deadline=time.monotonic() + 5))
        assert report.ok
        assert [warning["code"] for warning in report.warnings] == ["key_not_unique"]
        assert [stage.ok for stage in report.stages] == [None, None, None, True, True, True, True]
    finally:
        opened.close()


# --- bounds -----------------------------------------------------------------------------------------------------------------

SLOW = "CREATE VIEW slow AS SELECT count(*) AS id FROM range(1000000) a(i), range(1000000) b(i) WHERE a.i * b.i % 7 = 3"
WIDE = "CREATE TABLE wide AS SELECT i AS id, repeat('x', 2000) AS note FROM range(200000) t(i)"


@pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.ARROW, RowFormat.PARQUET])
def test_a_large_result_streams_in_bounded_memory(tmp_path: pathlib.Path, format: RowFormat) -> None:
    made(tmp_path / "a.db", WIDE)
    script = f"""
import asyncio, resource, sys, time
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from tests.bridges.test_duckdb import *
class Counting:
    size = 0
    async def write(self, chunk):
        self.size += len(chunk)
opened = Opened(pathlib.Path({str(tmp_path / "a.db")!r}), memory_mib=128)
opened.run(page(lens("wide", id="integer", note="text"), limit=1), RowFormat({format.value!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sink = Counting()
plan = plan_export(lens("wide", id="integer", note="text"), ExportRequest(order_by=[]), DUCKDB)
limits = ResultLimits(rows_max=10**7, bytes_max=10**10, row_bytes_max=10**6)
execution = Execution(deadline=time.monotonic() + 60, format=RowFormat({format.value!r}), limits=limits, tag="j/1")
end = opened.loop.run_until_complete(opened.source.run(plan, execution, sink))
assert end.rows == 200000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
opened.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # MiB, of 400 that the rows have


@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
def test_a_row_beyond_the_limit_is_refused(tmp_path: pathlib.Path, format: RowFormat) -> None:
    opened = Opened(made(tmp_path / "a.db", "CREATE TABLE t AS SELECT 1 AS id, repeat('x', 100000) AS note"))
    try:
        with pytest.raises(LenswayError) as caught:
            opened.run(page(lens("t", id="integer", note="text")), format, row_bytes=50_000)
        assert caught.value.code is ErrorCode.ROW_TOO_LARGE
    finally:
        opened.close()


@pytest.mark.parametrize("format", [RowFormat.JSON, RowFormat.ARROW])
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_statement_ends_with_its_deadline_and_when_it_is_cancelled(
    tmp_path: pathlib.Path, how: str, format: RowFormat
) -> None:
    path = made(tmp_path / "a.db", SLOW)
    opened = Opened(path)
    plan = page(lens("slow", id="integer"))

    async def run() -> None:
        limits = ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=10**6)
        seconds = 0.5 if how == "deadline" else 60
        execution = Execution(deadline=time.monotonic() + seconds, format=format, limits=limits, tag="j/1")
        task = asyncio.create_task(opened.source.run(plan, execution, Sink()))
        if how == "cancel":
            await asyncio.wait({task}, timeout=0.5)
            task.cancel()
        await task

    try:
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else LenswayError) as caught:
            opened.loop.run_until_complete(run())
        assert time.monotonic() - began < 5
        if isinstance(caught.value, LenswayError):
            assert caught.value.code is ErrorCode.QUERY_TIMEOUT
        # The statement is gone: the file is closed, and may be written.
        made(path, "CREATE TABLE written (id INTEGER)")
    finally:
        opened.close()


def test_a_query_that_needs_more_memory_than_the_source_may_use_says_so(tmp_path: pathlib.Path) -> None:
    made(tmp_path / "a.db", "CREATE VIEW large AS SELECT DISTINCT i AS id FROM range(100000000) t(i)")
    opened = Opened(tmp_path / "a.db", memory_mib=64, threads=1)
    try:
        with pytest.raises(LenswayError) as caught:
            opened.run(plan_count(lens("large", id="integer"), {"id": {"$gt": 5}}, DUCKDB))
        assert caught.value.failure.details["class"] == "out_of_memory"
    finally:
        opened.close()


@pytest.mark.parametrize(
    "config", [{"memory_mib": 1}, {"threads": "many"}, {"threads": True}, {"read_only": False}, {"path": "relative.db"}]
)
def test_settings_are_checked(config: dict[str, object]) -> None:
    with pytest.raises(LenswayError) as caught:
        DuckdbBridge().check_config({"path": "/srv/a.db", **config}, policy=AddressPolicy())
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert next(iter(config)) in caught.value.failure.message


# --- what a source must not reach -------------------------------------------------------------------------------------------


def test_nothing_beside_the_file_can_be_read_or_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret.csv").write_text("id\n7\n")
    path = made(
        tmp_path / "a.db",
        f"CREATE VIEW outside AS SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        "CREATE TABLE t (id INTEGER)",
    )
    opened = Opened(path)
    try:
        for table, cause in (
            ("outside", {"permission_denied"}),
            (f"{tmp_path}/secret.csv".replace(".", "_"), {"undefined_table"}),
            ("secret", {"undefined_table"}),
        ):
            with pytest.raises(LenswayError) as caught:
                opened.run(plan_count(lens(table, id="integer"), None, DUCKDB))
            assert caught.value.failure.details["class"] in cause

        async def refused(statement: str) -> bool:
            async with opened.source._threads.connection(time.monotonic() + 5) as work:
                try:
                    await work(lambda connection: connection.execute(statement).fetchall())
                except LenswayError:
                    return True
                return False

        for statement in (
            "INSERT INTO t VALUES (1)",
            "CREATE TABLE other (id INTEGER)",
            f"ATTACH '{tmp_path}/b.db'",
            f"COPY t TO '{tmp_path}/t.csv'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET memory_limit = '10GB'",
            "PRAGMA threads = 64",
            f"SELECT * FROM '{tmp_path}/secret.csv'",
            f"SELECT * FROM read_text('{tmp_path}/secret.csv')",
            "SELECT * FROM opened",
        ):
            assert opened.loop.run_until_complete(refused(statement)), statement
        assert sorted(os.listdir(tmp_path)) == ["a.db", "secret.csv"]
    finally:
        opened.close()


def test_a_path_is_confined_at_every_opening(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    made(outside / "b.db", "CREATE TABLE t (id INTEGER)")
    (inside / "link.db").symlink_to(outside / "b.db")
    policy = AddressPolicy(source_dirs=(str(inside),))
    with pytest.raises(LenswayError) as caught:
        DuckdbBridge().check_config({"path": str(inside / "link.db")}, policy=policy)
    assert caught.value.failure.details["class"] == "forbidden_address"


# --- files ------------------------------------------------------------------------------------------------------------------


def test_files_that_are_none_and_files_that_are_busy_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 1000)
    for name, cause in (("text.db", "not_a_database"), ("absent.db", "no_file"), ("", "no_file")):
        opened = Opened(tmp_path / name)
        with pytest.raises(LenswayError) as caught:
            opened.loop.run_until_complete(opened.source.probe(deadline=time.monotonic() + 5))
        assert caught.value.code is ErrorCode.SOURCE_UNREACHABLE
        assert caught.value.failure.details["class"] == cause
        opened.close()
    path = made(tmp_path / "busy.db", "CREATE TABLE t (id INTEGER)")
    script = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print(1, flush=True); sys.stdin.read()"
    writer = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdin is not None
    writer.stdout.readline()
    opened = Opened(path)
    try:
        with pytest.raises(LenswayError) as caught:
            opened.loop.run_until_complete(opened.source.probe(deadline=time.monotonic() + 1))
        assert caught.value.code is ErrorCode.QUERY_TIMEOUT
        report = opened.loop.run_until_complete(opened.source.test([], deadline=time.monotonic() + 20))
        assert report.stages[3].error == "locked"
    finally:
        writer.stdin.close()
        writer.wait()
        writer.stdout.close()
    # Waited for, and not failed, once the other process has closed it.
    opened.loop.run_until_complete(opened.source.probe(deadline=time.monotonic() + 5))
    opened.close()


def test_sources_of_one_file_share_its_engine(tmp_path: pathlib.Path) -> None:
    path = made(tmp_path / "a.db", "CREATE TABLE t AS SELECT 7 AS id")
    first, second = Opened(path), Opened(path)
    assert first.rows(page(lens("t", id="integer")))[0] == second.rows(page(lens("t", id="integer")))[0] == [{"id": 7}]
    first.close()
    second.close()
    made(path, "INSERT INTO t VALUES (8)")


def test_what_a_crashed_writer_left_in_its_log_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    script = (
        f"import duckdb, os; c = duckdb.connect({str(path)!r});"
        " c.execute('CREATE TABLE t AS SELECT 7 AS id'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "a.db.wal").exists()
    opened = Opened(path)
    assert opened.rows(page(lens("t", id="integer")))[0] == [{"id": 7}]
    opened.close()
