"""A login that may hold few connections is said in every status, while queries wait for each other and succeed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from lensway.testing.deployment import Deployment, wait_until
from lensway.testing.postgres import Database, PostgresCluster

pytestmark = pytest.mark.acceptance
BOUND = 2
CALLERS = 8


@pytest.fixture
def deployment(postgres: PostgresCluster, database: Database, tmp_path: pathlib.Path) -> Iterator[Deployment]:
    async def make() -> str:
        await database.execute(
            "CREATE VIEW slow AS SELECT n AS id FROM generate_series(1, 3) n, pg_sleep(0.1)",
            "GRANT SELECT ON slow TO PUBLIC",
        )
        role = f"few_{database.name}"
        await postgres.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'x' CONNECTION LIMIT {BOUND}")
        return postgres.url(role, "x", database.name)

    url = asyncio.run(make())
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        source = {"name": "few", "bridge": "postgres", "credentials": "managed", "config": {"url": url}}
        assert client.post("/v1/sources", json=source).status_code == 201
        fields = {"id": {"type": "integer", "primaryKey": True}}
        body = {"source": "few", "table": "public.slow", "fields": fields}
        assert client.put("/v1/lenses/slow", json=body).status_code in (200, 201)
        yield deployment


def ask_many(deployment: Deployment) -> None:
    def ask(_: int) -> int:
        return deployment.client().post("/v1/query/slow", json={}).status_code

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        assert set(pool.map(ask, range(CALLERS))) == {200}


def test_every_status_tells_of_a_login_with_too_few_connections(
    deployment: Deployment, database: Database, tmp_path: pathlib.Path
) -> None:
    client = deployment.client()
    assert "conditions" not in client.get("/v1/sources/few").json()
    identity = deployment.create_runner("alpha")
    # The path of a socket is short.
    state = {"LENSWAY_RUNNER_STATE_DIR": tempfile.mkdtemp(prefix="limits-")}
    deployment.start_runner(identity, environment=state)
    deployment.assign("alpha", "few")
    ask_many(deployment)

    def covered() -> dict:
        return client.get("/v1/runners/alpha").json()["sources"][0]

    wait_until(lambda: covered().get("cause") == "connection_limit", seconds=10, what="the runner to report it")
    shown = covered()
    assert shown["health"] == "ready"
    assert "CONNECTION LIMIT" in shown["hint"]
    assert client.get("/v1/runners/alpha").json()["status"] == "healthy"
    (listed,) = client.get("/v1/sources").json()["sources"]
    assert [(each["code"], each["runner"]) for each in listed["conditions"]] == [("connection_limit", "alpha")]
    variables = {
        "LENSWAY_RUNNER_ID": identity.id,
        "LENSWAY_RUNNER_TOKEN": identity.token,
        "LENSWAY_GATEWAY_URL": deployment.gateway_url,
        **state,
    }
    status = deployment.cli("runner", "status", environment=variables)
    assert status.returncode == 0, status.stdout + status.stderr
    assert "few: ready connection_limit" in status.stdout or '"cause": "connection_limit"' in status.stdout

    # The runner closes its connections, and the service has the same login.
    deployment.unassign("alpha", "few")
    pids = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'few_%'"
    wait_until(lambda: not asyncio.run(database.fetch(pids)), seconds=10, what="the runner to close its connections")
    assert "conditions" not in client.get("/v1/sources/few").json()
    ask_many(deployment)
    (inline,) = client.get("/v1/sources/few").json()["conditions"]
    assert (inline["code"], inline["runner"]) == ("connection_limit", None)
    assert "CONNECTION LIMIT" in inline["hint"]
