"""No statement leaves anything behind in a pooled session, whatever the database's owner puts in the place of a table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable

import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.postgres.bridge import PostgresBridge, PostgresSource
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.postgres import Database

LEAVE = """
CREATE FUNCTION leave() RETURNS text LANGUAGE plpgsql {volatility} AS $$ BEGIN
  PERFORM set_config('default_transaction_read_only', 'off', false), set_config('statement_timeout', '0', false),
    set_config('search_path', 'elsewhere', false), set_config('lensway.left', 'behind', false), pg_advisory_lock(77);
  RETURN 'left'; END $$
"""
LEFT = """
SELECT current_setting('default_transaction_read_only') = 'on' AS read_only, current_setting('search_path') AS path,
  coalesce(current_setting('lensway.left', true), '') AS custom,
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
  (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) AS prepared
"""
KEPT = (True, '"$user", public', "", 0, 0)


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def definition(table: str, mark: str = "text", **more: str) -> LensDefinition:
    fields = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    for name, type in {"s": mark, **more}.items():
        fields[name] = Field(name=name, column=name, type=FieldType(type))
    return LensDefinition(name="lens", table=table, fields=fields)


async def read(
    source: PostgresSource, table: str, *, format: str = "json", export: bool = False, mark: str = "text", **request
) -> bytes:
    lens, asked = definition(table, mark), QueryRequest(**({} if export else {"limit": 5, **request}))
    if export:
        plan = plan_export(lens, asked, capabilities_of("postgres"))
    else:
        plan = plan_rows(lens, asked, capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e").plan
    sink = Sink()
    await source.run(
        plan,
        Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat(format),
            limits=ResultLimits(rows_max=10**6, bytes_max=10**8, row_bytes_max=10**6),
            tag="test/1",
            is_export=export,
        ),
        sink,
    )
    return sink.data


async def sessions(source: PostgresSource) -> list[tuple]:
    """What the next statement would find in each pooled session that is idle."""
    found = []
    for pool in (source._queries, source._exports):
        for connection in list(pool._idle):
            found.append(tuple((await connection.driver.fetchrow(LEFT)).values()))
            assert connection.timeout_seconds == 0 or await connection.driver.fetchval("SHOW statement_timeout") == (
                f"{connection.timeout_seconds}s"
            )
    return found


def on_source(database: Database, work: Callable[[PostgresSource], Awaitable[None]]) -> None:
    async def run() -> None:
        source = await PostgresBridge().open({"url": database.reader_url}, policy=AddressPolicy())
        try:
            await work(source)
        finally:
            await source.close()

    asyncio.run(run())


@pytest.fixture
def hostile(database: Database) -> Database:
    """A database whose owner makes reading tables do more than reading."""
    asyncio.run(
        database.execute(
            LEAVE.format(volatility="VOLATILE"),
            LEAVE.replace("leave()", "leave_early()").format(volatility="IMMUTABLE"),
            "CREATE SEQUENCE counter",
            "GRANT ALL ON SEQUENCE counter TO PUBLIC",
            "CREATE SCHEMA elsewhere",
            "CREATE TABLE plain AS SELECT 1::bigint AS id, 'fine'::text AS s",
            "CREATE VIEW leaving AS SELECT 1::bigint AS id, leave() AS s",
            "CREATE VIEW leaving_early AS SELECT 1::bigint AS id, leave_early() AS s",
            "CREATE VIEW writing AS SELECT 1::bigint AS id, nextval('counter')::text AS s",
        )
    )
    return database


# --- every way to run a function while reading ---------------------------------------------------------------------------------

HOSTILE_TABLES = {
    "view": "CREATE VIEW t AS SELECT 1::bigint AS id, leave() AS s",
    "view that PostgreSQL evaluates while planning": "CREATE VIEW t AS SELECT 1::bigint AS id, leave_early() AS s",
    "view over a view": "CREATE VIEW t AS SELECT * FROM leaving",
    "row security": "CREATE TABLE t AS SELECT 1::bigint AS id, 's'::text AS s; ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON t USING (leave() = 'left')",
    "row security of a partition's parent": "CREATE TABLE t (id bigint, s text) PARTITION BY LIST (id);"
    "CREATE TABLE t1 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1, 's'); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON t USING (leave() = 'left')",
    "domain over a check": "CREATE DOMAIN d AS text CHECK (value <> leave()); CREATE TABLE t (id bigint, s d);"
    "INSERT INTO t VALUES (1, 's')",
    "operator of the owner": "CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE sql"
    " AS $$ SELECT leave() = 'left' $$; CREATE OPERATOR = (leftarg = varchar, rightarg = varchar, function = same);"
    "CREATE TABLE t (id bigint, s varchar); INSERT INTO t VALUES (1, 's')",
    "index predicate that is evaluated while planning": "CREATE TABLE t (id bigint, s text); INSERT INTO t VALUES (1, 's');"
    "CREATE INDEX ON t (id) WHERE leave_early() = 'left'",
    "inheriting view of rules": "CREATE TABLE t (id bigint, s text);"
    """CREATE RULE "_RETURN" AS ON SELECT TO t DO INSTEAD SELECT 1::bigint AS id, leave() AS s""",
    "foreign table": "CREATE EXTENSION postgres_fdw; CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw;"
    "CREATE FOREIGN TABLE t (id bigint, s text) SERVER here OPTIONS (table_name 'leaving')",
    "foreign child": "CREATE EXTENSION postgres_fdw; CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw;"
    "CREATE TABLE t (id bigint, s text); CREATE FOREIGN TABLE f () INHERITS (t) SERVER here OPTIONS (table_name 'leaving')",
}


@pytest.mark.parametrize("made", HOSTILE_TABLES.values(), ids=HOSTILE_TABLES)
def test_no_way_to_run_a_function_leaves_anything_in_the_session(hostile: Database, made: str) -> None:
    asyncio.run(hostile.execute(made, "RESET default_transaction_read_only"))

    async def work(source: PostgresSource) -> None:
        for request in ({}, {"where": {"s": "s"}}, {"total": True}, {"offset": 1}, {"limit": 2_000}):
            # A foreign server without a login fails; nothing may stay behind that either.
            with contextlib.suppress(LenswayError):
                await read(source, "public.t", **request)
            await read(source, "public.plain")
            assert set(await sessions(source)) == {KEPT}
        with contextlib.suppress(LenswayError):
            await read(source, "public.t", export=True, format="json")
        assert set(await sessions(source)) == {KEPT}
        for format in ("json", "arrow"):
            with pytest.raises(LenswayError) as refused:
                await read(source, "public.writing", format=format)
            assert refused.value.failure.details["class"] == "read_only"

    on_source(hostile, work)


REPLACE = """
CREATE FUNCTION replace_statements() RETURNS text LANGUAGE plpgsql AS $$ DECLARE each record; BEGIN
  FOR each IN SELECT name FROM pg_prepared_statements LOOP
    EXECUTE format('DEALLOCATE %I', each.name);
    EXECUTE format('PREPARE %I AS SELECT 1::bigint AS id, ''wrong''::text AS s', each.name);
  END LOOP;
  IF {fails} THEN RAISE division_by_zero; END IF;
  RETURN 'replaced'; END $$
