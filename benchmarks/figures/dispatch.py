"""What dispatching adds to inline execution, at a steady rate below what the machine can do."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from benchmarks import stage as stages
from benchmarks.load import Load, Measured, drive
from benchmarks.report import Line
from benchmarks.stage import Stage

_BARS_MS = {500: (1.5, 8.0), 1_000: (1.0, 5.0)}
"""Requests a second, and how much the median and the 99th percentile may grow."""


def added(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Point queries through the runner over the same inline."""
    lines: list[Line] = []
    for rate, bars in _BARS_MS.items():
        if is_quick and rate < max(_BARS_MS):
            continue
        found = _rounds(stage, rate, is_quick=is_quick)
        for share, bar in zip((0.5, 0.99), bars, strict=True):
            more = [
                runner.percentile(share) - inline.percentile(share)
                for runner, inline in zip(found["runner"], found["inline"], strict=True)
            ]
            runner, inline = (
                statistics.median(each.percentile(share) for each in found[where]) for where in ("runner", "inline")
            )
            lines.append(
                Line(
                    figure=f"dispatch over inline at {rate:,}/s: p{share * 100:.0f}",
                    measured=f"{runner:.2f} ms via runner",
                    reference=f"{inline:.2f} ms inline",
                    value=statistics.median(more),
                    bar=bar,
                    unit="ms",
                )
            )
    return lines


def _rounds(stage: Stage, rate: int, *, is_quick: bool) -> dict[str, list[Measured]]:
    rounds, seconds = (2, 1.0) if is_quick else (5, 5.0)
    load = Load(
        port=stage.deployment.http_port,
        path="/v1/query/orders",
        body='{"where":{"id":%d},"limit":1}',
        keys=stages.ORDERS,
        seconds=seconds,
        authorization=f"Bearer {stage.key}",
        rate=rate,
    )
    found: dict[str, list[Measured]] = {"runner": [], "inline": []}
    for number in range(rounds):
        for place in ("runner", "inline") if number % 2 else ("inline", "runner"):
            stage.place(place)
            drive(dataclasses.replace(load, seconds=0.3))  # opens connections, prepares statements
            found[place].append(drive(load))
    return found
