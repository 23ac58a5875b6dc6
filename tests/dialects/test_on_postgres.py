"""Plans on a real PostgreSQL against the naive model, and which column types compare rightly and by index."""

from __future__ import annotations

import asyncio
import decimal
import uuid
from collections.abc import Iterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from lensway.api.shapes import QueryRequest
from lensway.dialects.compile import compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_probe, plan_rows
from lensway.query.result import ResultEnd
from lensway.testing import query_model
from lensway.testing.postgres import Database, quote_identifier
from lensway.testing.query_model import Asked

POSTGRES = capabilities_of("postgres")
KEY = b"k" * 32
DEFINITION = query_model.make_definition(table="public.things")
ROWS = query_model.make_rows(DEFINITION, count=40, has_special_values=True)
# The type behind the nullable field, and behind the other one.
COLUMN_TYPES = {
    FieldType.TEXT: ("text", "varchar(100)"),
    FieldType.INTEGER: ("bigint", "numeric"),
    FieldType.NUMBER: ("double precision", "double precision"),
    FieldType.DECIMAL: ("numeric", "numeric(60,20)"),
    FieldType.BOOLEAN: ("boolean", "boolean"),
    FieldType.DATE: ("date", "date"),
    FieldType.TIME: ("time", "timetz"),
    FieldType.TIMESTAMP: ("timestamptz", "timestamp"),
    FieldType.UUID: ("uuid", "uuid"),
    FieldType.BYTES: ("bytea", "bytea"),
    FieldType.JSON: ("jsonb", "jsonb"),
}


class Reader:
    """A connection as a bridge would have it: in UTC, with days and times as PostgreSQL writes them."""

    def __init__(self, database: Database) -> None:
        self.loop = asyncio.new_event_loop()
        self.database = database
        self.connection = self.loop.run_until_complete(self._connect())

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(self.database.reader_url, server_settings={"timezone": "UTC"})
        for name in ("date", "time", "timetz", "timestamp", "timestamptz"):
            await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=str, format="text")
        return connection

    def owner(self, *statements: str) -> None:
        self.loop.run_until_complete(self.database.execute(*statements))

    def fetch(self, sql: str, params: list[object]) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = self.loop.run_until_complete(self.connection.fetch(sql, *params))
        return found

    def rows(self, plan: Plan) -> tuple[list[asyncpg.Record], ResultEnd]:
        plan = Plan.decode(plan.encode())
        compiled = compile_shape(plan.shape, "postgres")
        rows = [row for sql, values in compiled.statements(plan) for row in self.fetch(sql, values)]
        page = rows if plan.limit is None else rows[: plan.limit]
        last_key = None
        if page and compiled.key_positions:
            last_key = tuple(
                wire(page[-1][position], compiled.columns[position].type) for position in compiled.key_positions
            )
        total = None
        if compiled.count_sql is not None:
            total = self.fetch(compiled.count_sql, compiled.bind_count(plan))[0][0]
        end = ResultEnd(rows=len(page), bytes=0, has_more=len(rows) > len(page), last_key=last_key, total=total)
        return page, end

    def count(self, definition: LensDefinition, where: object) -> int:
        found: int = self.rows(plan_count(definition, where, POSTGRES))[0][0]["count"]
        return found

    def close(self) -> None:
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()


@pytest.fixture
def reader(database: Database) -> Iterator[Reader]:
    reader = Reader(database)
    yield reader
    reader.close()


@pytest.fixture
def things(reader: Reader) -> Reader:
    fields = list(DEFINITION.fields.values())
    types = [
        ("text" if field.type is FieldType.TEXT else "jsonb") + ("[]" if field.is_list else "")
        if field.is_list or field.type is FieldType.JSON
        else COLUMN_TYPES[field.type][not field.nullable or field.primary_key]
        for field in fields
    ]
    columns = ", ".join(f"{quote_identifier(field.column)} {name}" for field, name in zip(fields, types, strict=True))
    lines = ", ".join(
        "(" + ", ".join(literal(row[field.name], field, name) for field, name in zip(fields, types, strict=True)) + ")"
        for row in ROWS
    )
    reader.owner(f"CREATE TABLE things ({columns})", f"SET timezone = 'UTC'; INSERT INTO things VALUES {lines}")
    return reader


def literal(value: object, field: Field, type_name: str) -> str:
    if value is None:
        return "NULL"
    text = "'" + str(value).replace("'", "''") + "'"
    match field.type:
        case _ if field.is_list:
            return "'{}'"
        case FieldType.BYTES:
            return f"decode({text}, 'base64')"
        case FieldType.TIMESTAMP:
            return f"{text}::timestamptz"
        case FieldType.INTEGER:
            return str(int(str(value).removesuffix(".0")))
        case _:
            return f"{text}::{type_name}"


