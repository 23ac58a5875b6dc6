"""Rows over HTTP in every format: what surrounds them, compression, flow control, and that a cut is seen by every client."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment
from lensway.testing.http_caller import Answer, Caller
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance
STALL_SECONDS = 2
FORMATS = ("application/json", "application/x-ndjson", "application/x-ndjson; end=record", "text/csv")
PLACES = ("near", "far")
"""A source without assignments, and one that a runner serves."""
TABLES = {
    "items": {"id": "integer", "name": "text"},
    "endless": {"id": "integer", "body": "text"},
    "failing": {"id": "integer", "quotient": "integer"},
}


@dataclasses.dataclass
class Site:
    """A server with one runner, and the same lenses on both sides of it."""

    deployment: Deployment
    client: httpx2.Client
    database: Database

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

    def backends(self, *, state: str = "%") -> int:
        """Connections of ours to the database in this state, inside a transaction."""
        return asyncio.run(
            fetch(
                self.database,
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lensway' AND state LIKE $1"
                " AND xact_start IS NOT NULL",
                state,
            )
        )


async def fetch(database: Database, statement: str, *arguments: object) -> int:
    import asyncpg

    connection = await asyncpg.connect(database.owner_url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def site(orders: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the whole module."""
    asyncio.run(
        orders.execute(
            "CREATE TABLE items AS SELECT i::bigint AS id, CASE WHEN i % 5 > 0 THEN 'item, \"' || i || '\"' END AS name"
            " FROM generate_series(1, 3000) i",
            "ALTER TABLE items ADD PRIMARY KEY (id)",
            "CREATE VIEW endless AS SELECT id, repeat(md5(id::text), 16) AS body"
            " FROM (SELECT generate_series(1::bigint, 100000000) AS id) s",
            "CREATE VIEW failing AS SELECT id, 1000000 / (20000 - id) AS quotient"
            " FROM (SELECT generate_series(1::bigint, 30000) AS id) s",
            "GRANT SELECT ON items, endless, failing TO orders_reader",
        )
    )
    options = ("--stall-timeout", str(STALL_SECONDS))
    with Deployment(tmp_path_factory.mktemp("streams"), serve_options=options) as deployment:
        client = deployment.client()
        for place in PLACES:
            source = {"name": place, "bridge": "postgres", "config": {"url": orders.reader_url}}
            assert client.post("/v1/sources", json=source).status_code == 201
            for table, fields in TABLES.items():
                lens = {
                    "source": place,
                    "table": f"public.{table}",
                    "fields": {name: {"type": kind, "primaryKey": name == "id"} for name, kind in fields.items()},
                }
                assert client.put(f"/v1/lenses/{place}-{table}", json=lens).status_code == 200
        deployment.start_runner(deployment.create_runner("alpha"))
        deployment.assign("alpha", "far")
        yield Site(deployment, client, orders)


def rows_of(answer: Answer, accept: str) -> list[dict]:
    """The rows of a complete answer."""
    text = answer.body.decode()
    if accept == "application/json":
        return json.loads(text)["rows"]
    if accept == "text/csv":
        return [{"id": int(row["id"]), "name": row["name"] or None} for row in csv.DictReader(io.StringIO(text))]
    lines = [json.loads(line) for line in text.splitlines()]
    return lines[:-1] if "end=record" in accept else lines


@pytest.mark.parametrize("place", PLACES)
def test_every_format_has_the_same_rows_with_its_route_before_and_its_count_behind(site: Site, place: str) -> None:
    expected = site.client.post(f"/v1/query/{place}-items", json={"limit": 3000}).json()
    route = expected["meta"]["route"]
    assert route["via"] == ("inline" if place == "near" else "runner")
    for accept in FORMATS:
        page = site.ask(
            f"/v1/query/{place}-items", {"where": {"id": {"$gt": 10}}, "limit": 7, "total": True}, accept=accept
        )
        whole = site.ask(f"/v1/query/{place}-items/export", {"orderBy": {"field": "id"}}, accept=accept)
        assert (page.status, whole.status) == (200, 200)
        assert rows_of(page, accept) == expected["rows"][10:17], accept
        assert rows_of(whole, accept) == expected["rows"], accept
        if "end=record" in accept:
            assert page.body.endswith(b'\n{"$end":{"rows":7}}\n')
        for answer in (page, whole) if accept != "application/json" else (whole,):
            assert json.loads(answer.headers["lensway-route"]) == route
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.headers["vary"] == "Accept, Accept-Encoding"
            announced = {name.strip().lower() for name in answer.headers["trailer"].split(",")}
            assert set(answer.trailers) <= announced
        assert whole.trailers["lensway-rows"] == "3000"
        assert whole.trailers["lensway-has-more"] == "false"
        assert "lensway-next-cursor" not in whole.trailers
        if accept != "application/json":
            assert page.trailers["lensway-rows"] == "7"
            assert page.trailers["lensway-total"] == "2990"
            cursor = page.trailers["lensway-next-cursor"]
            following = site.ask(
                f"/v1/query/{place}-items", {"where": {"id": {"$gt": 10}}, "cursor": cursor, "limit": 3}, accept=accept
            )
            assert rows_of(following, accept) == expected["rows"][17:20]


def test_the_connection_serves_on_behind_a_stream(site: Site) -> None:
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
        for _ in range(3):
            caller.post("/v1/query/near-items", {"limit": 2}, headers={"Accept": "text/csv"})
            assert caller.answer().trailers["lensway-rows"] == "2"


def test_what_is_not_available_is_refused_before_anything_runs(site: Site) -> None:
    parquet = site.ask("/v1/query/near-items", accept="application/vnd.apache.parquet")
    image = site.ask("/v1/query/near-items/export", accept="image/png")
    old = [
        site.ask("/v1/query/near-items/export", accept="text/csv", version="1.0"),
        site.ask("/v1/query/near-items", accept="text/csv", version="1.0"),
    ]
    for answer in (parquet, image, *old):
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (406, "not_acceptable")
    assert "export" in json.loads(parquet.body)["error"]["hint"]
    assert site.ask("/v1/query/near-items", {"limit": 1}, version="1.0").status == 200, "a page has its length"
    packed = site.ask("/v1/query/near-items", {}, Content_Encoding="gzip")
    assert (packed.status, json.loads(packed.body)["error"]["code"]) == (415, "unsupported_media_type")
