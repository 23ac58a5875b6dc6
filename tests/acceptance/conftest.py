"""One deployment and one database per test process; every test makes its own sources, lenses and runners in it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import secrets
from collections.abc import Callable, Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment, Process, RunnerIdentity
from lensway.testing.postgres import Database, PostgresCluster

CANARY = "canary:pa/ss@w0rd?" + secrets.token_hex(8)
_numbers = itertools.count(1)

FIELDS = {
    "id": {"type": "integer", "primaryKey": True},
    "customer": {"type": "text"},
    "total": {"type": "decimal", "column": "total_amount"},
    "placed": {"type": "timestamp", "column": "created_at"},
    "note": {"type": "text"},
}


@pytest.fixture(scope="session")
def orders(postgres: PostgresCluster) -> Database:
    """A database with 5,000 orders, and a view on them that takes two seconds."""
    password = CANARY
    asyncio.run(postgres.create_role_and_database("orders_reader", password, "orders"))
    database = Database(
        cluster=postgres,
        name="orders",
        owner_url=postgres.superuser_dsn("orders"),
        reader_url=postgres.url("orders_reader", password, "orders"),
        reader_password=password,
    )
    asyncio.run(
        database.execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, total_amount numeric(12,2),"
            " created_at timestamptz, note text)",
            "INSERT INTO orders SELECT i, 'customer ' || i % 97, i * 1.25, timestamptz '2024-01-01' + i * interval '1 minute',"
            " CASE WHEN i % 3 > 0 THEN 'note ' || i END FROM generate_series(1, 5000) i",
            "CREATE VIEW slow_orders AS SELECT o.* FROM orders o, (SELECT pg_sleep(2)) s",
            "GRANT SELECT ON orders, slow_orders TO orders_reader",
            "ANALYZE",
        )
    )
    return database


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running server."""
    with Deployment(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@dataclasses.dataclass
class Stage:
    """A source with two lenses, named for one test, and what the test starts."""

    deployment: Deployment
    client: httpx2.Client
    database: Database
    source: str
    lens: str
    slow_lens: str
    started: list[Process] = dataclasses.field(default_factory=list)
    identities: dict[str, RunnerIdentity] = dataclasses.field(default_factory=dict)

    def runner(self, name: str, *, start: bool = True, environment: dict[str, str] | None = None) -> Process | None:
        """Register a runner of this test, and start one process of it."""
        self.identities[name] = self.deployment.create_runner(f"{self.source}-{name}")
        return self.start(name, environment=environment) if start else None

    def start(self, name: str, *, environment: dict[str, str] | None = None, wait: bool = True) -> Process:
        """Start another process of a runner."""
        process = self.deployment.start_runner(self.identities[name], environment=environment, wait=wait)
        self.started.append(process)
        return process

    def name(self, runner: str) -> str:
        """The registered name of a runner."""
        return self.identities[runner].name

    def assign(self, runner: str) -> dict:
        """Assign this test's source."""
        return self.deployment.assign(self.name(runner), self.source)

    def unassign(self, runner: str) -> dict:
        """Unassign this test's source."""
        return self.deployment.unassign(self.name(runner), self.source)

    def query(
        self, body: dict | None = None, *, lens: str | None = None, client: httpx2.Client | None = None
    ) -> httpx2.Response:
        """Ask a lens."""
        return (client or self.client).post(f"/v1/query/{lens or self.lens}", json=body or {"limit": 1})

    def hold_slow_lens(self) -> None:
        """From now on queries on the slow lens take so long that only a cancel ends them within a test."""
        statements = (
            "CREATE OR REPLACE VIEW held_orders AS SELECT o.* FROM orders o, (SELECT pg_sleep(25)) s",
            "GRANT SELECT ON held_orders TO orders_reader",
        )
        with concurrent.futures.ThreadPoolExecutor(
            1
        ) as pool:  # a test with a browser has a loop of its own in its thread
            pool.submit(lambda: asyncio.run(self.database.execute(*statements))).result()
        lens = {"source": self.source, "table": "public.held_orders", "fields": FIELDS}
        self.client.put(f"/v1/lenses/{self.slow_lens}", json=lens).raise_for_status()

    def status_of(self, runner: str) -> dict:
        """What the API says of a runner."""
        return self.client.get(f"/v1/runners/{self.name(runner)}").json()

    def status_row(self, runner: str) -> dict:
        """The row of a runner in the list, with its warnings."""
        rows = self.client.get("/v1/runners").json()["runners"]
        return next(row for row in rows if row["name"] == self.name(runner))


@contextlib.contextmanager
def set_up(shared: Deployment, orders: Database) -> Iterator[Stage]:
    """A managed source of its own with its lenses; what was started on it ends with the block."""
    number = next(_numbers)
    client = shared.client()
    shared.secrets["password of the database"] = orders.reader_password
    stage = Stage(shared, client, orders, f"orders{number}", f"lens{number}", f"slow{number}")
    answer = client.post(
        "/v1/sources",
        json={"name": stage.source, "bridge": "postgres", "config": {"url": orders.reader_url}},
    )
    assert answer.status_code == 201, answer.text
    for lens, table in ((stage.lens, "public.orders"), (stage.slow_lens, "public.slow_orders")):
        put = client.put(f"/v1/lenses/{lens}", json={"source": stage.source, "table": table, "fields": FIELDS})
        assert put.status_code == 200, put.text
    yield stage
    for process in stage.started:
        if process.is_running:
            process.kill()


@pytest.fixture
def stage(shared: Deployment, orders: Database) -> Iterator[Stage]:
    """A managed source of its own with its lenses."""
    with set_up(shared, orders) as stage:
        yield stage


@pytest.fixture(scope="module")
def module_stage(shared: Deployment, orders: Database) -> Iterator[Stage]:
    """The same, once for all tests of a module that only look."""
    with set_up(shared, orders) as stage:
        yield stage


@pytest.fixture(scope="session")
def stage_of() -> Callable[[Deployment, Database], contextlib.AbstractContextManager[Stage]]:
    """Sets a stage up in a deployment that is not the shared one."""
    return set_up


@pytest.fixture
def canary() -> str:
    """The password of the database, which must appear nowhere."""
    return CANARY
