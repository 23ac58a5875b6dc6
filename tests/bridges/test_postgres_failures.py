"""What PostgreSQL itself fails with, provoked for real: whose fault it is, on which object, and what to do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

import asyncpg
import pyarrow as pa
import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.bridges.postgres.states import CLASSES, STATES, meaning
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, Failure, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database
from lensway.testing.postgres import Database, PostgresCluster

POSTGRES = capabilities_of("postgres")
FORMS = [
    pytest.param(RowFormat.JSON, {"limit": 5}, id="page"),
    pytest.param(RowFormat.JSON, {"limit": 5000}, id="cursor"),
    pytest.param(RowFormat.NDJSON, None, id="bulk"),
    pytest.param(RowFormat.ARROW, {"limit": 5}, id="arrow"),
]


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class Source:
    """A database whose tables are read as the service and runners read them."""

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self.database = database
        self.loop = loop
        self.config: dict[str, object] = {"url": database.reader_url}
        self.library = ExecutionLibrary(AddressPolicy())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def execute(self, *statements: str) -> None:
        self.do(self.database.execute(*statements))

    async def read(
        self,
        lens: LensDefinition,
        format: RowFormat = RowFormat.JSON,
        asked: Mapping[str, Any] | None = None,
        *,
        seconds: float = 30.0,
        may_repeat: bool = True,
    ) -> bytes:
        """The rows; ``asked`` None is an export."""
        if asked is None:
            plan, is_export = plan_export(lens, ExportRequest(), POSTGRES), True
        else:
            request = QueryRequest(**asked)
            plan = plan_rows(lens, request, POSTGRES, cursor_key=b"k" * 32, environment="e").plan
            is_export = False
        execution = Execution(
            deadline=time.monotonic() + seconds,
            format=format,
            limits=ResultLimits(rows_max=100_000, bytes_max=10**8, row_bytes_max=10**6),
            tag="failures/1",
            is_export=is_export,
            may_repeat=may_repeat,
        )
        sink = Sink()
        await self.library.perform(
            "s", "postgres", self.config, kind="rows", payload=plan.encode(), execution=execution, sink=sink
        )
        return sink.data

    def rows(self, lens: LensDefinition, format: RowFormat, asked: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        data = self.do(self.read(lens, format, asked))
        if format is RowFormat.ARROW:
            return pa.ipc.open_stream(data).read_all().to_pylist()
        if format is RowFormat.NDJSON:
            return [json.loads(line) for line in data.splitlines()]
        return json.loads(b"[" + data + b"]")

    def failure(
        self,
        lens: LensDefinition,
        format: RowFormat = RowFormat.JSON,
        asked: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> Failure:
        with pytest.raises(LenswayError) as caught:
            self.do(
                self.read(lens, format, {"limit": 5} if asked is None and format is RowFormat.JSON else asked, **how)
            )
        return caught.value.failure


def lens_of(table: str, **fields: str) -> LensDefinition:
    """A lens with an integer key and these fields, by type."""
    made = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    made |= {name: Field(name=name, column=name, type=FieldType(type)) for name, type in fields.items()}
    return LensDefinition(name="lens", table=table, fields=made)


@pytest.fixture(scope="module")
def source(postgres: PostgresCluster) -> Iterator[Source]:
    loop = asyncio.new_event_loop()
    database = loop.run_until_complete(fresh_database(postgres))
    source = Source(database, loop)
    source.execute("CREATE SCHEMA app", "GRANT USAGE ON SCHEMA app TO PUBLIC")
    yield source
    loop.run_until_complete(source.library.close())
    loop.close()


# --- types ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "asked"), FORMS)
@pytest.mark.parametrize(
    ("name", "made", "value", "type"),
    [
        ("money", "(amount numeric, currency text)", "ROW(1, 'EUR')", "text"),
        ("point", "(x float8, y float8)", "ROW(1, 2)", "text"),
        ("interval", "(a int)", "ROW(1)", "text"),
        ("text", "(a int)", "ROW(1)", "text"),
        ("int8", "(a int)", "ROW(1)", "integer"),
        ("uuid", "ENUM ('a')", "'a'", "uuid"),
        ("json", "ENUM ('a')", "'a'", "json"),
        ("float4", "ENUM ('a')", "'a'", "number"),
    ],
)
def test_a_type_of_the_same_name_as_postgresqls_own_is_refused_with_the_field(
    source: Source, name: str, made: str, value: str, type: str, format: RowFormat, asked: Any
) -> None:
    source.execute(
        "DROP TABLE IF EXISTS app.named",
        f"DROP TYPE IF EXISTS app.{name}",
        f"CREATE TYPE app.{name} AS {made}",
        f"CREATE TABLE app.named (id int PRIMARY KEY, odd app.{name})",
        f"INSERT INTO app.named VALUES (1, {value})",
        "GRANT SELECT ON app.named TO PUBLIC",
    )
    failure = source.failure(lens_of("app.named", odd=type), format, asked)
    assert failure.code is ErrorCode.SOURCE_QUERY_FAILED
    assert failure.details["class"] in ("type_mismatch", "undecodable")
    assert failure.details["field"] == "odd"


@pytest.mark.parametrize(("format", "asked"), FORMS)
@pytest.mark.parametrize("name", ["uuid", "json", "text", "int8", "interval"])
def test_an_enum_of_the_same_name_as_postgresqls_own_type_is_a_text(
    source: Source, name: str, format: RowFormat, asked: Any
) -> None:
    source.execute(
        "DROP TABLE IF EXISTS app.named",
        f"DROP TYPE IF EXISTS app.{name}",
        f"CREATE TYPE app.{name} AS ENUM ('b', 'a')",
        f"CREATE TABLE app.named (id int PRIMARY KEY, odd app.{name})",
        "INSERT INTO app.named VALUES (1, 'b')",
        "GRANT SELECT ON app.named TO PUBLIC",
    )
    assert source.rows(lens_of("app.named", odd="text"), format, asked) == [{"id": 1, "odd": "b"}]


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_replaced_enum_is_read_again_at_once(source: Source, format: RowFormat, asked: Any) -> None:
    lens = lens_of("app.moods", mood="text")
    source.execute(
        "DROP TABLE IF EXISTS app.moods",
        "DROP TYPE IF EXISTS app.mood",
        "CREATE TYPE app.mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE app.moods (id int PRIMARY KEY, mood app.mood)",
        "INSERT INTO app.moods VALUES (1, 'ok')",
        "GRANT SELECT ON app.moods TO PUBLIC",
    )
    narrowed = None if asked is None else {**asked, "where": {"mood": {"$ne": "sad"}}}
    assert source.rows(lens, format, narrowed) == [{"id": 1, "mood": "ok"}]
    for new in ("new", "newer"):
        source.execute(
            "ALTER TYPE app.mood RENAME TO old_mood",
            "CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'new', 'newer')",
            "ALTER TABLE app.moods ALTER mood TYPE app.mood USING mood::text::app.mood",
            "DROP TYPE app.old_mood",
            f"UPDATE app.moods SET mood = '{new}'",
        )
        assert source.rows(lens, format, narrowed) == [{"id": 1, "mood": new}]


def test_a_text_that_cannot_be_decoded_is_the_failure_of_its_field(postgres: PostgresCluster, source: Source) -> None:
    async def made() -> str:
        connection = await asyncpg.connect(postgres.superuser_dsn())
        try:
            await connection.execute("DROP DATABASE IF EXISTS ascii WITH (FORCE)")
            await connection.execute(
                "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        finally:
            await connection.close()
        await postgres.execute(
            "CREATE TABLE t (id int PRIMARY KEY, good text, bad text); INSERT INTO t VALUES (1, 'x', E'caf\\xe9')",
            database="ascii",
        )
        return postgres.superuser_dsn("ascii")

    other = Source(source.database, source.loop)
    other.config = {"url": source.do(made())}
    try:
        failure = other.failure(lens_of("t", good="text", bad="text"))
        assert (failure.code, failure.details) == (
            ErrorCode.SOURCE_QUERY_FAILED,
            {"class": "undecodable", "field": "bad"},
        )
        assert other.rows(lens_of("t", good="text"), RowFormat.JSON, {"limit": 1}) == [{"id": 1, "good": "x"}]
    finally:
        source.do(other.library.close())


# --- whose fault ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_foreign_server_that_is_down_fails_the_statement(
    postgres: PostgresCluster, source: Source, format: RowFormat, asked: Any
) -> None:
    source.do(
        postgres.execute(
            "CREATE EXTENSION IF NOT EXISTS postgres_fdw; DROP SERVER IF EXISTS away CASCADE;"
            "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'x');"
            "CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (user 'x', password 'x');"
            "CREATE FOREIGN TABLE far (id int, name text) SERVER away; GRANT SELECT ON far TO PUBLIC",
            database=source.database.name,
        )
    )
    failure = source.failure(lens_of("far", name="text"), format, asked)
    assert (failure.code, failure.details["class"]) == (ErrorCode.SOURCE_QUERY_FAILED, "foreign_server")
    assert failure.details["sqlstate"] == "08001"


FAULTS = [
    (
        "stale",
        "CREATE MATERIALIZED VIEW {} AS SELECT 1 AS id, 'x' AS name WITH NO DATA",
        "not_ready",
        "never populated",
    ),
    (
        "setting",
        "CREATE VIEW {} AS SELECT 1 AS id, current_setting('app.tenant') AS name",
        "undefined_object",
        "setting",
    ),
    ("ratio", "CREATE VIEW {} AS SELECT id, (id / (id - 1))::text AS name FROM base", "division_by_zero", "by zero"),
    ("casts", "CREATE VIEW {} AS SELECT id, (name::int)::text AS name FROM base", "invalid_value", "converted to"),
    ("denied", "CREATE VIEW {} AS SELECT id, secret() AS name FROM base", "permission_denied", "function secret()"),
    ("raises", "CREATE VIEW {} AS SELECT id, raises('P0001') AS name FROM base", "raised", "raised an error"),
    ("conflict", "CREATE VIEW {} AS SELECT id, raises('40001') AS name FROM base", "serialization_failure", "conflict"),
    ("deadlock", "CREATE VIEW {} AS SELECT id, raises('40P01') AS name FROM base", "deadlock_detected", "deadlock"),
    ("locked", "CREATE VIEW {} AS SELECT id, raises('55P03') AS name FROM base", "lock_not_available", "lock"),
    ("writes", "CREATE VIEW {} AS SELECT id, nextval('numbers')::text AS name FROM base", "read_only", "read-only"),
    (
        "private",
        "CREATE TABLE {} (id int, name text); REVOKE ALL ON private FROM PUBLIC",
        "permission_denied",
        "may not read",
    ),
    (
        "many",
        "CREATE VIEW {} AS SELECT id, (SELECT name FROM base) AS name FROM base",
        "cardinality",
        "more than one row",
    ),
    ("large", "CREATE VIEW {} AS SELECT id, (2147483647 + id)::text AS name FROM base", "out_of_range", "range"),
]


@pytest.fixture(scope="module")
def faults(source: Source) -> Source:
    source.execute(
        "CREATE TABLE base (id int PRIMARY KEY, name text)",
        "INSERT INTO base VALUES (1, 'one'), (2, 'two')",
        "CREATE SEQUENCE numbers",
        "GRANT USAGE ON numbers TO PUBLIC",
        "CREATE FUNCTION secret() RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$",
        "REVOKE EXECUTE ON FUNCTION secret() FROM PUBLIC",
        "CREATE FUNCTION raises(state text) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'told' USING ERRCODE = state, TABLE = 'the_table', COLUMN = 'the_column'; END $$",
    )
    for name, made, *_ in FAULTS:
        source.execute(made.format(name))
        if name != "private":
            source.execute(f"GRANT SELECT ON {name} TO PUBLIC")
        else:
            source.execute(f"REVOKE ALL ON {name} FROM {source.database.reader_url.split('//')[1].split(':')[0]}")
    return source


@pytest.mark.parametrize(("format", "asked"), FORMS)
@pytest.mark.parametrize(("name", "_made", "cause", "words"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_of_the_database_is_explained(
    faults: Source, name: str, _made: str, cause: str, words: str, format: RowFormat, asked: Any
) -> None:
    failure = faults.failure(lens_of(name, name="text"), format, asked)
    assert (failure.code, failure.details["class"]) == (ErrorCode.SOURCE_QUERY_FAILED, cause)
    assert words in failure.message
    assert failure.hint
    assert "told" not in f"{failure.message}{failure.hint}{failure.details}"
    if cause in ("raised", "serialization_failure") and format is RowFormat.JSON:
        # ADBC hands on nothing but the SQLSTATE of what fails midway.
        assert failure.details["table"] == "the_table"
        assert failure.details["column"] == "the_column"
    is_repeatable = cause in ("serialization_failure", "deadlock_detected", "lock_not_available")
    assert failure.details.get("repeatable", False) is is_repeatable
    assert (failure.retry_after_seconds is not None) is is_repeatable


FATAL_STATES = frozenset({"57P01"})
"""Provoked by ending a backend, below: inside a statement such a state is that of a foreign server."""
OF_CLASSES = ["22999", "38000", "40002", "53100", "54001", "57000", "58030", "P0002", "XX001", "HV001", "08006"]


def test_every_state_means_what_the_reference_says(faults: Source) -> None:
    assert {state[:2] for state in OF_CLASSES} == set(CLASSES)
    for state in [*(each for each in STATES if each not in FATAL_STATES), *OF_CLASSES, "99999"]:
        faults.execute(
            f"CREATE OR REPLACE VIEW told AS SELECT 1 AS id, raises('{state}') AS name",
            "GRANT SELECT ON told TO PUBLIC",
        )
        failure = faults.failure(lens_of("told", name="text"))
        wanted = meaning(state)
        assert failure.code is wanted.code, state
        if failure.code is ErrorCode.CANCELLED:
            assert failure.details["reason"] == "by_database"
        elif wanted.cause != "invalid_text":
            assert failure.details["class"] == wanted.cause, state
        assert failure.details.get("repeatable", False) is wanted.is_repeatable, state
        assert failure.hint


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_renamed_column_is_named(source: Source, format: RowFormat, asked: Any) -> None:
    source.execute(
        "DROP TABLE IF EXISTS app.renamed",
        "CREATE TABLE app.renamed (id int PRIMARY KEY, name text)",
        "GRANT SELECT ON app.renamed TO PUBLIC",
    )
    lens = lens_of("app.renamed", name="text")
    assert source.rows(lens, format, asked) == []
    source.execute("ALTER TABLE app.renamed RENAME name TO title")
    failure = source.failure(lens, format, asked)
    assert failure.details["class"] == "undefined_column"
    assert (failure.details["column"], failure.details["table"]) == ("name", "app.renamed")
    assert "no column 'name'" in failure.message


def test_a_dropped_table_is_named(source: Source) -> None:
    failure = source.failure(lens_of("app.nowhere", name="text"))
    assert failure.details["class"] == "undefined_table"
    assert "app.nowhere" in failure.message


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$in"])
def test_a_value_that_an_enum_does_not_have_is_the_callers(source: Source, operator: str) -> None:
    source.execute(
        "DROP TABLE IF EXISTS app.parcels",
        "DROP TYPE IF EXISTS app.state",
        "CREATE TYPE app.state AS ENUM ('open', 'done')",
        "CREATE TABLE app.parcels (id int PRIMARY KEY, state app.state)",
        "GRANT SELECT ON app.parcels TO PUBLIC",
    )
    value = ["open", "nope"] if operator == "$in" else "nope"
    failure = source.failure(lens_of("app.parcels", state="text"), asked={"where": {"state": {operator: value}}})
    assert (failure.details["class"], failure.details["field"]) == ("invalid_value", "state")
    assert failure.hint == "Allowed values: open, done."


# --- repeats and cancels --------------------------------------------------------------------------------------------------


async def backends(source: Source, count: int = 1) -> list[int]:
    """The backends of the source's login that execute a slow statement."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        rows = await source.database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND query LIKE '%slow%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'"
        )
        if len(rows) >= count:
            return [row["pid"] for row in rows]
        await asyncio.sleep(0.02)
    raise AssertionError("nothing executes")


