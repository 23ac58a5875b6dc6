"""Behind a real PgBouncer: the right rows, nothing left behind for other clients, and a connection test that says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import time
import urllib.parse
from collections.abc import Iterator

import asyncpg
import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary, encode_probes
from lensway.bridges.postgres.bridge import PostgresBridge
from lensway.bridges.postgres.settings import read_settings
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database, let_pass
from lensway.testing.pgbouncer import pgbouncer_before, through
from lensway.testing.postgres import SUPERUSER, Database, PostgresCluster

ROWS = 3_000


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def lens(table: str) -> LensDefinition:
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "s": Field(name="s", column="s", type=FieldType.TEXT, is_list=table == "lists"),
    }
    return LensDefinition(name=table, table=table, fields=fields)


class Caller:
    """One process that reads through the pooler; each has an execution library of its own."""

    def __init__(self, url: str, **config: str) -> None:
        self.library = ExecutionLibrary(AddressPolicy())
        self.config = {"url": url, **config}

    async def ask(
        self, kind: str, payload: bytes = b"", *, format: RowFormat = RowFormat.JSON, seconds: float = 30.0
    ) -> tuple[bytes, ResultEnd]:
        sink = Sink()
        end = await self.library.perform(
            "key",
            "postgres",
            self.config,
            kind=kind,
            payload=payload,
            execution=Execution(
                deadline=time.monotonic() + seconds,
                format=format,
                limits=ResultLimits(rows_max=10**6, bytes_max=10**8, row_bytes_max=10**6),
                tag="test/1",
                is_export=kind == "export",
            ),
            sink=sink,
        )
        return sink.data, end

    async def page(
        self, table: str, *, format: str = "json", seconds: float = 30.0, **request
    ) -> tuple[bytes, ResultEnd]:
        asked = QueryRequest(**{"limit": 3, **request})
        plan = plan_rows(lens(table), asked, capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e").plan
        return await self.ask("rows", plan.encode(), format=RowFormat(format), seconds=seconds)

    async def rows(self, table: str, **request) -> list[dict]:
        return json.loads(b"[" + (await self.page(table, **request))[0] + b"]")

    async def export(self, table: str, format: str) -> bytes:
        plan = plan_export(lens(table), ExportRequest(), capabilities_of("postgres"))
        return (await self.ask("export", plan.encode(), format=RowFormat(format)))[0]

    async def document(self, kind: str, payload: bytes = b"") -> dict:
        return json.loads((await self.ask(kind, payload, format=RowFormat.DOCUMENT))[0])

    async def test(self, *tables: str) -> dict:
        plans = [plan_probe(lens(table)).encode() for table in tables]
        return await self.document("test", encode_probes(plans))

    async def close(self) -> None:
        await self.library.close()


@pytest.fixture(scope="module")
def shop(postgres: PostgresCluster) -> Database:
    """Two tables whose rows tell which they are of, a view that sleeps, and what a hostile owner would make."""
    found = asyncio.run(fresh_database(postgres))
    statements = [
        f"CREATE TABLE {name} AS SELECT i::bigint AS id, '{name}-' || i AS s FROM generate_series(1, {ROWS}) i"
        for name in ("ta", "tb")
    ]
    statements += [
        "CREATE TYPE mood AS ENUM ('fine')",
        "CREATE TABLE moods (id bigint PRIMARY KEY, s mood)",
        "INSERT INTO moods VALUES (1, 'fine')",
        "CREATE TABLE lists AS SELECT i::bigint AS id, ARRAY['lists-' || i] AS s FROM generate_series(1, 2500) i",
        "CREATE VIEW slow AS SELECT 1::bigint AS id, pg_sleep(600)::text AS s",
        "CREATE SEQUENCE counter",
        "CREATE FUNCTION leave() RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('default_transaction_read_only', 'off', false), set_config('statement_timeout', '0', false),"
        " set_config('search_path', 'pg_temp', false), set_config('lensway.left', 'behind', false),"
        " pg_advisory_lock(77); EXECUTE 'PREPARE \"left ' || md5(random()::text) || '\" AS SELECT 1'; RETURN 'left'; END $$",
        "CREATE VIEW failing AS SELECT 1::bigint AS id, (length(leave()) / 0)::text AS s",
        "CREATE VIEW leaving AS SELECT 1::bigint AS id, leave() AS s",
        "CREATE VIEW writing AS SELECT 1::bigint AS id, nextval('counter')::text AS s",
        "GRANT ALL ON SEQUENCE counter TO PUBLIC",
    ]
    asyncio.run(found.execute(*statements))
    return found


def pooled(shop: Database, directory: pathlib.Path, mode: str, size: int = 2) -> Iterator[int]:
    let_pass(directory)
    reader = urllib.parse.urlsplit(shop.reader_url).username
    owner = urllib.parse.urlsplit(shop.owner_url)
    logins = {reader: shop.reader_password, SUPERUSER: urllib.parse.unquote(owner.password)}
    with pgbouncer_before(shop.cluster, directory, pool_mode=mode, logins=logins, pool_size=size) as port:
        yield port


@pytest.fixture(params=["transaction", "session"])
def pool(request: pytest.FixtureRequest, shop: Database, tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The pool mode, and the reader's URL through a PgBouncer."""
    for port in pooled(shop, tmp_path, request.param, 2 if request.param == "transaction" else 20):
        yield request.param, through(shop.reader_url, port)


