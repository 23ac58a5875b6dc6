"""The processes of one simulated deployment: a server that may crash and start again, and runners that may do the same."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from lensway.catalog import rules
from lensway.catalog.definitions import read_source
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import Change, Runner
from lensway.catalog.rules.runners import is_token_good
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.events import INLINE, JobRequest
from lensway.dispatch.routes import SnapshotRoutes
from lensway.errors import LenswayError
from lensway.gateway.link import Link
from lensway.gateway.sets import AssignmentSets
from lensway.ids import InstanceId, RunnerId, SessionId, SourceId
from lensway.inline.executor import InlineExecutor
from lensway.limits import DEAD_SECONDS, LOOP_STALL_SECONDS
from lensway.protocol.transport import Transport
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import DialError
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.testing.memory_link import MemoryLink, Mischief
from lensway.testing.memory_store import MemoryStore
from lensway.testing.simulation.database import FakeLibrary, Weather
from lensway.testing.simulation.witness import WatchedDispatcher, Witness
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess

RUNNERS: Final = 3
NOW: Final = "2026-01-01T00:00:00+00:00"
LATER: Final = "2026-01-02T00:00:00+00:00"
SOURCES: Final = ("main", "side")
"""`main` is managed and may be executed inline, `side` has its credentials on the runners."""
_LOCAL: Final = {"LENSWAY_SOURCE_SIDE_HOST": "there"}
_ENTRY: Final = AuditEntry(
    at="", environment=None, actor="", action="", object="", address="", outcome="", request_id=""
)
_DRAIN_SECONDS: Final = (0.3, 2.0)
_WATCH_SECONDS: Final = 0.25
"""Coarser than in earnest: most of what an idle runner does on virtual time is to look at its clock."""


@dataclasses.dataclass(slots=True)
class Slot:
    """One place where a process of a runner can run: its runner, and the process that runs there."""

    id: RunnerId
    name: str
    place: str
    starts: int = 0
    token: bytes = b""
    agent: Agent | None = None
    process: VirtualProcess | None = None
    task: asyncio.Task[None] | None = None
    link: MemoryLink | None = None
    library: FakeLibrary | None = None
    set_at: float = 0.0
    """When the newest set came into force."""
    paused: tuple[float, float] = (0.0, 0.0)
    """From when to when it stood still last."""

    @property
    def runs(self) -> bool:
        """True while a process runs here."""
        return self.task is not None and not self.task.done()


class Server:
    """One process of the server."""

    def __init__(self, deployment: Deployment, first_session: int) -> None:
        self.process = VirtualProcess(deployment.loop)
        self.links: list[Link] = []
        self.wires: list[MemoryLink] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.library = FakeLibrary("inline", deployment.witness, deployment.weather)
        self.executor = InlineExecutor(deployment.store, self.library)  # type: ignore[arg-type]  # the seam's fake
        self.dispatcher = WatchedDispatcher(
            deployment.witness,
            SnapshotRoutes(deployment.store),
            self.executor,
            self.process,
            first_session=first_session,
        )
        self.executor.connect(self.dispatcher.handle)
        self.sets = AssignmentSets(deployment.store, self.process)
        self.is_listening = True

    def start(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run this in the process of the server; it ends with it."""
        task = self.process.start(work, name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def adopt(self, snapshot: Snapshot) -> None:
        """The catalog has changed."""
        if not self.dispatcher.is_dead:
            self.dispatcher.catalog_changed()
            for link in list(self.links):
                link.adopt(snapshot.runner_by_id(link.runner.id))

    async def serve(self, link: Link) -> None:
        """Serve one connection to its end."""
        self.links.append(link)
        try:
            await link.serve()
        finally:
            self.links.remove(link)

    def die(self) -> None:
        """End without a word, at this very step."""
        self.dispatcher.is_dead = True
        self.is_listening = False
        self.dispatcher.close()
        for wire in self.wires:
            wire.cut(arrived_is_kept=True)
        for task in list(self.tasks):
            task.cancel("the server is gone")
        for inline in self.executor._attempts.values():
            if inline.task is not None:
                inline.task.cancel()
        self.process.resume()


class Deployment:
    """A catalog, a server, runners, and the links between them."""

    def __init__(self, seed: int, rng: random.Random, loop: VirtualLoop, tell: Callable[[str], None] | None) -> None:
        self.random = rng
        self.loop = loop
        self.store = MemoryStore()
        self.witness = Witness(seed, loop, self.store, tell)
        self.weather: dict[str, Weather] = {}
        self.latency = rng.choice((0.0005, 0.005, 0.05))
        self.skew = rng.choice((0.0, 0.0, 0.02, 0.1))
        self.push_loss = rng.choice((0.0, 0.1, 0.5))
        self.mischief_chance = 0.0
        self.was_mischievous = False
        self.environment = self.store.current().environments()[0].id
        self.sources = tuple(SourceId(f"src_{name}") for name in SOURCES)
        self.slots: list[Slot] = []
        self.server = Server(self, 1)
        self.witness.may_begin = self._may_begin
        self.witness.watch_cancel = self._watch_cancel
        self.witness.watch_fence = self._watch_fence
        self._sessions = 1
        self.store.subscribe(lambda snapshot, _changes: self.server.adopt(snapshot))

    # --- catalog ----------------------------------------------------------------------------------------------------------

    async def change(self, rule: Callable[[Snapshot], Sequence[Change]]) -> bool:
        """Commit a change of the catalog; False when the rules refuse it."""
        task = self.server.process.start(self.store.commit(lambda snapshot: (rule(snapshot), _ENTRY)), "commit")
        try:
            await task
        except LenswayError:
            return False
        return True

    async def found(self, twins: int) -> None:
        """Sources and runners, not yet connected; ``twins`` more processes of the first runner."""
        for source, name in zip(self.sources, SOURCES, strict=True):
            await self.change(functools.partial(self._create_source, source, name))
        for number in range(RUNNERS):
            runner, name = RunnerId(f"run_{number}"), f"runner-{number}"
            await self.change(functools.partial(self._create_runner, runner, name, bytes([number]) * 32))
            for twin in range(1 + (twins if number == 0 else 0)):
                self.slots.append(Slot(runner, name, f"{name}/{twin}"))

    def _create_source(self, source: SourceId, name: str, snapshot: Snapshot) -> Sequence[Change]:
        how = {"config": {"host": "x"}} if name == "main" else {"credentials": "runner-local"}
        draft = read_source(name, {"bridge": "postgres", **how})
        return rules.create_source(snapshot, self.environment, draft, id=source, at=NOW)

    def _create_runner(self, runner: RunnerId, name: str, token: bytes, snapshot: Snapshot) -> Sequence[Change]:
        return rules.create_runner(snapshot, self.environment, name, id=runner, token_hash=token, at=NOW)

    def record(self, slot: Slot) -> Runner:
        """What the catalog says of the runner."""
        runner = self.store.current().runner_by_id(slot.id)
        assert runner is not None
        return runner

    # --- runners ----------------------------------------------------------------------------------------------------------

    def start(self, slot: Slot) -> None:
        """Start a process of the runner, if none runs there."""
        if slot.runs:
            return
        self.witness.note("started", slot.place)
        slot.starts += 1
        slot.token = self.record(slot).tokens[0].hash
        rate = 1.0 + self.random.uniform(-self.skew, self.skew)
        slot.process = VirtualProcess(self.loop, rate=rate, offset=self.random.uniform(0.0, 1e5))
        slot.library = FakeLibrary(slot.place, self.witness, self.weather)
        slot.agent = Agent(
            runner=slot.id,
            instance=InstanceId(f"{slot.place}-{slot.starts}"),
            capacity=self.random.choice((1, 4, 64)),
            dial=lambda: self._dial(slot),
            library=slot.library,
            local=LocalCredentials(_LOCAL),
            policy=PolicyInForce(LocalPolicy()),
            clock=slot.process,
            chance=self.random.random,
            hostname="simulated",
            drain_seconds=self.random.choice(_DRAIN_SECONDS),
            watch_seconds=_WATCH_SECONDS,
            announce=functools.partial(self._hear, slot),
        )
        slot.task = slot.process.start(self._run(slot, slot.agent), slot.place)

    def _hear(self, slot: Slot, line: str) -> None:
        if line.startswith("assigned sources"):
            slot.set_at = self.loop.virtual_now
        if "(heartbeat_lost)" in line:
            self.witness.note("a runner fenced itself")

    async def _run(self, slot: Slot, agent: Agent) -> None:
        try:
            await agent.run()
        except LenswayError as error:
            self.witness.note("a runner gave up", error.code.value)

    def die(self, slot: Slot) -> None:
        """End the process without a word, at this very step."""
        if not slot.runs:
            return
        assert slot.task is not None
        assert slot.process is not None
        self.witness.note("killed", slot.place)
        if slot.link is not None:
            slot.link.cut(arrived_is_kept=self.random.random() < 0.5)
        slot.task.cancel()
        self.resume(slot)

    async def kill(self, slot: Slot) -> None:
        """End the process without a word, and wait until nothing of it is left."""
        self.die(slot)
        if slot.task is not None:
            await asyncio.gather(slot.task, return_exceptions=True)

    def stop(self, slot: Slot) -> None:
        """SIGTERM."""
        if slot.runs and slot.agent is not None and slot.process is not None and slot.process.paused_at is None:
            self.witness.note("stopped", slot.place)
            slot.process.context.run(slot.agent.stop)

    def pause(self, slot: Slot) -> None:
        """SIGSTOP."""
        if slot.runs and slot.process is not None and slot.process.paused_at is None:
            self.witness.note("paused", slot.place)
            slot.process.pause()

    def resume(self, slot: Slot) -> None:
        """SIGCONT."""
        if slot.process is not None and slot.process.paused_at is not None:
            self.witness.note("resumed", slot.place)
            slot.paused = (slot.process.paused_at, self.loop.virtual_now)
            slot.process.resume()

    async def _dial(self, slot: Slot) -> Transport:
        await asyncio.sleep(self.latency)
        server = self.server
        if not server.is_listening:
            raise DialError("refused", "")
        runner = self.record(slot)
        wall = server.process.wall().isoformat()
        if runner.is_revoked or not any(
            token.hash == slot.token and is_token_good(token, at=wall) for token in runner.tokens
        ):
            raise DialError("unauthorized", "", is_final=True)
        link = slot.link = MemoryLink(
            self.loop,
            lambda: self.latency * (0.5 + self.random.random()),
            mischief=self._mischief,
            read=lambda to_gateway: self.witness.step("server" if to_gateway else slot.place),
        )
        gateway = Link(
            link.gateway_end,
            runner,
            dispatch=server.dispatcher,
            sets=server.sets,
            clock=server.process,
            address="memory",
            token_hash=slot.token,
            push_is_lost=lambda: self.random.random() < self.push_loss,
        )
        server.wires = [wire for wire in server.wires if wire.is_open]
        server.wires.append(link)
        _ = server.start(server.serve(gateway), "link")
        return link.runner_end

    def _mischief(self) -> Mischief | None:
        if not self.mischief_chance or self.random.random() >= self.mischief_chance:
            return None
        kind = self.random.choice(list(Mischief))
        self.was_mischievous = True
        self.witness.note(f"message {kind.value}")
        return kind

    # --- the server -------------------------------------------------------------------------------------------------------

    def crash_server(self) -> None:
        """The process of the server is gone, and with it every connection."""
        if not self.server.dispatcher.is_dead:
            self.witness.note("server crashed")
            self.server.die()

    def start_server(self) -> None:
        """A new process of the server, on the same store."""
        if self.server.dispatcher.is_dead:
            self.witness.note("server started")
            self._sessions += 1_000
            self.witness.is_stopping = False
            self.server = Server(self, self._sessions)

    async def stop_server(self) -> None:
        """SIGTERM: tells the runners when to come back, finishes what runs, goes."""
        server = self.server
        if server.dispatcher.is_dead or server.process.paused_at is not None:
            return
        self.witness.note("server stopped")
        self.witness.is_stopping = True
        server.is_listening = False
        for link in list(server.links):
            link.go_away(1_000)
        stopping = server.start(server.dispatcher.stop(self.random.choice(_DRAIN_SECONDS)), "stop")
        await asyncio.wait([stopping])
        server.die()

    def pause_server(self) -> None:
        """The server's loop stands still."""
        if not self.server.dispatcher.is_dead and self.server.process.paused_at is None:
            self.witness.note("server paused")
            self.server.process.pause()

    def resume_server(self) -> None:
        """It goes on."""
        at = self.server.process.paused_at
        if at is not None:
            self.witness.note("server resumed")
            self.witness.pause_seconds += self.loop.virtual_now - at
            self.server.process.resume()

    # --- what the witness asks ----------------------------------------------------------------------------------------------

    def slot_at(self, place: str) -> Slot | None:
        """The slot of this place; None for inline."""
        return next((slot for slot in self.slots if slot.place == place), None)

    def _may_begin(self, place: str, request: JobRequest, offered_at: float) -> str:
        """Why this place must not begin a statement now; "" when it may."""
        slot = self.slot_at(place)
        if slot is None:
            return ""
        assert slot.agent is not None
        # What was accepted before the newest set begins behind it, and completes (R11).
        if slot.agent.sources.get(request.source) is None and slot.set_at < self.loop.virtual_now:
            return "R1: a runner began a job for a source that is not assigned to it"
        began, ended = slot.paused
        waited = began < offered_at < ended - 2 * self.latency and ended - began > LOOP_STALL_SECONDS + _WATCH_SECONDS
        if waited and self._is_undisturbed(slot.link):
            return "I6: a runner began what was offered while it stood still"
        return ""

    def _watch_fence(self, session: SessionId) -> None:
        """A session is dead by its silence, and its jobs go elsewhere: its process, unless it stood still, has stopped them."""
        for slot in self.slots:
            process = slot.process
            if slot.library is None or process is None or process.paused_at is not None:
                continue
            stood_still = self.loop.virtual_now - slot.paused[1] < 2 * DEAD_SECONDS or self.was_mischievous
            still = [mark for mark in slot.library.running if self.witness.session_of(*mark) == session]
            self.witness.check(not still or stood_still, "a runner stops before its work is given to another")

    def _is_undisturbed(self, link: MemoryLink | None) -> bool:
        return (
            not (link is None or link.disturbances or self.was_mischievous or self.witness.pause_seconds)
            and self.server.process.paused_at is None
        )

    def _watch_cancel(self, session: SessionId, job: int, attempt: int) -> None:
        """I7: the statement of a cancelled attempt is gone in 250 ms, where its place is alive and connected."""
        slot = next((one for one in self.slots if one.library and (job, attempt) in one.library.running), None)
        library = self.server.library if session == INLINE else None if slot is None else slot.library
        link = None if slot is None else slot.link
        if library is None or (session != INLINE and not self._is_undisturbed(link)):
            return
        pauses = None if slot is None else slot.paused

        def look() -> None:
            if session != INLINE:
                if not self._is_undisturbed(link) or link is None or not link.is_open or slot is None:
                    return
                if slot.paused != pauses or slot.process is None or slot.process.paused_at is not None:
                    return
            elif self.witness.pause_seconds or self.server.process.paused_at is not None:
                return
            self.witness.check((job, attempt) not in library.running, "I7: a cancelled statement is gone within 250 ms")

        self.loop.call_at_true(self.loop.virtual_now + 0.25 + 2 * self.latency, look)
