"""Large results give way to small ones: a stage that passes on rows of a large one waits a moment while a small one is under way.

A small query crosses several processes, and each one that is busy with an export, or shares its core with one that is,
makes it wait again. So the rows of large results rest while young small ones are there. All behind them rests too, for want of
credit: the link, the runner, the database. They rest for half of the time at most, however many small ones come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lensway import limits
from lensway.ids import JobId

_NEVER: Final = float("-inf")


class RightOfWay:
    """The small results under way on one node. All methods are called on its event loop."""

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop = loop
        self._small: dict[JobId, float] = {}
        self._clear: asyncio.Future[None] | None = None

    def begin(self, job: JobId) -> None:
        """A job begins; while it has given little it is a small one."""
        self._small[job] = self._loop().time()

    def end(self, job: JobId) -> None:
        """It is over, or not small any more. Does nothing a second time."""
        self._small.pop(job, None)
        if not self._small and self._clear is not None:
            clear, self._clear = self._clear, None
            if not clear.done():
                clear.set_result(None)

    def passage(self, job: JobId) -> Passage:
        """For the stage that passes on the rows of this job."""
        return Passage(self, self._loop(), job)

    def blocked_until(self) -> float:
        """Until when at most small ones go first, by the loop's clock. One that takes longer waits for its database."""
        if not self._small:
            return _NEVER
        youngest = next(reversed(self._small.values()))
        return youngest + limits.RIGHT_OF_WAY_SECONDS

    def clear(self) -> asyncio.Future[None]:
        """Done when no small one is under way."""
        if self._clear is None:
            self._clear = self._loop().create_future()
        return self._clear


class Passage:
    """One result while its rows are passed on."""

    __slots__ = ("_bytes", "_job", "_loop", "_patience", "_since", "_way")

    def __init__(self, way: RightOfWay, loop: asyncio.AbstractEventLoop, job: JobId) -> None:
        self._way = way
        self._loop = loop
        self._job = job
        self._bytes = 0
        self._patience = limits.GIVE_WAY_SECONDS_MAX
        self._since = loop.time()

    def must_wait(self, size: int) -> bool:
        """Whether these rows, which come next, have to `wait`."""
        if self._bytes >= limits.GIVE_WAY_FROM_BYTES:
            return self._way.blocked_until() > self._loop.time()
        self._bytes += size
        if self._bytes >= limits.GIVE_WAY_FROM_BYTES:
            self._way.end(self._job)
        return False

    async def wait(self) -> None:
        """Return when the way is clear, or this one has waited long enough: a second of rest for each second of rows."""
        loop, way = self._loop, self._way
        began = loop.time()
        give_up = began + min(limits.GIVE_WAY_SECONDS_MAX, self._patience + began - self._since)
        while (pause := min(give_up, way.blocked_until()) - loop.time()) > 0:
            await asyncio.wait((way.clear(),), timeout=pause)
        self._since = loop.time()
        self._patience = give_up - self._since
