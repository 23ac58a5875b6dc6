"""Chaos: every kind of fault at once, judged by the checker. `make chaos` for minutes, `make prove` for 100,000 requests."""

from __future__ import annotations

import contextlib
import pathlib
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from lensway.testing.chaos.checker import ALLOWED
from lensway.testing.chaos.namespace import why_unavailable
from lensway.testing.chaos.run import Outcome, run_chaos
from lensway.testing.chaos.site import Site
from proofs.report import Report

JOBS = 100_000
KINDS_MIN = 12


@contextlib.contextmanager
def stage(**options: Any) -> Iterator[Site]:
    """A site in a directory of its own, without runners yet."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        with Site(pathlib.Path(directory), **options) as site:
            yield site


def chaos(report: Report, *, seconds: float = 180.0, seed: int | None = None) -> None:
    """Faults of many kinds for so long, longer on a machine where that has not been enough for all that are wanted."""
    _run(report, "chaos", lambda _calls, took, kinds: took >= seconds and (kinds >= KINDS_MIN or took >= 600.0), seed)


def jobs(report: Report, *, count: int = JOBS, seed: int | None = None) -> None:
    """Faults of every kind until so many requests were made."""
    _run(report, "jobs", lambda calls, _took, kinds: calls >= count and kinds >= KINDS_MIN, seed)


def _run(report: Report, name: str, is_enough: Callable[[int, float, int], bool], seed: int | None) -> None:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    report.title(name, f"three runners, callers of seven kinds, everything broken that can be; seed {seed}")
    why = why_unavailable()
    if why:
        report.add("faults of network namespaces", f"left out: {why}")
    with stage(is_witnessed=True) as site:
        site.add_runner("alpha")
        site.add_runner("beta")
        site.add_runner("gamma", is_apart=not why)
        outcome = run_chaos(site, seed=seed, is_enough=is_enough, tell=lambda line: print(line, flush=True))
    tell(report, outcome)


def tell(report: Report, outcome: Outcome, *, kinds_min: int = KINDS_MIN) -> None:
    """The verdict, for somebody who sees it for the first time."""
    verdict = outcome.verdict
    whole = sum(each.is_whole for each in outcome.history.calls)
    report.add(
        "requests",
        f"{verdict.calls:,} in {outcome.seconds:.0f} s, {whole:,} answered with every row, "
        f"{verdict.seen['whole after a lost attempt']:,} of them after a lost attempt",
    )
    report.add(
        "faults",
        f"{sum(outcome.faults.values()):,} of {len(outcome.faults)} kinds",
        f"≥ {kinds_min} kinds" if kinds_min else "",
        len(outcome.faults) >= kinds_min,
    )
    report.details([", ".join(f"{kind} {count}" for kind, count in sorted(outcome.faults.items()))])
    for what, count in verdict.summary.items():
        report.none(what, count)
    others = sum(each.invariant.startswith(("I5", "I6", "I4 repeated")) for each in verdict.violations)
    report.none("attempts that should not have been (fences, late or unasked statements)", others)
    for kind in ALLOWED:
        report.add(f"allowed failures, each with its cause: {kind}", f"{verdict.failed[kind]:,}")
    report.none("runners or helpers that did not come back", len(outcome.problems))
    report.details([f"{each.invariant} {each.request}: {each.text}" for each in verdict.violations], most=12)
    report.details(list(outcome.problems))
