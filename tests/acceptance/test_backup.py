"""A backup of a running server, put back while its runners go on: no runner takes new settings for old ones."""

from __future__ import annotations

import pathlib
import sqlite3

import pytest

from lensway.testing.deployment import Deployment, wait_until

pytestmark = pytest.mark.acceptance


def shop(path: pathlib.Path, name: str) -> str:
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, '{name}')")
    connection.close()
    return str(path)


def test_a_restored_server_and_its_connected_runner_agree(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    files = {name: shop(tmp_path / f"{name}.sqlite", name) for name in ("old", "mid", "new")}
    policy = tmp_path / "policy.toml"
    policy.write_text(f"source_dirs = ['{tmp_path}']")
    copy = tmp_path / "copy"
    with Deployment(tmp_path, serve_options=["--source-dir", str(tmp_path)]) as deployment:
        client = deployment.client()

        def point_at(name: str) -> None:
            answer = client.patch("/v1/sources/shop", json={"config": {"path": files[name]}})
            assert answer.status_code < 300, answer.text

        def seen() -> str:
            answer = client.post("/v1/query/shop", json={"limit": 1})
            return answer.json()["rows"][0]["name"] if answer.status_code == 200 else answer.text

        created = client.post(
            "/v1/sources", json={"name": "shop", "bridge": "sqlite", "config": {"path": files["old"]}}
        )
        assert created.status_code == 201, created.text
        fields = {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}}
        client.put("/v1/lenses/shop", json={"source": "shop", "table": "t", "fields": fields})
        runner = deployment.start_runner(
            deployment.create_runner("alpha"), environment={"LENSWAY_RUNNER_POLICY": str(policy)}
        )
        deployment.assign("alpha", "shop")
        assert seen() == "old"
        taken = deployment.cli("backup", str(copy), "--data-dir", str(data))
        assert taken.returncode == 0, taken.stderr
        assert "master key" in taken.stderr
        point_at("mid")
        assert seen() == "mid"
        refused = deployment.cli("restore", str(copy), "--data-dir", str(data))
        assert refused.returncode == 2
        assert "Stop the server" in refused.stderr
        assert deployment.server is not None
        deployment.server.stop()
        done = deployment.cli("restore", str(copy), "--data-dir", str(data))
        assert done.returncode == 0, done.stderr
        deployment.start_server()
        runner.wait_line("connected, awaiting jobs", seconds=15, occurrences=1)
        wait_until(lambda: seen() == "old", seconds=15, what="the rows of the backup")
        # The revision of these settings was used before, for other ones.
        point_at("new")
        assert seen() == "new"
        rows = client.get("/v1/audit").json()["entries"]
        assert any(row["action"] == "store.restore" for row in rows)
        asking = {"LENSWAY_URL": deployment.url, "LENSWAY_API_KEY": deployment.admin_key}
        verified = deployment.cli("audit", "verify", environment=asking)
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_backup_of_another_master_key_leaves_the_store_as_it_is(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    copy = tmp_path / "copy"
    for directory in (first, second):
        directory.mkdir()
        with Deployment(directory) as deployment:
            if directory == first:
                assert deployment.cli("backup", str(copy), "--data-dir", str(first / "data")).returncode == 0
    before = (second / "data" / "lensway.db").read_bytes()
    refused = deployment.cli("restore", str(copy), "--data-dir", str(second / "data"))
    assert refused.returncode != 0
    assert "master key" in refused.stderr
    assert (second / "data" / "lensway.db").read_bytes() == before
    assert not list((second / "data").glob("*trial*"))
