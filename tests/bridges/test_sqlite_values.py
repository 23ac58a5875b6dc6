"""SQLite columns hold anything: filters see values of the declared type, and nothing else is shown as one."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat

SQLITE = capabilities_of("sqlite")
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
FORMATS = (RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET)
GOOD: dict[str, tuple[Any, ...]] = {
    "text": ("a", "5", ""),
    "integer": (0, -1, 2**63 - 1, 3.0),
    "number": (1, 0.5, float("inf")),
    "decimal": ("1.5", " 2 ", "-1e3", 7, 0.1),
    "boolean": (0, 1),
    "date": ("2024-02-29", "2024-02-29T23:59:59+01:00", 0, 2451544.5),
    "time": ("17:05", "24:00:00", "23:59:59.999999"),
    "timestamp": ("2024-02-29 10:00", "2024-02-29T10:00:00.5-15:59", 0, 2451544.25),
    "uuid": (UUID, UUID.upper(), UUID.replace("-", ""), UUID.replace("-", "").upper()),
    "bytes": (b"", b"\xff\x00"),
}
BAD: dict[str, tuple[Any, ...]] = {
    "text": (1.5, b"a"),
    "integer": ("abc", "5", 1.5, 1e300, b"\x01", float("inf")),
    "number": ("1.5", "NaN", "Infinity", b"1"),
    "decimal": ("abc", "NaN", "1,5", "", "--1", float("inf"), b"1"),
    "boolean": (2, -1, "true", 1.0, b"\x01"),
    "date": ("2024-13-45", "2023-02-29", "0000-01-01", "24-01-01", "infinity", "2024-01-01T25:00:00", 10**15, b"x"),
    "time": ("24:61", "25:00", "24:00:01", "12:00:60", "17:05+02:00", "noon", 5, b"x"),
    "timestamp": (
        "2024-01-01T25:00:00",
        "2024-13-01 00:00",
        "2024-01-01 10:61",
        "2024-01-01 10:00+25:00",
        "now",
        1e300,
    ),
    "uuid": ("abc", UUID[:-1], UUID + "0", "g" + UUID[1:], 7, uuid.UUID(UUID).bytes),
    "json": ("{", "{'a': 1}", "NaN", "[1] x", "", 5, b"{}"),
    "bytes": (5, 1.5),
}
VALUES: dict[str, tuple[object, object]] = {
    "text": ("5", "4"),
    "integer": (0, 5),
    "number": (1, 0.25),
    "decimal": ("2", "0.2"),
    "boolean": (True, False),
    "date": ("2024-02-29", "1999-01-01"),
    "time": ("17:05:00", "00:00:00"),
    "timestamp": ("2024-02-29T10:00:00", "1999-01-01"),
    "uuid": (UUID, str(uuid.UUID(int=1))),
    "bytes": ("/wA=", "AA=="),
}
Make = Callable[..., "File"]


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class File:
    """A file with one table, asked through the library as the service and runners do."""

    def __init__(self, path: pathlib.Path, loop: asyncio.AbstractEventLoop, library: ExecutionLibrary) -> None:
        self.path, self.loop, self.library = path, loop, library

    def execute(self, sql: str, *rows: tuple[Any, ...]) -> None:
        with sqlite3.connect(self.path) as connection:
            if rows:
                connection.executemany(sql, rows)
            else:
                connection.executescript(sql)
        connection.close()

    def run(self, plan: Any, format: RowFormat = RowFormat.JSON) -> tuple[bytes, ResultEnd]:
        execution = Execution(
            deadline=time.monotonic() + 30,
            format=format,
            limits=ResultLimits(rows_max=10_000, bytes_max=10**7, row_bytes_max=10**6),
            tag="values/1",
            is_export=plan.limit is None,
        )
        sink = Sink()
        end = self.loop.run_until_complete(
            self.library.perform(
                str(self.path),
                "sqlite",
                {"path": str(self.path)},
                kind="rows",
                payload=plan.encode(),
                execution=execution,
                sink=sink,
            )
        )
        return sink.data, end

    def rows(self, lens: LensDefinition, **asked: Any) -> list[dict[str, Any]]:
        planned = plan_rows(lens, QueryRequest(**asked), SQLITE, cursor_key=b"k" * 32, environment="e")
        return json.loads(b"[" + self.run(planned.plan)[0] + b"]")

    def ids(self, lens: LensDefinition, where: object) -> list[int]:
        ids = [row["id"] for row in self.rows(lens, where=where, select=["id"], limit=1000)]
        counted = json.loads(self.run(plan_count(lens, where, SQLITE))[0])["count"]
        assert counted == len(ids)
        return ids

    def walk(self, lens: LensDefinition, **asked: Any) -> list[dict[str, Any]]:
        """Every row, by cursors."""
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            request = QueryRequest(**asked, cursor=cursor)
            planned = plan_rows(lens, request, SQLITE, cursor_key=b"k" * 32, environment="e")
            data, end = self.run(planned.plan)
            seen += json.loads(b"[" + data + b"]")
            cursor = planned.next_cursor(end)
            assert (cursor is not None) == end.has_more
            if cursor is None:
                return seen


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


@pytest.fixture
def file(tmp_path: pathlib.Path, loop: asyncio.AbstractEventLoop, library: ExecutionLibrary) -> File:
    return File(tmp_path / "values.db", loop, library)


def lens_of(type: str, *, table: str = "t", key: str = "id") -> LensDefinition:
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=key == "id"),
        "v": Field(name="v", column="v", type=FieldType(type), primary_key=key == "v"),
    }
    return LensDefinition(name="values", table=table, fields=fields)


@pytest.mark.parametrize("type", BAD)
def test_what_is_not_of_the_type_is_refused_with_its_field_and_row_in_every_format(file: File, type: str) -> None:
    lens = lens_of(type)
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    file.execute("INSERT INTO t VALUES (?, ?)", *enumerate(BAD[type]))
    for number in range(len(BAD[type])):
        for format in FORMATS:
            request = QueryRequest(where={"id": number}, limit=None if format is RowFormat.PARQUET else 5)
            plan = (
                plan_export(lens, request, SQLITE)
                if format is RowFormat.PARQUET
                else plan_rows(lens, request, SQLITE, cursor_key=b"k" * 32, environment="e").plan
            )
            with pytest.raises(LenswayError) as caught:
                file.run(plan, format)
            failure = caught.value.failure
            assert failure.code is ErrorCode.SOURCE_QUERY_FAILED
            assert (failure.details["class"], failure.details["field"]) == ("type_mismatch", "v")
            assert failure.details["key"] == {"id": number}
            assert f"id {number}" in failure.message
    assert file.rows(lens, select=["id"], limit=3) == [{"id": 0}, {"id": 1}, {"id": 2}][: len(BAD[type])]


@pytest.mark.parametrize("type", GOOD)
def test_filters_see_only_values_of_the_type(file: File, type: str) -> None:
    lens, (some, other) = lens_of(type), VALUES[type]
    stored = [*GOOD[type], *BAD[type], None]
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    file.execute("INSERT INTO t VALUES (?, ?)", *enumerate(stored))
    good, alone = list(range(len(GOOD[type]))), File(file.path.with_name("alone.db"), file.loop, file.library)
    alone.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    alone.execute("INSERT INTO t VALUES (?, ?)", *enumerate(GOOD[type]))
    for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"):
        for value in (some, other):
            where = {"v": {operator: value}}
            assert file.ids(lens, where) == alone.ids(lens, where), where
            negated = {"$not": where}
            assert file.ids(lens, negated) == alone.ids(lens, negated), negated
            assert sorted(file.ids(lens, where) + file.ids(lens, negated)) == good, where
    for operator in ("$in", "$nin"):
        for listed in ([some], [some, other], [some, None]):
            where = {"v": {operator: listed}}
            assert file.ids(lens, where) == alone.ids(lens, where), where
    assert file.ids(lens, {"v": None}) == [len(stored) - 1]
    assert file.ids(lens, {"$or": [{"v": some}, {"$not": {"v": some}}, {"v": None}]}) == [*good, len(stored) - 1]


def test_a_key_that_is_not_of_its_type_is_named_without_a_row(file: File) -> None:
    file.execute("CREATE TABLE t (id PRIMARY KEY, v)")
    file.execute("INSERT INTO t VALUES (?, ?)", ("a", 1))
    with pytest.raises(LenswayError, match="'id' is declared as integer, and a row holds a text") as caught:
        file.rows(lens_of("integer"))
    assert "key" not in caught.value.failure.details


@pytest.mark.parametrize("value", ["[1]", "a", 5, b"[]"])
def test_there_are_no_lists(file: File, value: object) -> None:
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t VALUES (?, ?)", (1, value), (2, None))
    fields = {**lens_of("text").fields, "v": Field(name="v", column="v", type=FieldType.TEXT, is_list=True)}
    lens = LensDefinition(name="values", table="t", fields=fields)
    with pytest.raises(LenswayError, match="a list of text"):
        file.rows(lens)
    assert file.rows(lens, where={"v": {"$exists": False}}) == [{"id": 2, "v": None}]


def test_patterns_see_only_texts(file: File) -> None:
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    file.execute("INSERT INTO t VALUES (?, ?)", (1, "ab"), (2, b"ab"), (3, 1.5), (4, None), (5, "1.5"))
    for operator, value in (
        ("$like", "a%"),
        ("$ilike", "A%"),
        ("$contains", "B"),
        ("$startsWith", "a"),
        ("$endsWith", "b"),
    ):
        assert file.ids(lens_of("text"), {"v": {operator: value}}) == [1]
        assert file.ids(lens_of("text"), {"$not": {"v": {operator: value}}}) == [5]


@pytest.mark.parametrize("type", GOOD)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_an_order_never_steps_over_a_value_of_another_type(file: File, type: str, direction: str) -> None:
    """Pages end with the typed failure, or had every row before it; never with fewer rows and no failure."""
    lens = lens_of(type)
    for number, bad in enumerate(BAD[type]):
        file.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, v); PRAGMA synchronous = OFF")
        file.execute("INSERT INTO t VALUES (?, ?)", *enumerate([*GOOD[type], bad, None]))
        with pytest.raises(LenswayError) as caught:
            file.walk(lens, order_by={"field": "v", "dir": direction}, limit=1, select=["id"])
        assert caught.value.failure.details["class"] == "type_mismatch", number
        file.execute(f"DELETE FROM t WHERE id = {len(GOOD[type])}")
        seen = file.walk(lens, order_by={"field": "v", "dir": direction}, limit=1, select=["id"])
        assert sorted(row["id"] for row in seen) == [*range(len(GOOD[type])), len(GOOD[type]) + 1]


def test_a_uuid_is_found_however_it_is_spelled_and_by_its_index(file: File) -> None:
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE)")
    file.execute("INSERT INTO t VALUES (?, ?)", *enumerate(GOOD["uuid"]))
    for spelled in GOOD["uuid"]:
        assert file.ids(lens_of("uuid"), {"v": spelled}) == [0, 1, 2, 3]
        assert file.ids(lens_of("uuid"), {"v": [spelled]}) == [0, 1, 2, 3]
        assert file.ids(lens_of("uuid"), {"v": {"$ne": spelled}}) == []


def test_an_index_still_serves_filters(file: File) -> None:
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT, u TEXT, f REAL)")
    file.execute("CREATE INDEX by_n ON t (n); CREATE INDEX by_s ON t (s); CREATE INDEX by_u ON t (u)")
    from lensway.bridges.sqlite.guard import GuardedConnection
    from lensway.dialects.compile import compile_shape

    types = {"id": "integer", "n": "integer", "s": "text", "u": "uuid"}
    fields = {name: Field(name=name, column=name, type=FieldType(type)) for name, type in types.items()}
    lens = LensDefinition(name="t", table="t", fields=fields)
    wheres = {
        "id": [{"id": 5}, {"id": {"$gte": 5}}, {"id": [1, 2]}],
        "by_n": [{"n": 5}, {"n": {"$lt": 5}}, {"n": [1, 2]}, {"n": {"$gt": 1.5}}],
        "by_s": [{"s": "a"}, {"s": {"$gte": "a"}}, {"s": ["a", "b"]}, {"s": {"$like": "ab%"}}],
        "by_u": [{"u": UUID}, {"u": [UUID]}],
    }
    with sqlite3.connect(file.path, factory=GuardedConnection) as connection:
        connection.add_functions()
        for index, asked in wheres.items():
            for where in asked:
                plan = plan_count(lens, where, SQLITE)
                compiled = compile_shape(plan.shape, "sqlite")
                steps = connection.execute("EXPLAIN QUERY PLAN " + compiled.sql, compiled.bind(plan)).fetchall()
                used = "INTEGER PRIMARY KEY" if index == "id" else f"INDEX {index}"
                assert any(f"SEARCH lensway_t USING {used}" in step[3].replace("COVERING ", "") for step in steps), (
                    where,
                    steps,
                )
    connection.close()


# --- integers as text -------------------------------------------------------------------------------------------------------


BIG = (2**53 + 1, 2**53, -(2**63), 2**63 - 1, 9, 10, -9, 100)


@pytest.mark.parametrize("type", ["text", "decimal"])
@pytest.mark.parametrize("declared", ["INTEGER", "BIGINT", "NUMERIC"])
def test_integers_can_be_declared_text_or_decimal_and_compare_as_numbers(file: File, type: str, declared: str) -> None:
    lens = lens_of(type)
    file.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared})")
    file.execute("INSERT INTO t VALUES (?, ?)", *enumerate(BIG))
    assert [row["v"] for row in file.rows(lens)] == [str(each) for each in BIG]
    for number, value in enumerate(BIG):
        assert file.ids(lens, {"v": str(value)}) == [number]
        assert file.ids(lens, {"v": [str(value), "77"]}) == [number]
        below = [at for at, each in enumerate(BIG) if each < value]
        assert file.ids(lens, {"v": {"$lt": str(value)}}) == below
        assert file.ids(lens, {"$not": {"v": {"$gte": str(value)}}}) == below
    for direction in ("asc", "desc"):
        seen = file.walk(lens, order_by={"field": "v", "dir": direction}, limit=1)
        assert [row["v"] for row in seen] == [str(each) for each in sorted(BIG, reverse=direction == "desc")]
    by_key = file.walk(lens_of(type, key="v"), limit=3, select=["v"])
    assert [row["v"] for row in by_key] == [str(each) for each in sorted(BIG)]


def test_an_integer_in_a_column_that_tells_it_from_its_text_is_no_text(file: File) -> None:
    """There, the 5 that is shown as "5" would not be found by it."""
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    file.execute("INSERT INTO t VALUES (?, ?)", (1, "5"), (2, 5))
    assert file.ids(lens_of("text"), {"v": "5"}) == [1]
    assert file.ids(lens_of("text"), {"v": {"$lt": "6"}}) == [1]
    with pytest.raises(LenswayError, match="an integer"):
        file.rows(lens_of("text"))


# --- text that is not UTF-8 ---------------------------------------------------------------------------------------------------


def broken(file: File) -> None:
    file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t VALUES (1, 'fine'), (2, CAST(x'ff41' AS TEXT)), (3, 'é')")


@pytest.mark.parametrize("type", ["text", "json", "date", "decimal", "uuid", "integer"])
def test_text_that_is_not_utf8_is_named_by_field_and_row(file: File, type: str) -> None:
    broken(file)
    for format in (RowFormat.JSON, RowFormat.CSV, RowFormat.ARROW):
        planned = plan_rows(lens_of(type), QueryRequest(where={"id": 2}), SQLITE, cursor_key=b"k" * 32, environment="e")
        with pytest.raises(LenswayError) as caught:
            file.run(planned.plan, format)
        failure = caught.value.failure
        assert failure.details["class"] == "type_mismatch"
        assert (failure.details["field"], failure.details["key"]) == ("v", {"id": 2})
        assert "UTF-8" in failure.message
    assert [row["v"] for row in file.rows(lens_of("text"), where={"id": {"$ne": 2}})] == ["fine", "é"]


def test_a_page_before_such_a_row_can_be_read_and_says_that_more_follows(file: File) -> None:
    broken(file)
    file.execute("CREATE TABLE d (id INTEGER PRIMARY KEY, v)")
    file.execute("INSERT INTO d VALUES (?, ?)", (1, "2024-01-01"), (2, "2024-13-45"))
    for lens in (lens_of("text"), lens_of("date", table="d")):
        planned = plan_rows(lens, QueryRequest(limit=1), SQLITE, cursor_key=b"k" * 32, environment="e")
        data, end = file.run(planned.plan)
        assert (json.loads(data)["id"], end.rows, end.has_more) == (1, 1, True)
        request = QueryRequest(limit=1, cursor=planned.next_cursor(end))
        with pytest.raises(LenswayError, match="id 2"):
            file.run(plan_rows(lens, request, SQLITE, cursor_key=b"k" * 32, environment="e").plan)


def test_text_that_is_not_utf8_can_be_read_as_bytes(file: File) -> None:
    broken(file)
    assert [row["v"] for row in file.rows(lens_of("bytes"))] == ["ZmluZQ==", "/0E=", "w6k="]


def test_a_filter_by_a_form_fails_on_such_text_without_blaming_the_lens(file: File) -> None:
    broken(file)
    with pytest.raises(LenswayError) as caught:
        file.rows(lens_of("date"), where={"v": "2024-01-01"})
    assert caught.value.failure.details["class"] == "invalid_value"


# --- views and virtual tables -------------------------------------------------------------------------------------------------

VIEWS = {
    "sums": ("SELECT min(id) AS id, sum(n) AS v FROM t", "integer", [{"id": 1, "v": 11}]),
    "means": ("SELECT min(id) AS id, round(avg(n), 1) AS v FROM t", "number", [{"id": 1, "v": 5.5}]),
    "days": ("SELECT id, date(d, '+1 day') AS v FROM t", "date", [{"id": 1, "v": "2024-01-02"}, {"id": 2, "v": "2024-01-03"}]),
    "docs": ("SELECT id, json_extract(j, '$.a') AS v FROM t", "integer", [{"id": 1, "v": 1}, {"id": 2, "v": 2}]),
    "arrows": ("SELECT id, j -> '$' AS v FROM t", "json", [{"id": 1, "v": {"a": 1}}, {"id": 2, "v": {"a": 2}}]),
    "trees": ("SELECT t.id, e.value AS v FROM t, json_tree(t.j) e WHERE e.key = 'a'", "integer",
              [{"id": 1, "v": 1}, {"id": 2, "v": 2}]),
    "ranks": ("SELECT id, row_number() OVER (ORDER BY id DESC) AS v FROM t", "integer", [{"id": 1, "v": 2}, {"id": 2, "v": 1}]),
    "joined": ("SELECT 1 AS id, group_concat(s, '-') AS v FROM t", "text", [{"id": 1, "v": "a-b"}]),
    "found": ("SELECT rowid AS id, v FROM f5 WHERE f5 MATCH 'world'", "text", [{"id": 1, "v": "hello world"}]),
    "f4": (None, "text", [{"id": 1, "v": "hello world"}]),
    "f5": (None, "text", [{"id": 1, "v": "hello world"}]),
    "boxes": (None, "number", [{"id": 1, "v": 0.5}]),
}  # fmt: skip
TABLES = """
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d TEXT, j TEXT, s TEXT);
INSERT INTO t VALUES (1, 5, '2024-01-01', '{"a": 1}', 'a'), (2, 6, '2024-01-02', '{"a": 2}', 'b');
CREATE VIRTUAL TABLE f4 USING fts4(id, v); INSERT INTO f4 VALUES (1, 'hello world');
CREATE VIRTUAL TABLE f5 USING fts5(id UNINDEXED, v); INSERT INTO f5 VALUES (1, 'hello world');
CREATE VIRTUAL TABLE boxes USING rtree(id, v, w); INSERT INTO boxes VALUES (1, 0.5, 1.5);
"""


@pytest.mark.parametrize("name", VIEWS)
def test_views_with_functions_and_virtual_tables_are_read(file: File, name: str) -> None:
    sql, type, expected = VIEWS[name]
    file.execute(TABLES)
    if sql is not None:
        file.execute(f"CREATE VIEW {name} AS {sql}")
    lens = lens_of(type, table=name)
    if name in ("f4", "f5"):
        lens.fields["id"] = Field(name="id", column="rowid", type=FieldType.INTEGER, primary_key=True)  # type: ignore[index]
    assert file.rows(lens) == expected
    assert file.rows(lens, where={"v": {"$exists": True}, "id": 1})[0] == expected[0]
    report = file.loop.run_until_complete(test_of(file, lens))
    assert report["ok"], report


async def test_of(file: File, lens: LensDefinition) -> dict[str, Any]:
    from lensway.bridges.sqlite.bridge import SqliteBridge

    source = await SqliteBridge().open({"path": str(file.path)}, policy=AddressPolicy())
    try:
        report = await source.test([plan_probe(lens)], deadline=time.monotonic() + 10)
        return {"ok": report.ok, "stages": report.stages}
    finally:
        await source.close()


test_of.__test__ = False  # type: ignore[attr-defined]


def test_a_virtual_table_is_read_after_the_schema_has_changed(file: File) -> None:
    file.execute(TABLES)
    boxes = lens_of("number", table="boxes")
    assert file.rows(boxes) == VIEWS["boxes"][2]
    file.execute(
        "CREATE TABLE more (x); CREATE VIRTUAL TABLE later USING rtree(id, v, w); INSERT INTO later VALUES (7, 1, 2)"
    )
    assert file.rows(boxes) == VIEWS["boxes"][2]
    assert file.rows(lens_of("number", table="later")) == [{"id": 7, "v": 1.0}]


@pytest.mark.parametrize(
    "call", ["random()", "randomblob(4)", "changes()", "last_insert_rowid()", "sqlite_source_id()"]
)
def test_functions_that_do_not_only_compute_are_refused_by_their_name(file: File, call: str) -> None:
    file.execute(TABLES + f"CREATE VIEW odd AS SELECT id, {call} AS v FROM t")
    with pytest.raises(LenswayError) as caught:
        file.rows(lens_of("text", table="odd"))
    details = caught.value.failure.details
    assert (details["class"], details["function"]) == ("permission_denied", call.partition("(")[0])


@pytest.mark.parametrize(
    "call", ["load_extension('x')", "fts3_tokenizer('simple')", "writefile('x', 'y')", "edit('x')"]
)
def test_functions_that_do_harm_are_never_called(file: File, call: str) -> None:
    file.execute(TABLES + f"CREATE VIEW odd AS SELECT id, {call} AS v FROM t")
    with pytest.raises(LenswayError) as caught:
        file.rows(lens_of("text", table="odd"))
    assert caught.value.code is ErrorCode.SOURCE_QUERY_FAILED


def test_a_view_that_fails_on_a_value_does_not_blame_its_columns(file: File) -> None:
    file.execute(TABLES + "INSERT INTO t (id, j) VALUES (3, '{'); CREATE VIEW odd AS SELECT id, j ->> 'a' AS v FROM t")
    with pytest.raises(LenswayError) as caught:
        file.rows(lens_of("integer", table="odd"))
    assert caught.value.failure.details["class"] == "invalid_value"
    assert [row["id"] for row in file.rows(lens_of("integer", table="odd"), where={"id": {"$lt": 3}})] == [1, 2]
