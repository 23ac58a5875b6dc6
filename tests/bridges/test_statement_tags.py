"""Tags in statements: the database's own log says which request and attempt each one was for."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse

import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.bridges.postgres.settings import read_settings
from lensway.dialects.registry import capabilities_of
from lensway.errors import LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.chaos.statements import StatementLog
from lensway.testing.deployment import wait_until
from lensway.testing.postgres import Database

LENS = LensDefinition(
    name="traced",
    table="public.traced",
    fields={
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "backend": Field(name="backend", column="backend", type=FieldType.INTEGER),
    },
)


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


@pytest.fixture
def traced(database: Database) -> Database:
    """A view whose rows tell the database process that read them, and a login whose statements are logged."""
    user = urllib.parse.urlsplit(database.reader_url).username
    asyncio.run(
        database.execute(
            "CREATE VIEW traced AS SELECT i::bigint AS id, pg_backend_pid()::bigint AS backend FROM generate_series(1, 3000) i",
            f"ALTER ROLE {user} SET log_statement = 'all'",
        )
    )
    return database


async def ask(database: Database, tag: str, *, limit: int | None, config: dict) -> set[int]:
    """Run one page (or an export); the backends that its rows name."""
    library = ExecutionLibrary(AddressPolicy())
    capabilities = capabilities_of("postgres")
    if limit is None:
        plan = plan_export(LENS, ExportRequest(), capabilities)
    else:
        plan = plan_rows(LENS, QueryRequest(limit=limit), capabilities, cursor_key=b"k" * 32, environment="e").plan
    sink = Sink()
    try:
        await library.perform(
            "key",
            "postgres",
            {"url": database.reader_url, **config},
            kind="export" if limit is None else "rows",
            payload=plan.encode(),
            execution=Execution(
                deadline=time.monotonic() + 20,
                format=RowFormat.NDJSON if limit is None else RowFormat.JSON,
                limits=ResultLimits(rows_max=10**6, bytes_max=10**8, row_bytes_max=10**6),
                tag=tag,
                is_export=limit is None,
            ),
            sink=sink,
        )
    finally:
        await library.close()
    rows = json.loads(b"[" + sink.data + b"]") if limit is not None else map(json.loads, sink.data.splitlines())
    return {row["backend"] for row in rows}


def test_every_tagged_statement_is_in_the_log_once_with_the_process_that_its_rows_name(traced: Database) -> None:
    log = StatementLog(traced.cluster.log_path)
    list(log.read())
    named = {
        tag: asyncio.run(ask(traced, tag, limit=limit, config={"statement_tags": "on"}))
        for tag, limit in (("req_a/1", 1), ("req_b/2", 100), ("req_c/1", 2000), ("req_d/3", None))
    }
    seen = []
    wait_until(lambda: seen.extend(log.read()) or len(seen) >= 4, seconds=5, what="four statements in the log")
    assert {f"{each.request}/{each.attempt}": {each.backend} for each in seen} == named
    assert len(seen) == 4
    assert all(abs(each.at - time.time()) < 60 for each in seen)


def test_pages_carry_no_tag_unless_it_was_asked_for_and_exports_always_do(traced: Database) -> None:
    log = StatementLog(traced.cluster.log_path)
    list(log.read())
    asyncio.run(ask(traced, "req_page/1", limit=10, config={}))
    asyncio.run(ask(traced, "req_export/1", limit=None, config={}))
    seen = []
    wait_until(lambda: seen.extend(log.read()) or bool(seen), seconds=5, what="the export in the log")
    assert [each.request for each in seen] == ["req_export"]


def test_the_setting_is_on_or_off() -> None:
    assert not read_settings({"user": "u"}).has_statement_tags
    assert read_settings({"user": "u", "statement_tags": "on"}).has_statement_tags
    with pytest.raises(LenswayError, match="statement_tags"):
        read_settings({"user": "u", "statement_tags": "maybe"})