def wire(value: object, type: FieldType) -> object:
    """A value of the driver as the end of a result carries it."""
    match value:
        case decimal.Decimal() if type is FieldType.INTEGER:
            return int(value)
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case _:
            return value


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=query_model.questions(DEFINITION, has_special_values=True))
def test_pages_totals_and_counts_are_those_of_the_model(things: Reader, asked: Asked) -> None:
    expected = [
        (row["key_a"], row["key_b"]) for row in query_model.expected(ROWS, DEFINITION, asked.where, asked.order_by)
    ]
    seen: list[tuple[object, object]] = []
    cursor: str | None = None
    while True:
        request = QueryRequest(
            where=asked.where,
            order_by=asked.order_by,
            limit=asked.limit,
            select=["key_b", "key_a"],
            cursor=cursor,
            total=cursor is None,
        )
        planned = plan_rows(DEFINITION, request, POSTGRES, cursor_key=KEY, environment="env")
        page, end = things.rows(planned.plan)
        seen += [(row["key_a"], row["key_b"]) for row in page]
        assert cursor is not None or end.total == len(expected)
        cursor = planned.next_cursor(end)
        if cursor is None:
            break
    assert seen == expected
    assert things.count(DEFINITION, asked.where) == len(expected)


def test_every_operator_holds_for_every_value_as_in_the_model(things: Reader) -> None:
    for where in query_model.conditions(DEFINITION, has_special_values=True):
        expected = sum(query_model.matches(where, row, DEFINITION) for row in ROWS)
        assert things.count(DEFINITION, where) == expected, where


def test_a_probe_reads_no_row_but_every_column(things: Reader) -> None:
    assert things.rows(plan_probe(DEFINITION))[0] == []
    gone = LensDefinition(
        name="l", table="things", fields={"count": Field(name="count", column="count", type=FieldType.INTEGER)}
    )
    with pytest.raises(asyncpg.UndefinedColumnError):
        things.rows(plan_probe(gone))


@pytest.mark.parametrize(
    ("column_type", "field_type", "stored", "equal", "smaller", "has_index"),
    [
        ("smallint", FieldType.INTEGER, "7", 7, 6, True),
        ("integer", FieldType.INTEGER, "7", 7, 6, True),
        ("bigint", FieldType.INTEGER, "9223372036854775807", 2**63 - 1, 2**63 - 2, True),
        ("numeric", FieldType.INTEGER, "7", 7, 6, True),
        ("numeric", FieldType.DECIMAL, "0.10", "0.1", "0.09", True),
        ("real", FieldType.NUMBER, "0.5", 0.5, 0.25, True),
        ("double precision", FieldType.NUMBER, "0.1", 0.1, 0.0, True),
        ("integer", FieldType.NUMBER, "7", 7.0, 6.5, False),
        ("boolean", FieldType.BOOLEAN, "true", True, False, True),
        ("text", FieldType.TEXT, "b", "b", "a", True),
        ("varchar(10)", FieldType.TEXT, "b", "b", "a", True),
        ("char(10)", FieldType.TEXT, "b", "b", "a", True),
        ("name", FieldType.TEXT, "b", "b", "a", True),
        ("mood", FieldType.TEXT, "sad", "sad", "glad", True),
        ("date", FieldType.DATE, "2013-01-31", "2013-01-31", "2013-01-30", True),
        ("timestamp", FieldType.DATE, "2013-01-31", "2013-01-31", "2013-01-30", True),
        (
            "timestamp",
            FieldType.TIMESTAMP,
            "2013-01-31 17:05",
            "2013-01-31T18:05:00+01:00",
            "2013-01-31T17:04:59",
            True,
        ),
        ("timestamptz", FieldType.TIMESTAMP, "2013-01-31 17:05Z", "2013-01-31T17:05:00", "2013-01-31T17:04:59Z", True),
        ("date", FieldType.TIMESTAMP, "2013-01-31", "2013-01-31T00:00:00Z", "2013-01-30T23:59:59Z", True),
        ("time", FieldType.TIME, "17:05", "17:05:00", "17:04:59.999999", True),
        ("timetz", FieldType.TIME, "17:05+02", "17:05:00+02:00", "15:04:59Z", True),
        ("timetz", FieldType.TIME, "15:05+00", "15:05:00", "15:04:59", True),
        (
            "uuid",
            FieldType.UUID,
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6BA7B8109DAD11D180B400C04FD430C8",
            None,
            True,
        ),
        ("bytea", FieldType.BYTES, "\\x6161", "YWE=", "YQ==", True),
    ],
)
def test_columns_compare_as_what_they_are_and_by_their_index(
    reader: Reader,
    column_type: str,
    field_type: FieldType,
    stored: str,
    equal: object,
    smaller: object,
    has_index: bool,
) -> None:
    reader.owner(
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        f"CREATE TABLE t (id int PRIMARY KEY, c {column_type} NOT NULL)",
        f"INSERT INTO t VALUES (1, '{stored}')",
        "CREATE INDEX by_c ON t (c, id)",
    )
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "c": Field(name="c", column="c", type=field_type, nullable=False),
    }
    definition = LensDefinition(name="l", table="t", fields=fields)
    assert reader.count(definition, {"c": equal}) == 1
    assert reader.count(definition, {"c": {"$in": [equal, None]}}) == 1
    assert reader.count(definition, {"c": {"$nin": [equal]}}) == 0
    if smaller is not None:
        assert reader.count(definition, {"c": {"$gt": smaller}}) == 1
        assert reader.count(definition, {"c": [smaller]}) == 0
    order = [{"field": "c"}]
    request = QueryRequest(where={"c": {"$in": [equal]}}, order_by=order, limit=1)
    planned = plan_rows(definition, request, POSTGRES, cursor_key=KEY, environment="e")
    _, end = reader.rows(planned.plan)
    cursor = planned.next_cursor(ResultEnd(rows=1, bytes=1, has_more=True, last_key=end.last_key))
    request = QueryRequest(where=request.where, order_by=order, cursor=cursor)
    second = plan_rows(definition, request, POSTGRES, cursor_key=KEY, environment="e")
    assert reader.rows(second.plan)[0] == [], "nothing stands behind the only row"
    for plan in (plan_count(definition, {"c": equal}, POSTGRES), planned.plan, second.plan):
        assert ("Index Cond" in explained(reader, plan)) is has_index


