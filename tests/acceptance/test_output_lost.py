"""Whoever reads what a server or runner prints may go away, stand still or have a full disk: nothing but the lines is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment, clean_environment, wait_until
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance

STREAMS = ["closed", "reader gone", "reader stands still", "disk full"]


@contextlib.contextmanager
def broken(kind: str) -> Iterator[tuple[int | None, Callable[[], None]]]:
    """A descriptor for standard output and error, None to have none; and what to call once the process has started."""
    if kind == "closed":
        yield None, lambda: None
        return
    if kind == "disk full":
        with pathlib.Path("/dev/full").open("wb") as full:
            yield full.fileno(), lambda: None
        return
    reader, writer = os.pipe()
    try:
        if kind == "reader stands still":
            os.set_blocking(writer, False)
            size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
            while size > 0:
                size -= os.write(writer, b"x" * min(size, 4096))
            os.set_blocking(writer, True)
            yield writer, lambda: None
        else:
            yield writer, lambda: (os.close(writer), os.close(reader))[0]
    finally:
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def start(kind: str, arguments: list[str], environment: dict[str, str], directory: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "lensway.cli.main", *arguments]
    with broken(kind) as (descriptor, started):
        if descriptor is None:
            command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        process = subprocess.Popen(
            command,
            stdout=descriptor,
            stderr=descriptor,
            env=clean_environment() | environment,
            cwd=directory,
            start_new_session=True,
        )
        started()
        if kind == "reader stands still":
            # The pipe stays open, and full, for as long as the process lives.
            process.kept = os.dup(descriptor)  # type: ignore[attr-defined]
    return process


def end(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(10)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", STREAMS)
def test_a_runner_goes_on_and_drains(stage, kind: str) -> None:
    stage.runner("alpha", start=False)
    identity = stage.identities["alpha"]
    process = start(
        kind,
        ["runner", "start", "--log-level", "debug"],
        {
            "LENSWAY_RUNNER_ID": identity.id,
            "LENSWAY_RUNNER_TOKEN": identity.token,
            "LENSWAY_GATEWAY_URL": stage.deployment.gateway_url,
        },
        stage.deployment.directory,
    )
    try:
        wait_until(lambda: stage.status_of("alpha")["status"] == "healthy", seconds=20, what="the runner")
        for _ in range(2):
            stage.assign("alpha")
            answer = stage.query()
            assert (answer.status_code, answer.json()["meta"]["route"]["via"]) == (200, "runner")
            stage.unassign("alpha")
        assert process.poll() is None
        assert end(process) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("kind", STREAMS)
def test_a_server_goes_on_and_finishes_what_was_begun(
    tmp_path: pathlib.Path, orders: Database, stage_of, kind: str
) -> None:
    deployment = Deployment(tmp_path)
    process = start(
        kind,
        [
            "serve",
            "--data-dir", str(tmp_path / "data"),
            "--http", f"127.0.0.1:{deployment.http_port}",
            "--gateway", f"127.0.0.1:{deployment.gateway_port}",
            "--log-level", "debug",
        ],
        {"LENSWAY_ADMIN_KEY": deployment.admin_key},
        tmp_path,
    )  # fmt: skip

    def is_ready() -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{deployment.url}/readyz", trust_env=False).status_code == 200
        return False

    try:
        wait_until(is_ready, seconds=20, what="the server")
        with stage_of(deployment, orders) as stage, concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(stage.query, lens=stage.slow_lens)
            wait_until(
                lambda: any(
                    each["lens"] == stage.slow_lens for each in stage.client.get("/v1/requests").json()["requests"]
                ),
                seconds=5,
                what="the query under way",
            )
            began = time.monotonic()
            assert end(process) == 0
            assert slow.result().status_code == 200
            assert time.monotonic() - began < 6
    finally:
        process.kill()
