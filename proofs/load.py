"""Steady load beside a proof: an open loop, so that a slow answer does not slow the asking; and closed loops for long queries."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from collections.abc import Sequence
from typing import Self

import msgspec

from lensway.testing.chaos.callers import KINDS, ROWS, Kind, judge
from lensway.testing.chaos.http import Answer, LeanCaller
from lensway.testing.chaos.site import Site

POINT, PAGE, SLOW = KINDS[:3]
_RETRY_SECONDS = 20.0
_RETRY_PAUSE_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request: when it was due (monotonic), how long its answer took from then, and what it was."""

    due: float
    milliseconds: float
    is_right: bool
    attempts: int = 1
    runner: str | None = None
    retries: int = 0
    what: str = ""
    id: str = ""

    @property
    def ended(self) -> float:
        """When the answer was there."""
        return self.due + self.milliseconds / 1000


class Load:
    """So many requests a second of one kind (``rate``), or so many callers that ask one after the other (``callers``)."""

    def __init__(
        self, site: Site, kind: Kind = POINT, *, rate: float = 0.0, callers: int = 0, retries_cut: bool = False
    ) -> None:
        self.answered: list[Answered] = []
        self._open: list[float] = []
        self._started = time.monotonic()
        self._kind = kind
        self._rate = rate
        self._callers = callers
        self._retries_cut = retries_cut
        self._http = LeanCaller("127.0.0.1", site.deployment.http_port, site.deployment.admin_key)
        self._random = random.Random(1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask nothing more; returns when every answer is there."""
        self._over.set()
        self._thread.join(120)

    @property
    def in_flight(self) -> int:
        """How many requests have no answer yet."""
        return len(self._open)

    @property
    def longest_wait(self) -> float:
        """Seconds that the request which waits longest for its answer has waited; 0 when none does."""
        return time.monotonic() - min(tuple(self._open), default=time.monotonic())

    def is_clear_of(self, moment: float) -> bool:
        """True when everything that was asked before this moment has been answered."""
        return all(due > moment for due in tuple(self._open))

    def between(self, begin: float, end: float) -> list[Answered]:
        """What was due in this time."""
        return [each for each in self.answered if begin <= each.due < end]

    def wrong(self) -> list[str]:
        """What was not answered with the right rows."""
        return [each.what for each in self.answered if not each.is_right]

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._callers):
                group.create_task(self._one_after_the_other())
            if self._rate:
                await self._steadily(group)
        self._http.close()

    async def _one_after_the_other(self) -> None:
        while not self._over.is_set():
            await self._ask(time.monotonic())

    async def _steadily(self, group: asyncio.TaskGroup) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            due += 1 / self._rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            group.create_task(self._ask(due))

    async def _ask(self, due: float) -> None:
        first = self._random.randrange(1, ROWS)
        self._open.append(due)
        retries = 0
        while True:
            answer = await self._http.post(f"/v1/query/{self._kind.lens}", self._kind.body(first), seconds=60)
            if answer.status or not self._retries_cut or time.monotonic() - due > _RETRY_SECONDS:
                break
            retries += 1
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)
        self._open.remove(due)
        self.answered.append(self._note(first, answer, due, retries))

    def _note(self, first: int, answer: Answer, due: float, retries: int) -> Answered:
        took = (time.monotonic() - due) * 1000
        call = judge(self._kind, first, answer, time.time())
        if not (call.is_whole and call.is_right and call.rows == call.rows_wanted):
            text = answer.body[:200].decode(errors="replace")
            began = due - self._started
            what = f"{self._kind.name} at {began:.1f} s: {call.status} {call.code} {text} after {took:.0f} ms"
            return Answered(due=due, milliseconds=took, is_right=False, what=what, retries=retries)
        route = msgspec.json.decode(answer.body)["meta"]["route"]
        return Answered(
            due=due,
            milliseconds=took,
            is_right=True,
            attempts=route["attempts"],
            runner=route["runner"],
            retries=retries,
            id=call.id,
        )


def milliseconds(answered: Sequence[Answered]) -> list[float]:
    """How long each took."""
    return [each.milliseconds for each in answered]
