"""Notices callers that go away while their requests are worked on. One timer for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from lensway import limits

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Watched:
    """One request. ``receive`` gives what else its caller says; ``cancel`` is called when that is that it is gone."""

    __slots__ = ("_cancel", "_receive", "_task", "since")

    def __init__(self, receive: Receive, cancel: Callable[[], None], since: float) -> None:
        self.since = since
        self._receive: Receive | None = receive
        self._cancel = cancel
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Listen from now on, unless the request is over."""
        if self._receive is not None:
            self._task = asyncio.create_task(self._disconnected(self._receive), name="watch caller")

    def end(self) -> None:
        """The request is over: nobody listens any more, and nothing of it is kept."""
        self._receive = None
        self._cancel = _nothing
        if self._task is not None:
            self._task.cancel()

    async def _disconnected(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel()


class Callers:
    """Everybody who waits for an answer. Nobody is listened to in the first moment: most are served by then."""

    def __init__(self) -> None:
        self._young: deque[Watched] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive, cancel: Callable[[], None]) -> Watched:
        """Watch the caller of a request until that is over (`Watched.end`)."""
        loop = asyncio.get_running_loop()
        watched = Watched(receive, cancel, loop.time())
        self._young.append(watched)
        if self._timer is None:
            self._timer = loop.call_later(limits.CALLER_WATCH_SECONDS, self._look)
        return watched

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now, young = loop.time(), self._young
        while young and now - young[0].since >= limits.CALLER_WATCH_SECONDS:
            young.popleft().listen()
        # As often as anybody may be due, not at each one's own moment.
        self._timer = loop.call_later(limits.CALLER_WATCH_SECONDS, self._look) if young else None


def _nothing() -> None:
    """What is left to cancel of a request that is over."""
