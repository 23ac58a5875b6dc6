"""A runner is killed while its twin lives: what the queries that it held cost their callers."""

from __future__ import annotations

import dataclasses
import time

from lensway.testing.chaos_callers import PAGE_ROWS
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import PAGE, Load, milliseconds
from proofs.report import Report, percentile

_LARGE_PAGE = dataclasses.replace(PAGE, name="large page", rows=100 * PAGE_ROWS)


def kills(report: Report, *, count: int = 50) -> None:
    """R6: SIGKILL again and again, with pages under way whose rows the server holds already."""
    report.title("kills", f"one of two runners killed {count} times at 200 point queries a second")
    killed: list[float] = []
    held = 0
    with stage() as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        with Load(site, rate=200) as points, Load(site, _LARGE_PAGE, callers=2) as pages:
            wait_until(lambda: len(points.answered) > 800, seconds=60, what="a calm beginning")
            calm = time.monotonic()
            for number in range(count):
                name = ("alpha", "beta")[number % 2]
                killed.append(time.monotonic())
                site.runners[name].running.kill()
                site.start(name)
                site.wait_well(name)
                held += sum(
                    each["outcome"].startswith("lost:") and each["firstRowMs"] is not None
                    for entry in site.client.get("/v1/requests", params={"limit": 1000}).json()["requests"]
                    for each in entry.get("attempts", ())
                    if entry["outcome"] == "completed" and each["runner"] == name and len(entry["attempts"]) > 1
                )
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
    report.add("kills with rows held", f"{held} lost attempts had rows in the server", "≥ 1", held >= 1)
