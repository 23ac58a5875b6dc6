"""Small queries beside a large one on the same connection of a runner, and how soon a large one begins."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Sequence

from benchmarks import stage as stages
from benchmarks.figures.bulk import facts
from benchmarks.figures.memory import wide
from benchmarks.load import Load, drive
from benchmarks.reader import reading
from benchmarks.report import Line
from benchmarks.slow_link import slow_link
from benchmarks.stage import Stage

_RATE = 100
_LINK_BITS = 20_000_000
_LINK_DELAY_SECONDS = 0.005


def beside_export(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """One row at a time while an export takes all it can get, on loopback and over a slow link."""
    stage.place("runner")
    lens = wide(stage, stages.LARGE_ROWS)
    return [*_loopback(stage, lens, is_quick=is_quick), *_slow_link(stage, lens, is_quick=is_quick)]


def _load(stage: Stage, lens: str, seconds: float) -> Load:
    return Load(
        port=stage.deployment.http_port,
        path=f"/v1/query/{lens}",
        body='{"where":{"id":%d},"limit":1}',
        keys=stages.ORDERS,
        seconds=seconds,
        authorization=f"Bearer {stage.key}",
        rate=_RATE,
    )


def _loopback(stage: Stage, lens: str, *, is_quick: bool) -> Sequence[Line]:
    load = _load(stage, "orders", 1.5 if is_quick else 5.0)
    drive(load)
    idle, during = [], []
    for _ in range(2 if is_quick else 4):
        idle.append(drive(load))
        with reading(stage.deployment.http_port, stage.key, lens):
            during.append(drive(load))
    ratios = [
        with_it.percentile(0.99) / without.percentile(0.99) for with_it, without in zip(during, idle, strict=True)
    ]
    p99_idle, p99_during = (statistics.median(each.percentile(0.99) for each in them) for them in (idle, during))
    return [
        Line(
            figure="1-row p99 beside an export, loopback",
            measured=f"{p99_during:.2f} ms at {_RATE}/s",
            reference=f"idle {p99_idle:.2f} ms",
            value=statistics.median(ratios),
            bar=2.0,
        )
    ]


def _slow_link(stage: Stage, lens: str, *, is_quick: bool) -> Sequence[Line]:
    deployment = stage.deployment
    with slow_link(deployment.gateway_port, _LINK_BITS, _LINK_DELAY_SECONDS) as port:
        if "remote" not in stage.made:
            stage.made.add("remote")
            stage.add_source("remote")
            stage.add_lens("remote_orders", "public.orders", stages.ORDER_FIELDS, source="remote")
            stage.add_lens("remote_wide", f"public.{lens}", stages.WIDE_FIELDS, source="remote")
        identity = deployment.create_runner(f"beta-{port}")
        runner = deployment.start_runner(identity, gateway_url=f"ws://127.0.0.1:{port}/connect")
        deployment.assign(identity.name, "remote")
        load = _load(stage, "remote_orders", 1.5 if is_quick else 6.0)
        drive(load)
        idle = drive(load)
        with reading(deployment.http_port, stage.key, "remote_wide"):
            time.sleep(1.0)  # the export fills the link
            during = drive(load)
        deployment.unassign(identity.name, "remote")
        runner.kill()
    return [
        Line(
            figure=f"1-row p99 beside an export, {_LINK_BITS // 1_000_000} Mbit/s link",
            measured=f"p50 {during.percentile(0.5):.1f} ms, p99 {during.percentile(0.99):.1f} ms at {_RATE}/s",
            reference=f"idle p99 {idle.percentile(0.99):.1f} ms ({_LINK_DELAY_SECONDS * 1000:.0f} ms each way)",
            value=during.percentile(0.99),
            bar=150.0,
            unit="ms",
        )
    ]


def first_row(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """From sending the request to the first bytes of rows of a large export: of a table by its key, and of a view as found."""
    stage.place("runner")
    wide_lens = wide(stage, stages.LARGE_ROWS)
    facts(stage, is_quick=is_quick)
    return [
        _first_row_line(stage, lens, what, is_quick=is_quick)
        for lens, what in (("facts", "a table by its key"), (wide_lens, "a view as found"))
    ]


def _first_row_line(stage: Stage, lens: str, what: str, *, is_quick: bool) -> Line:
    taken = []
    for _ in range(10 if is_quick else 30):
        # One that was left early takes its connection with it: this makes the next one warm, as it is in use.
        _first_row_ms(stage, "sample")
        taken.append(_first_row_ms(stage, lens))
    taken = sorted(taken)[:-1]
    median = statistics.median(taken)
    return Line(
        figure=f"first row of a large export, {what}",
        measured=f"median {median:.1f} ms, slowest of {len(taken)}: {taken[-1]:.1f} ms",
        reference="none",
        value=median,
        bar=50.0,
        unit="ms",
    )


def _first_row_ms(stage: Stage, lens: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", stage.deployment.http_port)
    connection.connect()
    headers = {"Authorization": f"Bearer {stage.key}", "Accept": "application/x-ndjson"}
    started = time.perf_counter()
    connection.request("POST", f"/v1/query/{lens}/export", "{}", {**headers, "Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.read1(100), "the export gave no rows"
    taken = (time.perf_counter() - started) * 1000
    if lens == "sample":
        answer.read()
    connection.close()
    return taken
