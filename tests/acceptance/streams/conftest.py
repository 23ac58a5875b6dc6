"""A server with one runner, and the same lenses on both sides of it, for the tests of rows over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator

import asyncpg
import httpx2
import psutil
import pytest

from lensway.testing.deployment import Deployment, Process, RunnerIdentity
from lensway.testing.http_caller import Answer, Caller
from lensway.testing.postgres import Database

STALL_SECONDS = 2
PLACES = ("near", "far")
"""A source without assignments, and one that a runner serves."""
TABLES = {
    "items": {"id": "integer", "name": "text"},
    "wide": {"id": "integer", "body": "text"},
    "enormous": {"id": "integer", "body": "text"},
    "endless": {"id": "integer", "body": "text"},
    "failing": {"id": "integer", "body": "text", "quotient": "integer"},
}


@dataclasses.dataclass
class Site:
    """A server with one runner, and the same lenses on both sides of it."""

    deployment: Deployment
    client: httpx2.Client
    database: Database
    identity: RunnerIdentity
    runner: Process

    def ask(
        self, path: str, body: dict | None = None, *, accept: str | None = None, version: str = "1.1", **headers: str
    ) -> Answer:
        """One answer with its trailers."""
        with Caller(self.deployment.http_port, key=self.deployment.admin_key) as caller:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            caller.post(path, body, headers={**({"Accept": accept} if accept else {}), **named}, version=version)
            return caller.answer()

    def last_request(self) -> dict:
        """What became of the newest request."""
        return self.client.get("/v1/requests", params={"limit": 1}).json()["requests"][0]

    def start_runner(self) -> None:
        """Start the runner again, after its process was killed; returns when it serves."""
        self.runner = self.deployment.start_runner(self.identity)

    def is_served_by_runner(self) -> bool:
        """True when the far source can be asked."""
        return self.client.post("/v1/query/far-items", json={"limit": 1}).status_code == 200

    def backends(self) -> int:
        """Our transactions in the database."""
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lensway' AND xact_start IS NOT NULL"
        )
        return asyncio.run(self.database_value(statement))

    async def database_value(self, statement: str) -> int:
        """The one value that this gives to the owner of the database."""
        connection = await asyncpg.connect(self.database.owner_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def standing(self) -> int:
        """Exports of ours that the database cannot go on with, because nobody takes their rows."""
        seen = "SELECT pid, tuples_processed FROM pg_stat_progress_copy WHERE tuples_processed > 0"

        async def look() -> int:
            connection = await asyncpg.connect(self.database.owner_url)
            try:
                before = await connection.fetch(seen)
                await connection.execute("SELECT pg_sleep(0.4)")
                after = await connection.fetch(seen)
            finally:
                await connection.close()
            return len({tuple(row) for row in before} & {tuple(row) for row in after})

        return asyncio.run(look())

    def connection_of(self, caller: Caller) -> Callable[[], bool]:
        """Whether the server still has its end of this caller's connection."""
        process = psutil.Process(self.deployment.server.pid)
        return lambda: any(
            each.raddr and each.raddr.port == caller.local_port for each in process.net_connections(kind="tcp")
        )


def is_key(table: str, column: str) -> bool:
    """Views without an end have no key: its order would be a sort of everything before the first row."""
    return column == "id" and table not in ("endless", "failing")


@pytest.fixture(scope="session")
def site(orders: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all of them."""
    asyncio.run(
        orders.execute(
            "CREATE TABLE items AS SELECT i::bigint AS id, CASE WHEN i % 5 > 0 THEN 'item, \"' || i || '\"' END AS name"
            " FROM generate_series(3000, 1, -1) i",
            "ALTER TABLE items ADD PRIMARY KEY (id)",
            "CREATE TABLE wide AS SELECT i::bigint AS id, repeat(md5(i::text), 16) AS body FROM generate_series(1, 10000) i",
            "ALTER TABLE wide ADD PRIMARY KEY (id)",
            "CREATE VIEW endless AS SELECT id, repeat(md5(id::text), 16) AS body"
            " FROM (SELECT generate_series(1::bigint, 100000000) AS id) s",
            "CREATE VIEW failing AS SELECT id, repeat(md5(id::text), 16) AS body, 1000000 / (4000 - id) AS quotient"
            " FROM (SELECT generate_series(1::bigint, 5000) AS id) s",
            "CREATE UNLOGGED TABLE enormous (id bigint PRIMARY KEY, body text)",
            "ALTER TABLE enormous ALTER body SET STORAGE EXTERNAL",
            "INSERT INTO enormous VALUES (1, repeat('x', 100000000))",
            "GRANT SELECT ON enormous, items, wide, endless, failing TO orders_reader",
        )
    )
    directory = tmp_path_factory.mktemp("streams")
    (directory / "files").mkdir()
    options = ("--stall-timeout", str(STALL_SECONDS), "--source-dir", str(directory / "files"))
    with Deployment(directory, serve_options=options) as deployment:
        client = deployment.client()
        deployment.secrets["password of the database"] = orders.reader_password
        for place in PLACES:
            source = {"name": place, "bridge": "postgres", "config": {"url": orders.reader_url}}
            assert client.post("/v1/sources", json=source).status_code == 201
            for table, fields in TABLES.items():
                lens = {
                    "source": place,
                    "table": f"public.{table}",
                    "fields": {
                        name: {"type": kind, "primaryKey": is_key(table, name)} for name, kind in fields.items()
                    },
                }
                assert client.put(f"/v1/lenses/{place}-{table}", json=lens).status_code == 200
        identity = deployment.create_runner("alpha")
        runner = deployment.start_runner(identity)
        deployment.assign("alpha", "far")
        yield Site(deployment, client, orders, identity, runner)
