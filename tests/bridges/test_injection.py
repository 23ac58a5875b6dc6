"""Whatever a caller writes is a value, and whatever a lens names is a name: nothing of either is ever SQL. And nothing writes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.postgres import Database, quote_identifier

POSTGRES = capabilities_of("postgres")
KEY = b"k" * 32
PIECES = (
    "'",
    "''",
    '"',
    "\\",
    ";",
    "--",
    "/*",
    "*/",
    "$1",
    "$$",
    "%",
    "_",
    "\n",
    "E'",
    "U&'\\0027'",
    "ʼ",
    "＇",
    ")",
    "a",
)
EVIL = st.lists(st.sampled_from((*PIECES, "; DROP TABLE canary; --", "' OR '1'='1", "\x1b", "é")), max_size=6).map(
    "".join
)
ODD_NAMES = ('a"b', "a'b", "a;b", "select", "x--y", "ünï", "a b", "$1", "Ä\\", 'x" FROM canary; DROP TABLE canary; --')


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class Place:
    """A database with a canary, and the library that executes on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.loop = asyncio.new_event_loop()
        self.library = ExecutionLibrary(AddressPolicy())
        self._owner = self.loop.run_until_complete(asyncpg.connect(database.owner_url))

    def store(self, text: str) -> None:
        """Make this the only row of `texts`."""

        async def store() -> None:
            await self._owner.execute("DELETE FROM texts")
            await self._owner.execute("INSERT INTO texts (t) VALUES ($1)", text)

        self.loop.run_until_complete(store())

    def rows(self, plan: Plan, *, kind: str = "rows") -> list[dict[str, Any]]:
        """The rows of a plan."""
        sink = Sink()
        execution = Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat.JSON if kind == "rows" else RowFormat.NDJSON,
            limits=ResultLimits(rows_max=1000, bytes_max=10**7, row_bytes_max=10**6),
            tag="test/1",
            is_export=kind == "export",
        )
        work = self.library.perform(
            "key",
            "postgres",
            {"url": self.database.reader_url},
            kind=kind,
            payload=plan.encode(),
            execution=execution,
            sink=sink,
        )
        self.loop.run_until_complete(work)
        if kind == "export":
            return [json.loads(line) for line in sink.data.splitlines()]
        return json.loads(b"[" + sink.data + b"]")

    def canary(self) -> list[int]:
        """What stands in the table that nothing may touch."""

        async def read() -> list[int]:
            connection = await asyncpg.connect(self.database.owner_url)
            try:
                return [row[0] for row in await connection.fetch("SELECT id FROM canary ORDER BY id")]
            finally:
                await connection.close()

        return asyncio.run(read())

    def close(self) -> None:
        self.loop.run_until_complete(self._owner.close())
        self.loop.run_until_complete(self.library.close())
        self.loop.close()


@pytest.fixture
def place(database: Database):
    asyncio.run(
        database.execute(
            "CREATE TABLE canary (id bigint PRIMARY KEY)",
            "INSERT INTO canary VALUES (1), (2)",
            "CREATE TABLE texts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text)",
            # The login may write: what keeps it from writing is not only its rights.
            "GRANT ALL ON canary, texts TO PUBLIC",
        )
    )
    place = Place(database)
    yield place
    place.close()


TEXTS = LensDefinition(
    name="texts",
    table="public.texts",
    fields={
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "t": Field(name="t", column="t", type=FieldType.TEXT),
    },
)


