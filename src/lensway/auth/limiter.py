"""Failed attempts per block of addresses: a token bucket each, bounded in number. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from lensway.auth.address import block_of
from lensway.errors import ErrorCode, LenswayError
from lensway.limits import FAILED_LOGINS_BLOCKS_MAX, FAILED_LOGINS_PER_MINUTE_MAX

_WAIT: Final = "Too many failed attempts from this address"


class FailureLimiter:
    """Counts failures, and asks those who fail too often to wait. A good key is never counted and never waits: others may
    share its address, behind one proxy or one NAT."""

    def __init__(self, per_minute: int = FAILED_LOGINS_PER_MINUTE_MAX) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def failed(self, address: str, now: float) -> None:
        """Count a failure, which the caller then raises. Raises LenswayError RATE_LIMITED instead when there were too many."""
        block = block_of(address)
        full = float(self._per_minute)
        tokens, at = self._buckets.get(block, (full, now))
        tokens = min(full, tokens + (now - at) * full / 60.0)
        is_limited = tokens < 1.0
        # Asking during the wait does not prolong it.
        self._buckets[block] = (tokens if is_limited else tokens - 1.0, now)
        self._buckets.move_to_end(block)
        if len(self._buckets) > FAILED_LOGINS_BLOCKS_MAX:
            self._buckets.popitem(last=False)
        if is_limited:
            raise LenswayError(
                ErrorCode.RATE_LIMITED,
                _WAIT,
                hint="Send a valid key; the server accepts valid keys at any time.",
                retry_after_seconds=(1.0 - tokens) * 60.0 / full,
            )
