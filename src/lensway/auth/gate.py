"""How often, and how many at once, a key may ask: counted on this node. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from lensway.catalog.records import KeyLimits
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import KeyId
from lensway.limits import KEYS_COUNTED_MAX

_BUSY_RETRY_SECONDS = 1.0


class _Use(msgspec.Struct):
    running: int
    tokens: float
    at: float


class KeyGate:
    """Lets the requests of keys with bounds of their own pass, or asks them to come later."""

    def __init__(self, keys_max: int = KEYS_COUNTED_MAX) -> None:
        self._uses: OrderedDict[KeyId, _Use] = OrderedDict()
        self._keys_max = keys_max

    def count(self, key: KeyId, limits: KeyLimits, now: float) -> None:
        """Count a request, successful or not. Raises LenswayError RATE_LIMITED, and then it is not counted."""
        rate = limits.requests_per_minute
        full = float(rate or 0)
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = _Use(0, full, now)
            self._forget_idle()
        self._uses.move_to_end(key)
        use.tokens = min(full, use.tokens + (now - use.at) * full / 60.0)
        use.at = now
        if limits.concurrent_requests is not None and use.running >= limits.concurrent_requests:
            raise _limited("concurrentRequests", limits.concurrent_requests, _BUSY_RETRY_SECONDS)
        if rate is not None:
            if use.tokens < 1.0:
                raise _limited("requestsPerMinute", rate, (1.0 - use.tokens) * 60.0 / rate)
            use.tokens -= 1.0

    def enter(self, key: KeyId, limits: KeyLimits, now: float) -> None:
        """A request that was counted begins its work; every one that enters must leave. Raises LenswayError RATE_LIMITED, and
        then it did not enter."""
        use = self._uses.get(key)
        if use is None:
            # It was idle since it was counted, and forgotten.
            use = self._uses[key] = _Use(0, 0.0, now)
        if limits.concurrent_requests is not None and use.running >= limits.concurrent_requests:
            raise _limited("concurrentRequests", limits.concurrent_requests, _BUSY_RETRY_SECONDS)
        use.running += 1

    def leave(self, key: KeyId) -> None:
        """A request that entered is over."""
        use = self._uses[key]
        use.running -= 1
        assert use.running >= 0, "a request leaves once"

    def _forget_idle(self) -> None:
        if len(self._uses) > self._keys_max:
            idle = next((key for key, use in self._uses.items() if not use.running), None)
            if idle is not None:
                del self._uses[idle]


def _limited(name: str, value: int, wait_seconds: float) -> LenswayError:
    return LenswayError(
        ErrorCode.RATE_LIMITED,
        f"This key has reached its limit: {name} is {value:,}",
        hint="Wait for the time in Retry-After, or use a key with higher limits.",
        details={"limit": name, "value": value},
        retry_after_seconds=wait_seconds,
    )
