"""Functions of a library that nothing interrupts, in a view: others go on, and outcomes come in time."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sqlite3
import time

import duckdb
import pytest

from lensway import limits
from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export
from lensway.query.result import ResultLimits, RowFormat

SQLITE_STUCK = "SELECT 1 AS id, instr(hex(zeroblob(300000)), hex(zeroblob(150000)) || '1') AS s"
DUCKDB_STUCK = "SELECT i AS id, levenshtein(repeat('a', 20000 + i), repeat('b', 20000))::text AS s FROM one"
QUICK = "SELECT 1 AS id, 'fine' AS s"


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def made(directory: pathlib.Path, bridge: str) -> dict[str, object]:
    path = directory / f"stuck.{bridge}"
    if bridge == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript(f"CREATE VIEW stuck AS {SQLITE_STUCK}; CREATE VIEW quick AS {QUICK}")
    else:
        with duckdb.connect(str(path)) as database:
            database.execute("CREATE TABLE one AS SELECT 1 AS i")
            database.execute(f"CREATE VIEW stuck AS {DUCKDB_STUCK}; CREATE VIEW quick AS {QUICK}")
    return {"path": str(path)}


async def read(library: ExecutionLibrary, bridge: str, config: dict, table: str, seconds: float, format: str) -> bytes:
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "s": Field(name="s", column="s", type=FieldType.TEXT),
    }
    lens = LensDefinition(name="lens", table=table, fields=fields)
    sink = Sink()
    await library.perform(
        bridge,
        bridge,
        config,
        kind="rows",
        payload=plan_export(lens, QueryRequest(), capabilities_of(bridge)).encode(),
        execution=Execution(
            deadline=time.monotonic() + seconds,
            format=RowFormat(format),
            limits=ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=10**6),
            tag="test/1",
            is_export=True,
        ),
        sink=sink,
    )
    return sink.data


@pytest.mark.parametrize("format", ["json", "arrow"])
@pytest.mark.parametrize("bridge", ["sqlite", "duckdb"])
def test_a_function_that_nothing_interrupts_holds_neither_the_loop_nor_other_work(
    tmp_path: pathlib.Path, bridge: str, format: str
) -> None:
    config = made(tmp_path, bridge)
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async def run() -> None:
        library = ExecutionLibrary(AddressPolicy(source_dirs=(str(tmp_path),)))
        await read(library, bridge, config, "quick", 20, format)
        beating = asyncio.create_task(beat())
        stuck = [asyncio.create_task(read(library, bridge, config, "stuck", 0.3, format)) for _ in range(2)]
        await asyncio.sleep(0.5)
        for task in stuck:
            task.cancel()  # as the dispatcher does at the deadline
        ends = await asyncio.wait_for(asyncio.gather(*stuck, return_exceptions=True), 0.5)
        assert all(isinstance(end, asyncio.CancelledError | LenswayError) for end in ends), ends
        started = time.monotonic()
        for _ in range(4):
            assert b"fine" in await read(library, bridge, config, "quick", 20, format)
        assert time.monotonic() - started < 1.0, "no work waits for a thread that is stuck"
        await library.close()
        beating.cancel()

    asyncio.run(run())
    assert longest < 0.5


def test_a_late_outcome_comes_by_itself(tmp_path: pathlib.Path) -> None:
    config = made(tmp_path, "sqlite")

    async def run() -> None:
        library = ExecutionLibrary(AddressPolicy(source_dirs=(str(tmp_path),)))
        started = time.monotonic()
        with pytest.raises(LenswayError) as caught:
            await read(library, "sqlite", config, "stuck", 0.2, "json")
        assert caught.value.code is ErrorCode.QUERY_TIMEOUT
        assert time.monotonic() - started < 0.2 + limits.CANCEL_SECONDS + 0.5
        await library.close()

    asyncio.run(run())
