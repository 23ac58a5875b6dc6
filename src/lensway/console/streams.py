"""Beats for open pages: proof that the server is there, and the version of what they show.

One feed renders a view for all the pages that watch it, at most once a second, at once when something happens after a quiet
moment. Each page's stream repeats the feed's version every two seconds, with the server's own monotonic time: a link that delays
beats shows by the difference growing. A feed that cannot render says nothing, so that its pages turn stale instead of lying.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import structlog

from lensway import limits
from lensway.clock import Clock
from lensway.console.fragments import Fragments
from lensway.console.sections import View
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import KeyId
from lensway.usecases.fleet_pages import FleetPages

_log = structlog.get_logger("lensway.console")
_BOOT: Final = secrets.token_hex(4)
"""Tells a page that the server's monotonic time has begun anew."""


class Feed:
    """The newest version of one view, kept up for as long as pages watch."""

    def __init__(self, view: View, fragments: Fragments, fleet: FleetPages, clock: Clock) -> None:
        self._view = view
        self._fragments = fragments
        self._fleet = fleet
        self._clock = clock
        self._longest = limits.CONSOLE_BEAT_SECONDS if fragments.has_own_mark(view) else limits.CONSOLE_STANDING_SECONDS
        self._dirty = asyncio.Event()
        self._turned = asyncio.Event()
        self.version = ""
        self.problems = 0
        self.rendered_at = float("-inf")
        self.is_over = False
        self.watchers = 0

    async def run(self) -> None:
        """Render whenever something happened, until cancelled or until nothing more can be heard."""
        listener = asyncio.create_task(self._listen(), name="console feed listener")
        try:
            while not listener.done():
                await self._render()
                await asyncio.sleep(
                    max(0.0, limits.CONSOLE_PUSH_SECONDS - (self._clock.monotonic() - self.rendered_at))
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._dirty.wait(), self._longest - limits.CONSOLE_PUSH_SECONDS)
        except LenswayError as error:
            _log.warning("a page cannot be kept up", code=error.code.value)
        finally:
            self.is_over = True
            self._turn()
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def next(self, seconds: float) -> None:
        """Return at the next version, at the end, or after so long."""
        if not self.is_over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._turned.wait(), seconds)

    def wake(self) -> None:
        """Let the pages' streams look at once whether they are still welcome."""
        self._turn()

    async def _listen(self) -> None:
        try:
            async for _ in self._fleet.changes(self._view.caller):
                self._dirty.set()
        finally:
            self._dirty.set()

    async def _render(self) -> None:
        self._dirty.clear()
        started = self._clock.monotonic()
        fragment = await self._fragments.newest(self._view)
        self.rendered_at = started
        if (fragment.version, fragment.problems) != (self.version, self.problems):
            self.version, self.problems = fragment.version, fragment.problems
            self._turn()

    def _turn(self) -> None:
        self._turned.set()
        self._turned = asyncio.Event()


class Feeds:
    """The feeds of the views that are being watched."""

    def __init__(self, fragments: Fragments, fleet: FleetPages, clock: Clock) -> None:
        self._fragments = fragments
        self._fleet = fleet
        self._clock = clock
        self._feeds: dict[View, tuple[Feed, asyncio.Task[None]]] = {}
        self._streams: Counter[KeyId] = Counter()

    def check_room(self, view: View) -> None:
        """Raises LenswayError OVERLOADED when too many pages are open, or watches of the caller's key; the page polls then."""
        if self._streams.total() >= limits.CONSOLE_STREAMS_MAX:
            raise _too_many("this server")
        if self._streams[view.caller.identity.key] >= limits.CONSOLE_STREAMS_PER_KEY_MAX:
            raise _too_many("this key")
        found = self._feeds.get(view)
        if found is None or found[0].is_over:
            self._fleet.check_room(view.caller)

    async def beats(self, view: View, is_welcome: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Server-sent beats for one page, until it is not welcome any more or the server stops."""
        key = view.caller.identity.key
        self._streams[key] += 1
        feed = self._join(view)
        try:
            yield b"retry: 1000\n\n"
            with self._fleet.until_ended(view.caller, feed.wake):
                while not feed.is_over and is_welcome():
                    now = self._clock.monotonic()
                    if now - feed.rendered_at < limits.CONSOLE_STANDING_SECONDS + limits.CONSOLE_BEAT_SECONDS:
                        yield _beat(feed, now, round(self._clock.wall().timestamp() * 1000))
                    await feed.next(limits.CONSOLE_BEAT_SECONDS)
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]
            await self._leave(view, feed)

    def _join(self, view: View) -> Feed:
        found = self._feeds.get(view)
        if found is None or found[0].is_over:
            feed = Feed(view, self._fragments, self._fleet, self._clock)
            found = feed, asyncio.create_task(feed.run(), name="console feed")
            self._feeds[view] = found
        found[0].watchers += 1
        return found[0]

    async def _leave(self, view: View, feed: Feed) -> None:
        feed.watchers -= 1
        found = self._feeds.get(view)
        if found is None or found[0] is not feed or feed.watchers > 0:
            return
        del self._feeds[view]
        found[1].cancel()
        await _ended(found[1])


def _too_many(whose: str) -> LenswayError:
    return LenswayError(
        ErrorCode.OVERLOADED,
        f"Too many pages of the Console are open: {whose} has reached its limit",
        hint="Close some of them. Until then this page polls every few seconds.",
        retry_after_seconds=5.0,
    )


def _beat(feed: Feed, now: float, wall: int) -> bytes:
    data = {"version": feed.version, "problems": feed.problems, "at": round(now * 1000), "wall": wall, "boot": _BOOT}
    return b"event: beat\ndata: %s\n\n" % msgspec.json.encode(data)


async def _ended(task: Awaitable[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)
