"""What a large catalog costs each query, and what thousands of idle runners cost the server."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import catalog
from benchmarks import stage as stages
from benchmarks.load import Load, Measured, drive
from benchmarks.report import Line
from benchmarks.stage import Stage
from lensway.testing.deployment import Deployment

_SMALL, _LARGE = 10, 10_000
_PER_RUNNER = 32
_HEARTBEAT_SECONDS = 5.0


def catalog_size(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """CPU time per point query, via a runner, with a small and with a large catalog in the server."""
    taken: dict[int, list[float]] = {_SMALL: [], _LARGE: []}
    places: dict[int, Stage] = {}
    with stages.deployments(stage) as start:
        for count in taken:
            places[count] = start(f"catalog-{count}", lambda data, count=count: catalog.fill(data, count))
            places[count].place("runner")
        for number in range(3 if is_quick else 8):
            for count in taken if number % 2 else reversed(taken):
                cost = _cpu_per_query(places[count], 0.8 if is_quick else 2.0)
                if number:
                    taken[count].append(cost * 1e6)
    ratios = [large / small for large, small in zip(taken[_LARGE], taken[_SMALL], strict=True)]
    small, large = (statistics.median(taken[count]) for count in (_SMALL, _LARGE))
    return [
        Line(
            figure=f"{_SMALL} → {_LARGE:,} sources, lenses, runners …",
            measured=f"{large:.0f} µs CPU of server and runner per query",
            reference=f"{small:.0f} µs with {_SMALL}",
            value=statistics.median(ratios),
            bar=1.2,
        )
    ]


def _cpu_per_query(stage: Stage, seconds: float) -> float:
    pids = (stage.server.pid, stage.runner.pid)
    load = _load(stage.deployment, stage.key, seconds)
    before = stages.cpu_seconds(*pids)
    measured = drive(load)
    return (stages.cpu_seconds(*pids) - before) / len(measured.milliseconds)


def _load(deployment: Deployment, key: str, seconds: float, rate: int = 0) -> Load:
    return Load(
        port=deployment.http_port,
        path="/v1/query/orders",
        body='{"where":{"id":%d},"limit":1}',
        keys=stages.ORDERS,
        seconds=seconds,
        authorization=f"Bearer {key}",
        rate=rate,
    )


def idle_runners(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Memory and CPU time of a server that holds idle connections, and what queries notice of them."""
    count = 1_000 if is_quick else 5_000
    _allow_files(2 * count + 1_000)
    with stages.deployments(stage) as start:
        place = start("idle", lambda _data: None)
        place.place("inline")
        load = _load(place.deployment, place.key, 1.5 if is_quick else 5.0, rate=100)
        drive(load)
        before = drive(load)
        pid = place.server.pid
        memory = stages.resident_bytes(pid)
        crowd = _connect(place, count)
        try:
            interval = 2.0 if is_quick else _HEARTBEAT_SECONDS  # as the server chooses it for so many
            time.sleep(interval)
            grown = (stages.resident_bytes(pid) - memory) / 2**20
            seconds = 2 * interval
            cpu, started = stages.cpu_seconds(pid), time.perf_counter()
            time.sleep(seconds)
            share = (stages.cpu_seconds(pid) - cpu) / (time.perf_counter() - started)
            during = drive(load)
        finally:
            crowd.kill()
            crowd.communicate()
    return _idle_lines(count, grown, share, before, during)


def _idle_lines(count: int, grown: float, share: float, before: Measured, during: Measured) -> Sequence[Line]:
    name = f"{count:,} idle runner connections"
    return [
        Line(
            figure=f"{name}: memory",
            measured=f"{grown * 1024 / count:.0f} KiB each",
            reference="the same server without them",
            value=grown,
            bar=200.0 * count / 5_000,
            unit="MiB",
        ),
        Line(
            figure=f"{name}: CPU",
            measured=f"{share / count * 1e6:.0f} µs a second each",
            reference="none",
            value=share * 100,
            bar=15.0 if count > 2_000 else 15.0 * count / 2_000,
            unit="% of a core",
        ),
        Line(
            figure=f"{name}: p99 of queries",
            measured=f"{during.percentile(0.99):.2f} ms at 100/s",
            reference=f"without them {before.percentile(0.99):.2f} ms",
            value=during.percentile(0.99) / before.percentile(0.99),
            bar=2.0,
        ),
    ]


def _connect(place: Stage, count: int) -> subprocess.Popen[str]:
    identities = []
    for number in range(-(-count // _PER_RUNNER)):
        made = place.deployment.create_runner(f"crowd-{number}")
        identities.append((made.id, made.token, min(_PER_RUNNER, count - number * _PER_RUNNER)))
    crowd = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.idle_runners", place.deployment.gateway_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    crowd.stdin.write(json.dumps(identities))
    crowd.stdin.close()
    crowd.stdin = None
    for _ in range(count):
        assert crowd.stdout.read(1) == "+", "a connection was refused"
    return crowd


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
