"""Long results from PostgreSQL: constant memory, cancels, deadlines, caps, and that a login says what it is to every driver."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import time
import urllib.parse
from collections.abc import Awaitable, Callable

import asyncpg
import psutil
import pyarrow as pa
import pytest

from lensway import limits
from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database, let_pass
from lensway.testing.postgres import Database, PostgresCluster

EXPORTS = (RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET)


class Sink:
    """Keeps only what tests ask for."""

    def __init__(self, *, opens_after: int | None = None) -> None:
        self.bytes = 0
        self.largest = 0
        self.arrived = asyncio.Event()
        self.is_open = asyncio.Event()
        self._opens_after = opens_after
        if opens_after is None:
            self.is_open.set()

    async def write(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self.largest = max(self.largest, len(chunk))
        if self._opens_after is not None and self.bytes >= self._opens_after:
            self.arrived.set()
            await self.is_open.wait()


def lens(table: str, *names: str) -> LensDefinition:
    fields = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    fields |= {name: Field(name=name, column=name, type=FieldType.TEXT, is_list=name == "list") for name in names}
    return LensDefinition(name=table, table=table, fields=fields)


async def ask(
    library: ExecutionLibrary,
    url: str | dict,
    table: str,
    sink: Sink,
    *,
    format: RowFormat = RowFormat.NDJSON,
    is_export: bool = True,
    seconds: float = 60.0,
    names: tuple[str, ...] = ("body",),
) -> ResultEnd:
    config = {"url": url} if isinstance(url, str) else url
    definition, capabilities = lens(table, *names), capabilities_of("postgres")
    if is_export:
        plan = plan_export(definition, ExportRequest(order_by=[]), capabilities)
    else:
        plan = plan_rows(definition, QueryRequest(), capabilities, cursor_key=b"k" * 32, environment="e").plan
    execution = Execution(
        deadline=time.monotonic() + seconds,
        format=format,
        limits=ResultLimits(
            rows_max=10**9, bytes_max=10**12 if is_export else 8 * limits.MIB, row_bytes_max=16 * limits.MIB
        ),
        tag="bulk/1",
        is_export=is_export,
    )
    kind = "export" if is_export else "rows"
    return await library.perform(
        str(config), "postgres", config, kind=kind, payload=plan.encode(), execution=execution, sink=sink
    )


async def within(work: Callable[[ExecutionLibrary], Awaitable[None]]) -> None:
    library = ExecutionLibrary(AddressPolicy())
    try:
        await work(library)
    finally:
        await library.close()


async def running(database: Database, table: str) -> int:
    connection = await asyncpg.connect(database.owner_url)
    try:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()",
            f'%"{table}"%',
        )
    finally:
        await connection.close()


async def until_none_runs(database: Database, table: str) -> None:
    """A backend whose connection was closed while it wrote needs a moment to notice. Raises TimeoutError after a second."""
    async with asyncio.timeout(1.0):
        while await running(database, table):
            pass  # each look opens a connection, which takes some milliseconds


@pytest.fixture(scope="module")
def filled(postgres: PostgresCluster) -> Database:
    """One for the module: its large value takes a second to make."""
    database = asyncio.run(fresh_database(postgres))
    asyncio.run(
        database.execute(
            "CREATE VIEW endless AS SELECT id, repeat(md5(id::text), 8) AS body"
            " FROM (SELECT generate_series(1::bigint, 1000000000) AS id) s",
            "CREATE VIEW many AS SELECT id, repeat(md5(id::text), 8) AS body"
            " FROM (SELECT generate_series(1::bigint, 120000) AS id) s",
            "CREATE UNLOGGED TABLE huge (id int PRIMARY KEY, body text, list text[])",
            "ALTER TABLE huge ALTER body SET STORAGE EXTERNAL, ALTER list SET STORAGE EXTERNAL",
            "INSERT INTO huge VALUES (1, repeat('x', 75000000), ARRAY[repeat('x', 75000000)])",
            "CREATE VIEW slow AS SELECT 1 AS id, 'x' || pg_sleep(20) AS body",
            "GRANT SELECT ON endless, many, huge, slow TO PUBLIC",
        )
    )
    return database


class Peak:
    """The most memory that this process has held since it was asked to look."""

    def __init__(self) -> None:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        self._before = psutil.Process().memory_info().rss

    def growth(self) -> int:
        status = pathlib.Path("/proc/self/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        return peak * 1024 - self._before


@pytest.mark.parametrize("format", EXPORTS)
def test_i8_a_value_of_75_mb_gives_row_too_large_and_is_held_by_nobody(filled: Database, format: RowFormat) -> None:
    async def work(library: ExecutionLibrary) -> None:
        await ask(library, filled.reader_url, "many", Sink(), format=format)
        peak = Peak()
        with pytest.raises(LenswayError) as error:
            await ask(library, filled.reader_url, "huge", Sink(), format=format)
        assert error.value.code is ErrorCode.ROW_TOO_LARGE
        assert peak.growth() < 48 * limits.MIB
        assert (await ask(library, filled.reader_url, "huge", Sink(), format=format, names=())).rows == 1

    asyncio.run(within(work))


def test_i8_pages_and_rows_that_come_one_by_one_are_bounded_too(filled: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        assert (await ask(library, filled.reader_url, "huge", Sink(), is_export=False, names=())).rows == 1
        peak = Peak()
        for format, is_export, names in (
            (RowFormat.JSON, False, ("body",)),
            (RowFormat.CSV, False, ("body",)),
            (RowFormat.NDJSON, True, ("list",)),
        ):
            with pytest.raises(LenswayError) as error:
                await ask(library, filled.reader_url, "huge", Sink(), format=format, is_export=is_export, names=names)
            assert error.value.code is ErrorCode.ROW_TOO_LARGE
        assert peak.growth() < 48 * limits.MIB
        assert (await ask(library, filled.reader_url, "huge", Sink(), is_export=False, names=())).rows == 1

    asyncio.run(within(work))


def test_a_page_of_too_many_bytes_is_cut_before_it_is_held(database: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        await database.execute(
            "CREATE VIEW wide AS SELECT id, repeat('x', 600000) AS body FROM generate_series(1, 100) AS s (id)",
            "GRANT SELECT ON wide TO PUBLIC",
        )
        peak = Peak()
        with pytest.raises(LenswayError) as error:
            await ask(library, database.reader_url, "wide", Sink(), format=RowFormat.JSON, is_export=False)
        assert error.value.code is ErrorCode.LIMIT_EXCEEDED
        assert error.value.failure.details == {"limit": 8 * limits.MIB, "of": "bytes"}
        assert peak.growth() < 80 * limits.MIB

    asyncio.run(within(work))


@pytest.mark.parametrize("format", EXPORTS)
def test_i8_a_long_export_is_read_in_constant_memory(filled: Database, format: RowFormat) -> None:
    async def work(library: ExecutionLibrary) -> None:
        await ask(library, filled.reader_url, "huge", Sink(), format=format, names=())
        peak, sink = Peak(), Sink()
        assert (await ask(library, filled.reader_url, "many", sink, format=format)).rows == 120_000
        assert sink.largest < 8 * limits.MIB
        # Allocators keep some of what they had; a result of 30 MB that was held would show all the same.
        assert peak.growth() < 48 * limits.MIB

    asyncio.run(within(work))


@pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.ARROW])
def test_i7_a_caller_that_takes_nothing_stops_the_database_and_a_cancel_ends_it_at_once(
    filled: Database, format: RowFormat
) -> None:
    async def work(library: ExecutionLibrary) -> None:
        sink = Sink(opens_after=limits.MIB)
        job = asyncio.create_task(ask(library, filled.reader_url, "endless", sink, format=format))
        await sink.arrived.wait()
        assert await running(filled, "endless") == 1
        taken = sink.bytes
        started = time.monotonic()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await until_none_runs(filled, "endless")
        assert time.monotonic() - started < 0.25
        assert sink.bytes == taken

    asyncio.run(within(work))


@pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.ARROW])
def test_i2_a_deadline_ends_a_statement_that_gives_nothing_and_a_stream_that_is_not_read(
    filled: Database, format: RowFormat
) -> None:
    async def work(library: ExecutionLibrary) -> None:
        for table, sink in (("slow", Sink()), ("endless", Sink(opens_after=limits.MIB))):
            started = time.monotonic()
            with pytest.raises(LenswayError) as error:
                await ask(library, filled.reader_url, table, sink, format=format, seconds=0.5)
            assert error.value.code is ErrorCode.QUERY_TIMEOUT
            assert time.monotonic() - started < 1.5
            await until_none_runs(filled, table)
        assert (await ask(library, filled.reader_url, "huge", Sink(), format=format, names=())).rows == 1

    asyncio.run(within(work))


def test_exports_have_a_cap_of_their_own_and_starve_no_query(filled: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        formats = EXPORTS
        sinks = [Sink(opens_after=1) for _ in formats]
        jobs = [
            asyncio.create_task(ask(library, filled.reader_url, "endless", sink, format=format))
            for sink, format in zip(sinks, formats, strict=True)
        ]
        stalled = [asyncio.create_task(sink.arrived.wait()) for sink in sinks]
        while sum(each.done() for each in stalled) < limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX:
            await asyncio.wait(stalled, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
            stalled = sorted(stalled, key=lambda each: not each.done())
            if all(each.done() for each in stalled[: limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX]):
                break
            pending = [each for each in stalled if not each.done()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        assert await running(filled, "endless") == limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX
        for format in (RowFormat.JSON, RowFormat.ARROW):
            end = await ask(library, filled.reader_url, "huge", Sink(), format=format, is_export=False, names=())
            assert end.rows == 1
        for job in (*jobs, *stalled):
            job.cancel()
        await asyncio.gather(*jobs, *stalled, return_exceptions=True)
        await until_none_runs(filled, "endless")

    asyncio.run(within(work))


def test_a_restart_of_the_database_between_two_exports_is_not_noticed(filled: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        for _ in range(2):
            assert (await ask(library, filled.reader_url, "many", Sink(), format=RowFormat.ARROW)).rows == 120_000
            await filled.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'lensway' AND pid <> pg_backend_pid()"
            )

    asyncio.run(within(work))


def test_a_stream_that_the_database_ends_fails_with_its_class(database: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        await database.execute(
            "CREATE VIEW failing AS SELECT id, (1 / (50000 - id))::text AS body"
            " FROM (SELECT generate_series(1, 100000) AS id) s",
            "GRANT SELECT ON failing TO PUBLIC",
        )
        for format in EXPORTS:
            with pytest.raises(LenswayError) as error:
                await ask(library, database.reader_url, "failing", Sink(), format=format)
            assert error.value.code is ErrorCode.SOURCE_QUERY_FAILED
            assert error.value.failure.details == {
                "class": "division_by_zero",
                "sqlstate": "22012",
                "table": "failing",
            }

    asyncio.run(within(work))


def test_r8_a_login_that_is_refused_says_so_as_on_pages(filled: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        parts = urllib.parse.urlsplit(filled.reader_url)
        wrong = parts._replace(netloc=f"{parts.username}:wr0ng-secret@{parts.hostname}:{parts.port}").geturl()
        closed = parts._replace(netloc=f"{parts.username}:wr0ng-secret@{parts.hostname}:1").geturl()
        for url, stage, cause in ((wrong, "login", "password"), (closed, "tcp", "refused")):
            with pytest.raises(LenswayError) as error:
                await ask(library, url, "huge", Sink(), format=RowFormat.ARROW, names=())
            details = error.value.failure.details
            assert (error.value.code, details["stage"], details["class"]) == (
                ErrorCode.SOURCE_UNREACHABLE,
                stage,
                cause,
            )
            assert "wr0ng" not in f"{error.value!r} {error.value} {details}"

    asyncio.run(within(work))


def test_no_variable_of_the_machine_has_a_say(
    filled: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = tmp_path / "services.conf"
    service.write_text("[elsewhere]\nhost=192.0.2.1\nport=1\noptions=-c search_path=nowhere\n")
    for name, value in {
        "PGSERVICE": "elsewhere",
        "PGSERVICEFILE": str(service),
        "PGHOSTADDR": "192.0.2.1",
        "PGOPTIONS": "-c search_path=nowhere",
        "PGSSLMODE": "verify-full",
        "PGREQUIREAUTH": "gss",
        "PGTARGETSESSIONATTRS": "standby",
    }.items():
        monkeypatch.setenv(name, value)

    async def work(library: ExecutionLibrary) -> None:
        assert (await ask(library, filled.reader_url, "huge", Sink(), format=RowFormat.ARROW, names=())).rows == 1

    asyncio.run(within(work))
    assert not [name for name in os.environ if name.startswith("PG")]


def test_certificates_are_checked_as_on_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("tls")
    let_pass(directory)
    with PostgresCluster(directory / "cluster", use_tls=True) as cluster:
        asyncio.run(cluster.create_role_and_database("tls_reader", "tls-password", "tls"))
        own = pathlib.Path(shutil.copy(cluster.certificate_path, directory / "own.pem")).read_text()
        base = {
            "host": "localhost",
            "port": cluster.port,
            "user": "tls_reader",
            "password": "tls-password",
            "database": "tls",
        }

        async def work(library: ExecutionLibrary) -> None:
            owner = await asyncpg.connect(cluster.superuser_dsn("tls"))
            await owner.execute(
                "CREATE VIEW huge AS SELECT 1 AS id, ssl::text AS body FROM pg_stat_ssl WHERE pid = pg_backend_pid();"
                "GRANT SELECT ON huge TO PUBLIC"
            )
            await owner.close()
            trusted = {
                "require": {**base, "sslmode": "require"},
                "verify-full": {**base, "sslmode": "verify-full", "sslrootcert": own},
                "verify-ca": {
                    **base,
                    "host": "127.0.0.1",
                    "sslmode": "verify-ca",
                    "sslrootcert": str(directory / "own.pem"),
                },
            }
            for config in trusted.values():
                sink = Sink()
                end = await ask(library, config, "huge", sink, format=RowFormat.ARROW)
                assert end.rows == 1
            for sslmode in ("verify-ca", "verify-full"):
                with pytest.raises(LenswayError) as error:
                    await ask(library, {**base, "sslmode": sslmode}, "huge", Sink(), format=RowFormat.ARROW)
                details = error.value.failure.details
                assert (details["stage"], details["class"]) == ("tls", "certificate")

        asyncio.run(within(work))


def test_the_loop_is_free_while_rows_come(filled: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        job = asyncio.create_task(ask(library, filled.reader_url, "many", Sink(), format=RowFormat.PARQUET))
        longest, last, turns = 0.0, time.monotonic(), 0
        while not job.done():
            await asyncio.wait({job}, timeout=0.005)
            now = time.monotonic()
            longest, last, turns = max(longest, now - last), now, turns + 1
        assert (await job).rows == 120_000
        assert turns > 3
        assert longest < limits.LOOP_STALL_SECONDS

    asyncio.run(within(work))


def test_an_arrow_stream_is_made_of_batches_of_a_bounded_size(filled: Database) -> None:
    class Kept(Sink):
        def __init__(self) -> None:
            super().__init__()
            self.data = bytearray()

        async def write(self, chunk: bytes) -> None:
            await super().write(chunk)
            self.data += chunk

    async def work(library: ExecutionLibrary) -> None:
        sink = Kept()
        await ask(library, filled.reader_url, "many", sink, format=RowFormat.ARROW)
        batches = list(pa.ipc.open_stream(bytes(sink.data)))
        assert sum(batch.num_rows for batch in batches) == 120_000
        assert max(batch.nbytes for batch in batches) < 2 * limits.ARROW_BATCH_BYTES

    asyncio.run(within(work))
