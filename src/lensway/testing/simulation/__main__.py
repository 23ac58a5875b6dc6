"""Replays one seed and tells what happens: ``python -m lensway.testing.simulation SEED``. With a second number it runs that many
seeds and stops at the first that breaks a promise."""

from __future__ import annotations

import logging
import sys
from collections import Counter

import structlog

from lensway.testing.simulation import ViolationError, simulate


def main() -> int:
    """0 when every promise held."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    first, *count = map(int, sys.argv[1:])
    reached: Counter[str] = Counter()
    try:
        if not count:
            print(f"every promise held; digest {simulate(first, tell=print).digest[:16]}")
        for seed in range(first, first + sum(count)):
            reached += simulate(seed).reached
    except ViolationError as error:
        print(f"VIOLATED {error}")
        return 1
    for what, times in sorted(reached.items()):
        print(f"{times:>9,} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
