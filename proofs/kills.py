"""A runner is killed while its twin lives: what the queries that it held cost their callers."""

from __future__ import annotations

import time
from typing import Any, Final

from lensway.testing.chaos.callers import TRICKLE_ROWS, Kind
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import Load, milliseconds
from proofs.report import Report, percentile

_WIDE: Final = Kind(name="wide", lens="wide", rows=TRICKLE_ROWS)
"""Three MiB that come for more than a second: most of that time the server holds rows of a page that is not complete."""


def kills(report: Report, *, count: int = 50) -> None:
    """R6: SIGKILL again and again, with pages under way whose rows the server holds already."""
    report.title("kills", f"one of two runners killed {count} times at 200 point queries a second")
    killed: list[float] = []
    held = 0
    with stage() as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        with Load(site, rate=200) as points, Load(site, _WIDE, callers=4) as pages:
            wait_until(lambda: len(points.answered) > 800, seconds=60, what="a calm beginning")
            calm = time.monotonic()
            for number in range(count):
                name = ("alpha", "beta")[number % 2]
                wait_until(lambda: pages.longest_wait > 1.0, seconds=30, what="a page on its way")
                killed.append(time.monotonic())
                site.runners[name].running.kill()
                site.start(name)
                site.wait_well(name)
                # The next kill must not meet what this one has hit: two runners lost under one request are poison.
                wait_until(
                    lambda at=killed[-1]: points.is_clear_of(at) and pages.is_clear_of(at),
                    seconds=60,
                    what="answers to all that the kill met",
                )
                moved = [each.id for each in pages.answered if each.attempts > 1 and each.ended >= killed[-1]]
                held += sum(_lost_rows(site.client.get(f"/v1/requests/{id}").json()) for id in moved)
        before = percentile(milliseconds(points.between(0, calm)), 0.5)
        affected = [
            each
            for each in points.answered
            if each.is_right and (each.attempts > 1 or any(each.due <= at <= each.ended for at in killed))
        ]
        wrong = points.wrong() + pages.wrong()
    added = [each - before for each in milliseconds(affected)]
    report.none("failed queries", len(wrong), len(points.answered) + len(pages.answered))
    report.details(wrong)
    report.at_most("p99 added to affected queries", percentile(added, 0.99), 500, "ms", f", {len(added)} affected")
    report.add(
        "kills with rows held",
        f"{held} queries had rows in the server when their runner was lost",
        "≥ 1",
        held > 0,
    )


def _lost_rows(entry: dict[str, Any]) -> bool:
    lost = [each for each in entry["attempts"] if each["outcome"].startswith("lost:")]
    return any(each["firstRowMs"] is not None for each in lost)
