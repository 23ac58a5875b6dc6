"""One scenario: found a deployment, let callers come and things go wrong, then heal it or not, and look at what is left."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from lensway.testing.simulation.callers import Callers
from lensway.testing.simulation.database import Weather
from lensway.testing.simulation.deployment import Deployment
from lensway.testing.simulation.faults import Nemesis
from lensway.testing.simulation.witness import ViolationError
from lensway.testing.virtual_time import VirtualLoop, run_virtual

_SECONDS_MAX: Final = 600.0
"""No scenario is longer: one that is waits for something that will never be, which is a broken promise too."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What one scenario came to: how often what happened, and a digest of all of it."""

    reached: Counter[str]
    digest: str


class Scenario:
    """The story of one seed."""

    def __init__(self, seed: int, loop: VirtualLoop, tell: Callable[[str], None] | None) -> None:
        self._random = rng = random.Random(seed)
        self._deployment = Deployment(seed, rng, loop, tell)
        self._callers = Callers(self._deployment, rng)
        self._nemesis = Nemesis(self._deployment, self._callers, rng)

    async def outcome(self) -> Outcome:
        """Tell it to its end, or to the first broken promise."""
        telling = asyncio.create_task(self._run())
        violation = self._deployment.witness.violation
        either: set[asyncio.Future[Any]] = {telling, violation}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if violation.done():
            violation.result()
        violation.cancel()
        return telling.result()

    def let_go(self) -> None:
        """Resume every paused process: cancelled work must be able to end, or the report does not say why the story broke off."""
        self._deployment.resume_server()
        for slot in self._deployment.slots:
            self._deployment.resume(slot)

    async def _run(self) -> Outcome:
        rng, deployment = self._random, self._deployment
        await deployment.found(twins=rng.choice((0, 0, 1)))
        for slot in deployment.slots:
            if rng.random() < 0.75:
                deployment.start(slot)
                if rng.random() < 0.8:
                    await self._nemesis.assign(slot, True)
        raging = asyncio.create_task(self._nemesis.rage(rng.uniform(3.0, 10.0), rng.choice((0.3, 1.0))))
        if rng.random() < 0.004:
            await self._crowd()
        for _ in range(rng.randint(6, 18)):
            await asyncio.sleep(rng.expovariate(2.0))
            self._callers.come()
        await raging
        if rng.random() < 0.5:
            await self._live()
        else:
            await self._be_safe()
        await self._end()
        return Outcome(deployment.witness.reached, deployment.witness.digest())

    async def _crowd(self) -> None:
        """More than can be served at once, and enough of them to learn who is slow."""
        deployment = self._deployment
        deployment.witness.note("a crowd")
        for slot in deployment.slots:
            deployment.start(slot)
            await self._nemesis.assign(slot, True)
        deployment.weather[deployment.slots[1].place] = Weather.SLOW
        for _ in range(80):
            self._callers.come_in_crowds(6, 5.0, milliseconds=2)
            await asyncio.sleep(0.05)
        if self._random.random() < 0.2:
            self._callers.come_in_crowds(1_200, 2.0, milliseconds=5)

    async def _live(self) -> None:
        """Liveness: after the last fault, every job finishes, every caller is served, and nothing is left over."""
        deployment = self._deployment
        await self._nemesis.heal()
        # Those who came before may hold every place for as long as they may take.
        await self._wait_for_callers()
        served = [
            deployment.server.start(self._callers.must_be_served(number % 2), "must be served") for number in range(3)
        ]
        await asyncio.gather(*served)
        # What a lossy link has swallowed is known from two reports that do not mention it.
        await self._nemesis.until(self._all_is_given_back, 10.0, "every reservation was given back")
        self._nothing_left()

    async def _be_safe(self) -> None:
        """Safety: faults go on until every caller has its answer; the rest of the deployment then dies."""
        while any(not task.done() for task in self._callers.tasks):
            self._deployment.resume_server()
            await self._nemesis.rage(1.0, 0.5)

    async def _wait_for_callers(self) -> None:
        while pending := [task for task in self._callers.tasks if not task.done()]:
            await asyncio.wait(pending)
        for task in self._callers.tasks:
            if not task.cancelled():
                task.result()

    def _all_is_given_back(self) -> bool:
        sessions = self._deployment.server.dispatcher.fleet.sessions.values()
        return not any(session.load.outstanding for session in sessions)

    def _nothing_left(self) -> None:
        deployment, witness = self._deployment, self._deployment.witness
        core = deployment.server.dispatcher.core
        witness.balance()
        witness.check(core.jobs_count == 0, "no job is left without an outcome")
        witness.check(core.held_bytes == 0, "I8: nothing is held for jobs that are over")
        libraries = [
            deployment.server.library,
            *(slot.library for slot in deployment.slots if slot.library is not None),
        ]
        for library in libraries:
            witness.check(
                not library.running, f"I7: no statement runs without a caller: {library.place} {library.running}"
            )
        for name, count in core.counters.items():
            witness.reached[name] += count

    async def _end(self) -> None:
        deployment = self._deployment
        for name, count in deployment.server.dispatcher.core.counters.items():
            deployment.witness.reached[f"counted {name}"] += count
        await self._wait_for_callers()
        for slot in deployment.slots:
            await deployment.kill(slot)
        server = deployment.server
        server.die()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await server.executor.close()


def simulate(seed: int, tell: Callable[[str], None] | None = None) -> Outcome:
    """Run the scenario of this seed; ``tell`` hears what happens. Raises ViolationError when a promise is broken."""
    loop = VirtualLoop()
    failures: list[BaseException] = []
    loop.set_exception_handler(
        lambda _loop, context: failures.append(context.get("exception") or RuntimeError(str(context)))
    )

    async def main() -> Outcome:
        scenario = Scenario(seed, loop, tell)
        try:
            async with asyncio.timeout(_SECONDS_MAX):
                return await scenario.outcome()
        finally:
            scenario.let_go()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    replay = f"replay: python -m lensway.testing.simulation {seed}"
    try:
        outcome = run_virtual(main(), loop)
    except ViolationError:
        raise
    except Exception as error:
        raise ViolationError(f"{type(error).__name__}: {error} ({replay})") from error
    if failures:
        raise ViolationError(f"{failures[0]} ({replay})") from failures[0]
    return outcome
