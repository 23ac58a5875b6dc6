"""One of three runners loses its way to the database; and one of two has a slow one."""

from __future__ import annotations

import time

from lensway.testing.chaos.proxy import Faults
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import Load, milliseconds
from proofs.report import Report, percentile

_BROKEN_SECONDS = 12.0


def database(report: Report, *, rounds: int = 3) -> None:
    """Refusal and silent drop: callers hardly notice, and the status says it."""
    report.title("database", "one of three runners cut from the database at 100 point queries a second")
    added: list[float] = []
    attempts: list[int] = []
    shown: list[float] = []
    with stage() as site:
        for name in ("alpha", "beta", "gamma"):
            site.add_runner(name)
        link = site.runners["alpha"].database
        with Load(site, rate=100) as points:
            wait_until(lambda: len(points.answered) > 400, seconds=60, what="a calm beginning")
            calm = percentile(milliseconds(points.answered), 0.5)
            for kind in ("refused", "dropped silently") * rounds:
                at = time.monotonic()
                if kind == "refused":
                    link.refuse()
                    link.cut()
                else:
                    link.swallow()
                known = at + wait_until(
                    lambda: site.status("alpha")["status"] != "healthy", seconds=30, what="the status to say it"
                )
                over = max(at + _BROKEN_SECONDS, known + 3.0)
                wait_until(lambda over=over: time.monotonic() > over, seconds=60, what="the fault to last")
                cause = site.status("alpha")["cause"]
                link.heal()
                healed = site.wait_well("alpha")
                found = points.between(at - 0.5, over)
                added += [each - calm for each in milliseconds(found)]
                attempts += [each.attempts for each in points.between(known, over)]
                shown.append(known - at)
                report.note(
                    f"{kind}: at most {max(milliseconds(found)) - calm:+.0f} ms, shown after {known - at:.1f} s "
                    f"as {cause!r}, well {healed:.1f} s after it healed"
                )
        wrong = points.wrong()
    report.none("failed queries", len(wrong), len(points.answered))
    report.details(wrong)
    report.at_most("added to any query", max(added) / 1000, 3, "s")
    report.at_most("extra attempts once it is known", max(attempts) - 1, 1, "")
    report.at_most("status says so", max(shown), 5, "s")


def gray(report: Report, *, rounds: int = 3, seconds: float = 12.0) -> None:
    """One of two runners is ten times slower; the pair must be hardly slower than the fast one alone."""
    report.title("gray", "one of two runners 10 × slower, 200 point queries a second")
    ratios: list[float] = []
    wrong: list[str] = []
    with stage() as site:
        for name in ("fast", "slow"):
            site.add_runner(name)
        for number in range(rounds):
            site.deployment.unassign("slow", "main")
            alone, some = _measure(site, seconds)
            wrong += some
            # A point query is one round trip to the database.
            delay = 9 * percentile(milliseconds(alone), 0.5) / 2000
            site.runners["slow"].database.set(up=Faults(latency_seconds=delay), down=Faults(latency_seconds=delay))
            site.deployment.assign("slow", "main")
            site.wait_well("slow")
            both, some = _measure(site, seconds)
            wrong += some
            ratios.append(percentile(milliseconds(both), 0.99) / percentile(milliseconds(alone), 0.99))
            share = sum(each.runner == "slow" for each in both) / max(1, len(both))
            report.note(
                f"round {number + 1}: alone p50 {percentile(milliseconds(alone), 0.5):.1f} p99 "
                f"{percentile(milliseconds(alone), 0.99):.1f} ms; both p99 {percentile(milliseconds(both), 0.99):.1f} ms, "
                f"the slow one got {share:.1%}"
            )
            site.runners["slow"].database.heal()
    report.none("failed queries", len(wrong))
    report.details(wrong)
    report.at_most("p99 of the pair ÷ p99 of the fast one alone, median of rounds", percentile(ratios, 0.5), 1.5, "")


def _measure(site, seconds: float):  # noqa: ANN001, ANN202 - of this file
    with Load(site, rate=200) as load:
        begin = time.monotonic() + 4.0
        wait_until(lambda: time.monotonic() > begin + seconds, seconds=seconds + 60, what="the measurement")
    return load.between(begin, begin + seconds), load.wrong()