@pytest.fixture
def transactions(shop: Database, tmp_path: pathlib.Path) -> Iterator[str]:
    """The reader's URL through a PgBouncer with two server connections for transactions."""
    for port in pooled(shop, tmp_path, "transaction"):
        yield through(shop.reader_url, port)


def test_pages_of_two_lenses_through_two_server_connections_are_never_mixed_up(pool: tuple[str, str]) -> None:
    async def run() -> int:
        callers = [Caller(pool[1]) for _ in range(2)]

        async def alternate(caller: Caller, times: int) -> int:
            right = 0
            for number in range(times):
                table = ("ta", "tb")[number % 2]
                got = await caller.rows(table)
                assert [row["s"] for row in got] == [f"{table}-{each}" for each in (1, 2, 3)]
                right += 1
            return right

        async def export(caller: Caller) -> int:
            for table, format in (("ta", "ndjson"), ("tb", "csv")):
                lines = (await caller.export(table, format)).splitlines()
                assert sum(table.encode() in line for line in lines) == ROWS
            return 1

        found = await asyncio.gather(
            *(alternate(caller, 60) for caller in callers for _ in range(4)), *(export(caller) for caller in callers)
        )
        for caller in callers:
            await caller.close()
        return sum(found)

    assert asyncio.run(run()) == 8 * 60 + 2


SETTINGS = (
    "default_transaction_read_only", "statement_timeout", "timezone", "datestyle", "intervalstyle", "jit",
    "extra_float_digits", "bytea_output", "search_path", "application_name", "idle_in_transaction_session_timeout",
    "client_connection_check_interval", "lensway.left",
)  # fmt: skip


async def shown(url: str) -> list[tuple]:
    """What another client of the pool sees in each of its two server connections: settings, locks and statement names."""
    first, second = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(2)]
    # A name that a rolled back transaction has made up stays known, without a value.
    wanted = ", ".join(
        f"nullif(current_setting('{name}', true), '') AS s{number}" for number, name in enumerate(SETTINGS)
    )
    found = []
    try:
        async with first.transaction(), second.transaction():
            for each in (first, second):
                settings = await each.fetchrow(f"SELECT {wanted}")
                locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                names = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
                found.append((*settings.values(), await each.fetchval(locks), await each.fetchval(names)))
    finally:
        await first.close()
        await second.close()
    return found


@pytest.mark.parametrize("config", [{}, {"pooler": "transaction"}, {"statement_tags": "on"}], ids=str)
def test_nothing_reaches_another_client_of_the_pool(transactions: str, shop: Database, config: dict) -> None:
    async def run() -> None:
        before = await shown(shop.reader_url)
        caller = Caller(transactions, **config)
        reads = [caller.rows(table) for table in ("ta", "tb", "moods", "leaving") for _ in range(4)]
        got = await asyncio.gather(*reads)
        assert got[-1] == [{"id": 1, "s": "left"}]
        assert (await caller.page("ta", limit=2_000))[1].rows == 2_000
        for table in ("ta", "leaving"):
            await caller.page(table, format="arrow")
            for format in ("json", "ndjson", "csv", "arrow", "parquet"):
                assert await caller.export(table, format)
        await caller.document("tables")
        await caller.test("ta", "leaving")
        for format in ("json", "arrow"):
            with pytest.raises(LenswayError) as refused:
                await caller.page("writing", format=format)
            assert refused.value.code is ErrorCode.SOURCE_QUERY_FAILED
            assert refused.value.failure.details["class"] == "read_only"
        with pytest.raises(LenswayError):
            await caller.page("failing")
        for format in ("json", "arrow"):
            with pytest.raises(LenswayError) as late:
                await caller.page("slow", seconds=0.2, format=format)
            assert late.value.code is ErrorCode.QUERY_TIMEOUT
        await caller.close()
        assert await shown(transactions) == before

    asyncio.run(run())


