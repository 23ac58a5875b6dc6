"""Sources of one DuckDB file in one process: none takes the lock away that keeps other processes from writing."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys

import duckdb

from lensway.bridges.contract import AddressPolicy
from tests.bridges.asking import Asked

WRITE = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE other (id INTEGER)')"


def can_write(path: pathlib.Path) -> bool:
    """Whether another process can write to the file now."""
    return subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, check=False).returncode == 0


def test_a_second_source_of_a_file_leaves_the_lock_of_the_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "shared.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
        connection.execute(
            "CREATE VIEW slow AS SELECT count(*) AS id FROM range(1000000) a(i), range(1000000) b(i)"
            " WHERE a.i * b.i % 7 = 3"
        )
    policy = AddressPolicy(source_dirs=(str(tmp_path),))
    fields = {"id": {"type": "integer", "primaryKey": True}}

    async def run() -> None:
        config = {"path": str(path)}
        async with Asked("duckdb", config, policy) as first, Asked("duckdb", config, policy) as second:
            await first.rows(first.declared("t", fields))
            slow = asyncio.create_task(first.rows(first.declared("slow", fields)))
            # The second source opens the file while the first one has it, and closes it again.
            assert await second.rows(second.declared("t", fields)) == [{"id": 1}]
            await second.library.forget("key")
            assert not await asyncio.to_thread(can_write, path), "the first source still reads"
            assert not slow.done()
            slow.cancel()
            await asyncio.wait({slow})
        assert await asyncio.to_thread(can_write, path), "no source has the file open any more"

    asyncio.run(run())
