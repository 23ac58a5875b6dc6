"""One chaos run: callers, the nemesis, a collector of logs, for a time or for so many requests; then the verdict."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import httpx2

from lensway.testing.chaos.callers import KINDS, Callers, Kind
from lensway.testing.chaos.checker import Verdict, check
from lensway.testing.chaos.history import History
from lensway.testing.chaos.nemesis import Nemesis
from lensway.testing.chaos.site import Site
from lensway.testing.chaos.statements import StatementLog

SHARES: Final[Sequence[tuple[Kind, int]]] = tuple(zip(KINDS, (10, 3, 4, 1, 2, 1, 2), strict=True))
_COLLECT_SECONDS: Final = 1.5
_LOG_ENTRIES: Final = 1_000
_CALM_SECONDS: Final = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run found; ``faults`` counts what was done by kind."""

    verdict: Verdict
    history: History
    faults: dict[str, int]
    problems: Sequence[str]
    seconds: float

    @property
    def is_good(self) -> bool:
        """True when no promise was broken and everything came back."""
        return not self.verdict.violations and not self.problems


class Collector:
    """Reads the request log and the database's log while they grow: both forget or are large."""

    def __init__(self, site: Site, history: History) -> None:
        self._history = history
        self._client = site.deployment.client()
        self._log = StatementLog(site.cluster.log_path)
        self._over = threading.Event()
        self._seen = 0
        self._thread = threading.Thread(target=self._collect_for_ever, name="collector", daemon=True)

    def start(self) -> None:
        """Begin to collect."""
        self._thread.start()

    def stop(self) -> None:
        """Collect once more, and end."""
        self._over.set()
        self._thread.join(60)
        self.collect()

    def collect(self) -> None:
        """Take what is new. A server that is away is asked again later."""
        self._history.statements += self._log.read()
        calls = self._history.calls[self._seen :]
        try:
            newest = self._client.get("/v1/requests", params={"limit": _LOG_ENTRIES}).json()
            for document in newest["requests"]:
                self._history.note_request(document)
            # What ran for long is not among the newest any more.
            for call in calls:
                if call.id and call.id not in self._history.requests:
                    found = self._client.get(f"/v1/requests/{call.id}")
                    if found.status_code == 200:
                        self._history.note_request(found.json())
        except httpx2.HTTPError:
            return
        self._seen += len(calls)

    def _collect_for_ever(self) -> None:
        while not self._over.wait(_COLLECT_SECONDS):
            self.collect()


def run_chaos(
    site: Site,
    *,
    seed: int,
    is_enough: Callable[[int, float, int], bool],
    shares: Sequence[tuple[Kind, int]] = SHARES,
    tell: Callable[[str], None] = lambda _line: None,
    disturb: Callable[[Nemesis], None] = lambda nemesis: nemesis.start(),
) -> Outcome:
    """Ask and break until ``is_enough(calls, seconds, kinds of faults)``, heal, check."""
    history = History(executors=site.executors)
    nemesis = Nemesis(site, seed=seed, note=history.disturbances.append)
    collector = Collector(site, history)
    callers = Callers(site.deployment.http_port, site.deployment.admin_key, history.calls.append, seed=seed)
    started = time.monotonic()
    collector.start()
    calling = threading.Thread(target=lambda: asyncio.run(callers.run(shares)), name="callers", daemon=True)
    calling.start()
    disturb(nemesis)
    told = started
    while calling.is_alive() and not is_enough(len(history.calls), time.monotonic() - started, len(nemesis.done)):
        time.sleep(0.2)
        if time.monotonic() - told >= 10:
            told = time.monotonic()
            tell(progress(history, nemesis, told - started))
    nemesis.stop()
    time.sleep(_CALM_SECONDS)
    callers.stop()
    calling.join(180)
    collector.stop()
    verdict = check(history)
    return Outcome(
        verdict=verdict,
        history=history,
        faults=dict(nemesis.done),
        problems=nemesis.problems,
        seconds=time.monotonic() - started,
    )


def progress(history: History, nemesis: Nemesis, seconds: float) -> str:
    """One line for who watches."""
    calls = len(history.calls)
    failed = sum(not each.is_whole for each in history.calls)
    return (
        f"  {seconds:4.0f} s  {calls:>7,} requests, {failed:>4} without rows (judged at the end), "
        f"{sum(nemesis.done.values()):>4} faults of {len(nemesis.done)} kinds"
    )