def test_settings_that_other_clients_leave_in_the_pool_change_no_row(transactions: str, shop: Database) -> None:
    async def run() -> None:
        await shop.execute(
            "CREATE SCHEMA elsewhere",
            "CREATE TABLE elsewhere.ta AS SELECT 1::bigint AS id, 'wrong'::text AS s",
            "GRANT USAGE ON SCHEMA elsewhere TO PUBLIC",
            "GRANT SELECT ON elsewhere.ta TO PUBLIC",
        )
        others = [await asyncpg.connect(transactions, statement_cache_size=0) for _ in range(2)]
        async with others[0].transaction(), others[1].transaction():
            for other in others:
                await other.execute("SET search_path = elsewhere; SET array_nulls = off")
        caller = Caller(transactions)
        for format in ("json", "arrow"):
            assert b"wrong" not in (await caller.page("ta", format=format))[0]
        assert (await caller.rows("ta"))[0]["s"] == "ta-1"
        assert b"wrong" not in await caller.export("ta", "ndjson")
        for other in others:
            await other.close()
        await caller.close()

    asyncio.run(run())


def test_a_lock_of_another_client_of_the_pool_is_not_released(shop: Database, tmp_path: pathlib.Path) -> None:
    async def run(url: str) -> None:
        other = await asyncpg.connect(url, statement_cache_size=0)
        await other.fetchval("SELECT pg_advisory_lock(5)")
        caller = Caller(url)
        assert await caller.rows("leaving")
        assert await caller.export("leaving", "ndjson")
        held = "SELECT array_agg(objid::int) FROM pg_locks WHERE locktype = 'advisory'"
        assert 5 in (await shop.fetch(held))[0][0]
        await other.close()
        await caller.close()

    for port in pooled(shop, tmp_path, "transaction", size=1):
        asyncio.run(run(through(shop.reader_url, port)))


def test_every_kind_of_work_gives_what_it_gives_without_a_pooler(pool: tuple[str, str], shop: Database) -> None:
    async def work(caller: Caller) -> list[object]:
        count = plan_count(lens("ta"), {"id": {"$gt": 7}}, capabilities_of("postgres"))
        found: list[object] = [
            *[await caller.page("ta", format=format, total=True) for format in ("json", "ndjson", "csv", "arrow")],
            await caller.page("ta", limit=2_500, offset=100),
            await caller.page("moods", where={"s": {"$like": "f%"}}),
            await caller.export("lists", "ndjson"),  # by cursor
            *[await caller.export("tb", format) for format in ("json", "ndjson", "csv", "arrow", "parquet")],
            await caller.ask("rows", count.encode()),
            await caller.document("tables"),
            await caller.document("table", b"public.ta"),
            await probed(caller.config),
        ]
        await caller.close()
        return found

    async def run() -> tuple[list[object], list[object]]:
        return await work(Caller(pool[1])), await work(Caller(shop.reader_url))

    behind, direct = asyncio.run(run())
    assert behind == direct


async def probed(config: dict[str, str]) -> None:
    source = await PostgresBridge().open(config, policy=AddressPolicy())
    for _ in range(2):
        await source.probe(deadline=time.monotonic() + 20)
    await source.close()


