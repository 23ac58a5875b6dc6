"""The life of a runner's process, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable
from typing import Any

import msgspec
import pytest

from lensway.ids import InstanceId
from lensway.protocol import codec, frames
from lensway.protocol.transport import Transport
from lensway.query.result import ResultEnd
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.testing.memory_link import MemoryLink
from lensway.testing.simulation.database import Ask, FakeLibrary, encode_ask
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess, run_virtual


def offer(job: int) -> frames.Offer:
    return frames.Offer(
        job=job,
        attempt=1,
        kind=frames.JobKind.ROWS,
        source="src_main",
        revision=1,
        payload=encode_ask(Ask(job=job, parts=1, size=40, milliseconds=1)),
        format="json",
        deadline_ms=10_000,
        credit=100_000,
        rows_max=10,
        bytes_max=1000,
        row_bytes_max=1000,
        request=str(job),
    )


class Witness:
    """Notes what begins."""

    def __init__(self) -> None:
        self.begun: list[int] = []

    def statement_begins(self, _place: str, job: int, _attempt: int) -> None:
        self.begun.append(job)

    def step(self, _place: str) -> None: ...


class Keeper(FakeLibrary):
    """Knows of which settings something is open."""

    def __init__(self, witness: Witness) -> None:
        super().__init__("here", witness, {})
        self.open: set[Hashable] = set()

    async def perform(self, key: Hashable, *rest: Any, **more: Any) -> ResultEnd:
        self.open.add(key)
        return await super().perform(key, *rest, **more)

    async def forget(self, key: Hashable) -> None:
        self.open.discard(key)


class Connected:
    """A runner that serves the source `src_main`, and the gateway's end of its link."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.link = MemoryLink(loop, lambda: 0.001)
        self.witness = Witness()
        self.library = Keeper(self.witness)
        self.process = VirtualProcess(loop)
        self.decoder = codec.Decoder()

    async def __aenter__(self) -> Connected:
        async def dial() -> Transport:
            return self.link.runner_end

        agent = Agent(
            runner="run",
            instance=InstanceId("one"),
            capacity=4,
            dial=dial,
            library=self.library,
            local=LocalCredentials({"LENSWAY_SOURCE_MAIN_HOST": "x", "LENSWAY_SOURCE_OTHER_HOST": "y"}),
            policy=PolicyInForce(LocalPolicy()),
            clock=self.process,
            chance=lambda: 0.5,
            hostname="here",
        )
        self._running = self.process.start(agent.run(), "agent")
        [hello] = self.decoder.feed(await self.link.gateway_end.recv())
        assert isinstance(hello, frames.Hello)
        welcome = frames.Welcome(
            version=1, session=1, runner_name="a", environment="env", heartbeat_ms=2000, fence_ms=8000, nonce=b""
        )
        main = frames.AssignedSource(source="src_main", name="main", bridge="postgres", config_version=0)
        await self.send(welcome, frames.AssignmentSet(revision=1, part=0, parts=1, sources=(main,)))
        await asyncio.sleep(0.5)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.link.cut()
        self._running.cancel()
        await asyncio.wait([self._running])

    async def send(self, *said: frames.AnyFrame) -> None:
        await self.link.gateway_end.send(codec.encode(said))

    async def said(self) -> list[frames.AnyFrame]:
        return [frame for message in await unread(self.link) for frame in self.decoder.feed(message)]


@pytest.mark.parametrize(("seconds", "answer"), [(0.3, "accept"), (0.7, "stale"), (3.0, "stale")])
def test_i6_an_offer_that_waited_while_the_process_stood_still_is_discarded(seconds: float, answer: str) -> None:
    loop = VirtualLoop()
    connected = Connected(loop)

    async def story() -> list[frames.AnyFrame]:
        async with connected as runner:
            runner.process.pause()
            await asyncio.sleep(seconds / 2)
            await runner.send(offer(1))
            await asyncio.sleep(seconds / 2)
            runner.process.resume()
            await asyncio.sleep(0.5)
            await runner.send(offer(2))
            await asyncio.sleep(0.5)
            return await runner.said()

    said = run_virtual(story(), loop)
    refused = [frame for frame in said if isinstance(frame, frames.Refuse)]
    accepted = [frame.job for frame in said if isinstance(frame, frames.Accept)]
    begun = connected.witness.begun
    if answer == "accept":
        assert (accepted, refused, begun) == ([1, 2], [], [1, 2])
    else:
        assert [(frame.job, frame.reason.value) for frame in refused] == [(1, "stale")]
        assert (accepted, begun) == ([2], [2]), "it never began"


def test_i6_an_attempt_that_is_cancelled_before_its_first_step_is_answered_and_never_begins() -> None:
    loop = VirtualLoop()
    connected = Connected(loop)

    async def story() -> list[frames.AnyFrame]:
        async with connected as runner:
            await runner.send(offer(1), frames.Cancel(job=1, attempt=1), offer(2))
            await asyncio.sleep(0.5)
            return await runner.said()

    said = run_virtual(story(), loop)
    assert [frame.job for frame in said if isinstance(frame, frames.Fail)] == [1]
    assert [frame.job for frame in said if isinstance(frame, frames.End)] == [2]
    assert connected.witness.begun == [2]


@pytest.mark.parametrize("ends", ["by itself", "with the link"])
def test_the_settings_of_a_source_that_is_only_tested_stay_no_longer_than_the_test(ends: str) -> None:
    loop = VirtualLoop()
    connected = Connected(loop)
    open_at: list[int] = []

    def test_of(job: int, name: str, milliseconds: int) -> frames.Offer:
        spec = frames.AssignedSource(source=f"src_{name}", name=name, bridge="postgres", config_version=0)
        ask = encode_ask(Ask(job=job, parts=1, size=40, milliseconds=milliseconds))
        changed = {"kind": frames.JobKind.TEST, "source": spec.source, "spec": spec, "payload": ask}
        return msgspec.structs.replace(offer(job), **changed)

    async def story() -> None:
        async with connected as runner:
            await runner.send(test_of(1, "main", 100), test_of(2, "other", 300))
            await asyncio.sleep(0.2)
            open_at.append(len(connected.library.open))
            if ends == "with the link":
                runner.link.cut()
            await asyncio.sleep(0.5)
            open_at.append(len(connected.library.open))

    run_virtual(story(), loop)
    assert open_at == [2, 1], "what is assigned stays open, what was only tested does not"


async def unread(link: MemoryLink) -> list[bytes]:
    """What the gateway's end has not read yet."""
    found: list[bytes] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            while True:
                found.append(await link.gateway_end.recv())
    return found


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
            policy=PolicyInForce(LocalPolicy()),
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
