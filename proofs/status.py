"""What the API shows of runners, sampled all the time, against what was really done to them."""

from __future__ import annotations

import bisect
import signal
import threading
import time
from collections.abc import Callable
from typing import Self

from lensway.testing.chaos.site import Site
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.load import Load
from proofs.report import Report

_SAMPLE_SECONDS = 0.05
_SILENT_SECONDS = 13.0


class Watch:
    """Samples the list of runners; when each changed, and to what."""

    def __init__(self, site: Site) -> None:
        self._client = site.deployment.client()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.samples = 0
        self._changes: dict[str, list[tuple[float, str]]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def first(self, name: str, states: tuple[str, ...], since: float) -> float | None:
        """Seconds from ``since`` until the runner was first shown in one of these states; None if it never was."""
        changes = self._changes.get(name, [])
        for at, state in changes[bisect.bisect_left(changes, (since, "")) :]:
            if state in states:
                return at - since
        return None

    def shown(self, name: str) -> str:
        """How the runner was shown last."""
        changes = self._changes.get(name)
        return changes[-1][1] if changes else ""

    def states(self, name: str) -> list[str]:
        """Every state that was shown of a runner, in order."""
        return [state for _, state in self._changes.get(name, [])]

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            shown = self._client.get("/v1/runners").json()["runners"]
            now = time.monotonic()
            self.samples += 1
            for each in shown:
                changes = self._changes.setdefault(each["name"], [])
                if not changes or changes[-1][1] != each["status"]:
                    changes.append((now, each["status"]))


def status(report: Report, *, rounds: int = 3) -> None:
    """Kills, stops and black holes of one runner; two others, untouched, must never be shown as anything but well."""
    report.title("status", "what is shown of a killed, stopped and black-holed runner, and of two that are well")
    closed: list[float] = []
    suspect: list[float] = []
    offline: list[float] = []
    missed: list[str] = []
    with stage() as site:
        for name in ("alpha", "beta", "gamma"):
            site.add_runner(name)
        with Watch(site) as watch, Load(site, rate=50):
            wait_until(lambda: watch.samples > 20, seconds=30, what="the watch")
            for _ in range(rounds):
                # A kill within a sample of the recovery before it would never be seen as a change.
                wait_until(lambda: watch.shown("alpha") == "healthy", seconds=20, what="alpha shown as healthy")
                at = time.monotonic()
                site.runners["alpha"].running.kill()
                wait_until(lambda: watch.first("alpha", ("offline",), at) is not None, seconds=20, what="offline")  # noqa: B023
                closed.append(watch.first("alpha", ("offline",), at) or 0.0)
                site.start("alpha")
                site.wait_well("alpha")
                for kind in ("stopped", "black hole"):
                    at = time.monotonic()
                    _fall_silent(site, kind)()
                    for states, found in ((("suspect", "offline"), suspect), (("offline",), offline)):
                        seen = watch.first("alpha", states, at)
                        if seen is None:
                            missed.append(f"{kind}: never shown as {states[-1]}")
                        else:
                            found.append(seen)
                    site.wait_well("alpha")
        false = [state for name in ("beta", "gamma") for state in watch.states(name) if state != "healthy"]
    report.add("samples", f"{watch.samples:,}")
    report.none("silences that were not shown", len(missed))
    report.details(missed)
    report.at_most("closed socket shown offline, longest", max(closed) * 1000, 500, "ms")
    report.at_most("silent runner shown suspect, longest", max(suspect, default=0.0), 6, "s")
    report.at_most("silent runner shown offline, longest", max(offline, default=0.0), 11, "s")
    report.none("states other than healthy shown of the two that were well", len(false))
    report.details(false)


def _fall_silent(site: Site, kind: str) -> Callable[[], None]:
    runner = site.runners["alpha"]

    def stopped() -> None:
        runner.running.signal(signal.SIGSTOP)
        _pass()
        runner.running.signal(signal.SIGCONT)

    def black_hole() -> None:
        runner.gateway.swallow()
        _pass()
        runner.gateway.heal()
        runner.gateway.cut()

    return stopped if kind == "stopped" else black_hole


def _pass() -> None:
    over = time.monotonic() + _SILENT_SECONDS
    wait_until(lambda: time.monotonic() > over, seconds=60, what="the silence to pass")
