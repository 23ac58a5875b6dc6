"""The use cases answer questions for any front end: here there is no HTTP, no server and no store on disk."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lensway.api.shapes import CountRequest, ExportRequest, QueryRequest
from lensway.auth.caller import Caller
from lensway.auth.decisions import identity_of
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import ExecutionLibrary
from lensway.catalog.records import Environment, Key, KeyKind, Role
from lensway.clock import SystemClock
from lensway.dispatch.routes import SnapshotRoutes
from lensway.dispatch.shell import Dispatcher
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import KeyId, new_environment_id, new_request_id
from lensway.inline.executor import InlineExecutor
from lensway.query.result import RowFormat, decode_end
from lensway.testing.memory_store import MemoryStore
from lensway.usecases.connection_tests import ConnectionTests
from lensway.usecases.desk import Desk
from lensway.usecases.endings import KeyEndings
from lensway.usecases.events import EventHub
from lensway.usecases.explain import Explanations
from lensway.usecases.lenses import Lenses
from lensway.usecases.query import Delivery, Queries
from lensway.usecases.requests import RequestRing, Requests
from lensway.usecases.sources import Sources
from lensway.usecases.tally import AuditTally

NOW = "2026-01-01T00:00:00Z"
ORDERS = {
    "source": "main",
    "table": "orders",
    "fields": {"id": {"type": "integer", "primaryKey": True}, "total": {"type": "decimal"}},
}


class Node:
    """One node without a front end, and a caller."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._environment = Environment(id=new_environment_id(), name="default", created_at=NOW)
        keys = [self._key(kind) for kind in KeyKind]
        clock, store = SystemClock(), MemoryStore([self._environment, *keys])
        library = ExecutionLibrary(AddressPolicy())
        self.executor = InlineExecutor(store, library)
        ring = RequestRing()
        self.dispatcher = Dispatcher(
            SnapshotRoutes(store), self.executor, clock, on_record=lambda record, _result: ring.over(record)
        )
        self.executor.connect(self.dispatcher.handle)
        store.subscribe(lambda _snapshot, _changes: self.dispatcher.catalog_changed())
        tally = AuditTally(store, clock)
        endings = KeyEndings(store, self.dispatcher, clock, tally.note)
        desk = Desk(
            store=store,
            dispatcher=self.dispatcher,
            hub=EventHub(clock),
            clock=clock,
            endings=endings,
            tally=tally,
            gateway_url="ws://g",
        )
        self.queries = Queries(desk, ring, b"k" * 32)
        self.explanations = Explanations(desk, self.queries)
        self.requests = Requests(desk, ring)
        self.lenses = Lenses(desk)
        self.sources = Sources(desk, ConnectionTests(desk), library.check)
        self._path = directory / "shop.db"
        with sqlite3.connect(self._path) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total TEXT)")
            connection.executemany("INSERT INTO orders VALUES (?, ?)", [(n, f"{n}.50") for n in range(1, 8)])
        connection.close()

    def _key(self, kind: KeyKind) -> Key:
        role = Role.ADMIN if kind is KeyKind.ADMIN else None
        id, hash = KeyId(f"key_{kind.value}"), kind.value.encode().ljust(32)
        return Key(
            id=id, environment=self._environment.id, kind=kind, name="a test", hash=hash, role=role, created_at=NOW
        )

    def caller(self, kind: KeyKind = KeyKind.ADMIN) -> Caller:
        identity = identity_of(self._key(kind))
        return Caller(identity=identity, environment=self._environment, request_id=new_request_id(), address="")

    async def declare(self) -> None:
        config = {"path": str(self._path)}
        await self.sources.create(self.caller(), {"name": "main", "bridge": "sqlite", "config": config})
        await self.lenses.put(self.caller(), "orders", ORDERS)

    async def close(self) -> None:
        await self.dispatcher.stop(5)
        await self.executor.close()
        self.dispatcher.close()


def told(directory: pathlib.Path, story: Callable[[Node], Any]) -> None:
    async def run() -> None:
        node = Node(directory)
        try:
            await node.declare()
            await story(node)
        finally:
            await node.close()

    asyncio.run(run())


def test_a_page_its_cursor_and_what_became_of_it(tmp_path: pathlib.Path) -> None:
    async def story(node: Node) -> None:
        seen: list[int] = []
        cursor = None
        for _ in range(3):
            caller = node.caller(KeyKind.SERVICE)
            question = QueryRequest(limit=3, cursor=cursor)
            answering = node.queries.rows(caller, "orders", question, format=RowFormat.JSON, delivery=Delivery.WHOLE)
            page = await answering.handle.page()
            seen += [row["id"] for row in json.loads(b"[" + b"".join(page.chunks) + b"]")]
            meta = answering.meta(decode_end(page.result), page.record)
            assert meta.route.via == "inline"
            assert node.requests.show(caller, caller.request_id)["outcome"] == "completed"
            cursor = meta.next_cursor
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        assert cursor is None

    told(tmp_path, story)


def test_counts_exports_and_explanations(tmp_path: pathlib.Path) -> None:
    async def story(node: Node) -> None:
        counting = node.queries.count(node.caller(), "orders", CountRequest(where={"total": {"$gt": "3.50"}}))
        assert json.loads(b"".join((await counting.handle.page()).chunks)) == {"count": 4}
        export = node.queries.export(node.caller(), "orders", ExportRequest(select=["id"]), format=RowFormat.NDJSON)
        lines = b"".join([chunk async for chunk in export.handle.stream()]).splitlines()
        assert [json.loads(line) for line in lines] == [{"id": n} for n in range(1, 8)]
        explained = node.explanations.explain(node.caller(), "orders", QueryRequest())
        assert explained["route"] == {"via": "inline", "runner": None, "candidates": []}
        assert [lens["name"] for lens in node.lenses.askable(node.caller())["lenses"]] == ["orders"]

    told(tmp_path, story)


def test_access_is_decided_before_anything_runs(tmp_path: pathlib.Path) -> None:
    async def story(node: Node) -> None:
        public = node.caller(KeyKind.PUBLISHABLE)
        with pytest.raises(LenswayError) as refused:
            node.queries.rows(public, "orders", QueryRequest(), format=RowFormat.JSON, delivery=Delivery.WHOLE)
        assert refused.value.code is ErrorCode.NOT_FOUND
        assert node.requests.list(node.caller(), limit=10) == {"requests": []}

    told(tmp_path, story)


def test_no_use_case_brings_http_along() -> None:
    program = (
        "import sys, lensway.usecases.bundle, lensway.usecases.statuses, lensway.inline.executor;"
        "print([name for name in ('starlette', 'uvicorn', 'sqlalchemy', 'httpx2', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