@pytest.fixture(scope="module")
def slow(source: Source) -> Source:
    source.execute(
        "CREATE VIEW slow AS SELECT 1 AS id, pg_sleep(0.6)::text AS name",
        "CREATE TABLE unlucky (pid int)",
        "CREATE FUNCTION lucky() RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$ BEGIN"
        " IF EXISTS (SELECT FROM unlucky WHERE pid = pg_backend_pid()) THEN"
        " RAISE EXCEPTION 'told' USING ERRCODE = '40001'; END IF; RETURN 'fine'; END $$",
        "CREATE VIEW often AS SELECT 1 AS id, lucky() AS name",
        "GRANT SELECT ON slow, often TO PUBLIC",
    )
    return source


async def end_first(source: Source, how: str, work: Coroutine[Any, Any, bytes]) -> bytes:
    task = asyncio.ensure_future(work)
    try:
        (pid, *_) = await backends(source)
        connection = await asyncpg.connect(source.database.cluster.superuser_dsn(source.database.name))
        try:
            await connection.fetchval(f"SELECT {how}({pid})")
        finally:
            await connection.close()
    except BaseException:
        task.cancel()
        raise
    return await task


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_backend_that_an_administrator_ends_costs_nothing(slow: Source, format: RowFormat, asked: Any) -> None:
    lens = lens_of("slow", name="text")
    assert slow.do(end_first(slow, "pg_terminate_backend", slow.read(lens, format, asked)))


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_nothing_is_repeated_where_the_lens_forbids_it(slow: Source, format: RowFormat, asked: Any) -> None:
    work = slow.read(lens_of("slow", name="text"), format, asked, may_repeat=False)
    with pytest.raises(LenswayError) as caught:
        slow.do(end_first(slow, "pg_terminate_backend", work))
    assert caught.value.failure.code is ErrorCode.SOURCE_UNREACHABLE


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_cancel_by_an_administrator_is_told_as_such(slow: Source, format: RowFormat, asked: Any) -> None:
    with pytest.raises(LenswayError) as caught:
        slow.do(end_first(slow, "pg_cancel_backend", slow.read(lens_of("slow", name="text"), format, asked)))
    failure = caught.value.failure
    assert (failure.code, failure.details["reason"]) == (ErrorCode.CANCELLED, "by_database")
    assert "administrator" in failure.message


