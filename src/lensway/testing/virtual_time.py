"""An event loop on virtual time: waiting costs nothing, and the same program runs the same way every time."""

from __future__ import annotations

import asyncio
import datetime
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeadlockError(Exception):
    """Everything waits, and nothing is scheduled that could end it."""


class _NoSelector(selectors.BaseSelector):
    """Never blocks: where a real one would wait for a time, it moves the clock."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Only the loop's own wake-up pipe is ever registered."""
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget it."""
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is registered."""
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing ever happens outside; time passes at once."""
        assert self.loop is not None
        if timeout is None:
            raise DeadlockError("nothing is scheduled")
        self.loop.virtual_now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` moves only when everything waits."""

    def __init__(self) -> None:
        self.virtual_now = 1000.0
        selector = _NoSelector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds."""
        return self.virtual_now


class VirtualClock:
    """Implements `lensway.clock.Clock` on a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.virtual_now

    def wall(self) -> datetime.datetime:
        """A wall clock that goes as the virtual one does."""
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=self._loop.virtual_now)


def run_virtual(main: Coroutine[Any, Any, Result], loop: VirtualLoop) -> Result:
    """Run to the end on this loop, and close it."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
