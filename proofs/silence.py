"""A runner falls silent while its twin lives: stopped, or its link dead both ways or one way."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from lensway.testing.chaos.proxy import Way
from lensway.testing.chaos.site import Site
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import SLOW, Load, milliseconds
from proofs.report import Report, percentile

SILENT_SECONDS = 13.0
"""Longer than the gateway takes to give a session up."""

_Act = Callable[[Site, str], None]


def _signal(number: int) -> _Act:
    return lambda site, name: site.runners[name].running.signal(number)


def _heal(site: Site, name: str) -> None:
    link = site.runners[name].gateway
    link.heal()
    link.cut()


SILENCES: dict[str, tuple[_Act, _Act]] = {
    "SIGSTOP": (_signal(signal.SIGSTOP), _signal(signal.SIGCONT)),
    "black hole": (lambda site, name: site.runners[name].gateway.swallow(), _heal),
    "one-way, to the server lost": (lambda site, name: site.runners[name].gateway.stall(Way.UP), _heal),
    "one-way, to the runner lost": (lambda site, name: site.runners[name].gateway.stall(Way.DOWN), _heal),
}


def _busiest(site: Site) -> str:
    """Who holds most: its silence must not be a silence of nobody."""

    def outstanding(name: str) -> int:
        return max((each["outstanding"] for each in site.status(name)["instances"]), default=0)

    wait_until(lambda: any(outstanding(name) >= 3 for name in site.names()), seconds=30, what="work in flight")
    return max(site.names(), key=outstanding)


def silence(report: Report, *, rounds: int = 2) -> None:
    """New work goes elsewhere at once, work in flight when the session is given up; nothing fails."""
    report.title(
        "silence", "one of two runners stopped or black-holed at 100 point queries a second and 6 callers of 2 s"
    )
    new: list[float] = []
    in_flight: list[tuple[float, float]] = []
    with stage() as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        with Load(site, rate=100) as points, Load(site, SLOW, callers=6) as slow:
            wait_until(lambda: len(points.answered) > 400, seconds=60, what="a calm beginning")
            calm = percentile(milliseconds(points.answered), 0.5)
            for kind, (begin, end) in SILENCES.items():
                for _ in range(rounds):
                    name = _busiest(site)
                    at = time.monotonic()
                    begin(site, name)
                    over = at + SILENT_SECONDS
                    wait_until(lambda over=over: time.monotonic() > over, seconds=60, what="the silence to pass")
                    end(site, name)
                    site.wait_well(name)
                    took = [each - calm for each in milliseconds(points.between(at, over))]
                    new += took
                    # From the silence on, what a query takes anyway is not waiting: one that is repeated begins again.
                    held = [
                        (each.ended - at - own_seconds, each.milliseconds / 1000 - own_seconds)
                        for load, own_seconds in ((points, 0.0), (slow, 2.0))
                        for each in load.answered
                        if each.due <= at <= each.ended
                    ]
                    in_flight += held
                    report.note(
                        f"{kind}: new work p99 {percentile(took, 0.99):+.0f} ms, "
                        f"{len(held)} in flight waited at most {max((each for each, _ in held), default=0.0):.1f} s"
                    )
        wrong = points.wrong() + slow.wrong()
        asked = len(points.answered) + len(slow.answered)
    report.none("failed queries", len(wrong), asked)
    report.details(wrong)
    report.at_most("p99 added to new work", percentile(new, 0.99), 1000, "ms", f", {len(new):,} queries")
    waited = max((each for each, _ in in_flight), default=0.0)
    report.at_most("work in flight waited for its repetition, longest", waited, 11, "s", f", {len(in_flight)} queries")
    added = max((each for _, each in in_flight), default=0.0)
    report.add("with what had been done before the silence, and is done again", f"{added:.1f} s")
