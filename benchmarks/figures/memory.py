"""What large and stalled results leave in memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from benchmarks import stage as stages
from benchmarks.load import Load, drive
from benchmarks.reader import reading
from benchmarks.report import Line
from benchmarks.stage import Stage
from lensway.testing.http_caller import Caller

STALLED = 50
_EXPORTS_PER_SOURCE = 4
_BAR_MIB = 64.0
_RATE = 100


def export(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Growth of both processes while one caller takes an export of several gigabytes."""
    gigabytes = 0.5 if is_quick else 5.2
    lens = wide(stage, int(gigabytes * 1_000_000))
    stage.place("runner")
    pids = {"server": stage.server.pid, "runner": stage.runner.pid}
    with reading(stage.deployment.http_port, stage.key, "sample"):
        pass  # what every export loads once is no growth of this one
    idle = {name: stages.resident_bytes(pid) for name, pid in pids.items()}
    highest = dict(idle)
    started = time.perf_counter()
    with reading(stage.deployment.http_port, stage.key, lens) as reader:
        while reader.poll() is None:
            for name, pid in pids.items():
                highest[name] = max(highest[name], stages.resident_bytes(pid))
            time.sleep(0.05)
        assert reader.stdout is not None
        size = int(reader.stdout.read())
    taken = time.perf_counter() - started
    return [
        Line(
            figure=f"memory of {name}, export of {size / 1e9:.1f} GB",
            measured=f"at most {highest[name] / 2**20:.0f} MiB, {size / taken / 2**20:,.0f} MiB/s",
            reference=f"idle {idle[name] / 2**20:.0f} MiB",
            value=(highest[name] - idle[name]) / 2**20,
            bar=_BAR_MIB,
            unit="MiB",
        )
        for name in pids
    ]


def stalled(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Growth of both processes, and what others notice, while 50 callers of exports take nothing."""
    lens = wide(stage, stages.LARGE_ROWS)
    stage.place("runner")
    lenses = _over_many_sources(stage, lens, -(-STALLED // _EXPORTS_PER_SOURCE))
    pids = {"server": stage.server.pid, "runner": stage.runner.pid}
    load = Load(
        port=stage.deployment.http_port,
        path="/v1/query/orders",
        body='{"where":{"id":%d},"limit":1}',
        keys=stages.ORDERS,
        seconds=1.5 if is_quick else 6.0,
        authorization=f"Bearer {stage.key}",
        rate=_RATE,
    )
    with reading(stage.deployment.http_port, stage.key, "sample"):
        drive(load)
    before = drive(load)
    idle = {name: stages.resident_bytes(pid) for name, pid in pids.items()}
    with contextlib.ExitStack() as stack:
        for number in range(STALLED):
            caller = Caller(stage.deployment.http_port, key=stage.key, receive_buffer_bytes=4096)
            stack.enter_context(caller)
            caller.post(f"/v1/query/{lenses[number % len(lenses)]}/export", headers={"Accept": "application/x-ndjson"})
            head = caller.read(1024)
            assert head.startswith(b"HTTP/1.1 200"), f"export {number + 1} was refused: {head!r}"
        during = drive(load)
        grown = {name: (stages.resident_bytes(pid) - idle[name]) / 2**20 for name, pid in pids.items()}
    lines = [
        Line(
            figure=f"memory of {name}, {STALLED} stalled readers",
            measured=f"{idle[name] / 2**20 + grown[name]:.0f} MiB",
            reference=f"idle {idle[name] / 2**20:.0f} MiB",
            value=grown[name],
            bar=_BAR_MIB,
            unit="MiB",
        )
        for name in pids
    ]
    lines.append(
        Line(
            figure=f"p99 of others beside {STALLED} stalled readers",
            measured=f"p50 {during.percentile(0.5):.2f} ms, p99 {during.percentile(0.99):.2f} ms at {_RATE}/s",
            reference=f"without them p50 {before.percentile(0.5):.2f} ms, p99 {before.percentile(0.99):.2f} ms",
            value=during.percentile(0.99) / before.percentile(0.99),
            bar=2.0,
        )
    )
    return lines


def wide(stage: Stage, rows: int) -> str:
    """A lens on so many rows of about 1,000 bytes; on disk there are only a thousand of them."""
    name = f"wide_{rows}"
    if name not in stage.made:
        stage.made.add(name)
        stage.execute(
            "CREATE TABLE IF NOT EXISTS bodies AS SELECT i AS part, repeat(md5(i::text), 30) AS body "
            "FROM generate_series(0, 999) i",
            f"CREATE VIEW {name} AS SELECT n.n * 1000 + b.part AS id, b.body "
            f"FROM generate_series(0, {rows // 1000 - 1}) AS n(n) CROSS JOIN bodies b",
            "CREATE OR REPLACE VIEW sample AS SELECT part AS id, body FROM bodies LIMIT 1000",
            f"GRANT SELECT ON bodies, {name}, sample TO PUBLIC",
        )
        stage.add_lens(name, f"public.{name}", stages.WIDE_FIELDS)
        stage.add_lens("sample", "public.sample", stages.WIDE_FIELDS)
    return name


def _over_many_sources(stage: Stage, table: str, count: int) -> list[str]:
    """A lens on the table in each of so many sources: the exports of one source have a bound of their own."""
    lenses = []
    for number in range(count):
        source = f"archive-{number}"
        if source not in stage.made:
            stage.made.add(source)
            stage.add_source(source)
            stage.add_lens(source.replace("-", "_"), f"public.{table}", stages.WIDE_FIELDS, source=source)
            stage.deployment.assign("alpha", source)
        lenses.append(source.replace("-", "_"))
    return lenses
