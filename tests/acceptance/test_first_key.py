"""The first admin key is stored by the start that prints it: a start that fails first leaves nothing behind."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys

import httpx2
import pytest

from lensway.testing.deployment import Process, clean_environment, free_ports

pytestmark = pytest.mark.acceptance

LISTENERS = ("--http", "--gateway", "--metrics")


def arguments(data: pathlib.Path, ports: dict[str, int]) -> list[str]:
    return ["serve", "--data-dir", str(data), *(t for o, p in ports.items() for t in (o, f"127.0.0.1:{p}"))]


def failed_start(tmp_path: pathlib.Path, given: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", *given],
        env=clean_environment() | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "shown once" not in done.stdout + done.stderr
    return done


def key_of_a_start(tmp_path: pathlib.Path, data: pathlib.Path) -> tuple[str | None, int]:
    """The key that the next start prints, and what the API answers to it."""
    ports = dict(zip(LISTENERS, free_ports(3), strict=True))
    server = Process("server", arguments(data, ports), {}, directory=tmp_path)
    try:
        server.wait_line("  data ")
        with contextlib.suppress(AssertionError):
            server.wait_line("(shown once)", seconds=1)
        printed = [line.split()[2] for line in server.output.text().splitlines() if "admin key" in line]
        if not printed:
            return None, 0
        headers = {"Authorization": f"Bearer {printed[0]}"}
        answer = httpx2.get(f"http://127.0.0.1:{ports['--http']}/v1/keys", headers=headers, trust_env=False)
        return printed[0], answer.status_code
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("taken", LISTENERS)
def test_a_taken_port_costs_no_key(tmp_path: pathlib.Path, taken: str) -> None:
    data = tmp_path / "data"
    ports = dict(zip(LISTENERS, free_ports(3), strict=True))
    with socket.create_server(("127.0.0.1", ports[taken])):
        done = failed_start(tmp_path, arguments(data, ports))
    assert taken in done.stderr
    assert str(ports[taken]) in done.stderr
    assert not data.exists()
    key, status = key_of_a_start(tmp_path, data)
    assert (key is not None, status) == (True, 200)
    assert key_of_a_start(tmp_path, data) == (None, 0), "the key is printed once"


@pytest.mark.parametrize(
    "wrong",
    [
        {"LENSWAY_MASTER_KEY": "short"},
        {"LENSWAY_MASTER_KEY_PREVIOUS": "short"},
        {"LENSWAY_ADMIN_KEY": "ak_short"},
        {"LENSWAY_ADMIN_KEY_FILE": "/nowhere/key"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_variable_costs_no_key(tmp_path: pathlib.Path, wrong: dict[str, str]) -> None:
    data = tmp_path / "data"
    failed_start(tmp_path, arguments(data, dict(zip(LISTENERS, free_ports(3), strict=True))), **wrong)
    assert not (data / "lensway.db").exists()
    key, status = key_of_a_start(tmp_path, data)
    assert (key is not None, status) == (True, 200)


def test_a_start_that_cannot_write_its_generation_costs_no_key(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "generation.new").mkdir()
    failed_start(tmp_path, arguments(data, dict(zip(LISTENERS, free_ports(3), strict=True))))
    (data / "generation.new").rmdir()
    key, status = key_of_a_start(tmp_path, data)
    assert (key is not None, status) == (True, 200)
