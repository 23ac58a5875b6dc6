"""Large results give way to small ones, for a while (I3 and I8 hold as before: nothing is dropped, nothing more is held)."""

from __future__ import annotations

import asyncio

import pytest

from lensway import limits
from lensway.dispatch.right_of_way import RightOfWay
from lensway.ids import JobId
from lensway.testing.virtual_time import VirtualLoop, run_virtual

LARGE = JobId(1)
PIECE = 64 * limits.KIB


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


class Road:
    """The rows of one large result on their way, and small results that come and go."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.way = RightOfWay(lambda: loop)
        self.way.begin(LARGE)
        self.passage = self.way.passage(LARGE)
        self._small = 1

    async def pass_on(self) -> float:
        """Pass on one piece; the seconds that it rested."""
        began = self.loop.time()
        if self.passage.must_wait(PIECE):
            await self.passage.wait()
        return self.loop.time() - began

    async def become_large(self) -> None:
        for _ in range(limits.GIVE_WAY_FROM_BYTES // PIECE):
            assert await self.pass_on() == 0
        await asyncio.sleep(1.0)

    def small(self, seconds: float) -> None:
        """A small result begins, and is over after so long."""
        self._small += 1
        job = JobId(self._small)
        self.way.begin(job)
        self.loop.call_later(seconds, self.way.end, job)


def test_a_large_result_rests_until_the_small_ones_are_over(loop: VirtualLoop) -> None:
    async def story() -> None:
        road = Road(loop)
        await road.become_large()
        assert await road.pass_on() == 0
        road.small(0.006)
        road.small(0.004)
        assert await road.pass_on() == pytest.approx(0.006)
        assert await road.pass_on() == 0

    run_virtual(story(), loop)


def test_a_result_that_has_given_little_waits_for_nobody_and_others_for_it(loop: VirtualLoop) -> None:
    async def story() -> None:
        road = Road(loop)
        road.small(10.0)
        other = road.way.passage(JobId(99))
        for _ in range(limits.GIVE_WAY_FROM_BYTES // PIECE):
            assert not other.must_wait(PIECE)
            assert await road.pass_on() == 0
        assert other.must_wait(PIECE)

    run_virtual(story(), loop)


def test_who_is_large_blocks_nobody_and_who_waits_for_its_database_only_at_first(loop: VirtualLoop) -> None:
    async def story() -> None:
        road = Road(loop)
        await road.become_large()
        road.small(60.0)
        await asyncio.sleep(limits.RIGHT_OF_WAY_SECONDS - 0.005)
        assert await road.pass_on() == pytest.approx(0.005)
        await asyncio.sleep(1.0)
        assert await road.pass_on() == 0

    run_virtual(story(), loop)


def test_however_many_small_ones_come_half_of_the_time_is_left(loop: VirtualLoop) -> None:
    async def story() -> None:
        road = Road(loop)
        await road.become_large()
        began, rested, longest = loop.time(), 0.0, 0.0
        while loop.time() - began < 10:
            road.small(0.003)
            rest = await road.pass_on()
            road.small(0.003)
            await asyncio.sleep(0.001)  # it is taken, written, and the next one comes
            rested, longest = rested + rest, max(longest, rest)
        assert rested <= 5.0 + limits.GIVE_WAY_SECONDS_MAX
        assert rested > 1.0
        assert longest <= limits.GIVE_WAY_SECONDS_MAX + 1e-9

    run_virtual(story(), loop)


def test_an_end_is_heard_once_and_by_everybody_who_rests(loop: VirtualLoop) -> None:
    async def story() -> None:
        road = Road(loop)
        await road.become_large()
        others = [road.way.passage(JobId(number)) for number in (50, 51)]
        for other in others:
            assert not other.must_wait(limits.GIVE_WAY_FROM_BYTES)
        await asyncio.sleep(1.0)
        road.small(0.005)
        assert all(other.must_wait(PIECE) for other in others)
        began = loop.time()
        async with asyncio.timeout(1.0):
            await asyncio.gather(*(other.wait() for other in others), road.pass_on())
        assert loop.time() - began == pytest.approx(0.005)
        road.way.end(JobId(2))

    run_virtual(story(), loop)
