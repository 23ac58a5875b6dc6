"""The program with a meter on its event loop: how much thread time one turn of the loop takes at most.

Run as a program it takes the arguments of `lensway`. The meter ticks on the loop and compares the thread's time between two
ticks; what it found so far stands in the file that LENSWAY_TEST_METER names.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

VARIABLE: Final = "LENSWAY_TEST_METER"
_TICK_SECONDS: Final = 0.002
_WRITE_SECONDS: Final = 0.25


class LoopTimes(msgspec.Struct):
    """Milliseconds of thread time between two ticks of the loop, the longest ones in order, and the thread's time in all."""

    longest_ms: list[float] = []
    thread_seconds: float = 0.0
    turns: int = 0


def read_times(path: pathlib.Path) -> LoopTimes:
    """The meter's findings so far."""
    return msgspec.json.decode(path.read_bytes(), type=LoopTimes)


async def _meter(path: pathlib.Path) -> None:
    times = LoopTimes()
    before = time.thread_time()
    written_at = 0.0
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        now = time.thread_time()
        times.longest_ms = sorted([*times.longest_ms, round((now - before) * 1000, 2)], reverse=True)[:10]
        times.turns += 1
        times.thread_seconds = now
        before = now
        if time.monotonic() - written_at > _WRITE_SECONDS:
            written_at = time.monotonic()
            fresh = path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(times))
            fresh.replace(path)
            if (reset := path.with_suffix(".reset")).exists():
                reset.unlink()
                times = LoopTimes()
            before = time.thread_time()


def main() -> None:
    """Run the program with the meter beside its work."""
    path = pathlib.Path(os.environ.pop(VARIABLE))
    import uvloop  # noqa: PLC0415

    from lensway.cli import main as program  # noqa: PLC0415

    run = uvloop.run

    def metered(work: Coroutine[Any, Any, Any]) -> Any:
        async def both() -> Any:
            meter = asyncio.create_task(_meter(path), name="meter")
            try:
                return await work
            finally:
                meter.cancel()

        return run(both())

    uvloop.run = metered  # type: ignore[assignment]  # the program has no other place to stand beside its work
    program.main()


if __name__ == "__main__":
    main()
