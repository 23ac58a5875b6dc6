"""A whole deployment on virtual time: the real dispatcher, gateway links and runner agents, over faulty links in memory.

One seed is one scenario: its callers, its faults and every delay. The same seed runs the same way every time. The scenario ends
healed; then everything that was promised must hold, and nothing may be left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from lensway import limits
from lensway.auth import tokens
from lensway.bridges.contract import Execution, RowSink
from lensway.bridges.failures import unreachable
from lensway.catalog import rules
from lensway.catalog.definitions import read_source
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import Runner
from lensway.dispatch.events import JobRequest, Release, SendOffer
from lensway.dispatch.routes import SnapshotRoutes
from lensway.dispatch.shell import Dispatcher
from lensway.errors import ErrorCode, LenswayError
from lensway.gateway.link import Link
from lensway.gateway.sets import AssignmentSets
from lensway.ids import InstanceId, RequestId, RunnerId, SourceId, new_runner_id, new_source_id
from lensway.protocol.transport import Transport
from lensway.query.result import ResultEnd, decode_end
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import DialError
from lensway.runner.policy import LocalPolicy
from lensway.service.inline import InlineExecutor
from lensway.testing.memory_link import MemoryLink
from lensway.testing.memory_store import MemoryStore
from lensway.testing.virtual_time import VirtualClock, VirtualLoop, run_virtual

RUNNERS: Final = 3
FAULT_SECONDS: Final = 20.0
_OUTCOMES: Final = frozenset(
    {
        ErrorCode.NO_RUNNERS_ONLINE,
        ErrorCode.OVERLOADED,
        ErrorCode.RUNNER_FAILED,
        ErrorCode.SOURCE_UNREACHABLE,
        ErrorCode.QUERY_TIMEOUT,
        ErrorCode.CANCELLED,
    }
)


class ViolationError(AssertionError):
    """A promise was broken; the message names it and the seed."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What one scenario came to: how often what happened, and a digest of all of it."""

    reached: Counter[str]
    digest: str


class FakeLibrary:
    """Executes by waiting; its rows say which job, which attempt and which part they are. The seam's fake of the library."""

    def __init__(self, place: str, world: World) -> None:
        self.place = place
        self.running: dict[tuple[int, int], float] = {}
        self._world = world

    def installed(self) -> Mapping[str, str]:
        """One bridge."""
        return {"postgres": "fake"}

    def check(self, bridge: str, config: Mapping[str, object]) -> None:
        """Everything works."""

    def open_keys(self) -> tuple[Hashable, ...]:
        """Nothing is kept."""
        return ()

    async def forget(self, key: Hashable) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""

    async def perform(
        self,
        key: Hashable,
        bridge: str,
        config: Mapping[str, object],
        *,
        kind: str,
        payload: bytes,
        execution: Execution,
        sink: RowSink,
    ) -> ResultEnd:
        """Wait and write, as the payload says: job, parts, bytes of a part, milliseconds for each."""
        if kind == "probe":
            return ResultEnd(rows=1, bytes=0)
        job, parts, size, milliseconds = (int(word) for word in payload.split())
        attempt = int(execution.tag.rpartition("/")[2])
        mark = (job, attempt)
        self.running[mark] = execution.deadline
        try:
            if self.place in self._world.broken_places:
                await asyncio.sleep(0.01)
                raise unreachable("tcp", "refused")
            for part in range(parts):
                await asyncio.sleep(milliseconds / 1000)
                await sink.write(row(job, attempt, part, size))
            return ResultEnd(rows=parts, bytes=parts * size)
        finally:
            del self.running[mark]


def row(job: int, attempt: int, part: int, size: int) -> bytes:
    """One part of a result; every byte of it belongs to one attempt."""
    return f"{job}.{attempt}.{part};".encode().ljust(size, b".")


class CheckedInline(InlineExecutor):
    """The real inline executor; notes when it is given what is assigned."""

    def __init__(self, world: World, library: Any) -> None:
        super().__init__(world.store, library)
        self._world = world

    def start(self, order: SendOffer) -> None:
        """Begin, if nothing is assigned at this moment."""
        request = order.request
        assigned = self._world.store.current().runners_of(request.environment, request.source)
        self._world.check(not assigned, "R4: executed inline although runners are assigned")
        super().start(order)


