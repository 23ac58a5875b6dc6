"""Rolling restarts under load, of runners and of the server; and assignments that flip, under load too."""

from __future__ import annotations

import time
from collections import Counter

from lensway.testing.chaos.site import SOURCE
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import PAGE, SLOW, Load, milliseconds
from proofs.report import Report


def restarts(report: Report, *, runners: int = 20, servers: int = 5) -> None:
    """SIGTERM and start again: both runners in turn, then the server."""
    report.title(
        "restarts", f"{runners} rolling restarts of both runners and {servers} of the server, 200 queries a second"
    )
    codes: Counter[int] = Counter()
    with stage() as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        with Load(site, rate=200) as points, Load(site, SLOW, callers=4) as slow:
            wait_until(lambda: len(points.answered) > 400, seconds=60, what="a calm beginning")
            for _ in range(runners):
                for name in ("alpha", "beta"):
                    codes[site.runners[name].running.stop()] += 1
                    site.start(name)
                    site.wait_well(name)
        wrong = points.wrong() + slow.wrong()
        report.none("failed while runners restarted", len(wrong), len(points.answered) + len(slow.answered))
        report.details(wrong)
        report.none("runners that did not end with 0", sum(count for code, count in codes.items() if code))
        with Load(site, rate=200, retries_cut=True) as points:
            wait_until(lambda: len(points.answered) > 400, seconds=60, what="a calm beginning")
            for _ in range(servers):
                server = site.deployment.server
                assert server is not None
                codes[server.stop()] += 1
                site.deployment.start_server()
                for name in ("alpha", "beta"):
                    site.wait_well(name)
        wrong = points.wrong()
        cut = [each for each in points.answered if each.retries]
        report.none("failed while the server restarted, beyond cut connections", len(wrong), len(points.answered))
        report.details(wrong)
        report.add(
            "connections cut or refused, each retried by its caller",
            f"{len(cut):,} queries, the longest took {max(milliseconds(cut), default=0.0) / 1000:.1f} s",
        )


def flips(report: Report, *, count: int = 50) -> None:
    """R7: a source goes between inline and a runner that reaches the database by another address, again and again."""
    report.title("flips", f"{count} times assigned and unassigned under load")
    in_flight: list[int] = []
    with stage() as site:
        site.add_runner("alpha", is_assigned=False)
        with (
            Load(site, callers=48) as points,
            Load(site, PAGE, callers=8) as pages,
            Load(site, SLOW, callers=8) as slow,
        ):
            for _ in range(count):
                for change in (site.deployment.assign, site.deployment.unassign):
                    change("alpha", SOURCE)
                    in_flight.append(points.in_flight + pages.in_flight + slow.in_flight)
                    at = time.monotonic() + 0.35
                    wait_until(lambda at=at: time.monotonic() > at, seconds=30, what="a moment")
            wait_until(lambda: len(points.answered) >= 20_000, seconds=300, what="20,000 queries")
        wrong = points.wrong() + pages.wrong() + slow.wrong()
    shares = Counter(each.runner or "inline" for each in points.answered)
    report.none("failed queries", len(wrong), len(points.answered) + len(pages.answered) + len(slow.answered))
    report.details(wrong)
    told = ", ".join(f"{place} {number / len(points.answered):.0%}" for place, number in sorted(shares.items()))
    report.add("executed by", told)
    report.add("in flight across a flip", f"{min(in_flight)} to {max(in_flight)}", "≥ 1", min(in_flight) >= 1)
