"""When to dial again: exponential with full jitter and a cap; reset only after a session that has lived. No clock, no sleep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lensway import limits

_EAGER_EXPONENT: Final = 2


class Backoff:
    """The waits between dials. ``chance`` gives a number in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        self._refusals = 0

    def after_refusal(self) -> float:
        """Seconds to wait after a dial that no server took: most of the time one that starts again.

        Nothing listened, or a balancer without a server closed the connection. Such a dial costs little, and queries
        wait for the runner once the server is back; so for a while the wait does not grow.
        """
        self._refusals += 1
        if self._refusals > limits.RECONNECT_REFUSALS_MAX:
            return self.after_failure()
        return limits.RECONNECT_REFUSED_SECONDS * (0.5 + self._chance() / 2)

    def after_failure(self) -> float:
        """Seconds to wait after a dial that failed, or a session that was lost young."""
        tries = self._failures
        # Eager for a few tries, because queries wait for a runner that comes back soon; then exponential.
        exponent = max(min(tries, _EAGER_EXPONENT), tries - limits.RECONNECT_EAGER_TRIES + _EAGER_EXPONENT)
        ceiling = min(limits.RECONNECT_SECONDS_MAX, limits.RECONNECT_SECONDS_MIN * 2.0 ** min(exponent, 16))
        self._failures += 1
        # Full jitter: a thousand runners that lost the same server come back evenly spread.
        return ceiling * self._chance()

    def after_session(self, lived_seconds: float, told_seconds: float = 0.0) -> float:
        """Seconds to wait after a session; ``told_seconds`` is what the gateway asked for."""
        self._refusals = 0
        told_seconds = min(told_seconds, limits.RECONNECT_TOLD_SECONDS_MAX)
        # A gateway that announces its end says that the failures to come are its restart, not ours.
        if lived_seconds >= limits.RECONNECT_STABLE_SECONDS or told_seconds > 0:
            self._failures = 0
        if told_seconds > 0:
            return told_seconds * (0.5 + self._chance())
        return self.after_failure()
