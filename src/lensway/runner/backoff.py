"""When to dial again: exponential with full jitter and a cap; reset only after a session that has lived. No clock, no sleep."""

from __future__ import annotations

from collections.abc import Callable

from lensway import limits


class Backoff:
    """The waits between dials. ``chance`` gives a number in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0

    def after_failure(self) -> float:
        """Seconds to wait after a dial that failed, or a session that was lost young."""
        ceiling = min(limits.RECONNECT_SECONDS_MAX, limits.RECONNECT_SECONDS_MIN * 2.0 ** min(self._failures, 16))
        self._failures += 1
        # Full jitter: a thousand runners that lost the same server come back evenly spread.
        return ceiling * self._chance()

    def after_session(self, lived_seconds: float, told_seconds: float = 0.0) -> float:
        """Seconds to wait after a session; ``told_seconds`` is what the gateway asked for."""
        if lived_seconds >= limits.RECONNECT_STABLE_SECONDS:
            self._failures = 0
        if told_seconds > 0:
            return told_seconds * (0.5 + self._chance())
        return self.after_failure()
