"""Refusals in the log: strangers can cause thousands a second, so that lines count them, one a minute at most."""

from __future__ import annotations

import asyncio

import structlog

from lensway import limits

_log = structlog.get_logger("lensway.refusals")


class Refusals:
    """Counts what one listener refused, by reason. Use it on the event loop."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def note(self, reason: str) -> None:
        """Count one. The first line comes after a second, each further one a minute after the one before at the earliest."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + limits.REFUSALS_FIRST_SECONDS, self._next_at)
            self._timer = loop.call_at(at, self._write, loop)

    def close(self) -> None:
        """Write what was counted since the last line."""
        if self._timer is not None:
            self._timer.cancel()
            self._write(asyncio.get_running_loop())

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._next_at = loop.time() + limits.REFUSALS_LOG_SECONDS
        counts, self._counts = self._counts, {}
        _log.warning("connections refused", listener=self._listener, **counts)
