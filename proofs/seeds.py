"""Random scenarios of the simulation, on every core; each seed that breaks a promise is named, and so is every state that was
never reached."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import structlog

from lensway.testing.simulation import ViolationError, simulate
from lensway.testing.simulation.sometimes import never_reached

_BATCH: Final = 200
_ENOUGH_FOR_ALL: Final = 5_000
"""So many seeds meet the rare states too."""


def seeds(count: int) -> Iterator[str]:
    """Run so many scenarios; tells how many, how fast, what was violated and what was never reached."""
    started, first = time.monotonic(), random.SystemRandom().randrange(10**6, 10**9)
    reached: Counter[str] = Counter()
    violations: list[str] = []
    batches = [range(start, min(start + _BATCH, first + count)) for start in range(first, first + count, _BATCH)]
    seconds = 0.0
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), initializer=_quiet) as pool:
        for done, broken, took in pool.map(_run, batches):
            reached += done
            violations += broken
            seconds += took
    yield (
        f"simulation: {count:,} scenarios from seed {first}, {len(violations)} violated; "
        f"{time.monotonic() - started:.0f} s, {seconds / count * 1000:.1f} ms of processor time each"
    )
    yield from violations
    yield from (
        f"VIOLATED never reached: {what}" for what in never_reached(reached, rarely_too=count >= _ENOUGH_FOR_ALL)
    )
    yield "  reached: " + ", ".join(f"{what} {times:,}" for what, times in sorted(reached.items()))


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _run(batch: range) -> tuple[Counter[str], list[str], float]:
    reached: Counter[str] = Counter()
    violations: list[str] = []
    started = time.process_time()
    for seed in batch:
        try:
            reached += simulate(seed).reached
        except ViolationError as error:
            violations.append(f"VIOLATED {error}")
    return reached, violations, time.process_time() - started
