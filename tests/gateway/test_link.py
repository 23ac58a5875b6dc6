"""One link of the gateway, on virtual time: what has arrived counts, and silence is noticed while a runner drains too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from lensway import limits
from lensway.auth.sealing import InstanceKeys
from lensway.catalog.records import Runner, RunnerToken
from lensway.dispatch.core.events import Ended, SessionLost, SessionReported
from lensway.fleet import Fleet, SessionFacts
from lensway.gateway.link import Link
from lensway.gateway.sets import AssignmentSets
from lensway.ids import EnvironmentId, JobId, RequestId, RunnerId, SessionId, SourceId
from lensway.protocol import codec, frames
from lensway.protocol.gateway_session import Admit, GatewaySession, Send, Tick
from lensway.protocol.transport import TransportClosedError
from lensway.testing.memory_link import MemoryLink, MemoryTransport
from lensway.testing.memory_store import MemoryStore
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess, run_virtual

TOKEN = RunnerToken(hash=b"t" * 32, created_at="")
RUNNER = Runner(id=RunnerId("run"), environment=EnvironmentId("env"), name="alpha", created_at="", tokens=(TOKEN,))
HELLO = frames.Hello(
    runner="run",
    instance="one",
    versions=(1,),
    software="",
    public_key=InstanceKeys.generate().public_bytes,
    bridges={"postgres": "x"},
    capacity=4,
)


def welcome(session: int, interval: float) -> frames.Welcome:
    return frames.Welcome(
        version=1,
        session=session,
        runner_name="alpha",
        environment="env",
        heartbeat_ms=int(interval * 1000),
        fence_ms=int(interval * 4000),
        nonce=b"",
    )


class Dispatch:
    """Hears events."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.events: list[object] = []

    def handle(self, event: object) -> None:
        self.events.append(event)

    def next_session_id(self) -> SessionId:
        return SessionId(1)

    def open_session(self, facts: object, link: object) -> None:
        self.events.append(facts)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class Bench:
    """A link, and the runner's end of it in the hands of the test."""

    def __init__(
        self,
        loop: VirtualLoop,
        gateway_end: type[MemoryTransport] = MemoryTransport,
        sets: type[AssignmentSets] = AssignmentSets,
    ) -> None:
        self.wire = MemoryLink(loop, lambda: 0.001)
        self.gateway_end = gateway_end(self.wire, sends=self.wire.to_runner, receives=self.wire.to_gateway)
        self.dispatch = Dispatch()
        process = VirtualProcess(loop)
        self.link = Link(
            self.gateway_end,
            RUNNER,
            dispatch=self.dispatch,
            sets=sets(MemoryStore(), process),
            clock=process,
            address="",
            token_hash=TOKEN.hash,
        )
        self.serving = asyncio.create_task(self.link.serve())
        self.decoder = codec.Decoder()

    async def say(self, *spoken: frames.AnyFrame) -> None:
        await self.wire.runner_end.send(codec.encode(spoken))
        await asyncio.sleep(0.01)

    async def heard(self) -> list[frames.AnyFrame]:
        return self.decoder.feed(await self.wire.runner_end.recv())


class ClosingTransport(MemoryTransport):
    """Its writers find the link closed before its reader does."""

    is_closed = False

    @property
    def is_ready(self) -> bool:
        return not self.is_closed and super().is_ready

    async def send(self, message: bytes | bytearray) -> None:
        if self.is_closed:
            raise TransportClosedError("reset")
        await super().send(message)


def offer_job(bench: Bench) -> None:
    from lensway.dispatch.core.events import JobRequest, Release, SendOffer

    request = JobRequest(
        request=RequestId("1"),
        environment=EnvironmentId("env"),
        source=SourceId("src"),
        kind="rows",
        payload=b"",
        format="json",
        deadline=1e9,
        release=Release.AT_END,
        rows_max=1,
        bytes_max=1,
        row_bytes_max=1,
    )
    bench.link.offer(SendOffer(SessionId(1), JobId(1), 1, request, 1, 30.0, 1000))


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


def test_an_end_that_has_arrived_is_the_outcome_even_if_the_writer_finds_the_link_closed_first(
    loop: VirtualLoop,
) -> None:
    async def story() -> list[object]:
        bench = Bench(loop, ClosingTransport)
        await bench.say(HELLO)
        offer_job(bench)
        await asyncio.sleep(0.01)
        # The end stands in the reader's buffer, and the link is found closed by a writer before the reader has its turn.
        bench.gateway_end.is_closed = True
        end = frames.End(job=1, attempt=1, result=b"", sent_bytes=0)
        await bench.wire.runner_end.send(codec.encode([frames.Accept(job=1, attempt=1), end]))
        loop.call_later(0.0005, bench.link.push_set)
        loop.call_later(0.005, bench.wire.cut)
        await bench.serving
        return bench.dispatch.events

    events = run_virtual(story(), loop)
    kinds = [type(event) for event in events]
    assert Ended in kinds
    assert kinds.index(Ended) < kinds.index(SessionLost)
    assert kinds.count(SessionLost) == 1


