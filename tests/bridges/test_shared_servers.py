"""Many sources on one database server: no connection without a query, and a bound on all of them together."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from lensway import limits
from lensway.bridges.contract import Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.postgres import Database
from tests.bridges.test_bulk import Sink, ask, within

SOURCES = 30


async def probe(library: ExecutionLibrary, database: Database, number: int) -> None:
    execution = Execution(
        deadline=time.monotonic() + 20,
        format=RowFormat.DOCUMENT,
        limits=ResultLimits(rows_max=1, bytes_max=limits.MIB, row_bytes_max=limits.MIB),
        tag="probe",
    )
    await library.perform(
        number,
        "postgres",
        {"url": database.reader_url},
        kind="probe",
        payload=b"",
        execution=execution,
        sink=Sink(),
    )


def reader_of(database: Database) -> str:
    return database.reader_url.partition("://")[2].partition(":")[0]


async def connections(owner: asyncpg.Connection, database: Database) -> int:
    return await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", reader_of(database))


def test_s3_sources_that_nobody_asks_keep_no_connection(database: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        owner = await asyncpg.connect(database.owner_url)
        most = 0
        for _ in range(1):
            probes = asyncio.gather(*(probe(library, database, number) for number in range(SOURCES)))
            while not probes.done():
                most = max(most, await connections(owner, database))
                await asyncio.wait([probes], timeout=0.05)
            await probes
        assert most <= 5, "logins of probes are paced"
        async with asyncio.timeout(2):
            while await connections(owner, database):
                await asyncio.sleep(0.02)
        await owner.close()

    asyncio.run(within(work))


def test_s3_a_probe_shares_the_connection_of_queries_and_keeps_it_no_longer(database: Database, monkeypatch) -> None:
    monkeypatch.setattr(limits, "CONNECTION_IDLE_SECONDS", 1.0)

    async def work(library: ExecutionLibrary) -> None:
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("CREATE VIEW one AS SELECT 1 AS id, 'x'::text AS body; GRANT SELECT ON one TO PUBLIC")
        await ask(library, database.reader_url, "one", Sink(), format=RowFormat.JSON, is_export=False)
        (key,) = library.open_keys()
        pids = {await owner.fetchval("SELECT pid FROM pg_stat_activity WHERE usename = $1", reader_of(database))}
        began = time.monotonic()
        while await connections(owner, database):
            execution = Execution(
                deadline=time.monotonic() + 5,
                format=RowFormat.DOCUMENT,
                limits=ResultLimits(rows_max=1, bytes_max=limits.MIB, row_bytes_max=limits.MIB),
                tag="probe",
            )
            await library.perform(key, "postgres", {}, kind="probe", payload=b"", execution=execution, sink=Sink())
            pids |= {
                row["pid"]
                for row in await owner.fetch("SELECT pid FROM pg_stat_activity WHERE usename = $1", reader_of(database))
            }
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
            if time.monotonic() - began > 0.7:
                break
        assert len(pids) == 1, "the probes used the connection that was there"
        async with asyncio.timeout(5):
            while await connections(owner, database):
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 3, "and it ended as if nobody had probed"
        await owner.close()

    asyncio.run(within(work))


def test_s3_all_sources_of_a_server_share_a_bound_and_every_query_is_served(database: Database) -> None:
    async def work(library: ExecutionLibrary) -> None:
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute(
            "CREATE VIEW slow AS SELECT 1 AS id, 'x'::text AS body FROM pg_sleep(0.05); GRANT SELECT ON slow TO PUBLIC"
        )
        url = database.reader_url

        async def query(number: int) -> None:
            config = {"url": url, "sslmode": "prefer", "connect_timeout": str(5 + number)}
            await ask(library, config, "slow", Sink(), format=RowFormat.JSON, is_export=False)

        queries = asyncio.gather(*(query(number % SOURCES) for number in range(4 * SOURCES)))
        most = 0
        while not queries.done():
            most = max(most, await connections(owner, database))
            await asyncio.wait([queries], timeout=0.02)
        await queries
        assert 10 < most <= limits.CONNECTIONS_PER_SERVER_MAX
        # Backends that end without our doing give their places back.
        await owner.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{reader_of(database)}'"
        )
        await asyncio.gather(*(query(number) for number in range(SOURCES)))
        await owner.close()

    asyncio.run(within(work))