def test_one_row_comparison_walks_the_index_of_the_order(reader: Reader) -> None:
    reader.owner(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL)",
        "INSERT INTO t SELECT n, n % 5, n % 3 FROM generate_series(1, 1000) n",
        "CREATE INDEX by_a ON t (a, id)",
        "CREATE INDEX by_b ON t (b DESC, id)",
        "ANALYZE t",
    )
    fields = {
        name: Field(name=name, column=name, type=FieldType.INTEGER, nullable=False, primary_key=name == "id")
        for name in ("id", "a", "b")
    }
    definition = LensDefinition(name="l", table="t", fields=fields)
    for order, condition in (
        ({"field": "a"}, "Index Cond: (ROW(a, id) > ROW("),
        ({"field": "b", "dir": "desc"}, "Index Cond: (b <= "),
    ):
        first = plan_rows(definition, QueryRequest(order_by=order), POSTGRES, cursor_key=KEY, environment="e")
        cursor = first.next_cursor(ResultEnd(rows=1, bytes=1, has_more=True, last_key=(2, 500)))
        request = QueryRequest(order_by=order, cursor=cursor, limit=5)
        plan = plan_rows(definition, request, POSTGRES, cursor_key=KEY, environment="e").plan
        text = explained(reader, plan)
        assert condition in text
        assert "Sort" not in text


def test_patterns_work_on_every_kind_of_text_and_mind_case_where_they_should(reader: Reader) -> None:
    reader.owner(
        "CREATE EXTENSION citext",
        "CREATE TYPE mood AS ENUM ('Glad', 'sad')",
        "CREATE TABLE t (a text, b varchar(10), c char(10), d citext, e mood)",
        "INSERT INTO t VALUES ('Glad', 'Glad', 'Glad', 'Glad', 'Glad')",
    )
    fields = {name: Field(name=name, column=name, type=FieldType.TEXT) for name in "abcde"}
    definition = LensDefinition(name="l", table="t", fields=fields)
    for name in fields:
        assert reader.count(definition, {name: {"$like": "Gl%"}}) == 1
        assert reader.count(definition, {name: {"$like": "gl%"}}) == 0
        assert reader.count(definition, {name: {"$ilike": "gl__"}}) == 1
        assert reader.count(definition, {name: {"$endsWith": "LAD"}}) == 1
    assert reader.count(definition, {"d": "gLAD"}) == 1, "equality follows the column"


def test_days_before_christ_and_moments_of_other_zones_pass_through_exactly(reader: Reader) -> None:
    reader.owner(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)",
        "INSERT INTO t VALUES (1, '0044-03-15 12:00:00+00 BC'), (2, '294275-12-31 23:59:59.999999+00'), (3, '-infinity')",
    )
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "at": Field(name="at", column="at", type=FieldType.TIMESTAMP),
    }
    definition = LensDefinition(name="l", table="t", fields=fields)
    assert reader.count(definition, {"at": "0044-03-15T13:00:00+01:00 BC"}) == 1
    assert reader.count(definition, {"at": "294275-12-31T23:59:59.999999Z"}) == 1
    assert reader.count(definition, {"at": {"$lt": "0045-01-01 BC"}}) == 1
    assert reader.count(definition, {"at": ["infinity", "-infinity"]}) == 1


def explained(reader: Reader, plan: Plan) -> str:
    compiled = compile_shape(plan.shape, "postgres")
    reader.fetch("SET enable_seqscan = off", [])
    return "\n".join(row[0] for row in reader.fetch("EXPLAIN " + compiled.sql, compiled.bind(plan)))
