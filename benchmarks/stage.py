"""What the figures share: a PostgreSQL with tables, a server with a runner, the bare handler; and how CPU time is read."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import httpx2
import psutil

from lensway.testing.deployment import Deployment, Process, clean_environment, free_ports
from lensway.testing.postgres import PostgresCluster

ORDERS = 200_000
LARGE_ROWS = 500_000
"""Rows of about 1,000 bytes of an export that does not end while something else is measured."""
ORDER_FIELDS = {
    "id": {"type": "integer", "primaryKey": True},
    "customer": {"type": "text"},
    "note": {"type": "text"},
    "total": {"type": "decimal"},
    "placed": {"type": "timestamp"},
}
WIDE_FIELDS = {"id": {"type": "integer"}, "body": {"type": "text"}}
"""Of a view: no key, because no index gives its order."""
_TABLES = (
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, note text, total numeric, placed timestamptz)",
    f"INSERT INTO orders SELECT i, 'customer ' || i % 997, repeat('note ', 4) || i, i / 7.0::numeric(12,2), "
    f"'2026-01-01'::timestamptz + i * interval '1 minute' FROM generate_series(1, {ORDERS}) i",
    "ANALYZE orders",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
)


class Stage:
    """A deployment with one source `main`, served inline or by the runner `alpha`."""

    def __init__(self, cluster: PostgresCluster, deployment: Deployment) -> None:
        self.cluster = cluster
        self.deployment = deployment
        self.client: httpx2.Client = deployment.client()
        self.dsn = cluster.url("reader", "secret", "bench")
        self.made: set[str] = set()
        self.add_source("main")
        self.add_lens("orders", "public.orders", ORDER_FIELDS)
        self.key: str = self._make("keys", {"kind": "sk", "name": "bench"})["key"]
        self.runner: Process = deployment.start_runner(
            # At most half of what a runner takes may be exports, and one figure holds fifty of them.
            deployment.create_runner("alpha"),
            environment={"LENSWAY_RUNNER_CAPACITY": "128"},
        )

    @property
    def server(self) -> Process:
        """The server's process."""
        assert self.deployment.server is not None
        return self.deployment.server

    def execute(self, *statements: str) -> None:
        """Run statements as the database's owner."""
        asyncio.run(_execute(self.cluster, statements))

    def add_source(self, name: str) -> None:
        """A source of this name; all of them are the one database."""
        self._make("sources", {"name": name, "bridge": "postgres", "config": {"url": self.dsn}})

    def add_lens(self, name: str, table: str, fields: Mapping[str, Any], *, source: str = "main") -> None:
        """A lens on a table of the source."""
        answer = self.client.put(f"/v1/lenses/{name}", json={"source": source, "table": table, "fields": fields})
        assert answer.status_code in (200, 201), answer.text

    def place(self, where: str) -> None:
        """Let the source be served by the `runner`, or `inline`."""
        (self.deployment.assign if where == "runner" else self.deployment.unassign)("alpha", "main")

    def database_cpu_seconds(self) -> float:
        """CPU time of the database and every process it has now."""
        postmaster = psutil.Process(self.cluster.pid)
        found = 0.0
        for process in (postmaster, *postmaster.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += sum(process.cpu_times()[:2])
        return found

    def _make(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.post(f"/v1/{kind}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    @contextlib.contextmanager
    def bare(self, *options: str) -> Iterator[tuple[int, int]]:
        """The bare handler running: its port and process id."""
        [port] = free_ports(1)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare", str(port), self.dsn, *options], env=clean_environment()
        )
        try:
            until(lambda: _listens(port), 30.0, "the bare handler")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Everything up; gone when the block ends."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o711)
        (directory / "server").mkdir()
        with PostgresCluster(directory / "postgres") as cluster, Deployment(directory / "server") as deployment:
            asyncio.run(cluster.create_role_and_database("reader", "secret", "bench"))
            asyncio.run(_execute(cluster, _TABLES))
            yield Stage(cluster, deployment)


@contextlib.contextmanager
def deployments(shared: Stage) -> Iterator[Callable[[str, Callable[[pathlib.Path], None]], Stage]]:
    """A maker of further deployments beside the same database: it takes a name, and what to do to the data directory before
    the server starts. They are gone when the block ends."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:

        def start(name: str, prepare: Callable[[pathlib.Path], None]) -> Stage:
            place = pathlib.Path(directory) / name
            place.mkdir()
            prepare(place / "data")
            return Stage(shared.cluster, stack.enter_context(Deployment(place)))

        yield start


async def _execute(cluster: PostgresCluster, statements: Sequence[str]) -> None:
    connection = await asyncpg.connect(cluster.superuser_dsn("bench"))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def cpu_seconds(*pids: int) -> float:
    """CPU time that these processes have used so far, user and system."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and its own: shared pages of files are left out."""
    info = psutil.Process(pid).memory_info()
    return int(info.rss - info.shared)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until true. Raises AssertionError naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False
