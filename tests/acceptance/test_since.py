"""Since when a runner is in its state is the same before and after a restart of the server, however the server ended."""

from __future__ import annotations

import datetime
import pathlib

import pytest

from lensway.testing.deployment import Deployment, free_ports, wait_until
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance

EXPECTED = {
    "healthy": "healthy",
    "double": "healthy",
    "drained": "draining",
    "resumed": "healthy",
    "cut-off": "degraded",
    "left": "offline",
    "revoked": "revoked",
}


def shown(deployment: Deployment) -> dict[str, dict]:
    """Each runner's row, once its sources have been reported."""
    rows = {row["name"]: row for row in deployment.client().get("/v1/runners").json()["runners"]}
    assert rows.keys() == EXPECTED.keys()
    return rows


def is_settled(deployment: Deployment) -> bool:
    rows = shown(deployment)
    reported = all(
        source["health"] not in ("pending", "offline")
        for row in rows.values()
        if row["instances"]
        for source in row["sources"]
    )
    return (
        reported
        and {name: row["status"] for name, row in rows.items()} == EXPECTED
        and len(rows["double"]["instances"]) == 2
    )


def moments(deployment: Deployment) -> dict[str, float]:
    rows = shown(deployment)
    found = {name: row["since"] for name, row in rows.items()}
    found |= {
        f"{row['name']} {source['name']}": source["since"]
        for row in rows.values()
        for source in row["sources"]
        if "since" in source
    }
    assert all(found.values()), found
    return {name: datetime.datetime.fromisoformat(at).timestamp() for name, at in found.items()}


def test_status_counts_from_the_same_moment_after_a_restart(orders: Database, tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        nowhere = f"postgresql://reader:x@127.0.0.1:{free_ports(1)[0]}/x"
        for name, url in (("main", orders.reader_url), ("gone", nowhere)):
            body = {"name": name, "bridge": "postgres", "config": {"url": url}}
            assert client.post("/v1/sources", json=body).status_code == 201
        processes = {}
        for name in EXPECTED:
            identity = deployment.create_runner(name)
            processes[name] = deployment.start_runner(identity, wait=False)
            if name == "double":
                deployment.start_runner(identity, wait=False)
        for process in deployment.runners:
            process.wait_line("connected, awaiting jobs")
        for name in EXPECTED:
            deployment.assign(name, "gone" if name == "cut-off" else "main")
        assert processes["left"].stop() == 0
        for name, action in (("drained", "drain"), ("resumed", "drain"), ("resumed", "resume"), ("revoked", "revoke")):
            assert client.post(f"/v1/runners/{name}/{action}").status_code == 200
            if name == "resumed" and action == "drain":
                wait_until(
                    lambda: client.get("/v1/runners/resumed").json()["status"] == "draining",
                    seconds=10,
                    what="the drain",
                )
        wait_until(lambda: is_settled(deployment), seconds=20, what="every runner to be as it is to be")
        before = moments(deployment)
        assert before["resumed"] > before["drained"] > before["healthy"]
        for end in ("stop", "kill"):
            getattr(deployment.server, end)()
            deployment.start_server()
            wait_until(lambda: is_settled(deployment), seconds=30, what="every runner to be as it was")
            after = moments(deployment)
            assert after == pytest.approx(before, abs=0.25)


def test_a_runner_is_well_since_its_broken_source_was_unassigned(stage) -> None:
    gone = f"{stage.source}-gone"
    nowhere = f"postgresql://reader:x@127.0.0.1:{free_ports(1)[0]}/x"
    body = {"name": gone, "bridge": "postgres", "config": {"url": nowhere}}
    assert stage.client.post("/v1/sources", json=body).status_code == 201
    stage.runner("alpha")
    stage.assign("alpha")
    name = stage.name("alpha")
    for _ in range(2):
        began = datetime.datetime.now(datetime.UTC)
        stage.deployment.assign(name, gone)
        wait_until(lambda: stage.status_of("alpha")["status"] == "degraded", seconds=15, what="the broken source")
        assert datetime.datetime.fromisoformat(stage.status_of("alpha")["since"]) > began
        began = datetime.datetime.now(datetime.UTC)
        stage.deployment.unassign(name, gone)
        wait_until(lambda: stage.status_of("alpha")["status"] == "healthy", seconds=15, what="health")
        assert datetime.datetime.fromisoformat(stage.status_of("alpha")["since"]) >= began.replace(microsecond=0)