def test_values_are_values_under_every_operator(place: Place) -> None:
    @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        EVIL,
        EVIL,
        st.sampled_from(("$eq", "$ne", "$in", "$nin", "$contains", "$startsWith", "$endsWith", "$gt", "$like")),
    )
    def check(stored: str, asked: str, operator: str) -> None:
        place.store(stored)
        value: object = [asked, stored + "x"] if operator in ("$in", "$nin") else asked
        request = QueryRequest(where={"t": {operator: value}})
        plan = plan_rows(TEXTS, request, POSTGRES, cursor_key=KEY, environment="e").plan
        found = [row["t"] for row in place.rows(plan)]
        expected = {
            "$eq": stored == asked,
            "$in": stored == asked,
            "$ne": stored != asked,
            "$nin": stored != asked,
            "$contains": asked.casefold() in stored.casefold(),
            "$startsWith": stored.casefold().startswith(asked.casefold()),
            "$endsWith": stored.casefold().endswith(asked.casefold()),
        }
        if operator in expected:
            assert found == ([stored] if expected[operator] else [])
        else:
            assert found in ([], [stored])

    check()
    assert place.canary() == [1, 2]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_a_lens_are_names(place: Place, name: str) -> None:
    table, column = quote_identifier(name), quote_identifier(name)
    asyncio.run(
        place.database.execute(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, {column} text)",
            f"INSERT INTO {table} VALUES (1, 'one')",
            f"GRANT SELECT ON {table} TO PUBLIC",
        )
    )
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "odd": Field(name="odd", column=name, type=FieldType.TEXT),
    }
    lens = LensDefinition(name="odd", table=name, fields=fields)
    request = QueryRequest(where={"odd": "one"}, order_by={"field": "odd", "dir": "desc"})
    planned = plan_rows(lens, request, POSTGRES, cursor_key=KEY, environment="e")
    assert place.rows(planned.plan) == [{"id": 1, "odd": "one"}]
    absent = LensDefinition(name="odd", table=f"{name}_absent", fields=fields)
    with pytest.raises(LenswayError) as error:
        place.rows(plan_count(absent, None, POSTGRES))
    assert (error.value.code, error.value.failure.details["class"]) == (
        ErrorCode.SOURCE_QUERY_FAILED,
        "undefined_table",
    )
    assert place.canary() == [1, 2]


@pytest.mark.parametrize("word", [*ODD_NAMES, "id; DROP TABLE canary", "t) OR (1=1", "__proto__", "", "\0"])
def test_words_of_a_caller_that_are_no_fields_are_refused_before_any_sql(word: str) -> None:
    for request in (
        QueryRequest(where={word: 1}),
        QueryRequest(where={"t": {word: 1}}),
        QueryRequest(order_by={"field": word}),
        QueryRequest(select=[word]),
    ):
        with pytest.raises(LenswayError) as error:
            plan_rows(TEXTS, request, POSTGRES, cursor_key=KEY, environment="e")
        assert error.value.code in (ErrorCode.UNKNOWN_FIELD, ErrorCode.UNSUPPORTED_OPERATOR, ErrorCode.INVALID_REQUEST)


WRITES = {
    "insert": "INSERT INTO canary VALUES (99); SELECT 1::bigint",
    "update": "UPDATE canary SET id = id + 100; SELECT 1::bigint",
    "truncate": "TRUNCATE canary; SELECT 1::bigint",
    "create": "CREATE TABLE made (id int); SELECT 1::bigint",
    "nextval": "SELECT nextval('texts_id_seq')",
    "lock": "SELECT id FROM canary ORDER BY id LIMIT 1 FOR UPDATE",
}


@pytest.mark.parametrize("kind", ["rows", "export"])
@pytest.mark.parametrize("write", WRITES)
def test_a_view_that_writes_is_refused_by_the_session(place: Place, write: str, kind: str) -> None:
    asyncio.run(
        place.database.execute(
            f"CREATE FUNCTION writes() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER AS $f$ {WRITES[write]} $f$",
            "CREATE VIEW evil AS SELECT writes() AS id",
            "GRANT SELECT ON evil TO PUBLIC",
        )
    )
    lens = LensDefinition(
        name="evil",
        table="public.evil",
        fields={"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)},
    )
    if kind == "rows":
        plan = plan_rows(lens, QueryRequest(), POSTGRES, cursor_key=KEY, environment="e").plan
    else:
        plan = plan_export(lens, ExportRequest(), POSTGRES)
    with pytest.raises(LenswayError) as error:
        place.rows(plan, kind=kind)
    assert (error.value.code, error.value.failure.details["class"]) == (ErrorCode.SOURCE_QUERY_FAILED, "read_only")
    assert place.canary() == [1, 2]
