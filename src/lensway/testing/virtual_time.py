"""An event loop on virtual time: waiting costs nothing, and the same program runs the same way every time.

Several processes live on one loop. Each has its own monotonic clock, which may go at another rate, and can be paused as SIGSTOP
does: what becomes due for it waits, and runs in order when it goes on. Whose work something is, is known by its context.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
_PROCESS: Final[contextvars.ContextVar[VirtualProcess | None]] = contextvars.ContextVar("process", default=None)


class DeadlockError(Exception):
    """Everything waits, and nothing is scheduled that could end it."""


class VirtualProcess:
    """One process on a virtual loop. ``rate`` is how many of its seconds pass in one true second."""

    __slots__ = ("_held", "_loop", "_offset", "context", "paused_at", "rate")

    def __init__(self, loop: VirtualLoop, *, rate: float = 1.0, offset: float = 0.0) -> None:
        self.rate = rate
        self.paused_at: float | None = None
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)
        self._loop = loop
        self._offset = offset
        self._held: deque[asyncio.Handle] = deque()

    def monotonic(self) -> float:
        """The process's own clock, which other processes cannot compare with theirs."""
        return self._offset + self._loop.virtual_now * self.rate

    def wall(self) -> datetime.datetime:
        """A wall clock that goes as its monotonic one does."""
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=self.monotonic())

    def local(self, true: float) -> float:
        """What its clock shows at this true time."""
        return self._offset + true * self.rate

    def true(self, local: float) -> float:
        """A true time, to the last digit, at which its clock shows this or a moment more."""
        found = (local - self._offset) / self.rate
        # Rounded down, a task that waits for this time would wake too early, and again at once, for ever.
        while self.local(found) < local:
            found += max(math.ulp(local), math.ulp(found))
        return found

    def start(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        """Run this as work of the process."""
        return self._loop.create_task(work, name=name, context=self.context)

    def pause(self) -> None:
        """Stand still until `resume`; its clock goes on."""
        if self.paused_at is None:
            self.paused_at = self._loop.virtual_now
            self._loop.paused += 1

    def resume(self) -> None:
        """Go on: what was held back runs now, in order."""
        if self.paused_at is not None:
            self.paused_at = None
            self._loop.paused -= 1
            self._loop.take_back(self._held)

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what became due while it stands still (for the loop)."""
        self._held.append(handle)


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time moves only when everything waits."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual_now = 1000.0
        self.paused = 0
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        """Seconds on the clock of the process that asks; true ones outside of all processes."""
        process = _PROCESS.get()
        return self.virtual_now if process is None else process.local(self.virtual_now)

    def call_at(  # type: ignore[override]  # the signature of 3.11; later ones only say more of the arguments
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it when the clock of the process that asks shows ``when``."""
        process = _PROCESS.get()
        return self.call_at_true(when if process is None else process.true(when), callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it after so many seconds of the process that asks."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at_true(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it at this true time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # as BaseEventLoop.call_at does
        return timer

    def take_back(self, handles: deque[asyncio.Handle]) -> None:
        """What a process held back is ready."""
        self._ready.extend(handles)
        handles.clear()

    def _run_once(self) -> None:
        """One turn. Leaner than the general one: nothing outside can wake this loop, and no other thread either."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not ready:
            if not scheduled:
                raise DeadlockError("nothing is scheduled")
            self.virtual_now = max(self.virtual_now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self.virtual_now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            if self.paused:
                process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]
                if process is not None and process.paused_at is not None:
                    process.hold(handle)
                    continue
            handle._run()

    def _write_to_self(self) -> None:
        pass


def run_virtual(main: Coroutine[Any, Any, Result], loop: VirtualLoop) -> Result:
    """Run to the end on this loop, and close it."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
