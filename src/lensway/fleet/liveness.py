"""How often peers must speak, and how long silence may last. Chosen by the size of the fleet, told in `welcome`."""

from __future__ import annotations

from typing import Final

import msgspec

from lensway import limits


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of one session. ``runner_fence_seconds`` counts on the runner, from when it *sent* its last acknowledged
    heartbeat; it is shorter than ``dead_seconds``, so that a runner stops before the gateway gives its work to another."""

    heartbeat_seconds: float
    suspect_seconds: float
    dead_seconds: float
    runner_fence_seconds: float

    @property
    def fresh_seconds(self) -> float:
        """What answers something older than this may be bytes that a network held back: no sign of life."""
        return limits.FRESH_HEARTBEATS * self.heartbeat_seconds


SMALL_FLEET: Final = Timings(
    heartbeat_seconds=limits.HEARTBEAT_SECONDS,
    suspect_seconds=limits.SUSPECT_SECONDS,
    dead_seconds=limits.DEAD_SECONDS,
    runner_fence_seconds=limits.RUNNER_FENCE_SECONDS,
)
LARGE_FLEET: Final = Timings(
    heartbeat_seconds=limits.HEARTBEAT_LARGE_SECONDS,
    suspect_seconds=limits.SUSPECT_LARGE_SECONDS,
    dead_seconds=limits.DEAD_LARGE_SECONDS,
    runner_fence_seconds=limits.RUNNER_FENCE_LARGE_SECONDS,
)


def timings(session_count: int) -> Timings:
    """The windows for a session that opens while ``session_count`` others are open."""
    return SMALL_FLEET if session_count < limits.FLEET_LARGE_SESSIONS else LARGE_FLEET
