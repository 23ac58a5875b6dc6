"""`make prove ARGS=install`: a runner from the wheel alone, unprivileged: its memory, processor and time to the first dial."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Final

import httpx2
import psutil

from demo import stage
from lensway.testing.deployment import Process
from proofs.report import Report
from tools import unprivileged, wheel

MEMORY_MB_MAX: Final = 60.0
_PROCESSOR_PERCENT_MAX: Final = 0.5
_DIAL_MS_MAX: Final = 500.0
_SETTLE_SECONDS: Final = 5.0


def install(report: Report, *, starts: int = 15, seconds: float = 60.0) -> None:
    """Install, start so often and idle for so long."""
    report.title("install", "a runner from a wheel in an empty environment, as an unprivileged user")
    with tempfile.TemporaryDirectory(prefix="lensway-install-") as folder:
        directory = pathlib.Path(folder)
        directory.chmod(0o755)
        artefact = wheel.build(directory / "dist")
        program = (
            wheel.install(artefact, directory / "environment", "runner", "postgres", python=unprivileged.python())
            / "lensway"
        )
        dials = [_first_dial(program, directory) for _ in range(starts)]
        median = statistics.median(elapsed for elapsed, _ in dials)
        report.at_most(f"first dial after start, median of {starts}", median, _DIAL_MS_MAX, "ms")
        report.add("processor time until then, median", f"{statistics.median(used for _, used in dials):.0f} ms")
        memory, percent = _idle(program, directory, seconds)
        report.at_most("memory, idle after queries of the demo's flights", memory, MEMORY_MB_MAX, "MB")
        report.at_most(
            f"processor, idle for {seconds:.0f} s with probes", percent, _PROCESSOR_PERCENT_MAX, "% of a core"
        )


def _first_dial(program: pathlib.Path, directory: pathlib.Path) -> tuple[float, float]:
    """Milliseconds, and those of a processor, from the start of the process to its first connection to the gateway's address."""
    with socket.create_server(("127.0.0.1", 0)) as gateway:
        gateway.settimeout(30)
        environment = {
            "LENSWAY_RUNNER_ID": "rnr_00000000000000000000000000",
            "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
            "LENSWAY_GATEWAY_URL": f"ws://127.0.0.1:{gateway.getsockname()[1]}/connect",
        }
        started = time.monotonic()
        process = Process(
            "runner",
            ["runner", "start"],
            environment,
            directory=directory,
            prefix=unprivileged.prefix(),
            program=[str(program)],
        )
        try:
            gateway.accept()[0].close()
            elapsed = time.monotonic() - started
            times = psutil.Process(process.pid).cpu_times()
            return elapsed * 1000, (times.user + times.system) * 1000
        finally:
            process.kill()


def _idle(program: pathlib.Path, directory: pathlib.Path, seconds: float) -> tuple[float, float]:
    """Resident megabytes, and percent of a core, of a runner that has served queries and waits for the next."""
    with serving(program, directory) as (process, client):
        for _ in range(20):
            client.post("/v1/query/flights", json={"limit": 100}).raise_for_status()
        seen = psutil.Process(process.pid)
        time.sleep(_SETTLE_SECONDS)
        before = seen.cpu_times()
        time.sleep(seconds)
        after = seen.cpu_times()
        used = after.user + after.system - before.user - before.system
        return seen.memory_info().rss / 1_000_000, 100 * used / seconds


@contextlib.contextmanager
def serving(program: pathlib.Path, directory: pathlib.Path) -> Iterator[tuple[Process, httpx2.Client]]:
    """The demo's source on the server of this checkout, served by a runner of ``program``; the process, and a client."""
    demonstration = stage.start(directory)
    try:
        demonstration.command("push", "demo/lensway.toml", quiet=True)
        deployment = demonstration.deployment
        identity = deployment.create_runner("alpha")
        environment = {
            "LENSWAY_RUNNER_ID": identity.id,
            "LENSWAY_RUNNER_TOKEN": identity.token,
            "LENSWAY_GATEWAY_URL": deployment.gateway_url,
        }
        process = Process(
            "runner",
            ["runner", "start"],
            environment,
            directory=directory,
            prefix=unprivileged.prefix(),
            program=[str(program)],
        )
        deployment.runners.append(process)
        process.wait_line("connected, awaiting jobs")
        deployment.assign("alpha", "flights")
        yield process, deployment.client()
    finally:
        stage.stop(demonstration)
