"""Failed attempts per address: a token bucket each, bounded in number. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from lensway.errors import ErrorCode, LenswayError
from lensway.limits import FAILED_LOGINS_PER_MINUTE_MAX

_ADDRESSES_MAX: Final = 10_000


class FailureLimiter:
    """Counts failures; an address with too many is asked to wait, also with a good key."""

    def __init__(self, per_minute: int = FAILED_LOGINS_PER_MINUTE_MAX) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str, now: float) -> None:
        """Raises LenswayError RATE_LIMITED while this address has failed too often."""
        if address not in self._buckets:
            return  # as nearly every one
        tokens = self._tokens(address, now)
        if tokens < 1.0:
            wait = (1.0 - tokens) * 60.0 / self._per_minute
            raise LenswayError(
                ErrorCode.RATE_LIMITED, "Too many failed attempts from this address", retry_after_seconds=wait
            )

    def failed(self, address: str, now: float) -> None:
        """Count one failure."""
        self._buckets[address] = (self._tokens(address, now) - 1.0, now)
        self._buckets.move_to_end(address)
        if len(self._buckets) > _ADDRESSES_MAX:
            self._buckets.popitem(last=False)

    def _tokens(self, address: str, now: float) -> float:
        tokens, at = self._buckets.get(address, (float(self._per_minute), now))
        return min(float(self._per_minute), tokens + (now - at) * self._per_minute / 60.0)
