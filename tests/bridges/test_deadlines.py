"""Deadlines end the blocks that are late, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from lensway.bridges.kit.deadlines import Deadlines


async def late(deadlines: Deadlines, seconds: float, ended: list[str] | None = None) -> float:
    """How long a block lasted that would last for ever."""
    started = time.monotonic()
    try:
        with deadlines.until(started + seconds):
            try:
                await asyncio.Event().wait()
            finally:
                if ended is not None:
                    ended.append("cleaned up")
    except TimeoutError:
        return time.monotonic() - started
    raise AssertionError("the block ended by itself")


def test_each_block_ends_at_its_own_time_whatever_the_order() -> None:
    async def run() -> None:
        deadlines, ended = Deadlines(), []
        wanted = (0.15, 0.02, 0.08, 0.0, -1.0)
        lasted = await asyncio.gather(*(late(deadlines, seconds, ended) for seconds in wanted))
        assert len(ended) == len(wanted)
        assert all(max(0.0, seconds) <= found < seconds + 5.0 for seconds, found in zip(wanted, lasted, strict=True))
        # And once more, behind blocks that were over in time.
        with deadlines.until(time.monotonic() + 60):
            pass
        assert await late(deadlines, 0.01) < 5.0
        deadlines.close()

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_a_block_that_somebody_else_cancels_is_cancelled_and_not_late(seconds: float) -> None:
    async def run() -> None:
        deadlines, begun = Deadlines(), asyncio.Event()

        async def block() -> None:
            with deadlines.until(time.monotonic() + seconds):
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadlines.close()

    asyncio.run(run())
