"""One connected runner: moves messages, feeds the session machine, and carries dispatch's orders out.

Two tasks live as long as the link: a reader, and a writer for what the transport does not take at once. The first to end takes
the other with it. Time comes as one callback. This keeps thousands of idle links cheap: a heartbeat wakes
no task to be sent. Dispatch hears `SessionLost` exactly once for every session that it was told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from lensway import limits
from lensway.auth import sealing
from lensway.catalog.records import Runner, RunnerToken
from lensway.catalog.rules.runners import is_token_good
from lensway.clock import Clock
from lensway.dispatch.core.events import (
    Event,
    RefusalKind,
    Refused,
    SendCancel,
    SendCredit,
    SendOffer,
    SessionAlive,
    SessionAssigned,
    SessionDraining,
    SessionHeard,
    SessionLost,
    SessionMarked,
    SessionReported,
)
from lensway.dispatch.core.ports import RunnerLink
from lensway.fleet import Fleet, SessionFacts, Timings
from lensway.gateway.orders import answer_event, clipped, known_bridges, offer_frame, states_of
from lensway.gateway.sets import AssignmentSets, SealedSources
from lensway.ids import InstanceId, SessionId
from lensway.protocol.allowance import Allowance
from lensway.protocol.codec import Decoder
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import AssignedSource, Cancel, CloseReason, Credit, Hello, Welcome
from lensway.protocol.gateway_session import (
    Admit,
    Alive,
    Answered,
    Finish,
    GatewayInstruction,
    GatewaySession,
    GatewayWord,
    Give,
    Heard,
    InForce,
    Introduced,
    Order,
    OrderDrain,
    OrderResume,
    Over,
    PeerLeaves,
    Push,
    Reported,
    Repush,
    Send,
    Tick,
)
from lensway.protocol.outbox import Outbox
from lensway.protocol.transport import Transport, TransportClosedError
from lensway.protocol.version import FEATURES, choose_features, choose_version
from lensway.query.plan import FEATURES as PLAN_FEATURES
from lensway.transitions import IllegalTransitionError

_log = structlog.get_logger("lensway.gateway")

_FEATURES: Final = (*FEATURES, *PLAN_FEATURES)
_CLOSE_REASONS: Final = {reason.value: reason for reason in CloseReason}


class Dispatch(Protocol):
    """What a link needs of the dispatcher."""

    def handle(self, event: Event) -> None:
        """Take an event."""

    def next_session_id(self) -> SessionId:
        """A number greater than all before."""

    def open_session(self, facts: SessionFacts, link: RunnerLink) -> None:
        """A runner is connected; from now on orders may come."""

    @property
    def fleet(self) -> Fleet:
        """The sessions of this node, to read."""


class Link:
    """Implements `lensway.dispatch.core.ports.RunnerLink` for one connection of an authenticated runner."""

    def __init__(
        self,
        transport: Transport,
        runner: Runner,
        *,
        dispatch: Dispatch,
        sets: AssignmentSets,
        clock: Clock,
        address: str,
        token_hash: bytes,
        push_is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.runner = runner
        self._judged: Runner | None = None
        self._ours: list[RunnerToken] = []
        self.token_hash = token_hash
        self.session_id: SessionId | None = None
        self._transport = transport
        self._dispatch = dispatch
        self._sets = sets
        self._clock = clock
        self._address = address
        self._push_is_lost = push_is_lost
        self.since = clock.monotonic()
        self._session = GatewaySession(self.since)
        self._outbox = Outbox()
        self._decoder = Decoder()
        self._allowance = Allowance(clock.monotonic(), per_second=limits.FRAMES_PER_SECOND, burst=limits.FRAMES_BURST)
        self._unpaid = 0
        self._flooding_since: float | None = None
        self._pushes = Allowance(clock.monotonic(), per_second=limits.PUSHES_PER_SECOND, burst=limits.PUSHES_BURST)
        self._sealed: SealedSources = {}
        self._loop = asyncio.get_running_loop()
        self._to_send = asyncio.Event()
        self._is_writing = False
        self._flushing: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._public_key = b""
        self._over_cause: str | None = None
        self._is_ordered_to_drain = False

    # --- life -------------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve the connection until it is over. Never raises but for cancellation."""
        tasks = [
            asyncio.create_task(self._read(), name="link reader"),
            asyncio.create_task(self._write(), name="link writer"),
        ]
        self._set_timer()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._over_cause is None and not tasks[0].done():
                # The writer found the link closed; an end that has arrived before that is still the outcome of its job.
                await asyncio.wait(tasks[:1], timeout=limits.CLOSE_TIMEOUT_SECONDS)
        finally:
            for waiting in (*tasks, self._timer, self._flushing):
                if waiting is not None:
                    waiting.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._is_gone(self._over_cause or _cause_of(tasks))
            await self._farewell()

    def _is_gone(self, cause: str) -> None:
        self._over_cause = self._over_cause or cause
        if self.session_id is not None:
            session, self.session_id = self.session_id, None
            _log.info("session lost", runner=self.runner.name, session=session, cause=cause)
            self._dispatch.handle(SessionLost(session, cause))

    async def _farewell(self) -> None:
        # The last word (Close with its reason) is worth a moment, never more; a silent link would not deliver it.
        if self._over_cause != CloseReason.HEARTBEAT_LOST.value:
            with contextlib.suppress(TransportClosedError, TimeoutError, ProtocolError):
                async with asyncio.timeout(limits.FAREWELL_SECONDS):
                    while message := self._outbox.take():
                        await self._transport.send(message)
                    await self._transport.close()
        self._transport.abort()

    async def _read(self) -> None:
        try:
            while self._over_cause is None:
                message: bytes = await self._transport.recv()
                count = self._take(message)
                self._unpaid += (count or 1) - len(message) // limits.FRAME_FREE_BYTES
                while self._decoder.has_more and self._over_cause is None:
                    await self._pay()
                    count = self._take(b"")
                    self._unpaid += count
                # Not after each message: most are an answer or two, and were paid for by an offer.
                if not -limits.FRAMES_BURST < self._unpaid < limits.FRAMES_AT_ONCE_MAX:
                    await self._pay()
        except ProtocolError as error:
            _log.warning("runner broke the protocol", runner=self.runner.name, cause=error.cause)
            self._say(Finish(error.reason, error.cause))

    def _take(self, message: bytes) -> int:
        """Handle some frames; how many. Raises ProtocolError."""
        for frame in self._decoder.feed(message, limits.FRAMES_AT_ONCE_MAX):
            self._perform(self._session.handle(frame, self._clock.monotonic()))
            if self._over_cause is not None:
                break
        return self._decoder.parsed

    async def _pay(self) -> None:
        """Give other links their turn, and do not read on while the runner has sent more than it may."""
        count, self._unpaid = self._unpaid, 0
        self._allowance.per_second = (
            limits.FRAMES_PER_SECOND + limits.FRAMES_PER_ATTEMPT_SECOND * self._session.open_attempts
        )
        pause = self._allowance.spend(count, self._clock.monotonic())
        if not pause:
            self._flooding_since = None
        elif self._flooding_since is None:
            self._flooding_since = self._clock.monotonic()
        elif self._clock.monotonic() - self._flooding_since > limits.FLOOD_SECONDS_MAX:
            raise ProtocolError("too_many_frames", reason=CloseReason.OVERLOADED)
        while pause > 0 and self._over_cause is None:
            await asyncio.sleep(min(pause, limits.PAUSE_SECONDS_MAX))
            pause -= limits.PAUSE_SECONDS_MAX
        await asyncio.sleep(0)  # messages that have arrived already are read without waiting

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            self._is_writing = True
            while message := self._outbox.take():
                await self._transport.send(message)
            self._is_writing = False
            if self._over_cause is not None:
                return

    def _send_soon(self) -> None:
        # Other frames of this turn of the loop share the message.
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits for as long as the transport takes it; the rest, and a link that is over, is the writer's."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        try:
            while self._outbox and not self._is_writing and self._transport.is_ready:
                self._transport.send_now(self._outbox.take() or b"")
        except Exception as error:  # noqa: BLE001 - the boundary of one link
            self._fail(error)
        if self._outbox or self._over_cause is not None:
            self._to_send.set()

    def _set_timer(self) -> None:
        """Be called when the machine wants to be, and at no other time. A link that is over is cut soon, even while it waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._over_cause is not None:
            # A writer whose peer takes nothing would wait on, and with it the link.
            self._timer = self._loop.call_later(limits.FAREWELL_SECONDS, self._transport.abort)
            return
        wake = self._session.next_wake()
        if wake is not None:
            pause = max(0.0, wake - self._clock.monotonic())
            self._timer = self._loop.call_later(pause, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        try:
            if not self._is_token_good():
                self.finish(CloseReason.UNAUTHENTICATED, "the token was rotated out")
            try:
                self._say(Tick())
            except ProtocolError as error:
                self._say(Finish(error.reason, error.cause))
        except Exception as error:  # noqa: BLE001 - the boundary of one link
            self._fail(error)
        self._flush()
        self._set_timer()

    def _fail(self, error: Exception) -> None:
        _log.error("link failed", runner=self.runner.name, error=type(error).__name__, exc_info=error)
        self._is_gone("internal")
        self._set_timer()
        self._to_send.set()

    def _is_token_good(self) -> bool:
        if self.runner is not self._judged:
            self._judged = self.runner
            self._ours = [token for token in self.runner.tokens if token.hash == self.token_hash]
        return any(
            # The time is asked for only where there is an end: this is part of every heartbeat.
            token.expires_at is None or is_token_good(token, at=self._clock.wall().isoformat())
            for token in self._ours
        )

    # --- the session machine ------------------------------------------------------------------------------------------------

    def _say(self, word: GatewayWord) -> bool:
        """Hand a word to the machine; False when the session is past it. Raises ProtocolError."""
        try:
            instructions = self._session.handle(word, self._clock.monotonic())
        except IllegalTransitionError:
            return False
        self._perform(instructions)
        return True

    def _perform(self, instructions: list[GatewayInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send():
                    self._outbox.put(instruction.frame)
                    self._send_soon()
                case Answered():
                    self._tell(functools.partial(_answered, instruction))
                case Alive():
                    self._tell(SessionAlive)
                case Heard():
                    self._tell(SessionHeard)
                case Reported():
                    self._report(instruction.revision, instruction.jobs, instruction)
                case InForce():
                    self._report(instruction.revision, None, instruction)
                case Introduced():
                    self._admit(instruction.hello)
                case PeerLeaves():
                    self._tell(SessionDraining)
                case Repush():
                    self._push()
                case Over():
                    self._is_gone(instruction.cause)
                    self._set_timer()
                    self._to_send.set()

    def _tell(self, event: Callable[[SessionId], Event]) -> None:
        if self.session_id is not None:
            self._dispatch.handle(event(self.session_id))

    def _report(self, revision: int, jobs: tuple[tuple[int, int], ...] | None, said: Reported | InForce) -> None:
        draining = said.is_draining if isinstance(said, Reported) else self._is_leaving
        states = states_of(said.source_states)
        notices = said.notices if isinstance(said, Reported) else None
        self._tell(lambda session: SessionReported(session, revision, jobs, draining, states, notices))

    @property
    def _is_leaving(self) -> bool:
        return self._session.state.value == "leaving"

    def _admit(self, hello: Hello) -> None:
        if hello.runner != self.runner.id:
            self._say(Finish(CloseReason.UNAUTHENTICATED, "the token belongs to another runner"))
            return
        try:
            version = choose_version(hello.versions)
        except ProtocolError as error:
            self._say(Finish(error.reason, "no common protocol version: upgrade the older side"))
            return
        if not sealing.is_usable(hello.public_key):
            self._say(Finish(CloseReason.PROTOCOL_ERROR, "this public key cannot be used for sealing"))
            return
        others = sum(
            session.facts.instance != hello.instance for session in self._dispatch.fleet.sessions_of(self.runner.id)
        )
        if others >= limits.SESSIONS_PER_RUNNER_MAX:
            self._say(Finish(CloseReason.TOO_MANY_INSTANCES, f"{others} instances are connected", after_ms=30_000))
            return
        self._public_key = hello.public_key
        session = self._dispatch.next_session_id()
        timings = self._dispatch.fleet.timings_for_next()
        self._say(Admit(self._welcome(hello, version, session, timings)))
        self._set_timer()
        # The set stands in the lane before the first offer can.
        self.push_set()
        if self.runner.is_draining:
            self._order_drain()
        if self._over_cause is not None:
            return  # its set cannot be said: dispatch never hears of it
        self.session_id = session
        facts = SessionFacts(
            session=session,
            environment=self.runner.environment,
            runner=self.runner.id,
            runner_name=self.runner.name,
            instance=InstanceId(hello.instance),
            bridges=known_bridges(hello.bridges),
            capacity=hello.capacity,
            software=clipped(hello.software),
            hostname=clipped(hello.hostname),
            address=self._address,
            version=version,
            timings=timings,
            encodings=frozenset(map(clipped, hello.encodings)),
            features=frozenset(choose_features(hello.features, _FEATURES)),
        )
        _log.info("session opened", runner=self.runner.name, session=session, instance=hello.instance)
        self._dispatch.open_session(facts, self)

    def _welcome(self, hello: Hello, version: int, session: SessionId, timings: Timings) -> Welcome:
        return Welcome(
            version=version,
            session=session,
            runner_name=self.runner.name,
            environment=self.runner.environment,
            heartbeat_ms=int(timings.heartbeat_seconds * 1000),
            fence_ms=int(timings.runner_fence_seconds * 1000),
            nonce=secrets.token_bytes(16),
            features=choose_features(hello.features, _FEATURES),
            wall_ms=self._sets.wall_ms(),
        )

    # --- changes of the catalog -----------------------------------------------------------------------------------------------

    def adopt(self, runner: Runner | None) -> None:
        """The runner as the newest snapshot has it; None when it is gone. Pushes, drains, resumes or ends as it takes."""
        before, self.runner = self.runner, runner or self.runner
        if runner is None or runner.is_revoked:
            self.finish(CloseReason.REVOKED, "the runner was revoked" if runner else "the runner was deleted")
        elif all(token.hash != self.token_hash for token in runner.tokens):
            self.finish(CloseReason.UNAUTHENTICATED, "the token was rotated out")
        elif self.session_id is not None:
            if runner.set_revision != before.set_revision:
                self._push(is_lost=self._push_is_lost())
                sources = self._sets.sources_of(runner)
                self._tell(lambda session: SessionAssigned(session, sources))
            if runner.is_draining != self._is_ordered_to_drain:
                self._order_drain() if runner.is_draining else self._order_resume()

    def _order_drain(self) -> None:
        self._is_ordered_to_drain = True
        self._say(OrderDrain("by order of an operator"))
        self._tell(SessionMarked)

    def _order_resume(self) -> None:
        self._is_ordered_to_drain = False
        self._say(OrderResume())
        self._tell(SessionMarked)

    def go_away(self, after_ms: int) -> None:
        """This node stops: no new work for the runner here; it is to dial again after ``after_ms``."""
        if self.session_id is not None:
            self._say(OrderDrain("the server stops", after_ms))

    def finish(self, reason: CloseReason, message: str = "", *, after_ms: int = 0) -> None:
        """End the session with a last word."""
        if not self._say(Finish(reason, message, after_ms)):
            self._transport.abort()

    # --- orders of dispatch ---------------------------------------------------------------------------------------------------

    def offer(self, order: SendOffer) -> None:
        """Write the offer behind the set it depends on."""
        spec: AssignedSource | None = None
        if order.request.unassigned:
            spec = self._sets.spec_of(self.runner, order.request.source, self._public_key)
        self._unpaid = max(self._unpaid - limits.FRAMES_PER_OFFER, -limits.FRAMES_BURST)
        if not self._give(offer_frame(order, spec)):
            self._tell(lambda session: Refused(session, order.job, order.attempt, RefusalKind.UNWRITTEN))

    def cancel(self, order: SendCancel) -> None:
        """Write the cancel."""
        self._give(Cancel(job=order.job, attempt=order.attempt, reason=order.reason))

    def credit(self, order: SendCredit) -> None:
        """Write the credit."""
        self._give(Credit(job=order.job, attempt=order.attempt, bytes=order.bytes))

    def push_set(self) -> None:
        """Write the wanted set again, unless it was too often: then the heartbeats tell whether it is still wanted."""
        if self._pushes.take(self._clock.monotonic()):
            self._push()

    def _push(self, *, is_lost: bool = False) -> None:
        sources = self._sets.set_of(self.runner, self._public_key, self._sealed)
        try:
            self._say(Push(self.runner.set_revision, sources, is_lost=is_lost))
        except ProtocolError as error:
            self._say(Finish(error.reason, error.cause))

    def close(self, cause: str) -> None:
        """Abort the connection; dispatch has already ended the session."""
        self.session_id = None
        reason = _CLOSE_REASONS.get(cause, CloseReason.GOING_AWAY)
        self._over_cause = self._over_cause or cause
        self._say(Finish(reason))
        self._set_timer()
        self._to_send.set()

    def _give(self, order: Order) -> bool:
        if self._over_cause is not None:
            return False
        try:
            return self._say(Give(order))
        except ProtocolError as error:
            self._say(Finish(error.reason, error.cause))
            return False


def _answered(answered: Answered, session: SessionId) -> Event:
    return answer_event(session, answered.frame)


def _cause_of(tasks: list[asyncio.Task[None]]) -> str:
    for task in tasks:
        if task.cancelled():
            continue
        error = task.exception()
        if isinstance(error, TransportClosedError):
            return error.cause
        if error is not None:
            _log.error("link failed", exc_info=error, error=type(error).__name__)
            return "internal"
    return "closed"
