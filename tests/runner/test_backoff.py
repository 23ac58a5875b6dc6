"""When a runner dials again: spread out, growing, capped, and from the beginning only after a session that has lived."""

from __future__ import annotations

import random

import pytest

from lensway import limits
from lensway.runner.backoff import Backoff


def test_waits_grow_to_a_cap() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.after_failure() for _ in range(10)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] == limits.RECONNECT_SECONDS_MAX


def test_a_thousand_runners_that_lost_the_same_server_come_back_evenly_spread() -> None:
    rng = random.Random(7)
    waits = [Backoff(rng.random).after_session(3600.0) for _ in range(1_000)]
    tenths = [
        sum(low <= wait / limits.RECONNECT_SECONDS_MIN < low + 0.1 for wait in waits) for low in (0.0, 0.3, 0.6, 0.9)
    ]
    assert min(tenths) > 60
    told = [Backoff(rng.random).after_session(3600.0, 10.0) for _ in range(1_000)]
    assert min(told) < 5.5
    assert max(told) > 14.5


@pytest.mark.parametrize(("lived", "wait"), [(1.0, 4.0), (limits.RECONNECT_STABLE_SECONDS, 0.25)])
def test_only_a_session_that_has_lived_resets_it(lived: float, wait: float) -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(4):
        backoff.after_failure()
    assert backoff.after_session(lived) == wait
