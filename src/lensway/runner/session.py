"""One session with the gateway: moves messages, feeds the session machine, applies sets, answers offers.

Lives as long as its link. When it is over, every statement of it has been cancelled: by the gateway's word, by a broken link,
or by the fence, when nothing that was sent has been acknowledged for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Hashable
from typing import Final, Protocol

import structlog

from lensway import limits
from lensway.auth.sealing import InstanceKeys
from lensway.clock import Clock
from lensway.observe.trace import Tracer
from lensway.protocol.codec import Decoder
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import (
    Accept,
    AnyFrame,
    Close,
    CloseReason,
    Heartbeat,
    Hello,
    JobKind,
    Offer,
    Refuse,
    RefuseReason,
    Welcome,
)
from lensway.protocol.outbox import Outbox
from lensway.protocol.pace import Pace
from lensway.protocol.runner_session import (
    Applied,
    Assigned,
    Beat,
    Begin,
    Drained,
    EndSession,
    Leave,
    Offered,
    Ordered,
    Over,
    Resumed,
    RunnerInstruction,
    RunnerSession,
    RunnerWord,
    Send,
    Tick,
    Welcomed,
)
from lensway.protocol.transport import Transport, TransportClosedError
from lensway.runner.jobs import Jobs
from lensway.runner.journal import JobNote
from lensway.runner.library import Library
from lensway.runner.policy import PolicyInForce
from lensway.runner.sources import AssignedSources, Opener, ServedSource
from lensway.transitions import IllegalTransitionError

_log = structlog.get_logger("lensway.runner")

_SILENT: Final = frozenset({"heartbeat_lost", "no_welcome"})


class Observer(Protocol):
    """Who wants to know how the session goes."""

    def welcomed(self, welcome: Welcome) -> None:
        """The session is open."""

    def set_applied(self, revision: int, sources: AssignedSources) -> None:
        """A set is in force."""

    def drained(self, reason: str, after_ms: int) -> None:
        """The gateway gives no new work."""

    def resumed(self) -> None:
        """The gateway's drain is over."""


class SessionParts:
    """What outlives a session: the executor, the served sources, and the identity of this process."""

    def __init__(
        self,
        *,
        library: Library,
        sources: AssignedSources,
        policy: PolicyInForce,
        keys: InstanceKeys,
        hello: Hello,
        clock: Clock,
        observer: Observer,
        loop_lag: Callable[[], float],
        stood_still: Callable[[], bool],
        forget: Callable[[Hashable], None],
        tracer: Tracer | None = None,
        note: Callable[[JobNote], None] | None = None,
    ) -> None:
        self.library = library
        self.sources = sources
        self.policy = policy
        self.keys = keys
        self.hello = hello
        self.clock = clock
        self.observer = observer
        self.loop_lag = loop_lag
        self.stood_still = stood_still
        self.forget = forget
        self.tracer = tracer
        self.note = note


