"""How much a peer may send before its frames wait: a token bucket without a clock.

A peer earns tokens with time, with orders that it has to answer, and with the bytes of large frames. Small frames spend them. A
peer in debt is not read for a while, so that its frames wait in its own socket and never in memory here.
"""

from __future__ import annotations


class Allowance:
    """The tokens of one peer. ``per_second`` may change with the peer's amount of work."""

    __slots__ = ("_at", "_burst", "_left", "per_second")

    def __init__(self, now: float, *, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = now

    def earn(self, count: float) -> None:
        """The peer may send so much more, up to the burst."""
        self._left = min(self._burst, self._left + count)

    def spend(self, count: float, now: float) -> float:
        """Take tokens; the seconds for which the peer must not be read, 0 within the allowance."""
        left = self._left + (now - self._at) * self.per_second
        self._at = now
        left = min(self._burst, left) - count
        self._left = left
        return 0.0 if left >= 0 else -left / self.per_second

    def take(self, now: float) -> bool:
        """Take one token if there is one; False changes nothing but the time."""
        if self.spend(0, now) > 0 or self._left < 1:
            return False
        self._left -= 1
        return True
