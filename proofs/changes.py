"""R10 and R11 under thousands of random changes: assignments, drains, kills, pauses and restarts while callers ask."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from lensway.testing.chaos.callers import KINDS
from lensway.testing.chaos.checker import is_explained
from lensway.testing.chaos.history import INLINE, History
from lensway.testing.chaos.nemesis import Nemesis, fault
from lensway.testing.chaos.run import run_chaos
from lensway.testing.chaos.site import SOURCE, Site
from lensway.testing.deployment import wait_until
from proofs.jobs import stage, tell
from proofs.report import Report

CHANGES = 10_000
_SHARES = tuple(zip(KINDS, (4, 1, 2, 1, 1, 1, 1), strict=True))
"""Few callers: they are to be met by changes, not to fill the machine."""
_DRAINS = 0.15
_MEASURED_EVERY = 40
_BREAKS = {"SIGKILL": 3, "SIGSTOP and SIGCONT": 4, "SIGTERM": 2, "server restart": 1}
_BETWEEN_BREAKS_SECONDS = 1.0
_BETWEEN_CHANGES_SECONDS = 0.004
_TURN_SECONDS = 10.0
_IN_FORCE_SECONDS = 0.25


class Changes:
    """Changes at random, an operator beside somebody who breaks things. Whenever runners are assigned, one of them is well."""

    def __init__(self, site: Site, *, seed: int) -> None:
        self.site = site
        self.done: Counter[str] = Counter()
        self.in_force: list[float] = []
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._assigned = set(site.names())
        self._drained: set[str] = set()
        self._broken: set[str] = set()

    @property
    def count(self) -> int:
        """How many changes were made."""
        return sum(self.done.values())

    def begin(self, nemesis: Nemesis) -> None:
        """From now on, until the nemesis is stopped; then everybody is assigned and nobody drained."""
        nemesis.spawn("operator", self._operate, nemesis)
        nemesis.spawn("breaker", self._break, nemesis)

    # --- the operator -----------------------------------------------------------------------------------------------------

    def _operate(self, nemesis: Nemesis) -> None:
        pause = threading.Event()
        while not pause.wait(_BETWEEN_CHANGES_SECONDS) and not nemesis.is_over:
            name = self._random.choice(self.site.names())
            with self._changed:
                if self._random.random() < _DRAINS:
                    self._toggle_drain(name)
                else:
                    self._toggle_assignment(name)
                self._changed.notify_all()
        with self._changed:
            for name in self.site.names():
                if name in self._drained:
                    self._toggle_drain(name)
                if name not in self._assigned:
                    self._toggle_assignment(name)

    def _toggle_assignment(self, name: str) -> None:
        wanted = self._assigned ^ {name}
        if not self._has_somebody(wanted, self._drained):
            return
        method = "DELETE" if name in self._assigned else "PUT"
        assert self.site.client.request(method, f"/v1/runners/{name}/sources/{SOURCE}").status_code == 200
        at = time.monotonic()
        self.done["assigned" if name in wanted else "unassigned"] += 1
        self._assigned = wanted
        if name not in self._broken | self._drained and self.count % _MEASURED_EVERY == 0:
            wait_until(
                lambda: self.site.is_well(name), seconds=30, what=f"the set of {name} in force", poll_seconds=0.0
            )
            self.in_force.append(time.monotonic() - at)

    def _toggle_drain(self, name: str) -> None:
        wanted = self._drained ^ {name}
        if name in self._broken or not self._has_somebody(self._assigned, wanted):
            return
        action = "resume" if name in self._drained else "drain"
        assert self.site.client.post(f"/v1/runners/{name}/{action}").status_code == 200
        self.done[action] += 1
        self._drained = wanted

    def _has_somebody(self, assigned: set[str], drained: set[str]) -> bool:
        return not assigned or bool(assigned - drained - self._broken)

    # --- the breaker ------------------------------------------------------------------------------------------------------

    def _break(self, nemesis: Nemesis) -> None:
        pause = threading.Event()
        while not nemesis.is_over:
            kind = self._random.choices(list(_BREAKS), list(_BREAKS.values()))[0]
            if kind == "server restart":
                with self._changed:
                    self._resume_all()
                    nemesis.restart_server()
                    self.done[kind] += 1
            else:
                self._break_runner(nemesis, kind, self._random.choice(self.site.names()))
            pause.wait(self._random.uniform(0.0, _BETWEEN_BREAKS_SECONDS))

    def _break_runner(self, nemesis: Nemesis, kind: str, name: str) -> None:
        with self._changed:
            others = self._changed.wait_for(
                lambda: not self._assigned or bool(self._assigned - self._drained - {name}), _TURN_SECONDS
            )
            if not others:
                return
            if name in self._drained:
                self._toggle_drain(name)
            self._broken.add(name)
        nemesis.once(fault(kind), name)
        self.done[kind] += 1
        with self._changed:
            self._broken.discard(name)

    def _resume_all(self) -> None:
        for name in tuple(self._drained):
            self._toggle_drain(name)


def changes(report: Report, *, count: int = CHANGES, seed: int | None = None) -> None:
    """Random changes until there were so many; rows are compared with the database's, statements with the attempts."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    report.title("changes", f"{count:,} random changes of assignments, runners and the server; seed {seed}")
    with stage(is_witnessed=True) as site:
        for name in ("alpha", "beta", "gamma"):
            site.add_runner(name)
        made = Changes(site, seed=seed)
        outcome = run_chaos(
            site,
            seed=seed,
            is_enough=lambda _calls, _took, _kinds: made.count >= count,
            tell=lambda line: print(f"{line}; {made.count:,} changes", flush=True),
            shares=_SHARES,
            disturb=made.begin,
        )
    report.add("changes", f"{made.count:,}", f"≥ {count:,}", made.count >= count)
    report.details([", ".join(f"{kind} {number:,}" for kind, number in sorted(made.done.items()))])
    tell(report, outcome, kinds_min=0)
    moved = moved_in_flight(outcome.history)
    report.none("attempts that did not end where they were accepted, and nothing was broken there", len(moved))
    report.details(moved)
    longest = max(made.in_force, default=0.0) * 1000
    report.at_most("in force, longest", longest, _IN_FORCE_SECONDS * 1000, "ms", f" of {len(made.in_force)}")
    shares = Counter(
        "inline" if each.attempts[-1].runner == INLINE else "runners"
        for each in outcome.history.requests.values()
        if each.attempts
    )
    report.add("executed by", ", ".join(f"{place} {number:,}" for place, number in sorted(shares.items())))


def moved_in_flight(history: History) -> list[str]:
    """Attempts that were accepted, did not end by themselves, and whose runner nobody had broken (R11)."""
    return [
        f"{request.id}: attempt {attempt.number} on {attempt.runner} {attempt.outcome}"
        for request in history.requests.values()
        for attempt in request.attempts
        if attempt.accepted_at is not None
        and attempt.outcome != "ended"
        and not is_explained(history, attempt, attempt.accepted_at)
    ]
