"""A login that may hold few connections: callers wait for them, and none is told that the database is out of reach."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary, encode_probes
from lensway.bridges.postgres.servers import Login
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.fixtures import fresh_database
from lensway.testing.postgres import Database, PostgresCluster
from tests.bridges.test_postgres_failures import Sink, Source, lens_of

BOUND = 3
CALLERS = 12
LENS = lens_of("slow", name="text")


@pytest.fixture
def site(postgres: PostgresCluster) -> Iterator[tuple[Source, Database]]:
    loop = asyncio.new_event_loop()
    database = loop.run_until_complete(fresh_database(postgres))
    source = Source(database, loop)
    source.execute(
        "CREATE VIEW slow AS SELECT 1 AS id, pg_sleep(0.1)::text AS name",
        "GRANT SELECT ON slow TO PUBLIC",
    )
    role = f"bounded_{database.name}"
    loop.run_until_complete(postgres.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'x' CONNECTION LIMIT {BOUND}"))
    source.config = {"url": postgres.url(role, "x", database.name)}
    yield source, database
    loop.run_until_complete(source.library.close())
    loop.close()


async def report_of(source: Source) -> Any:
    sink = Sink()
    execution = Execution(
        deadline=time.monotonic() + 20,
        format=RowFormat.DOCUMENT,
        limits=ResultLimits(rows_max=1, bytes_max=10**6, row_bytes_max=10**6),
        tag="t/1",
    )
    await source.library.perform(
        "s", "postgres", source.config, kind="test", payload=encode_probes([]), execution=execution, sink=sink
    )
    return json.loads(sink.data)


def test_callers_wait_for_the_connections_that_the_login_may_hold(site: tuple[Source, Database]) -> None:
    source, _ = site

    async def work() -> Any:
        for _ in range(2):
            found = await asyncio.gather(*(source.read(LENS, RowFormat.JSON, {"limit": 5}) for _ in range(CALLERS)))
            assert found == [found[0]] * CALLERS
        return await report_of(source)

    report = source.do(work())
    assert report["ok"] is True
    assert [each["code"] for each in report["warnings"] if each["code"] == "connection_limit"] == ["connection_limit"]
    assert str(BOUND) in next(each["message"] for each in report["warnings"] if each["code"] == "connection_limit")


def test_pages_exports_and_arrow_share_the_connections_of_the_login(site: tuple[Source, Database]) -> None:
    source, _ = site

    async def work() -> None:
        asked: list[Any] = [(RowFormat.JSON, {"limit": 5}), (RowFormat.NDJSON, None), (RowFormat.ARROW, {"limit": 5})]
        asked.append((RowFormat.CSV, None))
        for _ in range(2):
            await asyncio.gather(*(source.read(LENS, *each) for each in asked * 4))
        # One kind alone holds everything that the login may hold, idle; the next kind needs a place.
        for each in asked:
            await asyncio.gather(*(source.read(LENS, *each) for _ in range(BOUND)))

    source.do(work())


def test_a_raised_limit_is_used_after_a_while(site: tuple[Source, Database]) -> None:
    now = [0.0]
    login = Login(clock=lambda: now[0])
    for _ in range(BOUND):
        assert login.has_room()
        login.opening()
        login.opened()
    login.opening()
    login.failed()
    assert login.learn()
    assert not login.has_room()
    now[0] = 60.0
    assert login.has_room(), "one more is tried"
    assert not login.has_room(), "and no second one at once"
    login.opening()
    login.opened()
    assert login.learned == BOUND + 1


def test_a_login_without_a_connection_of_ours_is_told_that_there_are_too_many(site: tuple[Source, Database]) -> None:
    source, _ = site

    async def work() -> None:
        held = [await asyncpg.connect(source.config["url"]) for _ in range(BOUND)]
        try:
            with pytest.raises(LenswayError) as caught:
                await source.read(LENS, RowFormat.JSON, {"limit": 5})
            assert caught.value.failure.code is ErrorCode.SOURCE_UNREACHABLE
            assert caught.value.failure.details["class"] == "too_many_connections"
        finally:
            for each in held:
                await each.close()
        assert await source.read(LENS, RowFormat.JSON, {"limit": 5})

    source.do(work())


@pytest.mark.parametrize("size", [1, "2"])
def test_pool_size_bounds_the_connections_of_a_source(postgres: PostgresCluster, size: object) -> None:
    loop = asyncio.new_event_loop()
    database = loop.run_until_complete(fresh_database(postgres))
    source = Source(database, loop)
    source.config = {"url": database.reader_url, "pool_size": size}
    source.execute("CREATE VIEW slow AS SELECT 1 AS id, pg_sleep(0.05)::text AS name", "GRANT SELECT ON slow TO PUBLIC")

    async def work() -> int:
        await asyncio.gather(*(source.read(LENS, RowFormat.JSON, {"limit": 5}) for _ in range(6)))
        rows = await database.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(rows[0][0])

    try:
        assert loop.run_until_complete(work()) == int(str(size))
    finally:
        loop.run_until_complete(source.library.close())
        loop.close()


@pytest.mark.parametrize("size", [0, 17, "many", -1, True, "٣"])
def test_a_pool_size_that_cannot_be_is_refused(size: object) -> None:
    config = {"url": "postgresql://u@localhost/d", "pool_size": size}
    with pytest.raises(LenswayError, match=r"config\.pool_size"):
        ExecutionLibrary(AddressPolicy()).check("postgres", config)