def test_the_welcome_names_a_fence_that_ends_before_the_work_is_given_to_another(loop: VirtualLoop) -> None:
    async def story() -> frames.AnyFrame:
        bench = Bench(loop)
        await bench.say(HELLO)
        welcome, *_ = await bench.heard()
        bench.wire.cut()
        await bench.serving
        [facts] = bench.dispatch.of(SessionFacts)
        assert isinstance(welcome, frames.Welcome)
        # A tenth of the rate apart, and the time that a statement takes to stop.
        assert welcome.fence_ms / 1000 / 0.9 + 1.0 < facts.timings.dead_seconds
        assert welcome.heartbeat_ms / 1000 == facts.timings.heartbeat_seconds
        return welcome

    run_virtual(story(), loop)


def test_a_draining_runner_still_gets_heartbeats(loop: VirtualLoop) -> None:
    async def story() -> list[frames.AnyFrame]:
        bench = Bench(loop)
        await bench.say(HELLO, frames.Drain(reason="it leaves"))
        heard: list[frames.AnyFrame] = []
        try:
            async with asyncio.timeout(7.0):
                while True:
                    heard += await bench.heard()
        except TimeoutError:
            bench.wire.cut()
            await bench.serving
        return heard

    beats = [frame for frame in run_virtual(story(), loop) if isinstance(frame, frames.Heartbeat)]
    assert len(beats) >= 4


def test_heartbeats_of_sessions_that_opened_together_are_spread_and_stay_so_when_the_node_stood_still() -> None:
    interval = 2.0
    sessions = []
    for number in range(1, 101):
        session = GatewaySession(0.0)
        session.handle(HELLO, 0.0)
        session.handle(Admit(welcome(number, interval)), 0.0)
        sessions.append(session)

    def most_in_one_twentieth() -> int:
        return max(
            Counter(int((session.next_wake() or 0.0) % interval / interval * 20) for session in sessions).values()
        )

    assert all(0.0 < (session.next_wake() or 0.0) <= interval for session in sessions)
    assert most_in_one_twentieth() <= 6
    stood_still_until = 7.3
    for session in sessions:
        [beat] = session.handle(Tick(), stood_still_until)
        assert isinstance(beat, Send)
        assert stood_still_until < (session.next_wake() or 0.0) <= stood_still_until + interval
    assert most_in_one_twentieth() <= 6


@pytest.mark.parametrize("end", ["dispatch gives it up", "it is revoked"])
def test_a_link_that_is_over_ends_within_a_second_although_its_peer_takes_nothing(end: str, loop: VirtualLoop) -> None:
    async def story() -> bool:
        bench = Bench(loop)
        await bench.say(HELLO)
        bench.wire.freeze(to_gateway=True, to_runner=True)
        while bench.gateway_end.is_ready:
            bench.link.go_away(10)
            await asyncio.sleep(0.01)
        bench.link.go_away(10)
        await asyncio.sleep(0.01)
        if end == "it is revoked":
            bench.link.finish(frames.CloseReason.REVOKED)
        else:
            bench.link.close("heartbeat_lost")
        await asyncio.sleep(1.0)
        is_over = bench.serving.done()
        bench.serving.cancel()
        await asyncio.wait([bench.serving])
        return is_over

    assert run_virtual(story(), loop)


def test_dispatch_never_hears_of_a_runner_whose_set_cannot_be_said(loop: VirtualLoop) -> None:
    too_large = frames.AssignedSource(
        source="src", name="x" * limits.CONTROL_FRAME_BYTES_MAX, bridge="b", config_version=0
    )

    class TooLarge(AssignmentSets):
        def set_of(self, runner: Runner, public_key: bytes, sealed: object = None) -> tuple[frames.AssignedSource, ...]:
            return (too_large,)

    async def story() -> list[object]:
        bench = Bench(loop, sets=TooLarge)
        await bench.say(HELLO)
        await asyncio.wait([bench.serving], timeout=2)
        assert bench.serving.done()
        return bench.dispatch.events

    assert run_virtual(story(), loop) == []


def test_a_runner_that_floods_is_read_slowly_and_then_cut_off(loop: VirtualLoop) -> None:
    async def story() -> tuple[float, list[frames.AnyFrame], int]:
        bench = Bench(loop)
        await bench.say(HELLO)
        begun = loop.time()
        flood = codec.encode([frames.AssignmentInForce(revision=0)] * 10_000)
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while True:
                await bench.wire.runner_end.send(flood)
                sent += 1

        pouring = asyncio.create_task(pour())
        said: list[frames.AnyFrame] = []
        with contextlib.suppress(TransportClosedError):
            while not any(isinstance(frame, frames.Close) for frame in said):
                said += await bench.heard()
        pouring.cancel()
        took = loop.time() - begun
        bench.serving.cancel()
        await asyncio.wait([pouring, bench.serving])
        return took, said, len(bench.dispatch.of(SessionReported))

    took, said, reported = run_virtual(story(), loop)
    [close] = [frame for frame in said if isinstance(frame, frames.Close)]
    assert close.reason is frames.CloseReason.OVERLOADED
    assert limits.FLOOD_SECONDS_MAX <= took <= 3 * limits.FLOOD_SECONDS_MAX
    assert reported <= limits.REPORTS_BURST + took * (limits.REPORTS_PER_SECOND + 1)
