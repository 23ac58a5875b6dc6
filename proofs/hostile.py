"""One hostile runner with a good token beside good callers: what it costs them, the loop and memory."""

from __future__ import annotations

import pathlib
import random
import tempfile
from collections import Counter

from lensway.testing.hostile_parties import KINDS
from lensway.testing.hostile_run import run_hostile
from proofs.report import Report

TURN_MS_MAX = 50.0
GROWN_MIB_MAX = 64.0


def hostile(report: Report, *, seconds: float = 600.0, seed: int | None = None) -> None:
    """One hostile party of each kind at once, beside 100 good queries a second."""
    hostile_runner(report, seconds=seconds, seed=seed, with_strangers=True)


def hostile_runner(
    report: Report, *, seconds: float = 600.0, seed: int | None = None, with_strangers: bool = False
) -> None:
    """Every kind of frame with hostile sizes, values, rates and bytes, for so long."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    name, who = "hostile-runner", "a runner with a good token"
    if with_strangers:
        name = "hostile"
        who = (
            "garbage on both listeners, a crowd without a key, a publishable key beyond its limits, the admin of another"
            f" environment, a balancer that closes, databases that misbehave, a name that never resolves; and {who}"
        )
    report.title(name, f"{who} floods, lies and sends garbage for {seconds:.0f} s; seed {seed}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        outcome = run_hostile(
            pathlib.Path(directory),
            seconds=seconds,
            seed=seed,
            with_strangers=with_strangers,
            rate=100.0 if with_strangers else 40.0,
        )
    report.add(
        "acts played", f"{sum(outcome.played.values()):,} of {len(outcome.played)} kinds, {outcome.sent_mib:,.0f} MiB"
    )
    if with_strangers:
        report.add("connections with garbage", f"{sum(outcome.garbage):,}")
        for kind in KINDS:
            told = {what: count for what, count in outcome.parties.items() if what.startswith(kind)}
            most = ", ".join(f"{what.partition(': ')[2]} {count:,}" for what, count in Counter(told).most_common(8))
            report.add(f"acts of the party '{kind}'", f"{sum(told.values()):,}: {most}")
    report.none("failed good queries", len(outcome.wrong), outcome.asked)
    report.details(outcome.wrong)
    report.none("tracebacks of the server", outcome.tracebacks)
    report.none(
        "requests to the hostile runner without an outcome", len(outcome.unanswered), sum(outcome.provoked.values())
    )
    report.details(outcome.unanswered)
    report.add("the server runs", "yes" if outcome.is_up else "no", "yes", outcome.is_up)
    report.add("the runners run", "yes" if outcome.are_runners_up else "no", "yes", outcome.are_runners_up)
    report.at_most("thread time of the loop at once, longest", outcome.longest_turns[0], TURN_MS_MAX, "ms")
    report.add("the loop's thread time, share of a core", f"{outcome.loop_share:.0%}")
    report.at_most("memory of the server, growth", outcome.grown_mib, GROWN_MIB_MAX, "MiB")
    for what, value, calm in (
        ("p99 of good queries", outcome.p99, outcome.calm_p99),
        ("p99 of /healthz", outcome.health_p99, outcome.calm_health_p99),
    ):
        report.at_most(what, value, max(2 * calm, calm + 20), "ms", f", {calm:.0f} ms before")
