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


class Selection(msgspec.Struct, frozen=True, gc=False):
    """The chosen session, and the shares that those behind it have then earned. Nothing is spent until `spend`."""

    chosen: Usable
    shares: tuple[tuple[Pair, float], ...] = ()

    def spend(self, turn: int) -> None:
        """Make the selection count: it takes its turn and its probe. ``turn`` grows with every decision."""
        self.chosen.pair.last_turn = turn
        for pair, share in self.shares:
            pair.probe_share = share


def select(usable: Sequence[Usable]) -> Selection:
    """The one to choose; writes score and verdict into every entry and changes nothing else."""
    if len(usable) == 1:
        selection = Selection(usable[0])
    else:
        _score(usable)
        probe, shares = _due_probe(usable)
        selection = Selection(probe or _least_recent(usable), shares)
    selection.chosen.verdict = Verdict.CHOSEN
    return selection


def _score(usable: Sequence[Usable]) -> None:
    known = [latency for entry in usable if (latency := entry.pair.latency_seconds) is not None]
    best = min(known) if known else 1.0
    for entry in usable:
        load = entry.session.load
        latency = entry.pair.latency_seconds
        # A pair without a measurement counts as the fastest: it gets work, and with that a measurement.
        entry.score = (load.outstanding + 1) / load.capacity * (best if latency is None else latency)
        if latency is not None and latency > limits.EQUAL_SCORE_RATIO * best:
            entry.is_behind = True
            if latency > limits.SLOW_PAIR_FACTOR * best:
                entry.verdict = Verdict.SLOWER


def _due_probe(usable: Sequence[Usable]) -> tuple[Usable | None, tuple[tuple[Pair, float], ...]]:
    shares: list[tuple[Pair, float]] = []
    for entry in usable:
        # Not only the slow ones: under a light load, every session behind the best gets nothing but probes.
        if entry.is_behind:
            share = entry.pair.probe_share + limits.SLOW_PAIR_SHARE
            if share >= 1.0:
                return entry, (*shares, (entry.pair, share - 1.0))
            shares.append((entry.pair, share))
    return None, tuple(shares)


def _least_recent(usable: Sequence[Usable]) -> Usable:
    fast = [entry for entry in usable if entry.verdict is not Verdict.SLOWER]
    bound = min(entry.score for entry in fast) * limits.EQUAL_SCORE_RATIO
    equal = [entry for entry in fast if entry.score <= bound]
    for entry in equal:
        entry.verdict = Verdict.OTHERS_TURN
    return min(equal, key=lambda entry: (entry.pair.last_turn, entry.index))
