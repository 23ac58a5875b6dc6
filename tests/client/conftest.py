"""One server and one database for the client's tests, and both clients behind one face: what one can, the other can."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lensway
from lensway.testing.deployment import Deployment
from lensway.testing.postgres import Database, PostgresCluster

FIELDS = {
    "id": {"type": "integer", "primaryKey": True},
    "customer": {"type": "text"},
    "total": {"type": "decimal", "column": "total_amount"},
    "placed": {"type": "timestamp", "column": "created_at"},
    "note": {"type": "text"},
}
ORDERS = 5_000


@pytest.fixture(scope="session")
def shop(postgres: PostgresCluster) -> Database:
    """A database with 5,000 orders, one table without a primary key, and one that takes its time."""
    password = "reader-of-the-shop"
    asyncio.run(postgres.create_role_and_database("shop_reader", password, "shop"))
    database = Database(
        cluster=postgres,
        name="shop",
        owner_url=postgres.superuser_dsn("shop"),
        reader_url=postgres.url("shop_reader", password, "shop"),
        reader_password=password,
    )
    asyncio.run(
        database.execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, total_amount numeric(12,2),"
            " created_at timestamptz, note text)",
            "INSERT INTO orders SELECT i, 'customer ' || i % 97, i * 1.25, timestamptz '2024-01-01' + i * interval '1 minute',"
            " CASE WHEN i % 3 > 0 THEN 'note ' || i END FROM generate_series(1, 5000) i",
            # Some 40 MB, and never at once: wide enough that it cannot hide in the buffers between here and there.
            "CREATE VIEW big AS SELECT i::bigint AS id, repeat('x', 1000) AS customer, i::numeric AS total_amount,"
            " now() AS created_at, NULL::text AS note FROM generate_series(1, 40000) i",
            "CREATE VIEW slow AS SELECT o.* FROM orders o, (SELECT pg_sleep(3)) s",
            "CREATE VIEW endless AS SELECT i::bigint AS id, 'x' AS customer, i::numeric AS total_amount,"
            " now() AS created_at, NULL::text AS note FROM (SELECT generate_series(1, 1000000000) AS i) s",
            "GRANT SELECT ON orders, big, slow, endless TO shop_reader",
            "ANALYZE",
        )
    )
    return database


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, declare: Callable[[Deployment], None]) -> Iterator[Deployment]:
    """A running server with the shop's lenses."""
    with Deployment(tmp_path_factory.mktemp("client")) as deployment:
        declare(deployment)
        yield deployment


@pytest.fixture(scope="session")
def declare(shop: Database) -> Callable[[Deployment], None]:
    """Gives a server the shop's source and lenses."""
    return lambda deployment: _declare(deployment, shop)


def _declare(deployment: Deployment, shop: Database) -> None:
    keyless = {
        name: {key: value for key, value in field.items() if key != "primaryKey"} for name, field in FIELDS.items()
    }
    lenses = {
        "orders": {"source": "shop", "table": "public.orders", "fields": FIELDS},
        "keyless": {"source": "shop", "table": "public.orders", "fields": keyless},
        "big": {"source": "shop", "table": "public.big", "fields": keyless},
        "endless": {"source": "shop", "table": "public.endless", "fields": keyless, "limits": {"maxRows": 1000000000}},
        "slow": {"source": "shop", "table": "public.slow", "fields": keyless},
    }
    document = {"sources": {"shop": {"bridge": "postgres", "config": {"url": shop.reader_url}}}, "lenses": lenses}
    pushed = deployment.client().post("/v1/push", json=document)
    assert pushed.status_code == 200, pushed.text


@dataclasses.dataclass
class Face:
    """Either client, driven from a test that does not know which: what is awaitable is awaited, iterators become lists."""

    make: Any
    loop: asyncio.AbstractEventLoop

    def connect(self, deployment: Deployment, **options: Any) -> Face.Open:
        """A client of this kind with the admin key."""
        return self.at(deployment.url, deployment.admin_key, **options)

    def at(self, url: str, key: str = "ak_none", **options: Any) -> Face.Open:
        """A client of this kind."""
        return Face.Open(self.loop, self.make(url, key, **options))

    @dataclasses.dataclass
    class Open:
        """An open client or stream."""

        loop: asyncio.AbstractEventLoop
        it: Any

        def __getattr__(self, name: str) -> Any:
            found = getattr(self.it, name)
            return (lambda *args, **kwargs: self._settled(found(*args, **kwargs))) if callable(found) else found

        def __enter__(self) -> Face.Open:
            if hasattr(self.it, "__aenter__"):
                self.loop.run_until_complete(self.it.__aenter__())
            else:
                self.it.__enter__()
            return self

        def __exit__(self, *exc: object) -> None:
            if hasattr(self.it, "__aexit__"):
                self.loop.run_until_complete(self.it.__aexit__(*exc))
            else:
                self.it.__exit__(*exc)

        def _settled(self, value: Any) -> Any:
            if inspect.isawaitable(value):
                return self.loop.run_until_complete(value)
            if inspect.isasyncgen(value):
                return self._items(value)
            return (
                Face.Open(self.loop, value)
                if isinstance(value, (lensway.client.Stream, lensway.client.AsyncStream))
                else value
            )

        def _items(self, items: Any) -> Iterator[Any]:
            try:
                while True:
                    try:
                        yield self.loop.run_until_complete(anext(items))
                    except StopAsyncIteration:
                        return
            finally:
                self.loop.run_until_complete(items.aclose())


@pytest.fixture(params=["blocking", "awaiting"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Every test that takes it runs on both clients."""
    make = {"blocking": lensway.connect, "awaiting": lensway.connect_async}[request.param]
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        yield Face(make, loop)


@pytest.fixture
def client(face: Face, server: Deployment) -> Iterator[Face.Open]:
    """A client of either kind on the running server."""
    with face.connect(server) as client:
        yield client
