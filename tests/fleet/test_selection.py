"""Picking among sessions that could all take the work: score, turns and probes."""

from __future__ import annotations

from collections import Counter

from lensway import limits
from tests.dispatch.bench import SOURCE, Bench


def known(bench: Bench, session: int, seconds: float) -> None:
    """Teach the fleet how fast the pair is."""
    pair = bench.core.fleet.sessions[session].load.pair(SOURCE)
    for _ in range(20):
        pair.record_latency(seconds, bench.now)


def served(bench: Bench, count: int, seconds: dict[int, float]) -> Counter[int]:
    """Who served so many queries, one after the other, each as fast as its place is."""
    shares: Counter[int] = Counter()
    for _ in range(count):
        offer = bench.accept(bench.offer_of(bench.submit()))
        bench.wait(seconds[offer.session])
        bench.end(offer)
        bench.alive(*seconds)
        shares[offer.session] += 1
        bench.orders.clear()
    return shares


def test_equal_places_take_turns_though_not_equally_fast() -> None:
    bench = Bench("a", "b", "c")
    sessions = [bench.connect(name) for name in "abc"]
    seconds = dict(zip(sessions, (0.010, 0.011, 0.012), strict=True))
    for session in sessions:
        known(bench, session, seconds[session])
    assert served(bench, 300, seconds) == dict.fromkeys(sessions, 100)


def test_the_better_place_gets_the_work_until_it_has_more_of_it() -> None:
    bench = Bench("a", "b")
    fast, slow = bench.connect("a"), bench.connect("b")
    known(bench, fast, 0.010)
    known(bench, slow, 0.025)
    shares = Counter(bench.offer_of(bench.submit()).session for _ in range(28))
    assert 15 <= shares[fast] <= 22, "in the proportion of their speeds, as both fill up"


def test_a_place_with_more_capacity_gets_more() -> None:
    bench = Bench("a", "b")
    large, small = bench.connect("a", capacity=60), bench.connect("b", capacity=15)
    shares = Counter(bench.offer_of(bench.submit()).session for _ in range(25))
    assert shares[large] >= 3 * shares[small] > 0


def test_a_pair_that_is_far_slower_gets_probes_only_and_comes_back_when_it_is_fast_again() -> None:
    bench = Bench("a", "b")
    fast, slow = bench.connect("a"), bench.connect("b")
    known(bench, fast, 0.010)
    known(bench, slow, 0.200)
    shares = served(bench, 1_000, {fast: 0.010, slow: 0.200})
    assert 1 <= shares[slow] <= 1_000 * limits.SLOW_PAIR_SHARE
    shares = served(bench, 6_000, {fast: 0.010, slow: 0.010})
    assert shares[slow] > 1_000, "probes found out that it is fast again"


def test_what_is_unknown_is_taken_for_fast_and_becomes_known() -> None:
    bench = Bench("a", "b")
    old = bench.connect("a")
    known(bench, old, 0.010)
    new = bench.connect("b")
    assert served(bench, 20, {old: 0.010, new: 0.010})[new] == 10
