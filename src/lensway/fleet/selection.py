"""Picking one of several usable sessions: by score, in turns, with probes for the slow. Pure and without randomness.

Score = (outstanding + 1) / capacity × moving latency of the pair. Scores within 25 % of the best are equal and take turns,
longest waiting first. A pair slower than the best earns a small share of every decision and is chosen, as a probe, when its
shares make a whole; so it is known when it is fast again. One slower than 3 × the best gets nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lensway import limits
from lensway.fleet.choice import Verdict
from lensway.fleet.load import Pair
from lensway.fleet.sessions import Session


class Usable(msgspec.Struct, gc=False):
    """A session that could take the work, with the place of its note and what the decision needs."""

    index: int
    session: Session
    pair: Pair
    score: float = 0.0
    verdict: Verdict = Verdict.WORSE
    is_behind: bool = False
    """Slower than the best by more than what counts as equal: only by its answers is it known when it is so no more."""


def select(usable: Sequence[Usable], turn: int) -> Usable:
    """The one to choose; writes score and verdict into every entry. ``turn`` grows with every decision."""
    if len(usable) == 1:
        chosen = usable[0]
    else:
        _score(usable)
        chosen = _due_probe(usable) or _least_recent(usable)
    chosen.verdict = Verdict.CHOSEN
    chosen.pair.last_turn = turn
    return chosen


def _score(usable: Sequence[Usable]) -> None:
    known = [latency for entry in usable if (latency := entry.pair.latency_seconds) is not None]
    best = min(known) if known else 1.0
    for entry in usable:
        load = entry.session.load
        latency = entry.pair.latency_seconds
        # A pair of which nothing is known is taken for as fast as the best: it gets work and so becomes known.
        entry.score = (load.outstanding + 1) / load.capacity * (best if latency is None else latency)
        if latency is not None and latency > limits.EQUAL_SCORE_RATIO * best:
            entry.is_behind = True
            if latency > limits.SLOW_PAIR_FACTOR * best:
                entry.verdict = Verdict.SLOWER


def _due_probe(usable: Sequence[Usable]) -> Usable | None:
    for entry in usable:
        # Not the slow ones alone: while there is little to do, whoever is behind at all gets nothing but probes.
        if entry.is_behind:
            entry.pair.probe_share += limits.SLOW_PAIR_SHARE
            if entry.pair.probe_share >= 1.0:
                entry.pair.probe_share -= 1.0
                return entry
    return None


def _least_recent(usable: Sequence[Usable]) -> Usable:
    fast = [entry for entry in usable if entry.verdict is not Verdict.SLOWER]
    bound = min(entry.score for entry in fast) * limits.EQUAL_SCORE_RATIO
    equal = [entry for entry in fast if entry.score <= bound]
    for entry in equal:
        entry.verdict = Verdict.OTHERS_TURN
    return min(equal, key=lambda entry: (entry.pair.last_turn, entry.index))
