"""A file-backed source where no directory is allowed: every place that refuses it names the rule and what to do."""

from __future__ import annotations

import pathlib
import sqlite3

import duckdb
import pytest

from lensway.testing.deployment import Deployment, wait_until

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_every_place_names_source_dirs(tmp_path: pathlib.Path, kind: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    connect = {"sqlite": sqlite3.connect, "duckdb": duckdb.connect}[kind]
    made = connect(files / "data.db")
    made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    made.commit()
    made.close()
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        refused = client.post(
            "/v1/sources", json={"name": "near", "bridge": kind, "config": {"path": str(files / "data.db")}}
        )
        error = refused.json()["error"]
        assert (refused.status_code, error["details"]["rule"]) == (403, "path")
        for part in ("--source-dir DIR", "runner-local", "_PATH"):
            assert part in error["hint"]
        assert str(files) not in refused.text, "settings are not repeated"
        body = {"name": "filed", "bridge": kind, "credentials": "runner-local"}
        assert client.post("/v1/sources", json=body).status_code == 201
        fields = {"id": {"type": "integer", "primaryKey": True}}
        client.put("/v1/lenses/filed", json={"source": "filed", "table": "t", "fields": fields})
        identity = deployment.create_runner("alpha")
        path = {"LENSWAY_SOURCE_FILED_PATH": str(files / "data.db")}
        runner = deployment.start_runner(identity, environment=path)
        deployment.assign("alpha", "filed")
        runner.wait_line("filed cannot be served: the local policy does not allow the file of this source")
        runner.wait_line("source_dirs")
        wait_until(
            lambda: client.get("/v1/runners/alpha").json()["status"] == "degraded", seconds=10, what="the report"
        )
        shown = client.get("/v1/runners/alpha").json()
        assert shown["cause"] == "refused (path)"
        tested = client.post("/v1/sources/filed/test").json()["results"][0]["stages"][0]
        query = client.post("/v1/query/filed", json={})
        assert query.json()["error"]["code"] == "refused_by_runner"
        tables = client.get("/v1/sources/filed/tables")
        for text in (shown["hint"], tested["hint"], query.text, tables.text):
            assert "source_dirs" in text
            assert "LENSWAY_RUNNER_POLICY" in text
        assert "source_dirs" in deployment.cli("query", "filed").stderr
        # What the hint says helps.
        runner.stop()
        policy = tmp_path / "policy.toml"
        policy.write_text(f'source_dirs = ["{files}"]\n')
        deployment.start_runner(identity, environment=path | {"LENSWAY_RUNNER_POLICY": str(policy)})
        wait_until(lambda: client.post("/v1/query/filed", json={}).status_code == 200, seconds=10, what="rows")


def test_another_rule_has_another_hint(stage, tmp_path: pathlib.Path) -> None:
    policy = tmp_path / "policy.toml"
    for rule, part in (('hosts = ["*.internal"]', "`hosts`"), ('sources = ["other"]', "`sources`")):
        policy.write_text(rule + "\n")
        name = "alpha" if "hosts" in rule else "beta"
        stage.runner(name, environment={"LENSWAY_RUNNER_POLICY": str(policy)})
        stage.assign(name)
        wait_until(lambda name=name: stage.status_of(name)["status"] == "degraded", seconds=10, what="the report")
        assert part in stage.status_of(name)["hint"]
        assert part in stage.query().json()["error"]["hint"]
        stage.unassign(name)
