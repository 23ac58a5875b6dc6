"""Walks over HTTP, inline and through a runner, in every format: NULLs and NUL characters in keys, and keys that rows share."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
from collections.abc import Iterator

import httpx2
import pyarrow as pa
import pytest

from lensway import limits
from lensway.testing.deployment import Deployment
from lensway.testing.fixtures import fresh_database
from lensway.testing.http_caller import Answer, Caller
from lensway.testing.postgres import PostgresCluster

pytestmark = pytest.mark.acceptance
ARROW = "application/vnd.apache.arrow.stream"
FORMATS = ("application/json", "application/x-ndjson", "text/csv", ARROW)
PLACES = ("inline", "runner")
csv.field_size_limit(2**24)
NAMES = [None, "a", "b\0", "b\0c", None, "x" * (limits.CURSOR_BYTES_MAX // 4), None]
FIELDS = {"id": {"type": "text", "primaryKey": True}, "v": {"type": "integer"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresCluster) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("walks")
    with sqlite3.connect(directory / "n.db") as connection:
        connection.execute("CREATE TABLE n (id TEXT PRIMARY KEY, v INT)")
        connection.executemany("INSERT INTO n VALUES (?, ?)", [(name, at) for at, name in enumerate(NAMES)])
        connection.execute("CREATE VIEW nv AS SELECT * FROM n")
        connection.execute("CREATE TABLE long (id TEXT PRIMARY KEY, v INT)")
        connection.executemany("INSERT INTO long VALUES (?, ?)", [("x" * 10**6 + str(at), at) for at in range(3)])
    connection.close()
    database = asyncio.run(fresh_database(postgres))
    url = database.reader_url
    asyncio.run(
        database.execute(
            "CREATE TABLE n (id text, v int)",
            "INSERT INTO n SELECT nullif(chr(97 + i / 3), 'c'), i FROM generate_series(0, 8) i",
            "CREATE TABLE total (id text PRIMARY KEY, v int)",
            "CREATE VIEW nv AS TABLE n",
            "CREATE VIEW totalv AS TABLE total",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO lens_reader_" + database.name,
        )
    )
    (directory / "deployment").mkdir()
    with Deployment(directory / "deployment", serve_options=["--source-dir", str(directory)]) as deployment:
        client = deployment.client()
        runner = deployment.create_runner("walker")
        policy = directory / "policy.toml"
        policy.write_text(f'source_dirs = ["{directory}"]')
        deployment.start_runner(runner, environment={"LENSWAY_RUNNER_POLICY": str(policy)})
        for place in PLACES:
            for bridge, config in (("sqlite", {"path": str(directory / "n.db")}), ("postgres", {"url": url})):
                name = f"{bridge}-{place}"
                body = {"name": name, "bridge": bridge, "config": config}
                assert client.post("/v1/sources", json=body).status_code == 201
                tables = ("n", "nv", "long") if bridge == "sqlite" else ("n", "nv", "total", "totalv")
                for table in tables:
                    body = {"source": name, "table": table, "fields": FIELDS}
                    assert client.put(f"/v1/lenses/{name}-{table}", json=body).status_code == 200
                if place == "runner":
                    deployment.assign("walker", name)
        yield Site(deployment, client)


class Site:
    def __init__(self, deployment: Deployment, client: httpx2.Client) -> None:
        self.deployment, self.client = deployment, client

    def ask(self, lens: str, body: dict, accept: str) -> Answer:
        with Caller(self.deployment.http_port, key=self.deployment.admin_key) as caller:
            caller.post(f"/v1/query/{lens}", body, headers={"Accept": accept})
            return caller.answer()

    def walk(self, lens: str, body: dict, accept: str) -> tuple[list[int], Answer]:
        """What a walk gave, and its last answer."""
        seen: list[int] = []
        cursor = None
        while True:
            answer = self.ask(lens, {**body, **({"cursor": cursor} if cursor else {})}, accept)
            if answer.status != 200:
                return seen, answer
            values, cursor = page_of(answer, accept)
            seen += values
            if cursor is None:
                return seen, answer


def page_of(answer: Answer, accept: str) -> tuple[list[int], str | None]:
    assert answer.is_complete
    if accept == "application/json":
        page = json.loads(answer.body)
        assert page["meta"]["hasMore"] == (page["meta"]["nextCursor"] is not None)
        return [row["v"] for row in page["rows"]], page["meta"]["nextCursor"]
    cursor = answer.trailers.get("lensway-next-cursor")
    assert answer.trailers["lensway-has-more"] == ("false" if cursor is None else "true")
    match accept:
        case "text/csv":
            return [int(row["v"]) for row in csv.DictReader(io.StringIO(answer.body.decode()))], cursor
        case "application/x-ndjson":
            return [json.loads(line)["v"] for line in answer.body.splitlines()], cursor
        case _:
            return pa.ipc.open_stream(answer.body).read_all().column("v").to_pylist(), cursor


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_nulls_and_nul_characters_in_the_key_of_a_sqlite_table_lose_no_row(site: Site, place: str, accept: str) -> None:
    for direction, expected in (("asc", [1, 2, 3, 5, 0, 4, 6]), ("desc", [6, 4, 0, 5, 3, 2, 1])):
        for limit in (1, 2, 7):
            body = {"limit": limit, "orderBy": {"field": "id", "dir": direction}}
            assert site.walk(f"sqlite-{place}-n", body, accept)[0] == expected, (direction, limit)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_a_page_that_would_end_between_equal_keys_is_refused(site: Site, place: str, accept: str) -> None:
    for lens, whole in ((f"sqlite-{place}-nv", 7), (f"postgres-{place}-n", 9), (f"postgres-{place}-nv", 9)):
        assert len(site.walk(lens, {"limit": whole}, accept)[0]) == whole, "one page holds all of them"
        seen, refused = site.walk(lens, {"limit": 5}, accept)
        assert (seen, refused.status) == ([], 422), lens
        error = json.loads(refused.body)["error"]
        assert (error["code"], error["details"]["class"]) == ("SOURCE_QUERY_FAILED", "key_not_unique")
        assert error["details"]["fields"] == ["id"]
        if lens.startswith("postgres"):
            seen, answer = site.walk(lens, {"limit": 3}, accept)
            assert (sorted(seen), answer.status) == (list(range(9)), 200), "these pages end between different keys"
            jumped = site.ask(lens, {"limit": 5, "offset": 4}, accept)
            assert json.loads(jumped.body)["error"]["details"]["class"] == "key_not_unique", "it begins between them"


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_a_key_that_is_too_long_for_a_cursor_says_what_to_do(site: Site, place: str, accept: str) -> None:
    lens = f"sqlite-{place}-long"
    assert len(site.walk(lens, {"limit": 3}, accept)[0]) == 3
    refused = site.ask(lens, {"limit": 2}, accept)
    if refused.status != 200:
        error = json.loads(refused.body)["error"]
        assert error["code"] == "limit_exceeded"
        assert "export" in error["hint"]
    else:
        assert not refused.is_complete, "a stream that had begun is cut"
    newest = site.client.get("/v1/requests?limit=1").json()["requests"][0]
    assert newest["outcome"] == "limit_exceeded", newest
    seen, _ = site.walk(lens, {"limit": 1, "select": ["v"], "orderBy": {"field": "v"}}, accept)
    assert seen == [], "the key is part of every order"


@pytest.mark.parametrize("place", PLACES)
def test_a_connection_test_warns_of_keys_that_rows_share(site: Site, place: str) -> None:
    found = {}
    for bridge in ("sqlite", "postgres"):
        answer = site.client.post(f"/v1/sources/{bridge}-{place}/test").json()["results"][0]
        assert answer["ok"], answer
        found[bridge] = [
            each["message"].split("'")[1] for each in answer["warnings"] if each["code"] == "key_not_unique"
        ]
    assert found == {
        "sqlite": [f"sqlite-{place}-nv"],
        "postgres": [f"postgres-{place}-n", f"postgres-{place}-nv"],
    }
