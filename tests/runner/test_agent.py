"""The life of a runner's process, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from lensway.ids import InstanceId
from lensway.protocol.transport import Transport
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.policy import LocalPolicy
from lensway.testing.memory_link import MemoryLink
from lensway.testing.simulation.database import FakeLibrary
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess, run_virtual


@pytest.mark.parametrize("after", [0.0, 0.05, 1.0], ids=["at once", "while it dials", "before it is welcomed"])
def test_a_runner_that_is_not_connected_yet_stops_when_it_is_told_to(after: float) -> None:
    loop = VirtualLoop()
    links: list[MemoryLink] = []

    async def dial() -> Transport:
        await asyncio.sleep(0.1)
        links.append(MemoryLink(loop, lambda: 0.001))
        return links[-1].runner_end

    async def answer_too_late() -> None:
        # The gateway is slow to welcome anybody; its word comes when the runner is about to go.
        while not links:
            await asyncio.sleep(0.01)
        await links[-1].gateway_end.recv()

    async def story() -> None:
        process = VirtualProcess(loop)
        agent = Agent(
            runner="run",
            instance=InstanceId("one"),
            capacity=1,
            dial=dial,
            library=FakeLibrary("here", None, {}),
            local=LocalCredentials({}),
            policy=LocalPolicy(),
            clock=process,
            chance=lambda: 0.5,
            hostname="here",
        )
        running = asyncio.create_task(agent.run())
        late = asyncio.create_task(answer_too_late())
        await asyncio.sleep(after)
        agent.stop()
        await asyncio.wait_for(running, 3.0)
        assert agent.state == "stopped"
        late.cancel()

    run_virtual(story(), loop)
