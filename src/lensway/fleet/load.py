"""How much a place has been given, and how well it does with each source.

A place is a session of a runner, or inline. The counts are the dispatcher's own reservations, made when an attempt is offered
and given back when it is known to be over: reports of a runner are late by a heartbeat and are never counted.
"""

from __future__ import annotations

import math
from typing import Final

from lensway import limits
from lensway.ids import SourceId

_SAMPLE_WEIGHT_MIN: Final = 0.05
_SAMPLE_WEIGHT_MAX: Final = 0.3
_FORGET_SECONDS: Final = 5.0
"""After a pause of this order a new sample weighs more: a pair that only gets probes must be able to recover."""
_LATENCY_SECONDS_MIN: Final = 0.002
"""Below it differences are those of scheduling, not of places: faster pairs count as equally fast."""
_SAMPLES_UNTIL_KNOWN: Final = 5
"""The first queries of a place open connections and prepare statements; by their least a pair is judged, and not before."""


class Pair:
    """One (place, source): its reservations, moving latency and ejection."""

    __slots__ = (
        "_latency_log",
        "_sampled_at",
        "_samples",
        "busy_until",
        "eject_seconds",
        "ejected_until",
        "exports",
        "failures",
        "last_turn",
        "outstanding",
        "probe_share",
    )

    def __init__(self) -> None:
        self.outstanding = 0
        self.exports = 0
        self.failures = 0
        self.ejected_until = 0.0
        self.eject_seconds = 0.0
        self.busy_until = 0.0
        self.last_turn = 0
        self.probe_share = 0.0
        self._latency_log = 0.0
        self._sampled_at = 0.0
        self._samples = 0

    @property
    def latency_seconds(self) -> float | None:
        """Moving time from offer to first row; None while nothing is known."""
        return math.exp(self._latency_log) if self._samples >= _SAMPLES_UNTIL_KNOWN else None

    def record_latency(self, seconds: float, now: float) -> None:
        """Learn from one attempt that gave rows.

        The mean is geometric: one query of two seconds among queries of two milliseconds moves it by a factor of 1.4, not 50,
        so that the mix of queries is not mistaken for the health of the pair.
        """
        sample = math.log(max(seconds, _LATENCY_SECONDS_MIN))
        self._samples += 1
        if self._samples <= _SAMPLES_UNTIL_KNOWN:
            self._latency_log = sample if self._samples == 1 else min(self._latency_log, sample)
            self._sampled_at = now
            return
        pause_weight = min(1.0 - math.exp(-(now - self._sampled_at) / _FORGET_SECONDS), _SAMPLE_WEIGHT_MAX)
        weight = max(_SAMPLE_WEIGHT_MIN, 1.0 / self._samples, pause_weight)
        self._latency_log += (sample - self._latency_log) * weight
        self._sampled_at = now

    def record_reached(self) -> None:
        """The database answered from here: forget the pair's failures."""
        if self.failures or self.eject_seconds:
            self.failures = 0
            self.ejected_until = 0.0
            self.eject_seconds = 0.0

    def record_unreachable(self, now: float) -> None:
        """The database could not be reached from here. Repeated failures eject the pair for a growing while."""
        self.failures += 1
        if self.failures >= limits.EJECT_AFTER_FAILURES and now >= self.ejected_until:
            self.eject_seconds = min(max(limits.EJECT_SECONDS, 2 * self.eject_seconds), limits.EJECT_SECONDS_MAX)
            self.ejected_until = now + self.eject_seconds

    @property
    def is_sound(self) -> bool:
        """True when the source has given rows here, and has not failed to since."""
        return self._samples > 0 and not self.failures

    def is_ejected(self, now: float) -> bool:
        """True while ejected, and afterwards while the one attempt that tries the pair again is under way."""
        if not self.eject_seconds:
            return False
        return now < self.ejected_until or self.outstanding > 0


class Load:
    """What one place may take and has taken."""

    __slots__ = ("capacity", "exports", "outstanding", "pairs")

    def __init__(self, capacity: int) -> None:
        self.capacity = max(1, capacity)
        self.outstanding = 0
        self.exports = 0
        self.pairs: dict[SourceId, Pair] = {}

    def pair(self, source: SourceId) -> Pair:
        """The pair with this source, made when first asked for."""
        pair = self.pairs.get(source)
        if pair is None:
            pair = self.pairs[source] = Pair()
        return pair

    def peek(self, source: SourceId) -> Pair:
        """The pair with this source to read: a fresh one that belongs to nothing where there is none yet."""
        return self.pairs.get(source) or Pair()

    def has_room(self, pair: Pair, *, is_export: bool) -> bool:
        """True when one more attempt keeps every cap.

        Exports have caps of their own, of the pair and of the place, so that stalled ones never starve queries.
        """
        if self.outstanding >= self.capacity:
            return False
        if is_export:
            return self._has_export_room(pair)
        return pair.outstanding - pair.exports < limits.JOBS_PER_PAIR_MAX

    def reserve(self, pair: Pair, *, is_export: bool) -> None:
        """Count one attempt."""
        self.outstanding += 1
        pair.outstanding += 1
        if is_export:
            self.exports += 1
            pair.exports += 1

    def turn_into_export(self, pair: Pair) -> bool:
        """Count an attempt that was reserved as a query as an export from now on; False when the caps leave no room for it."""
        if not self._has_export_room(pair):
            return False
        self.exports += 1
        pair.exports += 1
        return True

    def _has_export_room(self, pair: Pair) -> bool:
        exports_max = max(1, self.capacity // 2)
        return pair.exports < limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX and self.exports < exports_max

    def give_back(self, pair: Pair, *, is_export: bool) -> None:
        """The attempt is over, or known never to have begun."""
        self.outstanding -= 1
        pair.outstanding -= 1
        if is_export:
            self.exports -= 1
            pair.exports -= 1
        assert self.outstanding >= pair.outstanding >= pair.exports >= 0, "a reservation was given back twice"
