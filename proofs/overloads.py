"""More than the runners can do, for a while: what is refused, what memory it takes, and how soon it is forgotten."""

from __future__ import annotations

import dataclasses
import time

import psutil

from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import SLOW, Load, milliseconds
from proofs.report import Report, percentile


def overload(report: Report, *, seconds: float = 30.0) -> None:
    """Five times what the runners can do, then as before: latency must be back, and memory must not have grown."""
    report.title("overload", f"5 × what two runners can do, for {seconds:.0f} s")
    nap = dataclasses.replace(SLOW, name="nap", lens="nap")
    with stage() as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        view = "CREATE VIEW nap AS SELECT o.* FROM orders o, (SELECT pg_sleep(0.5)) s"
        site.run_sql(view, "GRANT SELECT ON nap TO PUBLIC")
        site.declare_lens("nap", table="public.nap")
        server = site.deployment.server
        assert server is not None
        processes = [psutil.Process(pid) for pid in (server.pid, *(each.running.pid for each in site.runners.values()))]
        # 16 connections of each runner, each busy for half a second.
        able = 2 * 16 / 0.5
        with Load(site, nap, rate=able / 2) as normal:
            begin = time.monotonic()
            wait_until(lambda: time.monotonic() > begin + 12, seconds=60, what="normal load")
            before = percentile(milliseconds(normal.between(begin + 2, begin + 11)), 0.99)
            small = sum(each.memory_info().rss for each in processes)
            largest = small
            with Load(site, nap, rate=5 * able) as excess:
                over = time.monotonic() + seconds

                def is_over() -> bool:
                    nonlocal largest
                    largest = max(largest, sum(each.memory_info().rss for each in processes))
                    return time.monotonic() > over

                wait_until(is_over, seconds=seconds + 60, what="the overload to pass")
                excess_ended = time.monotonic()
            back = excess_ended + 10
            wait_until(lambda: time.monotonic() > back + 12, seconds=120, what="normal load again")
            after = percentile(milliseconds(normal.between(back, back + 10)), 0.99)
    answered = sum(each.is_right for each in excess.answered)
    other = [each.what for each in excess.answered if not each.is_right and "overloaded" not in each.what]
    late = normal.between(back, back + 10)
    report.add(
        "under overload", f"{len(excess.answered):,} asked, {answered:,} answered, the rest refused as overloaded"
    )
    report.none("failed otherwise", len(other))
    report.details(other)
    report.none("failed from 10 s after it", sum(not each.is_right for each in late), len(late))
    report.at_most(
        "p99 from 10 s after it ÷ p99 before it", after / before, 1.25, "", f" ({after:.0f} and {before:.0f} ms)"
    )
    report.at_most("memory of server and runners grew by", (largest - small) / 2**20, 200, "MiB")
