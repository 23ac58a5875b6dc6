"""A PostgreSQL server that goes silent, or forgets a connection: found in seconds, and nothing that works is cut off."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from typing import Self

import pytest

from lensway import limits
from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.kit import lookups
from lensway.bridges.kit.lookups import Lookups
from lensway.bridges.library import ExecutionLibrary
from lensway.bridges.postgres import errors as postgres_errors
from lensway.bridges.postgres.connecting import connect
from lensway.bridges.postgres.settings import read_settings
from lensway.bridges.postgres.watch import WatchedPool
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.chaos.proxy import ChaosProxy
from lensway.testing.deployment import wait_until
from lensway.testing.postgres import Database

CANCEL_REQUEST = (80877102).to_bytes(4, "big")
FOUND_SECONDS = 3.5
"""The promise is three seconds; some for a busy machine."""


def lens(table: str) -> LensDefinition:
    fields = {name: Field(name=name, column=name, type=FieldType.INTEGER) for name in ("id", "backend")}
    return LensDefinition(name="lens", table=f"public.{table}", fields=fields)


class Sink:
    def __init__(self, taking: Callable[[], Awaitable[None]] | None = None) -> None:
        self.data = b""
        self._taking = taking

    async def write(self, chunk: bytes) -> None:
        self.data += chunk
        if self._taking is not None:
            await self._taking()


class Source:
    """The database behind a proxy, as the library sees it."""

    def __init__(self, database: Database, proxy: ChaosProxy | LosesCancels) -> None:
        parts = urllib.parse.urlsplit(database.reader_url)
        login = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
        self.database = database
        self.library = ExecutionLibrary(AddressPolicy())

    async def read(self, table: str = "fast", *, export: bool = False, sink: Sink | None = None) -> list[int]:
        """The backends that the rows name."""
        sink = sink or Sink()
        asked, capabilities = QueryRequest(limit=1), capabilities_of("postgres")
        if export:
            plan = plan_export(lens(table), ExportRequest(order_by=[]), capabilities)
        else:
            plan = plan_rows(lens(table), asked, capabilities, cursor_key=b"k" * 32, environment="e").plan
        await self.library.perform(
            "key",
            "postgres",
            {"url": self.url},
            kind="export" if export else "rows",
            payload=plan.encode(),
            execution=Execution(
                deadline=time.monotonic() + 20,
                format=RowFormat.NDJSON if export else RowFormat.JSON,
                limits=ResultLimits(rows_max=10**6, bytes_max=10**8, row_bytes_max=10**6),
                tag="test/1",
                is_export=export,
            ),
            sink=sink,
        )
        rows = map(json.loads, sink.data.splitlines()) if export else json.loads(b"[" + sink.data + b"]")
        return [row["backend"] for row in rows]

    async def test_succeeds(self) -> bool:
        """Whether a test of the connection does."""
        sink = Sink()
        execution = Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat.JSON,
            limits=ResultLimits(rows_max=1, bytes_max=10**6, row_bytes_max=10**6),
            tag="test/1",
        )
        await self.library.perform(
            "key", "postgres", {"url": self.url}, kind="test", payload=b"\x90", execution=execution, sink=sink
        )
        return bool(json.loads(sink.data)["ok"])

    async def refusal(self, table: str = "fast", *, export: bool = False) -> tuple[tuple[str, object, object], float]:
        """How a read fails, and after how many seconds."""
        started = time.monotonic()
        with pytest.raises(LenswayError) as caught:
            await self.read(table, export=export)
        failure = caught.value.failure
        found = (failure.code.value, failure.details.get("stage"), failure.details.get("class"))
        return found, time.monotonic() - started


@pytest.fixture
def proxy(database: Database) -> Iterator[ChaosProxy]:
    asyncio.run(
        database.execute(
            "CREATE VIEW fast AS SELECT i::bigint AS id, pg_backend_pid()::bigint AS backend FROM generate_series(1, 30000) i",
            "CREATE VIEW slow AS SELECT fast.* FROM fast, (SELECT pg_sleep(3.2)) s",
            "CREATE VIEW endless AS SELECT fast.* FROM fast, (SELECT pg_sleep(60)) s",
        )
    )
    with ChaosProxy(("127.0.0.1", database.cluster.port)) as proxy:
        yield proxy


@pytest.fixture
def source(database: Database, proxy: ChaosProxy) -> Source:
    return Source(database, proxy)


def test_a_server_that_goes_silent_is_found_on_pooled_connections_and_serves_again(source: Source, proxy) -> None:
    async def run() -> None:
        await source.read()
        proxy.stall()
        found, took = await source.refusal()
        assert found == ("SOURCE_UNREACHABLE", "tcp", "timeout")
        assert took < FOUND_SECONDS
        found, took = await source.refusal()
        assert found == ("SOURCE_UNREACHABLE", "tcp", "timeout")
        assert took < 0.5, "it is known by now"
        proxy.heal()
        async with asyncio.timeout(5):
            while not await reads(source):
                pass
        await source.library.close()

    asyncio.run(run())


def test_a_test_that_succeeds_is_believed_by_the_queries_behind_it(source: Source, proxy) -> None:
    async def run() -> None:
        await source.read()
        await source.read(export=True)
        proxy.stall()
        await source.refusal()
        await source.refusal(export=True)
        proxy.heal()
        assert await source.test_succeeds()
        assert await source.read()
        assert await source.read(export=True)
        await source.library.close()

    asyncio.run(run())


async def reads(source: Source) -> bool:
    try:
        return bool(await source.read())
    except LenswayError:
        return False


def test_a_server_that_goes_silent_under_a_long_statement_is_found_too(source: Source, proxy) -> None:
    async def run() -> float:
        task = asyncio.create_task(source.refusal("endless"))
        await asyncio.to_thread(wait_for_statement, source.database, "endless")
        started = time.monotonic()
        proxy.stall()
        found, _ = await task
        assert found == ("SOURCE_UNREACHABLE", "tcp", "timeout")
        proxy.heal()
        await source.library.close()
        return time.monotonic() - started

    assert asyncio.run(run()) < FOUND_SECONDS


def test_exports_find_a_silent_server_too(source: Source, proxy) -> None:
    async def run() -> None:
        before = await source.read(export=True)
        proxy.swallow()
        proxy.heal()
        after = await source.read(export=True)
        assert set(after) != set(before)
        proxy.swallow()
        found, took = await source.refusal(export=True)
        assert found == ("SOURCE_UNREACHABLE", "tcp", "timeout")
        assert took < FOUND_SECONDS
        proxy.heal()
        proxy.cut()
        async with asyncio.timeout(5):
            while not await reads(source):
                pass
        await source.library.close()

    asyncio.run(run())


def wait_for_statement(database: Database, marker: str) -> None:
    async def count() -> int:
        found = await database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()",
            f"%{marker}%",
        )
        return len(found)

    wait_until(lambda: asyncio.run(count()) == 1, seconds=5, what=f"a statement on {marker}")


def test_a_connection_that_something_in_between_has_forgotten_costs_a_moment_and_no_error(
    source: Source, proxy
) -> None:
    async def run() -> None:
        before = await source.read()
        proxy.swallow()
        proxy.heal()
        started = time.monotonic()
        after = await source.read()
        assert after != before
        assert time.monotonic() - started < FOUND_SECONDS
        await source.library.close()

    asyncio.run(run())


def test_long_statements_and_slow_callers_are_left_alone(source: Source) -> None:
    async def run() -> None:
        is_over = asyncio.Event()
        exporting = asyncio.create_task(source.read(export=True, sink=Sink(is_over.wait)))
        # Longer than it takes to ask twice about a silent server, and about each of its backends.
        assert await source.read("slow")
        is_over.set()
        assert len(await exporting) == 30_000
        await source.library.close()

    asyncio.run(run())


def test_a_server_that_refuses_is_found_at_once(source: Source, proxy) -> None:
    async def run() -> None:
        await source.read()
        proxy.refuse()
        proxy.cut()
        found, took = await source.refusal()
        assert found == ("SOURCE_UNREACHABLE", "tcp", "refused")
        assert took < 1.0
        proxy.heal()
        assert await source.read()
        await source.library.close()

    asyncio.run(run())


def test_a_resolver_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(lookups, "PROCESS", Lookups(lambda *_names, **_options: over.wait(30) and []))

    async def run() -> float:
        started = time.monotonic()
        with pytest.raises(LenswayError) as caught:
            await connect(read_settings({"host": "db.example", "user": "u"}), AddressPolicy())
        assert (caught.value.failure.details["stage"], caught.value.failure.details["class"]) == ("dns", "timeout")
        return time.monotonic() - started

    assert asyncio.run(run()) < FOUND_SECONDS
    over.set()


def test_an_old_connection_is_replaced_so_that_a_moved_name_is_noticed_under_load(source: Source) -> None:
    async def run() -> list[int]:
        pool = WatchedPool(read_settings({"url": source.url}), AddressPolicy(), size=1, age_seconds_max=0.0)
        seen = []
        for _ in range(2):
            connection = await pool.acquire()
            seen.append(connection.driver.get_server_pid())
            pool.release(connection)
        await pool.close()
        return seen

    first, second = asyncio.run(run())
    assert first != second


def test_both_kernels_watch_the_connection(source: Source) -> None:
    async def run() -> tuple[list[int], dict[str, str]]:
        connection = await connect(read_settings({"url": source.url}), AddressPolicy())
        sock = connection.driver._transport.get_extra_info("socket")
        options = [sock.getsockopt(socket.IPPROTO_TCP, each) for each in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE)]
        names = ["client_connection_check_interval", "tcp_keepalives_idle", "tcp_user_timeout"]
        rows = await connection.driver.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", names)
        await connection.discard()
        return options, {row["name"]: row["setting"] for row in rows}

    options, settings = asyncio.run(run())
    assert options == [limits.SOCKET_UNANSWERED_SECONDS * 1000, limits.SOCKET_IDLE_SECONDS]
    assert settings["tcp_keepalives_idle"] == str(limits.SOCKET_IDLE_SECONDS)
    assert settings.get("client_connection_check_interval", "500") == "500"
    assert int(settings["tcp_user_timeout"]) > limits.STALL_TIMEOUT_SECONDS * 1000, "a slow caller is no lost one"


class LosesCancels:
    """Forwards to PostgreSQL all but the first cancels, as if they had come between two messages."""

    def __init__(self, port: int, count: int) -> None:
        self._target = port
        self._count = count
        self._pumps: set[asyncio.Task[None]] = set()
        self.seen = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for way in ((reader, far_writer), (far_reader, writer)):
            self._pumps.add(asyncio.create_task(self._pump(*way)))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if data[4:8] == CANCEL_REQUEST:
                    self.seen += 1
                    if self.seen <= self._count:
                        return
                writer.write(data)
        finally:
            writer.close()


def test_a_cancel_that_the_server_ignores_is_sent_again_until_the_statement_is_gone(database: Database, proxy) -> None:
    """I7: a cancel that comes between two messages of a statement that is just beginning is lost in PostgreSQL."""

    async def run() -> tuple[int, float]:
        async with LosesCancels(database.cluster.port, 2) as between:
            source = Source(database, between)
            reading = asyncio.create_task(source.read("endless"))
            # Asleep, and not still being prepared.
            asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%endless%'"
            looking = await connect(read_settings({"url": database.reader_url}), AddressPolicy())
            while not await looking.driver.fetchval(asked):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            reading.cancel()
            await asyncio.wait((reading,))
            took = time.monotonic() - began
            assert await looking.driver.fetchval(asked) == 0
            await looking.discard()
            await source.library.close()
            return between.seen, took

    seen, took = asyncio.run(run())
    assert seen == 3
    assert took < limits.CANCEL_SECONDS * 0.9, "it did not wait for the end of its patience"


def test_nothing_is_compiled_to_machine_code(source: Source) -> None:
    """It takes longer than most queries, and made the first row of a large export come late."""

    async def run() -> str:
        connection = await connect(read_settings({"url": source.url}), AddressPolicy())
        try:
            found: str = await connection.driver.fetchval("SHOW jit")
            return found
        finally:
            await connection.discard()

    assert asyncio.run(run()) == "off"


def test_a_process_without_descriptors_is_busy_and_not_the_database_unreachable() -> None:
    failure = postgres_errors.of_connecting(OSError(errno.EMFILE, "Too many open files")).failure
    assert (failure.code, failure.retry_after_seconds) == (ErrorCode.OVERLOADED, 1.0)
