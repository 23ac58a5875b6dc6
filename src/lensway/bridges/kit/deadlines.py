"""Deadlines of many jobs under one timer: most jobs are over long before theirs, and a timer for each costs more than to know it.

As with `asyncio.timeout`, a late job is cancelled, what it does about that is finished, and only then `TimeoutError` comes.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final

_ROUNDING_SECONDS: Final = 0.001
"""The loop's clock counts milliseconds."""


class Deadlines:
    """Those of one source, on the monotonic clock. For one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[_Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        # Kept: to ask for the running one is a system call, for each job.
        self.loop = asyncio.get_running_loop()

    def until(self, deadline: float) -> _Deadline:
        """A block of code that ends at this time; use it with ``with``. Raises TimeoutError when it was late."""
        return _Deadline(self, deadline)

    def close(self) -> None:
        """No timer outlives the source."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self, deadline: _Deadline) -> None:
        """It counts from now on."""
        self._under_way[deadline] = None
        self._look_at(deadline.due)

    def end(self, deadline: _Deadline) -> None:
        """It does not count any more."""
        self._under_way.pop(deadline, None)

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            # One that comes too early only looks in vain.
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        pause = max(0.0, due - time.monotonic()) + _ROUNDING_SECONDS
        self._timer = self.loop.call_later(pause, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for deadline in [each for each in self._under_way if each.due <= now]:
            del self._under_way[deadline]
            deadline.expire()
        if self._under_way:
            self._look_at(min(each.due for each in self._under_way))


class _Deadline:
    """One block of code and its time."""

    __slots__ = ("_cancelling", "_deadlines", "_is_late", "_task", "due")

    def __init__(self, deadlines: Deadlines, due: float) -> None:
        task = asyncio.current_task(deadlines.loop)
        assert task is not None, "a deadline ends a task"
        self.due = due
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()
        self._is_late = False

    def __enter__(self) -> None:
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        # Another task may have cancelled it too; then it stays cancelled.
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The time has come."""
        self._is_late = True
        self._task.cancel()
