"""Thousands of small deployments with faults, on virtual time; a failing seed is named and replays the same way."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import structlog

from lensway.testing.simulation import simulate

BATCHES = 20
SCENARIOS = 100
REACHED_SOMEWHERE = (
    "completed by inline",
    "completed by a runner",
    "no_runners_online",
    "SOURCE_UNREACHABLE",
    "QUERY_TIMEOUT",
    "gave up",
    "killed",
    "cut",
    "frozen",
    "drained",
    "waited for a runner",
)


@pytest.fixture(autouse=True)
def quiet():
    """Faults are what these tests are made of; their log lines help nobody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_promise_is_broken_whatever_happens(batch: int) -> None:
    reached: Counter[str] = Counter()
    for seed in range(batch * SCENARIOS, (batch + 1) * SCENARIOS):
        reached += simulate(seed).reached
    assert [what for what in REACHED_SOMEWHERE if not reached[what]] == [], "the scenarios went everywhere"


def test_the_rare_turns_are_reached_too() -> None:
    reached: Counter[str] = Counter()
    for seed in range(10_000, 10_120):
        reached += simulate(seed).reached
    for what in ("completed after a loss", "an offer went elsewhere", "runner_failed"):
        assert reached[what], what


def test_a_seed_replays_exactly() -> None:
    for seed in (1, 2, 3):
        assert simulate(seed).digest == simulate(seed).digest
    assert simulate(1).digest != simulate(2).digest


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1001, id="an attempt cancelled before its task began was never ended"),
        pytest.param(1279, id="the same for a caller that was gone at once"),
        pytest.param(1894, id="a stream left with a chunk in hand kept its job"),
        pytest.param(1341, id="a runner stopped between two connections did not say so"),
    ],
)
def test_seeds_that_once_broke_a_promise(seed: int) -> None:
    simulate(seed)
