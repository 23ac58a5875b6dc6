"""The clock port: monotonic time for durations, wall time for records only."""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Where shells get time from; pure rooms get it as an argument."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""

    def wall(self) -> datetime.datetime:
        """The present moment with its zone, for records that people read."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    """Seconds of the system's monotonic clock. The function itself: it is asked several times for each query."""

    def wall(self) -> datetime.datetime:
        """The present moment in UTC."""
        return datetime.datetime.now(datetime.UTC)
