"""The rig's PostgreSQL: private, fast to start, readable by the reader only."""

from __future__ import annotations

import asyncpg
import pytest

from lensway.testing.postgres import Database, PostgresCluster

pytestmark = pytest.mark.anyio


async def test_the_reader_reads_and_cannot_write(database: Database) -> None:
    await database.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    connection = await asyncpg.connect(database.reader_url)
    try:
        assert await connection.fetchval("SELECT id FROM t") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO t VALUES (2)")
    finally:
        await connection.close()


async def test_a_restart_keeps_the_data_and_the_port(postgres: PostgresCluster, database: Database) -> None:
    await database.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    port = postgres.port
    postgres.stop("fast")
    postgres.start()
    assert postgres.port == port
    connection = await asyncpg.connect(database.reader_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM t") == 1
    finally:
        await connection.close()
