"""The hot path: point queries and pages, 16 callers, beside the bare handler. Closed loop, rounds in turns."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from benchmarks import stage as stages
from benchmarks.load import Load, Measured, drive
from benchmarks.report import Line
from benchmarks.stage import Stage

_PAGE_ROWS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class _Round:
    """One round of one variant, and the CPU microseconds per query of each process beside it."""

    measured: Measured
    cpu: dict[str, float]


def point(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """One row by key."""
    ours = '{"where":{"id":%d},"limit":1}'
    found = _compare(stage, ours, '{"id":%d,"limit":1}', "/point", ("runner", "inline"), is_quick=is_quick)
    return [
        *_lines("point query by key, via runner", found, "runner", share=0.5, tail=2.5),
        *_lines("point query by key, inline", found, "inline", share=0.7),
    ]


def page(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """A page of 100 rows from a key on."""
    ours = '{"where":{"id":{"$gte":%d}},"limit":' + str(_PAGE_ROWS) + "}"
    bare = '{"id":%d,"limit":' + str(_PAGE_ROWS) + "}"
    found = _compare(stage, ours, bare, "/page", ("runner",), is_quick=is_quick)
    return _lines(f"page of {_PAGE_ROWS} rows, via runner", found, "runner", share=0.75)


def _compare(
    stage: Stage, ours: str, bare: str, path: str, places: tuple[str, ...], *, is_quick: bool
) -> dict[str, list[_Round]]:
    rounds, seconds = (2, 1.0) if is_quick else (7, 3.0)
    keys = stages.ORDERS - _PAGE_ROWS
    references = ("bare", "stripped")
    found: dict[str, list[_Round]] = {variant: [] for variant in (*references, *places)}
    with stage.bare() as bare_handler, stage.bare("stripped") as stripped_handler:
        handlers = dict(zip(references, (bare_handler, stripped_handler), strict=True))
        our_load = Load(
            port=stage.deployment.http_port,
            path="/v1/query/orders",
            body=ours,
            keys=keys,
            seconds=seconds,
            authorization=f"Bearer {stage.key}",
        )
        for number in range(rounds + 1):
            order = (*references, *places) if number % 2 else (*reversed(places), *references)
            for variant in order:
                if variant in handlers:
                    port, pid = handlers[variant]
                    load = Load(port=port, path=path, body=bare, keys=keys, seconds=seconds)
                    done = _round(stage, load, {"handler": pid})
                else:
                    stage.place(variant)
                    drive(dataclasses.replace(our_load, seconds=0.3))
                    done = _round(stage, our_load, {"server": stage.server.pid, "runner": stage.runner.pid})
                if number:  # the first one opens connections and prepares statements
                    found[variant].append(done)
    return found


def _round(stage: Stage, load: Load, processes: dict[str, int]) -> _Round:
    before = {name: stages.cpu_seconds(pid) for name, pid in processes.items()}
    database = stage.database_cpu_seconds()
    measured = drive(load)
    count = len(measured.milliseconds)
    cpu = {name: (stages.cpu_seconds(pid) - before[name]) / count * 1e6 for name, pid in processes.items()}
    cpu["database"] = (stage.database_cpu_seconds() - database) / count * 1e6
    cpu["generator"] = measured.cpu_seconds / count * 1e6
    return _Round(measured, cpu)


def _lines(
    name: str, found: dict[str, list[_Round]], variant: str, *, share: float, tail: float | None = None
) -> Sequence[Line]:
    ours, bare, stripped = found[variant], found["bare"], found["stripped"]
    to_stripped = statistics.median(_ratios(ours, stripped, lambda done: done.measured.per_second))
    lines = [
        Line(
            figure=name,
            measured=f"{_rate(ours)}, CPU µs/query {_cpu(ours)}",
            reference=f"bare handler {_rate(bare)}, CPU µs/query {_cpu(bare)}; "
            f"stripped of the pool's reset {_rate(stripped)} ({to_stripped:.2f} ×)",
            value=statistics.median(_ratios(ours, bare, lambda done: done.measured.per_second)),
            bar=share,
            at_least=True,
        )
    ]
    if tail is not None:
        lines.append(
            Line(
                figure=f"{name}: p99",
                measured=_latency(ours),
                reference=f"bare handler {_latency(bare)}; stripped {_latency(stripped)}",
                value=statistics.median(_ratios(ours, bare, lambda done: done.measured.percentile(0.99))),
                bar=tail,
            )
        )
    return lines


def _ratios(ours: list[_Round], its: list[_Round], of: Callable[[_Round], float]) -> list[float]:
    """Each round against the round of the reference beside it: a slow moment of the machine meets both."""
    return [of(mine) / of(reference) for mine, reference in zip(ours, its, strict=True)]


def _rate(rounds: list[_Round]) -> str:
    return f"{statistics.median(each.measured.per_second for each in rounds):,.0f}/s"


def _latency(rounds: list[_Round]) -> str:
    p50 = statistics.median(each.measured.percentile(0.5) for each in rounds)
    p99 = statistics.median(each.measured.percentile(0.99) for each in rounds)
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _cpu(rounds: list[_Round]) -> str:
    names = rounds[0].cpu
    return ", ".join(f"{name} {statistics.median(each.cpu[name] for each in rounds):.0f}" for name in names)
