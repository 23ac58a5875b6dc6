"""Random scenarios of the simulation, on every core."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator

import structlog

from lensway.testing.simulation import ViolationError, simulate


def seeds(count: int) -> Iterator[str]:
    """Random scenarios of the simulation."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started, first = time.monotonic(), random.SystemRandom().randrange(10**6, 10**9)
    reached: Counter[str] = Counter()
    # Fresh processes: a fork of one that has had threads may inherit a lock that nobody will open.
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for outcome in pool.map(_reached, range(first, first + count), chunksize=20):
            reached += outcome
    violated = [what for what in reached if what.startswith("VIOLATED")]
    yield f"simulation: {count:,} scenarios from seed {first}, {len(violated)} violated, {time.monotonic() - started:.0f} s"
    yield from violated
    yield "  reached: " + ", ".join(f"{what} {times:,}" for what, times in sorted(reached.items()))


def _reached(seed: int) -> Counter[str]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return simulate(seed).reached
    except ViolationError as error:
        return Counter([f"VIOLATED {error}"])