@pytest.mark.parametrize("format", ["json", "arrow"])
def test_a_cancelled_page_is_gone_from_the_database_at_once(transactions: str, shop: Database, format: str) -> None:
    async def run() -> float:
        caller = Caller(transactions)
        await caller.page("ta", format=format)
        running = asyncio.ensure_future(caller.page("slow", format=format))
        working = "SELECT count(*) FROM pg_stat_activity"
        working += " WHERE state = 'active' AND query LIKE '%slow%' AND pid <> pg_backend_pid()"
        looking = await asyncpg.connect(shop.owner_url)
        while not await looking.fetchval(working):
            assert not running.done(), running.exception()
        at = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while await looking.fetchval(working):
            assert time.monotonic() - at < 20
        took = time.monotonic() - at
        assert (await caller.rows("ta"))[0]["s"] == "ta-1"
        await looking.close()
        await caller.close()
        return took

    # The bound for an idle machine is 0.25 s.
    assert asyncio.run(run()) < 5.0


def test_the_connection_test_names_the_pooler(pool: tuple[str, str], shop: Database) -> None:
    async def run() -> None:
        caller = Caller(pool[1])
        report = await caller.test("ta", "tb", "leaving")
        assert report["ok"], report
        assert "transaction_pooling" in {each["code"] for each in report["warnings"]}
        await caller.close()
        direct = Caller(shop.reader_url)
        report = await direct.test("ta", "leaving")
        assert report["ok"]
        assert "transaction_pooling" not in {each["code"] for each in report["warnings"]}
        await direct.close()

    asyncio.run(run())


def test_session_pooling_can_be_declared(shop: Database, tmp_path: pathlib.Path) -> None:
    async def run(url: str) -> None:
        before = await shown(shop.reader_url)
        caller = Caller(url, pooler="session")
        report = await caller.test("ta")
        assert report["ok"]
        assert "transaction_pooling" not in {each["code"] for each in report["warnings"]}
        for table in ("ta", "leaving", "ta"):
            assert await caller.rows(table)
        assert b"tb-7" in await caller.export("tb", "ndjson")
        await caller.close()
        assert await shown(url) == before

    for port in pooled(shop, tmp_path, "session"):
        asyncio.run(run(through(shop.reader_url, port)))


def test_session_pooling_declared_before_a_transaction_pool_gives_no_wrong_row(transactions: str) -> None:
    async def run() -> None:
        callers = [Caller(transactions, pooler="session") for _ in range(2)]

        async def alternate(caller: Caller) -> None:
            for number in range(60):
                table = ("ta", "tb")[number % 2]
                with contextlib.suppress(LenswayError):  # until a name that was lost shows the pooler
                    got = await caller.rows(table)
                    assert [row["s"] for row in got] == [f"{table}-{each}" for each in (1, 2, 3)]
            assert (await caller.rows("ta"))[0]["s"] == "ta-1"

        await asyncio.gather(*(alternate(caller) for caller in callers for _ in range(4)))
        for caller in callers:
            await caller.close()

    asyncio.run(run())


def test_statement_pooling_is_refused_at_the_login_with_what_to_do(shop: Database, tmp_path: pathlib.Path) -> None:
    async def run(url: str) -> None:
        caller = Caller(url)
        for format in ("json", "arrow"):
            with pytest.raises(LenswayError) as refused:
                await caller.page("ta", format=format)
            assert refused.value.code is ErrorCode.SOURCE_UNREACHABLE
            assert refused.value.failure.details["class"] == "no_transactions"
            assert "pool_mode" in refused.value.failure.hint
        report = await caller.test("ta")
        login = next(each for each in report["stages"] if each["stage"] == "login")
        assert login["error"] == "no_transactions"
        await caller.close()

    for port in pooled(shop, tmp_path, "statement"):
        asyncio.run(run(through(shop.reader_url, port)))


@pytest.mark.parametrize("url", ["postgresql://u@h/d?pgbouncer=true", "postgresql://u@h/d?sslmode=require&pgbouncer=x"])
def test_the_option_of_other_products_is_refused_and_names_ours(url: str) -> None:
    with pytest.raises(LenswayError) as refused:
        read_settings({"url": url})
    assert "pgbouncer" in str(refused.value)
    assert 'pooler = "transaction"' in refused.value.failure.hint


@pytest.mark.parametrize("mode", ["statement", "Transaction", "on", "none"])
def test_other_values_of_pooler_are_refused(mode: str) -> None:
    with pytest.raises(LenswayError, match=r"config\.pooler: must be one of auto, session, transaction"):
        read_settings({"host": "h", "user": "u", "pooler": mode})
