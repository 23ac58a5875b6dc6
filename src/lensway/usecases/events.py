"""Live events: a bounded backlog, and a bounded queue for each watcher."""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec

from lensway import limits
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId, KeyId


class HubEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. ``kind`` is session, assignment, health, drain, test, warning, source, lens, runner or key."""

    sequence: int
    at: datetime.datetime
    environment: EnvironmentId
    kind: str
    data: Mapping[str, Any]


class EventHub:
    """Publishes to every watcher of an environment. Publishing never waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sequence = 0
        self._backlog: deque[HubEvent] = deque(maxlen=limits.EVENT_BACKLOG_MAX)
        self._watchers: dict[EnvironmentId, dict[asyncio.Queue[HubEvent | None], KeyId]] = {}

    def publish(self, environment: EnvironmentId, kind: str, data: Mapping[str, Any]) -> None:
        """Tell the watchers. One that does not keep up is cut off, so that it knows that it missed something."""
        self._sequence += 1
        event = HubEvent(sequence=self._sequence, at=self._clock.wall(), environment=environment, kind=kind, data=data)
        self._backlog.append(event)
        for queue in list(self._watchers.get(environment, ())):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._forget(environment, queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    @property
    def sequence(self) -> int:
        """The number of the newest event; the same number again means that nothing happened."""
        return self._sequence

    def recent(self, environment: EnvironmentId) -> Iterator[HubEvent]:
        """The events of an environment that the backlog still holds, newest first."""
        return (event for event in reversed(self._backlog) if event.environment == environment)

    async def watch(
        self, environment: EnvironmentId, key: KeyId, *, after: int | None = None
    ) -> AsyncIterator[HubEvent]:
        """The events of an environment from now on, or behind sequence ``after`` as far as the backlog goes.

        Raises:
            LenswayError: OVERLOADED when this key, its environment or the whole server has too many watchers already.
        """
        self.check_room(environment, key)
        queue: asyncio.Queue[HubEvent | None] = asyncio.Queue(limits.EVENT_BACKLOG_MAX)
        for event in self._backlog if after is not None else ():
            if after is not None and event.sequence > after and event.environment == environment:
                queue.put_nowait(event)
        self._watchers.setdefault(environment, {})[queue] = key
        try:
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            self._forget(environment, queue)

    def close(self) -> None:
        """End every watch."""
        for queue in [queue for watchers in self._watchers.values() for queue in watchers]:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
        self._watchers.clear()

    def check_room(self, environment: EnvironmentId, key: KeyId) -> None:
        """Raises LenswayError OVERLOADED when this key, its environment or the whole server has too many watchers already."""
        watchers = self._watchers.get(environment, {})
        if list(watchers.values()).count(key) >= limits.EVENT_SUBSCRIBERS_PER_KEY_MAX:
            raise _too_many("this key", limits.EVENT_SUBSCRIBERS_PER_KEY_MAX)
        if len(watchers) >= limits.EVENT_SUBSCRIBERS_PER_ENVIRONMENT_MAX:
            raise _too_many("this environment", limits.EVENT_SUBSCRIBERS_PER_ENVIRONMENT_MAX)
        in_all = sum(map(len, self._watchers.values()))
        if in_all >= limits.EVENT_SUBSCRIBERS_MAX and len(watchers) >= limits.EVENT_SUBSCRIBERS_RESERVED:
            raise _too_many("this server", limits.EVENT_SUBSCRIBERS_MAX)

    def _forget(self, environment: EnvironmentId, queue: asyncio.Queue[HubEvent | None]) -> None:
        watchers = self._watchers.get(environment)
        if watchers is not None and watchers.pop(queue, None) is not None and not watchers:
            del self._watchers[environment]


def _too_many(whose: str, most: int) -> LenswayError:
    return LenswayError(
        ErrorCode.OVERLOADED,
        f"Too many streams of events are open: {whose} may have {most:,}",
        hint="Close one, or watch through one connection.",
        retry_after_seconds=5.0,
    )
