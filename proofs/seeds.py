"""Random scenarios of the simulation, one after the other."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator

import structlog

from lensway.testing.simulation import ViolationError, simulate


def seeds(count: int) -> Iterator[str]:
    """Run so many scenarios; names every seed that broke a promise."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started, first = time.monotonic(), random.SystemRandom().randrange(10**6, 10**9)
    reached: Counter[str] = Counter()
    violations: list[str] = []
    for seed in range(first, first + count):
        try:
            reached += simulate(seed).reached
        except ViolationError as error:
            violations.append(f"VIOLATED {error}")
    took = time.monotonic() - started
    yield f"simulation: {count:,} scenarios from seed {first}, {len(violations)} violated, {took:.0f} s"
    yield from violations
    yield "  reached: " + ", ".join(f"{what} {times:,}" for what, times in sorted(reached.items()))
