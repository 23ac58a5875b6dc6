"""Thousands of small deployments with faults, on virtual time; a failing seed is named and replays the same way."""

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest
import structlog

from lensway.testing.simulation import simulate
from lensway.testing.simulation.sometimes import never_reached
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess

BATCHES = 10
SCENARIOS = 500


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
    assert list(never_reached(reached, rarely_too=False)) == [], "the scenarios went everywhere"
    # R10 and R11: some 30 changes in each 10 scenarios, and rows are compared with the database's own truth in all of them.
    assert reached["assigned"] + reached["unassigned"] > SCENARIOS


def test_a_seed_replays_exactly() -> None:
    for seed in (1, 2, 3):
        assert simulate(seed).digest == simulate(seed).digest
    assert simulate(1).digest != simulate(2).digest


def test_whoever_waits_for_a_time_of_his_clock_wakes_when_it_shows_that_time() -> None:
    chance = random.Random(1)
    loop = VirtualLoop()
    for _ in range(20_000):
        process = VirtualProcess(loop, rate=chance.uniform(0.9, 1.1), offset=chance.choice((0.0, 3.7, 1e6)))
        wanted = process.local(1000.0) + chance.uniform(0.0, 100.0)
        true = process.true(wanted)
        assert process.local(true) >= wanted, "it would find that it is too early, wait for nothing, and never end"
        assert process.local(true) - wanted < 1e-9
    loop.close()
