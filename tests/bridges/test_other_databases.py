"""A server that speaks PostgreSQL's protocol and is something else is named by the connection test."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from lensway.bridges.contract import AddressPolicy, ConnectionReport
from lensway.bridges.postgres.bridge import PostgresBridge
from lensway.testing.postgres import Database


@pytest.mark.parametrize(("says", "codes"), [("CockroachDB CCL v23.1", ["other_database"]), ("PostgreSQL 99", [])])
def test_the_connection_test_warns_of_another_database(database: Database, says: str, codes: list[str]) -> None:
    async def run() -> ConnectionReport:
        owner = await asyncpg.connect(database.owner_url, server_settings={"allow_system_table_mods": "on"})
        await owner.execute(
            f"CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql AS $$ SELECT '{says}' $$"
        )
        await owner.close()
        source = await PostgresBridge().open({"url": database.reader_url}, policy=AddressPolicy())
        try:
            return await source.test([], deadline=time.monotonic() + 20)
        finally:
            await source.close()

    report = asyncio.run(run())
    assert report.ok
    found = [each for each in report.warnings if each["code"] == "other_database"]
    assert [each["code"] for each in found] == codes
    assert all("CockroachDB" in each["message"] for each in found)
