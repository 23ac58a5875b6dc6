"""Plans on a real SQLite against the naive model: filters, orders, NULLs, and pages that visit every row once."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.dialects.compile import Compiled, compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.dialects.sqlite_functions import timestamp
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd
from lensway.testing import query_model
from lensway.testing.query_model import Asked, Row

SQLITE = capabilities_of("sqlite")
KEY = b"k" * 32
DEFINITION = query_model.make_definition()
ROWS = query_model.make_rows(DEFINITION, count=40, has_special_values=False)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def stored(value: object, field: Field, number: int) -> object:
    """One of the spellings in which SQLite may hold a value."""
    if value is None:
        return None
    match field.type:
        case FieldType.BYTES:
            return base64.b64decode(str(value))
        case FieldType.UUID:
            text = str(value).replace("-", "").lower()
            return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        case FieldType.INTEGER:
            return int(str(value).removesuffix(".0"))
        case FieldType.NUMBER:
            return float(str(value))
        case FieldType.DECIMAL if number % 2 and str(value) in ("0.1", "-1.5", "9.99"):
            return float(str(value))
        case FieldType.TIMESTAMP if str(value) == "2013-01-31T17:05:00Z":
            return (value, "2013-01-31 17:05", 1359651900)[number % 3]
        case FieldType.DATE if number % 3 == 0:
            return f"{value} 12:30:00"
        case _:
            return value


@pytest.fixture(scope="module")
def things() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", factory=GuardedConnection)
    connection.add_functions()
    fields = list(DEFINITION.fields.values())
    # Without types, so that every value stays as it was spelled.
    connection.execute(f"CREATE TABLE things ({', '.join(quoted(field.column) for field in fields)})")
    marks = ", ".join("?" * len(fields))
    for number, row in enumerate(ROWS):
        connection.execute(
            f"INSERT INTO things VALUES ({marks})", [stored(row[field.name], field, number) for field in fields]
        )
    yield connection
    connection.close()


def keys(rows: list[Row]) -> list[tuple[object, object]]:
    return [(row["key_a"], row["key_b"]) for row in rows]


def wire(value: object, type: FieldType) -> object:
    """A stored value as the end of a result carries it."""
    if type in (FieldType.DECIMAL, FieldType.TIMESTAMP) and isinstance(value, (int, float)):
        return str(timestamp(value)) if type is FieldType.TIMESTAMP else repr(value)
    return bool(value) if type is FieldType.BOOLEAN and value is not None else value


def fetch(connection: sqlite3.Connection, plan: Plan) -> tuple[list[dict[str, object]], ResultEnd]:
    plan = Plan.decode(plan.encode())
    compiled = compile_shape(plan.shape, "sqlite")
    rows = [row for sql, values in compiled.statements(plan) for row in connection.execute(sql, values)]
    page = rows if plan.limit is None else rows[: plan.limit]
    names = [column.name for column in compiled.columns[: compiled.output_count]]
    total = None
    if compiled.count_sql is not None:
        total = connection.execute(compiled.count_sql, compiled.bind_count(plan)).fetchone()[0]
    end = ResultEnd(
        rows=len(page),
        bytes=0,
        has_more=len(rows) > len(page),
        last_key=last_key(compiled, page[-1]) if page and compiled.key_positions else None,
        total=total,
    )
    return [dict(zip(names, row, strict=False)) for row in page], end


def last_key(compiled: Compiled, row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(wire(row[position], compiled.columns[position].type) for position in compiled.key_positions)


def pages(connection: sqlite3.Connection, definition: LensDefinition, request: QueryRequest) -> list[dict[str, object]]:
    """All rows, by following cursors."""
    seen: list[dict[str, object]] = []
    while True:
        planned = plan_rows(definition, request, SQLITE, cursor_key=KEY, environment="env")
        page, end = fetch(connection, planned.plan)
        seen += page
        cursor = planned.next_cursor(end)
        assert (cursor is not None) == end.has_more
        if cursor is None:
            return seen
        request = QueryRequest(
            where=request.where, order_by=request.order_by, limit=request.limit, select=request.select, cursor=cursor
        )


@settings(max_examples=300)
@given(asked=query_model.questions(DEFINITION, has_special_values=False))
def test_pages_are_the_rows_of_the_model_in_its_order(things: sqlite3.Connection, asked: Asked) -> None:
    expected = keys(query_model.expected(ROWS, DEFINITION, asked.where, asked.order_by))
    request = QueryRequest(
        where=asked.where, order_by=asked.order_by, limit=asked.limit, select=["key_b", "key_a", "decimal"]
    )
    assert [(row["key_a"], row["key_b"]) for row in pages(things, DEFINITION, request)] == expected


def test_every_operator_holds_for_every_value_as_in_the_model(things: sqlite3.Connection) -> None:
    for where in query_model.conditions(DEFINITION, has_special_values=False):
        expected = sum(query_model.matches(where, row, DEFINITION) for row in ROWS)
        assert fetch(things, plan_count(DEFINITION, where, SQLITE))[0][0]["count"] == expected, where


@settings(max_examples=150)
@given(asked=query_model.questions(DEFINITION, has_special_values=False))
def test_counts_totals_and_exports_are_of_the_same_rows(things: sqlite3.Connection, asked: Asked) -> None:
    expected = query_model.expected(ROWS, DEFINITION, asked.where, asked.order_by)
    counted, _ = fetch(things, plan_count(DEFINITION, asked.where, SQLITE))
    assert counted == [{"count": len(expected)}]
    request = QueryRequest(where=asked.where, order_by=asked.order_by, total=True, limit=1)
    planned = plan_rows(DEFINITION, request, SQLITE, cursor_key=KEY, environment="env")
    _, end = fetch(things, planned.plan)
    assert end.total == len(expected)
    exported, end = fetch(things, plan_export(DEFINITION, ExportRequest(where=asked.where), SQLITE))
    assert sorted((row["key_a"], row["key_b"]) for row in exported) == sorted(keys(expected))
    assert end.last_key is None


@settings(max_examples=60)
@given(asked=query_model.questions(DEFINITION, has_special_values=False))
def test_an_offset_skips_rows_in_the_same_order(things: sqlite3.Connection, asked: Asked) -> None:
    expected = keys(query_model.expected(ROWS, DEFINITION, asked.where, asked.order_by))
    request = QueryRequest(where=asked.where, order_by=asked.order_by, limit=asked.limit, offset=3)
    planned = plan_rows(DEFINITION, request, SQLITE, cursor_key=KEY, environment="env")
    page, end = fetch(things, planned.plan)
    assert [(row["key_a"], row["key_b"]) for row in page] == expected[3 : 3 + asked.limit]
    assert end.has_more == (len(expected) > 3 + asked.limit)


def test_a_probe_reads_no_row_but_names_every_column(things: sqlite3.Connection) -> None:
    compiled = compile_shape(plan_probe(DEFINITION).shape, "sqlite")
    cursor = things.execute(compiled.sql, compiled.bind(plan_probe(DEFINITION)))
    assert [column[0] for column in cursor.description] == list(DEFINITION.fields)
    assert cursor.fetchall() == []


def test_a_column_that_does_not_exist_fails_instead_of_becoming_a_text(things: sqlite3.Connection) -> None:
    fields = {"id": Field(name="id", column="no such column", type=FieldType.TEXT)}
    for plan in (
        plan_probe(LensDefinition(name="l", table="things", fields=fields)),
        plan_count(LensDefinition(name="l", table="things", fields=fields), {"id": {"$exists": True}}, SQLITE),
    ):
        compiled = compile_shape(plan.shape, "sqlite")
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            things.execute(compiled.sql, compiled.bind(plan))


def test_the_largest_filters_compile_and_run(things: sqlite3.Connection) -> None:
    many = {"$or": [{"integer": {"$gt": number}} for number in range(1_000)]}
    assert fetch(things, plan_count(DEFINITION, many, SQLITE))[0][0]["count"]
    listed = {"integer_x": {"$in": list(range(10_000))}}
    assert fetch(things, plan_count(DEFINITION, listed, SQLITE))[0][0]["count"]
    # As deep as it goes, and wide on every level.
    deep: object = {"integer": {"$gte": 0, "$lt": 5}}
    for level in range(15):
        wide = [{"integer_x": {"$gt": number}} for number in range(60)]
        deep = {"$not": deep} if level % 2 else {"$or": [*wide, deep], "key_a": {"$lt": 15}}
    plan = plan_count(DEFINITION, deep, SQLITE)
    expected = sum(query_model.matches(deep, row, DEFINITION) for row in ROWS)
    assert 0 < expected < len(ROWS)
    assert fetch(things, plan)[0] == [{"count": expected}]


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_a_cursor_walks_an_index(direction: str) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER NOT NULL)")
        connection.execute("CREATE INDEX by_a ON t (a, id)")
        fields = {
            name: Field(name=name, column=name, type=FieldType.INTEGER, nullable=False, primary_key=name == "id")
            for name in ("id", "a", "b")
        }
        lens = LensDefinition(name="l", table="t", fields=fields)
        order = [{"field": "a", "dir": direction}]
        first = plan_rows(lens, QueryRequest(order_by=order), SQLITE, cursor_key=KEY, environment="e")
        cursor = first.next_cursor(ResultEnd(rows=1, bytes=1, has_more=True, last_key=(5, 7)))
        request = QueryRequest(order_by=order, cursor=cursor)
        plan = plan_rows(lens, request, SQLITE, cursor_key=KEY, environment="e").plan
        compiled = compile_shape(plan.shape, "sqlite")
        steps = connection.execute("EXPLAIN QUERY PLAN " + compiled.sql, compiled.bind(plan)).fetchall()
        assert any("SEARCH lensway_t USING INDEX by_a" in step[3] for step in steps), steps
    connection.close()


def test_text_is_compared_by_the_collation_of_its_column_and_like_minds_case() -> None:
    with sqlite3.connect(":memory:", factory=GuardedConnection) as connection:
        connection.add_functions()
        connection.execute("CREATE TABLE t (name TEXT COLLATE NOCASE)")
        connection.executemany("INSERT INTO t VALUES (?)", [("Anna",), ("ANNA",), ("bob",), ("Éva",)])
        fields = {"name": Field(name="name", column="name", type=FieldType.TEXT)}
        lens = LensDefinition(name="l", table="t", fields=fields)

        def count(where: object) -> object:
            return fetch(connection, plan_count(lens, where, SQLITE))[0][0]["count"]

        assert count({"name": "anna"}) == 2
        assert count({"name": ["aNNa", "x"]}) == 2
        assert count({"name": {"$like": "A%"}}) == 2
        assert count({"name": {"$like": "An%"}}) == 1
        assert count({"name": {"$ilike": "an%"}}) == 2
        assert count({"name": {"$startsWith": "é"}}) == 0
        assert count({"name": {"$contains": "VA"}}) == 1
    connection.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "NaN"),
        ("decimal", "NaN"),
        ("decimal", "Infinity"),
        ("date", "infinity"),
        ("date", "10000-01-01"),
        ("timestamp", "0044-03-15T00:00:00 BC"),
        ("time", "17:05:00+01:00"),
        ("time", "17:05:00Z"),
        ("text", {"$like": "%" * 20_000}),
    ],
)
def test_what_sqlite_cannot_hold_is_refused_instead_of_compared_wrongly(field: str, value: object) -> None:
    with pytest.raises(LenswayError) as caught:
        plan_count(DEFINITION, {field: value}, SQLITE)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.failure.message.startswith(f"where.{field}")