class Session:
    """One connection, from its first frame to its last."""

    def __init__(self, transport: Transport, parts: SessionParts) -> None:
        self.close: Close | None = None
        self.cause = ""
        self.welcomed_at: float | None = None
        self.told_seconds = 0.0
        self._transport = transport
        self._parts = parts
        self._clock = parts.clock
        self._machine = RunnerSession(self._clock.monotonic())
        self._outbox = Outbox()
        self._pace = Pace()
        self._decoder = Decoder()
        self._to_send = asyncio.Event()
        self._wake_moved = asyncio.Event()
        self._is_over = False
        self._runner_name = ""
        self._environment = ""
        self._wall_ms_offset = 0.0
        self._has_news = False
        self._to_apply: Assigned | None = None
        self._accepting: asyncio.TimerHandle | None = None
        self.jobs = Jobs(
            parts.library,
            parts.sources,
            parts.policy,
            capacity=parts.hello.capacity,
            clock=parts.clock,
            outbox=self._outbox,
            wake=self._to_send.set,
            report=self._report_soon,
            forget=parts.forget,
            tracer=parts.tracer,
            note=parts.note,
        )

    # --- life -------------------------------------------------------------------------------------------------------------

    async def serve(self) -> str:
        """Serve until the session is over; why it ended. Every statement is cancelled before this returns."""
        self._say(Begin(self._parts.hello))
        tasks = [
            asyncio.create_task(self._read(), name="session reader"),
            asyncio.create_task(self._write(), name="session writer"),
            asyncio.create_task(self._keep_time(), name="session timer"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self.cause = self.cause or _cause_of(ended)
            if self._accepting is not None:
                self._accepting.cancel()
            await self.jobs.stop()
            await self._farewell()
        return self.cause

    async def leave(self, reason: str, grace_seconds: float) -> None:
        """Take nothing new, finish what runs within the grace, hand the rest back, and end the session."""
        if not self._say(Leave(reason)):
            # Not welcome yet, so there is nothing to finish; a wait for the welcome would never end.
            self._say(EndSession(CloseReason.GOING_AWAY))
            return
        try:
            async with asyncio.timeout(grace_seconds):
                await self.jobs.wait_idle()
        except TimeoutError:
            self.jobs.hand_back()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.CANCEL_SECONDS):
                    await self.jobs.wait_idle()
        self._say(EndSession(CloseReason.GOING_AWAY))

    def report(self) -> None:
        """Tell the gateway what changed of the sources, at once."""
        self._report_soon()

    async def _farewell(self) -> None:
        # A silent link does not deliver a last word; on others it is worth a moment.
        if self.cause not in _SILENT:
            with contextlib.suppress(TransportClosedError, TimeoutError, ProtocolError):
                async with asyncio.timeout(limits.FAREWELL_SECONDS):
                    while message := self._outbox.take():
                        await self._transport.send(message)
                    await self._transport.close()
        self._transport.abort()

    async def _read(self) -> None:
        try:
            count = 0
            while not self._is_over:
                message: bytes = await self._transport.recv()
                count += await self._take(message)
                while self._decoder.has_more and not self._is_over:
                    await asyncio.sleep(0)
                    await self._take(b"")
                if count >= limits.FRAMES_AT_ONCE_MAX:
                    # Messages that have arrived already are read without waiting: what runs gets its turn in between.
                    count = 0
                    await asyncio.sleep(0)
        except ProtocolError as error:
            _log.warning("the gateway broke the protocol", cause=error.cause)
            self.cause = error.cause
            self._say(EndSession(error.reason, error.cause))

    async def _take(self, message: bytes) -> int:
        """Handle some frames; how many. Raises ProtocolError."""
        for frame in self._decoder.feed(message, limits.FRAMES_AT_ONCE_MAX):
            self._perform(self._machine.handle(frame, self._clock.monotonic()))
            if self._is_over:
                break
            if self._to_apply is not None:
                # Nothing that follows is handled before: an offer depends on the set before it.
                wanted, self._to_apply = self._to_apply, None
                await self._apply(wanted)
        return self._decoder.parsed

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            await self._ask_for_proof()
            while True:
                room = self._pace.room_bytes
                self.jobs.fill(room)
                message = self._outbox.take(room)
                if message is None:
                    break
                await self._transport.send(message)
                self._pace.sent(len(message))
                await self._ask_for_proof()
            self.jobs.fill(self._pace.room_bytes)
            if self._is_over:
                return

    async def _ask_for_proof(self) -> None:
        mark = self._pace.ask()
        if mark is not None:
            await self._transport.prove(functools.partial(self._arrived, mark, self._clock.monotonic()))

    def _arrived(self, mark: int, asked_at: float) -> None:
        self._pace.proven(mark, self._clock.monotonic() - asked_at)
        self._to_send.set()

    async def _keep_time(self) -> None:
        while not self._is_over:
            wake = self._machine.next_wake()
            pause = None if wake is None else max(0.0, wake - self._clock.monotonic())
            self._wake_moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake_moved.wait()
                continue
            self._say(Tick())

    # --- the session machine ------------------------------------------------------------------------------------------------

    def _say(self, word: RunnerWord) -> bool:
        try:
            instructions = self._machine.handle(word, self._clock.monotonic())
        except IllegalTransitionError:
            return False
        self._perform(instructions)
        return True

    def _perform(self, instructions: list[RunnerInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send():
                    self._put(instruction.frame)
                case Beat():
                    self._beat(instruction)
                case Offered():
                    self._answer(instruction.offer)
                case Ordered():
                    self.jobs.order(instruction.order)
                case Assigned():
                    self._to_apply = instruction
                case Welcomed():
                    self._on_welcome(instruction.welcome)
                case Drained():
                    self.told_seconds = told_seconds(instruction.after_ms)
                    self._parts.observer.drained(instruction.reason, instruction.after_ms)
                case Resumed():
                    self._parts.observer.resumed()
                case Over():
                    self._on_over(instruction)

    def _put(self, frame: AnyFrame) -> None:
        self._outbox.put(frame)
        self._to_send.set()

    def _put_soon(self, frame: Accept) -> None:
        # Most queries end within this moment: accept and end then share one message, which spares both sides a wake-up.
        self._outbox.put(frame)
        if self._accepting is None:
            delay = limits.ACCEPT_DELAY_SECONDS
            self._accepting = asyncio.get_running_loop().call_later(delay, self._accept_now)

    def _accept_now(self) -> None:
        self._accepting = None
        if self._outbox:
            self._to_send.set()

    def _beat(self, beat: Beat) -> None:
        self._has_news = False
        self._put(
            Heartbeat(
                sequence=beat.sequence,
                ack=beat.ack,
                revision=beat.revision,
                jobs=self.jobs.held,
                loop_lag_ms=int(self._parts.loop_lag() * 1000),
                draining=beat.is_draining,
                source_states=self._parts.sources.take_changes(),
                notices=self._parts.policy.notices,
            )
        )
        if self._parts.sources.has_changes:
            self._report_soon()

    def _report_soon(self) -> None:
        # News travel with the set's confirmation, which may be repeated at any time: no heartbeat has to be waited for.
        if not self._has_news:
            self._has_news = True
            asyncio.get_running_loop().call_soon(self._report_now)

    def _report_now(self) -> None:
        if not self._has_news or self._is_over:
            return
        self._has_news = False
        while changes := self._parts.sources.take_changes():
            self._say(Applied(self._machine.revision_in_force, changes))

    def _on_welcome(self, welcome: Welcome) -> None:
        now = self._clock.monotonic()
        self.welcomed_at = now
        self._runner_name = welcome.runner_name
        self._environment = welcome.environment
        self._wall_ms_offset = welcome.wall_ms - now * 1000
        self._wake_moved.set()
        self._parts.observer.welcomed(welcome)

    def _opener(self) -> Opener:
        return Opener(
            keys=self._parts.keys,
            environment=self._environment,
            runner=self._parts.hello.runner,
            wall_ms=lambda: int(self._wall_ms_offset + self._clock.monotonic() * 1000),
        )

    async def _apply(self, wanted: Assigned) -> None:
        unused = await self._parts.sources.apply(wanted.sources, self._opener())
        for key in unused:
            # What runs on it finishes where it was accepted; its connections close behind it.
            self._parts.forget(key)
        states = self._parts.sources.states()
        for start in range(0, max(1, len(states)), limits.SOURCE_STATES_MAX):
            self._say(Applied(wanted.revision, states[start : start + limits.SOURCE_STATES_MAX]))
        self._parts.observer.set_applied(wanted.revision, self._parts.sources)

    def _answer(self, offer: Offer) -> None:
        spec: ServedSource | None = None
        if self._parts.stood_still():
            # The gateway that offered this has given up on this runner meanwhile.
            self._refuse_stale(offer)
            return
        if offer.spec is not None and offer.kind is JobKind.TEST and self._parts.sources.get(offer.source) is None:
            spec = self._parts.sources.resolve_unassigned(offer.spec, self._opener())
        answer = self.jobs.answer(offer, revision=self._machine.revision_in_force, spec=spec)
        if isinstance(answer, Accept):
            self._put_soon(answer)
        else:
            self._put(answer)

    def _refuse_stale(self, offer: Offer) -> None:
        revision = self._machine.revision_in_force
        self._put(Refuse(job=offer.job, attempt=offer.attempt, reason=RefuseReason.STALE, revision=revision))

    def _on_over(self, over: Over) -> None:
        self._is_over = True
        self.cause = self.cause or over.cause
        self.close = over.close
        if over.close is not None:
            self.told_seconds = told_seconds(over.close.after_ms) or self.told_seconds
        self._wake_moved.set()
        self._to_send.set()


def told_seconds(after_ms: int) -> float:
    """When a gateway says to dial again, bounded: no gateway sends a runner away for good."""
    return min(after_ms / 1000, limits.TOLD_SECONDS_MAX)


def _cause_of(ended: list[BaseException | None]) -> str:
    for error in ended:
        if isinstance(error, TransportClosedError):
            return error.cause
        if isinstance(error, Exception):
            _log.error("session failed by a defect", error=type(error).__name__, exc_info=error)
            return "internal"
    return "closed"
