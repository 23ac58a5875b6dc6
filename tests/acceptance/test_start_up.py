"""A start that cannot succeed is one line with a remedy and exit code 2, and leaves nothing half-made behind."""

from __future__ import annotations

import base64
import os
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from lensway.testing.deployment import Deployment, clean_environment, free_ports

pytestmark = pytest.mark.acceptance


def serve(directory: pathlib.Path, *options: str, prefix: tuple[str, ...] = (), **environment: str):
    """One start of a server that must end by itself."""
    http, gateway = free_ports(2)
    addresses = {"--http": f"127.0.0.1:{http}", "--gateway": f"127.0.0.1:{gateway}"}
    given = [text for name, value in addresses.items() if name not in options for text in (name, value)]
    return subprocess.run(
        [*prefix, sys.executable, "-m", "lensway.cli.main", "serve", "--data-dir", str(directory), *given, *options],
        env=clean_environment() | environment,
        cwd=directory.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    assert "serves" not in done.stdout
    for text in says:
        assert text in done.stderr


def test_files_that_others_can_reach(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    refused(serve(data), "0777", f"chmod 700 {data}")
    assert list(data.iterdir()) == []
    data.chmod(0o700)
    key = data / "master.key"
    key.write_text(base64.b64encode(b"k" * 32).decode())
    key.chmod(0o644)
    refused(serve(data), "0644", f"chmod 600 {key}")


def test_a_full_disk_at_the_first_start_blocks_no_later_one(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    # No file may grow at all: what a full disk is to a program that writes.
    refused(serve(data, prefix=("prlimit", "--fsize=0")), "cannot be used", "free space")
    refused(serve(data, prefix=("prlimit", "--fsize=64")), str(data))
    with Deployment(tmp_path) as deployment:
        assert deployment.client().get("/v1/keys").status_code == 200


def test_a_store_that_is_damaged_or_something_else(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    store = data / "lensway.db"
    key = {"LENSWAY_MASTER_KEY": base64.b64encode(b"k" * 32).decode()}
    store.write_bytes(b"nothing of ours " * 1000)
    store.chmod(0o600)
    refused(serve(data, **key), str(store), "not a Lensway database")
    store.unlink()
    with sqlite3.connect(store) as foreign:
        foreign.execute("CREATE TABLE keys (something TEXT)")
    foreign.close()
    store.chmod(0o600)
    refused(serve(data, **key), str(store))


@pytest.mark.parametrize(
    "options",
    [
        ("--http", "127.0.0.1:{port}", "--gateway", "127.0.0.1:{port}"),
        ("--http", "0.0.0.0:{port}", "--gateway", "127.0.0.1:{port}"),
        ("--http", "127.0.0.1:{port}", "--gateway", "0.0.0.0:{port}"),
        ("--http", "127.0.0.1:{port}", "--metrics", "127.0.0.1:{port}"),
        ("--gateway", "127.0.0.1:{port}", "--metrics", "127.0.0.1:{port}"),
    ],
    ids=["http-gateway", "any-gateway", "http-any", "http-metrics", "gateway-metrics"],
)
def test_one_address_for_two_listeners(tmp_path: pathlib.Path, options: tuple[str, ...]) -> None:
    port = free_ports(1)[0]
    refused(serve(tmp_path / "data", *(text.format(port=port) for text in options)), str(port))


def test_sqlite_files_are_opened_in_named_directories_only(tmp_path: pathlib.Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for path in (files / "good.db", tmp_path / "other.db"):
        with sqlite3.connect(path) as made:
            made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        made.close()
    os.symlink(tmp_path / "other.db", files / "link.db")

    def create(deployment: Deployment, path: pathlib.Path):
        body = {"name": "f", "bridge": "sqlite", "config": {"path": str(path)}}
        return deployment.client().post("/v1/sources", json=body)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Deployment(tmp_path / "a") as deployment:
        answer = create(deployment, files / "good.db")
        assert answer.status_code == 403
        assert "--source-dir" in answer.json()["error"]["hint"]
    with Deployment(tmp_path / "b", serve_options=("--source-dir", str(files))) as deployment:
        for path in (tmp_path / "other.db", files / "link.db", files / ".." / "other.db"):
            assert create(deployment, path).status_code == 403, path
        assert create(deployment, files / "good.db").status_code == 201