@pytest.mark.parametrize(("format", "asked"), FORMS)
def test_a_late_statement_is_a_timeout(slow: Source, format: RowFormat, asked: Any) -> None:
    failure = slow.failure(lens_of("slow", name="text"), format, asked, seconds=0.3)
    assert (failure.code, dict(failure.details)) == (ErrorCode.QUERY_TIMEOUT, {})


@pytest.mark.parametrize(("format", "asked"), FORMS)
@pytest.mark.parametrize("may_repeat", [True, False])
def test_a_conflict_is_repeated_once_where_the_lens_allows_it(
    slow: Source, format: RowFormat, asked: Any, may_repeat: bool
) -> None:
    lens = lens_of("often", name="text")
    slow.execute("DELETE FROM unlucky")
    assert slow.do(slow.read(lens, format, asked))
    slow.execute(
        "INSERT INTO unlucky SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    work = slow.read(lens, format, asked, may_repeat=may_repeat)
    if may_repeat:
        assert b"fine" in slow.do(work)
    else:
        with pytest.raises(LenswayError) as caught:
            slow.do(work)
        assert caught.value.failure.details["class"] == "serialization_failure"
        assert caught.value.failure.details["repeatable"] is True
    slow.execute("DELETE FROM unlucky")


@pytest.mark.parametrize(("format", "asked"), FORMS)
@pytest.mark.parametrize("pooler", ["auto", "transaction"])
def test_the_logins_own_timeout_holds_where_it_is_stricter(
    postgres: PostgresCluster, slow: Source, pooler: str, format: RowFormat, asked: Any
) -> None:
    role = f"hasty_{pooler}"
    slow.do(
        postgres.execute(
            f"DO $$ BEGIN CREATE ROLE {role} LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
            f"ALTER ROLE {role} SET statement_timeout = '200ms'"
        )
    )
    other = Source(slow.database, slow.loop)
    other.config = {"url": postgres.url(role, "x", slow.database.name), "pooler": pooler}
    try:
        failure = other.failure(lens_of("slow", name="text"), format, asked)
        assert failure.code is ErrorCode.QUERY_TIMEOUT
        assert failure.details["statementTimeoutMs"] == 200
        late = other.failure(lens_of("slow", name="text"), format, asked, seconds=0.1)
        assert "statementTimeoutMs" not in late.details
    finally:
        slow.do(other.library.close())