"""


@pytest.mark.parametrize("fails", ["false", "true"])
@pytest.mark.parametrize("format", ["json", "arrow"])
def test_a_view_cannot_put_statements_in_the_place_of_ours(hostile: Database, format: str, fails: str) -> None:
    view = "CREATE VIEW replacing AS SELECT 1::bigint AS id, replace_statements() AS s"
    asyncio.run(hostile.execute(REPLACE.format(fails=fails), view))
    prepare = "EXECUTE 'PREPARE p' || floor(random() * 1e9)::bigint || ' AS SELECT 1'"
    asyncio.run(
        hostile.execute(
            f"CREATE FUNCTION prepare() RETURNS text LANGUAGE plpgsql AS $$ BEGIN {prepare}; RETURN 'p'; END $$",
            "CREATE VIEW preparing AS SELECT 1::bigint AS id, prepare() AS s",
        )
    )

    async def work(source: PostgresSource) -> None:
        for _ in range(3):
            assert b"fine" in await read(source, "plain", format=format)
            with contextlib.suppress(LenswayError):
                await read(source, "replacing", format=format)
                assert fails == "false"
            assert b"fine" in await read(source, "plain", format=format)
            assert json.loads(await read(source, "plain", total=True))["s"] == "fine"
            await read(source, "preparing", format=format, total=True)
            assert set(await sessions(source)) <= {KEPT}
            await read(source, "preparing", format="ndjson", export=True)

    on_source(hostile, work)


@pytest.mark.parametrize("turn", ["default_transaction_read_only", "transaction_read_only"])
@pytest.mark.parametrize("format", ["json", "arrow"])
def test_a_statement_cannot_write_after_turning_protection_off_itself(
    hostile: Database, turn: str, format: str
) -> None:
    view = f"CREATE VIEW turning AS SELECT 1::bigint AS id, set_config('{turn}', 'off', false) || nextval('counter')::text AS s"
    asyncio.run(hostile.execute(view))

    async def work(source: PostgresSource) -> None:
        for export in (False, True):
            with pytest.raises(LenswayError) as refused:
                await read(source, "turning", format=format, export=export)
            assert refused.value.code is ErrorCode.SOURCE_QUERY_FAILED
        assert (await hostile.fetch("SELECT is_called FROM counter"))[0][0] is False

    on_source(hostile, work)


def test_what_a_foreign_server_writes_for_a_page_is_undone(hostile: Database) -> None:
    server = urllib.parse.urlsplit(hostile.owner_url)
    where = f"host '{server.hostname}', port '{server.port}', dbname '{hostile.name}'"
    who = f"user '{server.username}', password '{urllib.parse.unquote(server.password)}'"
    asyncio.run(
        hostile.execute(
            "CREATE TABLE written (at timestamptz)",
            "CREATE FUNCTION write() RETURNS text LANGUAGE sql AS"
            " $$ INSERT INTO public.written VALUES (now()); SELECT count(*)::text FROM public.written $$",
            "CREATE VIEW far_writing AS SELECT 1::bigint AS id, write() AS s",
            "CREATE EXTENSION postgres_fdw",
            f"CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({where})",
            f"CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS ({who})",
            "CREATE FOREIGN TABLE t (id bigint, s text) SERVER far OPTIONS (table_name 'far_writing')",
        )
    )

    async def work(source: PostgresSource) -> None:
        for format in ("json", "arrow", "ndjson"):
            assert await read(source, "t", format=format, export=format == "ndjson")
        assert await hostile.fetch("SELECT * FROM written") == []

    on_source(hostile, work)


# --- a table that was judged plain becomes something else -----------------------------------------------------------------------

CHANGES = {
    "replaced by a view": "DROP TABLE t; CREATE VIEW t AS SELECT 1::bigint AS id, leave() AS s",
    "replaced by a view evaluated while planning": "DROP TABLE t; CREATE VIEW t AS SELECT 1::bigint AS id, leave_early() AS s",
    "renamed, and a view in its place": "ALTER TABLE t RENAME TO old; CREATE VIEW t AS SELECT 1::bigint AS id, leave() AS s",
    "made a view by a rule": 'DELETE FROM t; ALTER TABLE t ALTER id DROP NOT NULL; CREATE RULE "_RETURN" AS ON SELECT TO t'
    " DO INSTEAD SELECT 1::bigint AS id, leave() AS s",
    "row security": "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (leave() = 'left')",
    "a child with row security": "CREATE TABLE c () INHERITS (t)",
    "another type": "CREATE DOMAIN d AS text CHECK (value <> leave()); ALTER TABLE t ALTER s TYPE d",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("config", [{}, {"total": True}, {"offset": 0}], ids=["page", "total", "offset"])
def test_a_table_that_becomes_something_else_is_noticed_by_its_next_page(
    hostile: Database, change: str, config: dict
) -> None:
    asyncio.run(hostile.execute("CREATE TABLE t AS SELECT 1::bigint AS id, 's'::text AS s"))

    async def work(source: PostgresSource) -> None:
        for _ in range(7):  # beyond five, PostgreSQL keeps a plan
            assert json.loads(await read(source, "t", **config)) == {"id": 1, "s": "s"}
        await hostile.execute(change)
        for _ in range(3):
            got = json.loads(await read(source, "t", **config))
            assert got == {"id": 1, "s": "left" if "VIEW" in change or "RULE" in change else "s"}
            assert set(await sessions(source)) == {KEPT}
        with pytest.raises(LenswayError) as refused:
            await read(source, "writing")
        assert refused.value.failure.details["class"] == "read_only"

    on_source(hostile, work)


def test_a_table_that_is_written_anew_is_read_on_without_an_error(hostile: Database) -> None:
    async def work(source: PostgresSource) -> None:
        for number in range(4):
            await hostile.execute("TRUNCATE plain", f"INSERT INTO plain VALUES ({number}, 'n')", "VACUUM FULL plain")
            for _ in range(2):
                assert json.loads(await read(source, "plain", total=True))["id"] == number
        await hostile.execute("VACUUM ANALYZE plain", "CREATE INDEX ON plain (id)")
        assert len(source._queries._idle) == 1

    on_source(hostile, work)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE INDEX ON t (id) WHERE leave_early() = 'left'",
        "CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE sql AS $$ SELECT leave() = 'left' $$;"
        "CREATE OPERATOR = (leftarg = varchar, rightarg = varchar, function = same); ALTER TABLE t SET (fillfactor = 90);"
        "ANALYZE t",
    ],
    ids=["index", "operator"],
)
def test_a_session_that_lost_its_protection_is_not_used_again(hostile: Database, made: str) -> None:
    asyncio.run(hostile.execute("CREATE TABLE t AS SELECT 1::bigint AS id, 's'::varchar AS s"))

    async def work(source: PostgresSource) -> None:
        for _ in range(7):
            await read(source, "t", where={"s": "s"})
        await hostile.execute(made)
        for _ in range(2):
            await read(source, "t", where={"s": "s"})
            assert set(await sessions(source)) <= {KEPT}
        with pytest.raises(LenswayError) as refused:
            await read(source, "writing")
        assert refused.value.failure.details["class"] == "read_only"

    on_source(hostile, work)


# --- the short path ---------------------------------------------------------------------------------------------------------

PLAIN = {
    "table": "CREATE TABLE t (id bigint PRIMARY KEY, s text, CHECK (id > 0))",
    "table with defaults and a trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RETURN new; END $$;"
    "CREATE TABLE t (id bigint DEFAULT nextval('counter'), s text DEFAULT leave());"
    "CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "enum": "CREATE TYPE mood AS ENUM ('s'); CREATE TABLE t (id bigint, s mood, more mood[])",
    "materialized view": "CREATE MATERIALIZED VIEW t AS SELECT 1::bigint AS id, leave() AS s",
    "index on expressions": "CREATE TABLE t (id bigint, s text); CREATE INDEX ON t (lower(s)) WHERE id > 3",
    "trigrams": "CREATE EXTENSION pg_trgm; CREATE TABLE t (id bigint, s text); CREATE INDEX ON t USING gin (s gin_trgm_ops)",
    "references": "CREATE TABLE r (id bigint PRIMARY KEY); CREATE TABLE t (id bigint REFERENCES r, s text)",
}


@pytest.mark.parametrize("made", PLAIN.values(), ids=PLAIN)
def test_plain_tables_are_read_by_one_statement_without_a_transaction(hostile: Database, made: str) -> None:
    asyncio.run(hostile.execute(made))

    async def work(source: PostgresSource) -> None:
        await read(source, "t")
        (connection,) = source._queries._idle
        begun = "SELECT query FROM pg_stat_activity WHERE pid = $1"
        (last,) = await hostile.fetch(begun, connection.driver.get_server_pid())
        assert last["query"].startswith("SELECT ")
        await read(source, "leaving")
        (last,) = await hostile.fetch(begun, connection.driver.get_server_pid())
        assert last["query"].startswith("ROLLBACK")

    on_source(hostile, work)
