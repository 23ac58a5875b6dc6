"""What server and runner tell the service manager, and when."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

import httpx2
import pytest

from lensway.compose.notify import READY, notify
from lensway.testing.deployment import Deployment, Process, free_ports

pytestmark = pytest.mark.acceptance
_SECONDS = 30.0


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.settimeout(_SECONDS)
        yield listening


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_runner_is_ready_before_its_first_connection(tmp_path: pathlib.Path, is_abstract: bool) -> None:
    address = f"@lensway-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    (nowhere,) = free_ports(1)
    settings = {
        "LENSWAY_RUNNER_ID": "run_00000000000000000000",
        "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
        "LENSWAY_GATEWAY_URL": f"ws://127.0.0.1:{nowhere}/connect",
        "NOTIFY_SOCKET": address,
    }
    with manager(address) as listening:
        runner = Process("runner", ["runner", "start"], settings, directory=tmp_path)
        assert listening.recv(100) == b"READY=1"
        assert runner.is_running
        assert runner.stop() == 0
        assert listening.recv(100) == b"STOPPING=1"


def test_a_server_is_ready_when_it_answers(tmp_path: pathlib.Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as listening:
        deployment = Deployment(tmp_path, environment={"NOTIFY_SOCKET": address})
        deployment.server = Process(
            "server",
            [
                *("serve", "--data-dir", str(tmp_path / "data"), "--http", f"127.0.0.1:{deployment.http_port}"),
                *("--gateway", f"127.0.0.1:{deployment.gateway_port}"),
            ],
            {"LENSWAY_ADMIN_KEY": deployment.admin_key, "NOTIFY_SOCKET": address},
            directory=tmp_path,
        )
        assert listening.recv(100) == b"READY=1"
        assert httpx2.get(f"{deployment.url}/readyz", trust_env=False).status_code == 200
        assert deployment.server.stop() == 0
        assert listening.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["relative", "/nowhere/at/all", "@nobody-listens", "", "vsock:2:1234"])
def test_a_manager_that_is_away_harms_nothing(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY)


def test_a_manager_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with manager(address) as listening:
        for _ in range(10_000):
            notify(READY)  # beyond what the kernel queues
        assert listening.recv(100) == b"READY=1"