@dataclasses.dataclass(slots=True)
class RunnerSlot:
    """One registered runner and the processes of it."""

    id: RunnerId
    name: str
    token_hash: bytes
    agent: Agent | None = None
    task: asyncio.Task[None] | None = None
    link: MemoryLink | None = None
    link_tasks: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)
    library: FakeLibrary | None = None
    starts: int = 0


class World:
    """One deployment, its faults and its callers."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.store = MemoryStore()
        self.reached: Counter[str] = Counter()
        self.trace = hashlib.sha256()
        self.broken_places: set[str] = set()
        self.links: list[Link] = []
        self.slots: list[RunnerSlot] = []
        self.is_listening = True
        self.latency = self.random.choice((0.0005, 0.005, 0.05))
        self.environment = self.store.current().environments()[0].id
        self.source = SourceId("")
        self.inline_library = FakeLibrary("inline", self)
        self.executor = CheckedInline(self, self.inline_library)
        self.dispatcher = Dispatcher(SnapshotRoutes(self.store), self.executor, self.clock)
        self.executor.connect(self.dispatcher.handle)
        self.sets = AssignmentSets(self.store, self.clock)
        self.store.subscribe(lambda _snapshot, _changes: self.dispatcher.catalog_changed())
        self.store.subscribe(lambda snapshot, _changes: self._adopt(snapshot))
        self._jobs = 0

    def check(self, holds: bool, promise: str) -> None:
        """Raise unless it holds."""
        if not holds:
            raise ViolationError(f"{promise} (seed {self.seed}, at {self.loop.time() - 1000:.3f} s)")

    def note(self, what: str) -> None:
        """Something happened that tests want to know was reached."""
        self.reached[what] += 1
        self.trace.update(f"{self.loop.time():.6f} {what}\n".encode())

    # --- catalog ------------------------------------------------------------------------------------------------------------

    async def change(self, rule: Callable[[Any], Any]) -> None:
        """Commit a change of the catalog."""
        entry = AuditEntry(
            at="", environment=None, actor="", action="", object="", address="", outcome="", request_id=""
        )
        await self.store.commit(lambda snapshot: (rule(snapshot), entry))

    async def found(self) -> None:
        """A source and runners, none of them connected."""
        self.source = new_source_id()
        draft = read_source("main", {"bridge": "postgres", "config": {"host": "x"}})
        await self.change(
            lambda snapshot: rules.create_source(snapshot, self.environment, draft, id=self.source, at="")
        )
        for number in range(RUNNERS):
            id, hashed = new_runner_id(), tokens.hash_token(f"rk_{number}")
            name = f"runner-{number}"
            create = functools.partial(
                rules.create_runner, environment=self.environment, name=name, id=id, token_hash=hashed, at=""
            )
            await self.change(create)
            self.slots.append(RunnerSlot(id, name, hashed))

    async def assign(self, slot: RunnerSlot) -> None:
        """Assign the source."""
        self.note("assigned")
        await self.change(lambda snapshot: rules.assign(snapshot, self.environment, slot.name, ["main"], at=""))

    async def unassign(self, slot: RunnerSlot) -> None:
        """Unassign the source."""
        self.note("unassigned")
        await self.change(lambda snapshot: rules.unassign(snapshot, self.environment, slot.name, ["main"]))

    def _adopt(self, snapshot: Any) -> None:
        for link in list(self.links):
            link.adopt(snapshot.runner_by_id(link.runner.id))

    # --- runners ------------------------------------------------------------------------------------------------------------

    def start(self, slot: RunnerSlot) -> None:
        """Start a process of the runner, if none runs."""
        if slot.task is not None and not slot.task.done():
            return
        self.note("started")
        slot.starts += 1
        slot.library = FakeLibrary(slot.name, self)
        slot.agent = Agent(
            runner=slot.id,
            instance=InstanceId(f"{slot.name}-{slot.starts}"),
            capacity=self.random.choice((1, 4, 64)),
            dial=lambda: self._dial(slot),
            library=slot.library,
            local=LocalCredentials({}),
            policy=LocalPolicy(),
            clock=self.clock,
            chance=self.random.random,
            hostname="simulated",
            drain_seconds=3.0,
        )
        slot.task = self.loop.create_task(slot.agent.run())

    async def kill(self, slot: RunnerSlot) -> None:
        """End the process without a word."""
        if slot.task is None or slot.task.done():
            return
        self.note("killed")
        if slot.link is not None:
            slot.link.cut()
        slot.task.cancel()
        await asyncio.gather(slot.task, return_exceptions=True)

    def drain(self, slot: RunnerSlot) -> None:
        """SIGTERM."""
        if slot.agent is not None:
            self.note("drained")
            slot.agent.stop()

    async def _dial(self, slot: RunnerSlot) -> Transport:
        await asyncio.sleep(self.latency)
        if not self.is_listening:
            raise DialError("refused", "")
        runner = self.store.current().runner_by_id(slot.id)
        assert isinstance(runner, Runner)
        link = slot.link = MemoryLink(lambda: self.latency * (0.5 + self.random.random()))
        gateway = Link(
            link.gateway_end,
            runner,
            dispatch=self.dispatcher,
            sets=self.sets,
            clock=self.clock,
            address="memory",
            token_hash=slot.token_hash,
            push_is_lost=lambda: self.random.random() < 0.1,
        )
        slot.link_tasks.append(self.loop.create_task(self._serve(gateway)))
        return link.runner_end

    async def _serve(self, gateway: Link) -> None:
        self.links.append(gateway)
        try:
            await gateway.serve()
        finally:
            self.links.remove(gateway)

    # --- callers ------------------------------------------------------------------------------------------------------------

    async def call(self) -> None:
        """One caller: asks, perhaps gives up, perhaps reads slowly; checks what it gets."""
        rng = self.random
        self._jobs += 1
        job, is_stream = self._jobs, rng.random() < 0.4
        parts, size = rng.choice(((1, 40), (3, 2_000), (12, 30_000), (30, 60_000)))
        milliseconds = rng.choice((1, 5, 40, 400))
        seconds = rng.choice((0.3, 2.0, 6.0, 15.0))
        started = self.loop.time()
        request = JobRequest(
            request=RequestId(str(job)),
            environment=self.environment,
            source=self.source,
            kind="export" if is_stream else "rows",
            payload=f"{job} {parts} {size} {milliseconds}".encode(),
            format="ndjson" if is_stream else "json",
            deadline=started + seconds,
            release=Release.STREAM if is_stream else Release.AT_END,
            rows_max=10**6,
            bytes_max=10**9,
            row_bytes_max=10**9,
            may_retry=rng.random() < 0.9,
            is_export=is_stream,
            page_bytes_max=None if is_stream else limits.PAGE_BYTES_MAX,
        )
        handle = self.dispatcher.submit(request)
        patience = seconds * rng.random() if rng.random() < 0.15 else None
        pause = rng.choice((0.0, 0.0, 0.2)) if is_stream else 0.0
        got: list[bytes] = []
        try:
            async with asyncio.timeout(patience):
                if is_stream:
                    async with contextlib.aclosing(handle.stream()) as chunks:
                        async for chunk in chunks:
                            got.append(chunk)
                            if pause:
                                await asyncio.sleep(pause)
                    result = handle.result
                else:
                    page = await handle.page()
                    got, result = list(page.chunks), page.result
        except TimeoutError:
            self.note("gave up")
            return
        except LenswayError as error:
            self._failed(error, started, seconds)
            return
        self._complete(job, parts, size, b"".join(got), result, handle)
        if not pause:
            self.check(self.loop.time() <= started + seconds + 1.0, "I2: an outcome by deadline + 1 s")

    def _failed(self, error: LenswayError, started: float, seconds: float) -> None:
        self.note(error.code.value)
        self.check(error.code in _OUTCOMES, f"I1: a known outcome, not {error.code.value} ({error})")
        self.check(self.loop.time() <= started + seconds + 1.0 + 10.0 * self.latency + 30.0 * 0.2, "I2: promptly")

    def _complete(self, job: int, parts: int, size: int, body: bytes, result: bytes, handle: Any) -> None:
        end = decode_end(result)
        attempt = body[: body.index(b";")].split(b".")[1].decode()
        wanted = b"".join(row(job, int(attempt), part, size) for part in range(parts))
        self.check(body == wanted, "I3: rows of exactly one attempt, in order and complete")
        self.check(end.rows == parts, "I3: the end mark counts them")
        executed = handle.record.executed
        self.check(executed <= limits.ATTEMPTS_MAX, "at most three attempts")
        self.note("completed by " + ("inline" if handle.record.placed_at().runner is None else "a runner"))
        if executed > 1:
            self.note("completed after a loss")
        if any(each.cause == "unanswered" for each in handle.record.attempts):
            self.note("an offer went elsewhere")
        if handle.record.waited_at is not None:
            self.note("waited for a runner")

    # --- the story ----------------------------------------------------------------------------------------------------------

    async def nemesis(self) -> None:
        """Faults for a while."""
        rng = self.random
        until = self.loop.time() + FAULT_SECONDS
        while self.loop.time() < until:
            await asyncio.sleep(rng.expovariate(1.0))
            slot = rng.choice(self.slots)
            fault = rng.random()
            if fault < 0.2:
                await self.kill(slot)
            elif fault < 0.45:
                self.start(slot)
            elif fault < 0.55 and slot.link is not None:
                self.note("frozen")
                slot.link.freeze(to_gateway=rng.random() < 0.7, to_runner=rng.random() < 0.7)
            elif fault < 0.62 and slot.link is not None:
                slot.link.freeze(to_gateway=False, to_runner=False)
            elif fault < 0.7 and slot.link is not None:
                self.note("cut")
                slot.link.cut()
            elif fault < 0.8:
                await self.assign(slot)
            elif fault < 0.88:
                await self.unassign(slot)
            elif fault < 0.92:
                self.drain(slot)
            elif fault < 0.96:
                self.note("broken place")
                self.broken_places ^= {slot.name}
            else:
                self.is_listening = not self.is_listening

    async def heal(self) -> None:
        """One runner up and assigned, nothing broken."""
        self.broken_places.clear()
        self.is_listening = True
        for slot in self.slots:
            if slot.link is not None:
                slot.link.freeze(to_gateway=False, to_runner=False)
        survivor = self.slots[0]
        if survivor.task is not None and survivor.agent is not None and survivor.agent.state in ("draining", "stopped"):
            await asyncio.gather(survivor.task, return_exceptions=True)
        self.start(survivor)
        await self.assign(survivor)

    async def run(self) -> Outcome:
        """Found, disturb, heal, look."""
        await self.found()
        for slot in self.slots[: self.random.randint(0, RUNNERS)]:
            self.start(slot)
            if self.random.random() < 0.8:
                await self.assign(slot)
        nemesis = self.loop.create_task(self.nemesis())
        callers: list[asyncio.Task[None]] = []
        for _ in range(self.random.randint(8, 24)):
            await asyncio.sleep(self.random.expovariate(1.2))
            callers.append(self.loop.create_task(self.call()))
        await nemesis
        await self.heal()
        # Liveness: healed, every later caller is served.
        await asyncio.sleep(25.0)
        callers += [self.loop.create_task(self._must_be_served()) for _ in range(3)]
        await asyncio.gather(*callers)
        await asyncio.sleep(25.0)
        self._nothing_left()
        await self._end()
        return Outcome(self.reached, self.trace.hexdigest())

    async def _must_be_served(self) -> None:
        self._jobs += 1
        request = JobRequest(
            request=RequestId(str(self._jobs)),
            environment=self.environment,
            source=self.source,
            kind="rows",
            payload=f"{self._jobs} 1 40 1".encode(),
            format="json",
            deadline=self.loop.time() + 10.0,
            release=Release.AT_END,
            rows_max=10,
            bytes_max=10**6,
            row_bytes_max=10**6,
            page_bytes_max=10**6,
        )
        try:
            await self.dispatcher.submit(request).page()
        except LenswayError as error:
            self.check(False, f"liveness: a healed deployment serves, not {error.code.value} ({error})")

    def _nothing_left(self) -> None:
        core = self.dispatcher.core
        self.check(core.jobs_count == 0, "no job is left without an outcome")
        self.check(core.held_bytes == 0, "I8: nothing is held for jobs that are over")
        for session in core.fleet.sessions.values():
            self.check(session.load.outstanding == 0, "every reservation was given back")
        for library in (self.inline_library, *(slot.library for slot in self.slots if slot.library is not None)):
            self.check(not library.running, f"I7: no statement runs for nobody on {library.place}: {library.running}")

    async def _end(self) -> None:
        for slot in self.slots:
            await self.kill(slot)
        await asyncio.gather(*(task for slot in self.slots for task in slot.link_tasks), return_exceptions=True)
        await self.executor.close()
        self.dispatcher.close()


def simulate(seed: int) -> Outcome:
    """Run the scenario of this seed. Raises ViolationError with the seed when a promise is broken."""
    loop = VirtualLoop()

    async def main() -> Outcome:
        try:
            return await World(seed, loop).run()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    try:
        return run_virtual(main(), loop)
    except ViolationError:
        raise
    except Exception as error:
        raise ViolationError(f"{type(error).__name__}: {error} (seed {seed})") from error
