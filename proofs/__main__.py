"""`make prove`: every long proof, or those that are named; `make chaos`: everything broken at once, for a few minutes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from proofs.cancels import cancels
from proofs.changes import CHANGES, changes
from proofs.databases import database, gray
from proofs.hostile import hostile, hostile_runner
from proofs.install import install
from proofs.jobs import chaos, jobs
from proofs.kills import kills
from proofs.numbers import numbers
from proofs.overloads import overload
from proofs.poolers import poolers
from proofs.report import Report
from proofs.restarts import flips, restarts
from proofs.seeds import seeds
from proofs.silence import silence
from proofs.status import status
from proofs.switch import switch
from proofs.values import values
from proofs.walks import walks


def simulation(report: Report, *, count: int) -> None:
    """Random scenarios on virtual time."""
    report.title("seeds", "whole deployments on virtual time with random faults")
    lines = list(seeds(count))
    report.add("scenarios", lines[0])
    report.none("violated", sum("VIOLATED" in line for line in lines))
    report.details(lines[1:], most=12)


def main(arguments: Sequence[str]) -> int:
    """Run, print, append. 1 when a bar was missed."""
    options = _options(arguments)
    is_chaos = "chaos" in options.names
    words = " ".join(word for word in arguments if word != "chaos")
    report = Report(f"make {'chaos' if is_chaos else 'prove'}" + (f' ARGS="{words}"' if words else ""))
    proofs = _proofs(options, report)
    if unknown := set(options.names) - set(proofs):
        print(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(proofs)}", file=sys.stderr)
        return 2
    for name in options.names or [name for name in proofs if name != "chaos"]:
        started = time.monotonic()
        try:
            proofs[name]()
        except Exception as error:  # noqa: BLE001 - one proof that cannot be finished must not hide the others
            report.add(f"{name} ended early", f"{type(error).__name__}: {str(error)[:500]}", "never", is_met=False)
        report.note(f"{name} took {time.monotonic() - started:.0f} s")
    report.append()
    print(_verdict(report, is_chaos=is_chaos))
    return int(bool(report.missed))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="proofs", description=__doc__)
    parser.add_argument("names", nargs="*", help="proofs to run; all when none is named")
    parser.add_argument("--seed", type=int, default=None, help="of the faults of chaos and jobs, and of numbers")
    parser.add_argument("--seconds", type=float, default=180.0, help="length of chaos")
    parser.add_argument("--times", type=int, default=None, help="how often each thing is done; for a quick look")
    parser.add_argument("--jobs", type=int, default=100_000, help="requests of jobs")
    parser.add_argument("--hostile-seconds", type=float, default=600.0, help="length of hostile and hostile-runner")
    parser.add_argument("--seeds", type=int, default=100_000, help="scenarios of the simulation")
    return parser.parse_args(arguments)


def _proofs(options: argparse.Namespace, report: Report) -> dict[str, Callable[[], Any]]:
    times = options.times
    return {
        "chaos": lambda: chaos(report, seconds=options.seconds, seed=options.seed),
        "install": lambda: install(report, starts=times or 15),
        "switch": lambda: switch(report, times=times or 50),
        "flips": lambda: flips(report, count=times or 50),
        "kills": lambda: kills(report, count=times or 50),
        "silence": lambda: silence(report, rounds=times or 2),
        "database": lambda: database(report, rounds=times or 3),
        "gray": lambda: gray(report, rounds=times or 3),
        "status": lambda: status(report, rounds=times or 3),
        "restarts": lambda: restarts(report, runners=times or 20, servers=times or 5),
        "cancels": lambda: cancels(report, timed=times or 200, count=(times or 200) * 50),
        "overload": lambda: overload(report),
        "poolers": lambda: poolers(report, pages=times or 10_000),
        "numbers": lambda: numbers(report, count=10_000 if times is None else times, seed=options.seed),
        "values": lambda: values(report, rounds=times or 1),
        "walks": lambda: walks(report, count=times or 1_000, seed=options.seed),
        "changes": lambda: changes(report, count=CHANGES if times is None else times * 50, seed=options.seed),
        "jobs": lambda: jobs(report, count=options.jobs, seed=options.seed),
        "hostile": lambda: hostile(report, seconds=options.hostile_seconds, seed=options.seed),
        "hostile-runner": lambda: hostile_runner(report, seconds=options.hostile_seconds, seed=options.seed),
        "seeds": lambda: simulation(report, count=options.seeds),
    }


def _verdict(report: Report, *, is_chaos: bool) -> str:
    if report.missed:
        return f"\nVERDICT: {len(report.missed)} not as promised: {'; '.join(report.missed)}"
    if is_chaos:
        return (
            "\nVERDICT: every promise held. No request was lost, answered twice, mixed of two attempts or silently cut short, "
            "whatever was broken."
        )
    return "\nVERDICT: every bar is met."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
