"""The gateway's side of one session: handshake, heartbeats, assignment sets, which attempt may say what. No I/O.

Sign of life: a heartbeat that acknowledges one of ours that is fresh. The acknowledgement proves both directions; freshness
(half a heartbeat beyond two intervals) keeps bytes that a network held back from passing for life. Rows are heard, and prove
one direction. Who is suspect or dead is decided elsewhere, from these signs.

A push that was lost is noticed without timers: heartbeats share the control lane with sets, so a runner that acknowledges a
heartbeat sent *after* a set has seen the set. If it then echoes another revision, the set is pushed again.

A runner is not trusted to be brief: states of sources that were never pushed to it are dropped before anything is kept, and
reports beyond a rate are merged and take effect with our next heartbeat.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeAlias, cast

import msgspec

from lensway.limits import (
    ATTEMPTS_OPEN_MAX,
    END_MARK_BYTES_MAX,
    FRESH_HEARTBEATS,
    HANDSHAKE_TIMEOUT_SECONDS,
    HEARTBEAT_GRID_SECONDS,
    PUSHES_BURST,
    PUSHES_PER_SECOND,
    REPORTS_BURST,
    REPORTS_PER_SECOND,
)
from lensway.protocol.allowance import Allowance
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import (
    Accept,
    AnyFrame,
    AssignedSource,
    AssignmentInForce,
    Cancel,
    Close,
    CloseReason,
    Credit,
    Data,
    Drain,
    End,
    Fail,
    Heartbeat,
    Hello,
    Offer,
    Refuse,
    Resume,
    SourceState,
    Welcome,
)
from lensway.protocol.session import HeartbeatNumbers, parts_of
from lensway.protocol.stream import ReceiveStream
from lensway.transitions import IllegalTransitionError, Machine, Table

_SPREAD: Final = (5**0.5 - 1) / 2
"""Multiples of the golden ratio lie as far apart as they can, modulo 1, however many there are."""

Key: TypeAlias = tuple[int, int]
Answer: TypeAlias = Accept | Refuse | Data | End | Fail
Order: TypeAlias = Offer | Credit | Cancel


class GatewayState(enum.Enum):
    """Where the gateway's side of a session stands."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    AWAITING_HELLO = "awaiting_hello"
    ADMITTING = "admitting"
    OPEN = "open"
    DRAINED = "drained"
    LEAVING = "leaving"
    CLOSED = "closed"


class GatewayStimulus(enum.Enum):
    """What can happen to it: frames of the runner, words of the gateway itself, the timer."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    HELLO = "hello"
    ADMIT = "admit"
    HEARTBEAT = "heartbeat"
    IN_FORCE = "in_force"
    ANSWER = "answer"
    PEER_DRAIN = "peer_drain"
    PEER_CLOSE = "peer_close"
    TICK = "tick"
    PUSH = "push"
    ORDER = "order"
    DRAIN = "drain"
    RESUME = "resume"
    CLOSE = "close"


def _serving(
    self: GatewayState, *, drain: GatewayState, resume: GatewayState
) -> Mapping[GatewayStimulus, GatewayState]:
    stays = (
        GatewayStimulus.HEARTBEAT,
        GatewayStimulus.IN_FORCE,
        GatewayStimulus.ANSWER,
        GatewayStimulus.TICK,
        GatewayStimulus.PUSH,
        GatewayStimulus.ORDER,
    )
    return dict.fromkeys(stays, self) | {
        GatewayStimulus.DRAIN: drain,
        GatewayStimulus.RESUME: resume,
        GatewayStimulus.PEER_DRAIN: GatewayState.LEAVING,
        GatewayStimulus.CLOSE: GatewayState.CLOSED,
        GatewayStimulus.PEER_CLOSE: GatewayState.CLOSED,
    }


GATEWAY_TABLE: Final = Table.nested(
    "The gateway's side",
    GatewayState.AWAITING_HELLO,
    {
        GatewayState.AWAITING_HELLO: {
            GatewayStimulus.HELLO: GatewayState.ADMITTING,
            GatewayStimulus.TICK: GatewayState.AWAITING_HELLO,
            GatewayStimulus.CLOSE: GatewayState.CLOSED,
            GatewayStimulus.PEER_CLOSE: GatewayState.CLOSED,
        },
        GatewayState.ADMITTING: {
            GatewayStimulus.ADMIT: GatewayState.OPEN,
            GatewayStimulus.CLOSE: GatewayState.CLOSED,
            GatewayStimulus.PEER_CLOSE: GatewayState.CLOSED,
        },
        GatewayState.OPEN: _serving(GatewayState.OPEN, drain=GatewayState.DRAINED, resume=GatewayState.OPEN),
        GatewayState.DRAINED: _serving(GatewayState.DRAINED, drain=GatewayState.DRAINED, resume=GatewayState.OPEN),
        # A runner that leaves never returns in the same session, not even when an operator resumes it.
        GatewayState.LEAVING: _serving(GatewayState.LEAVING, drain=GatewayState.LEAVING, resume=GatewayState.LEAVING),
        GatewayState.CLOSED: {},
    },
)


# --- the gateway's own words ------------------------------------------------------------------------------------------------


class Admit(msgspec.Struct, frozen=True, gc=False):
    """The runner of the hello is welcome."""

    welcome: Welcome


class Push(msgspec.Struct, frozen=True, gc=False):
    """This is the wanted set. ``is_lost`` (only ever set by tests) loses the frames on their way."""

    revision: int
    sources: tuple[AssignedSource, ...]
    is_lost: bool = False


class Give(msgspec.Struct, frozen=True, gc=False):
    """An order of dispatch for one attempt."""

    order: Order


class OrderDrain(msgspec.Struct, frozen=True, gc=False):
    """No new work: by order of an operator, or because this node goes away (``after_ms`` > 0)."""

    reason: str
    after_ms: int = 0


class OrderResume(msgspec.Struct, frozen=True, gc=False):
    """An operator's drain is over."""


class Finish(msgspec.Struct, frozen=True, gc=False):
    """End the session."""

    reason: CloseReason
    message: str = ""
    after_ms: int = 0


class Tick(msgspec.Struct, frozen=True, gc=False):
    """The time of `next_wake` has come."""


GatewayWord: TypeAlias = Admit | Push | Give | OrderDrain | OrderResume | Finish | Tick


# --- instructions -----------------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Queue the frame in the control lane."""

    frame: AnyFrame


class Introduced(msgspec.Struct, frozen=True, gc=False):
    """The runner said hello: decide, and answer with `Admit` or `Finish`."""

    hello: Hello


class Alive(msgspec.Struct, frozen=True, gc=False):
    """A sign of life."""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """Rows came in: it is not dead, whether or not it hears us."""


class Reported(msgspec.Struct, frozen=True, gc=False):
    """A heartbeat's facts, when they are news or an attempt is open. An attempt that was accepted and is not among ``jobs`` is
    provably lost: those that were offered too late for the runner to have named them are added here."""

    revision: int
    jobs: tuple[Key, ...]
    is_draining: bool
    source_states: tuple[SourceState, ...]
    notices: tuple[str, ...] = ()


class InForce(msgspec.Struct, frozen=True, gc=False):
    """A set is in force on the runner."""

    revision: int
    source_states: tuple[SourceState, ...]


class Answered(msgspec.Struct, frozen=True, gc=False):
    """The runner's word on an attempt that is open in this session, within its credit."""

    frame: Answer


class PeerLeaves(msgspec.Struct, frozen=True, gc=False):
    """The runner takes no new work and will close."""

    reason: str


class Repush(msgspec.Struct, frozen=True, gc=False):
    """The runner has provably not got the wanted set: push it again."""


class Over(msgspec.Struct, frozen=True, gc=False):
    """The session is over: flush what waits (briefly), then cut the link."""

    cause: str


GatewayInstruction: TypeAlias = (
    Send | Introduced | Alive | Heard | Reported | InForce | Answered | PeerLeaves | Repush | Over
)


class _Attempt(msgspec.Struct, gc=False):
    stream: ReceiveStream
    known_from: int
    """Heartbeats of the runner that acknowledge this number or a higher one were sent after it had read the offer."""
    is_accepted: bool = False


class GatewaySession:
    """One session as the gateway sees it."""

    def __init__(self, now: float) -> None:
        self._machine = Machine(GATEWAY_TABLE)
        self._numbers = HeartbeatNumbers()
        self._peer_sequence = 0
        self._wake: float | None = now + HANDSHAKE_TIMEOUT_SECONDS
        self._heartbeat_seconds = 0.0
        self._wanted_revision = 0
        self._pushed_before = 0
        self._reported: Reported | None = None
        self._attempts: dict[Key, _Attempt] = {}
        self._heard_at = now
        self._assigned: frozenset[str] = frozenset()
        self._reports = Allowance(now, per_second=REPORTS_PER_SECOND, burst=REPORTS_BURST)
        self._repushes = Allowance(now, per_second=PUSHES_PER_SECOND, burst=PUSHES_BURST)
        self._late_revision: int | None = None
        self._late_states: dict[str, SourceState] = {}

    @property
    def state(self) -> GatewayState:
        """The present state."""
        return self._machine.state

    @property
    def open_attempts(self) -> int:
        """Attempts offered and not ended."""
        return len(self._attempts)

    def next_wake(self) -> float | None:
        """When `handle` wants a `Tick`; None for never."""
        return self._wake

    def handle(self, stimulus: AnyFrame | GatewayWord, now: float) -> list[GatewayInstruction]:
        """What to do about a frame of the runner or a word of the gateway.

        Raises:
            ProtocolError: the runner broke the rules; end the session with the error's reason.
            IllegalTransitionError: a word of the gateway that the present state does not know. Nothing was changed.
        """
        kind = type(stimulus)
        if kind in _STIMULUS_OF_FRAME:
            return self._on_frame(cast(AnyFrame, stimulus), now)
        if kind in _STIMULUS_OF_WORD:
            return self._on_word(cast(GatewayWord, stimulus), now)
        raise ProtocolError("unexpected_frame")

    # --- frames ---------------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: AnyFrame, now: float) -> list[GatewayInstruction]:
        kind = _STIMULUS_OF_FRAME[type(frame)]
        if not self._machine.may(kind):
            raise ProtocolError("unexpected_frame")
        if kind is GatewayStimulus.ANSWER:
            return self._on_answer(cast(Answer, frame), now)  # moves nothing, and is most of what comes
        instructions: list[GatewayInstruction]
        match frame:
            case Heartbeat():
                instructions = self._on_heartbeat(frame, now)
            case AssignmentInForce():
                instructions = self._on_in_force(frame, now)
            case Hello():
                self._wake = None
                instructions = [Introduced(frame)]
            case Drain():
                self._reported = None
                is_news = self._machine.state is not GatewayState.LEAVING
                instructions = [PeerLeaves(frame.reason)] if is_news else []
            case _:
                self._wake = None
                instructions = [Over("closed_by_runner")]
        self._machine.move(kind)
        return instructions

    def _on_heartbeat(self, frame: Heartbeat, now: float) -> list[GatewayInstruction]:
        if frame.sequence <= self._peer_sequence:
            raise ProtocolError("sequence_repeated")
        sent_at = self._numbers.acknowledge(frame.ack)
        self._peer_sequence = frame.sequence
        if sent_at is None:
            return []  # a runner answers each of ours once: this one was not asked for
        instructions: list[GatewayInstruction] = self._late_report()
        is_alive = now - sent_at <= FRESH_HEARTBEATS * self._heartbeat_seconds
        if is_alive:
            self._heard_at = now
            instructions.append(Alive())
        jobs = frame.jobs
        if self._attempts:
            unaware = (key for key, attempt in self._attempts.items() if attempt.known_from > frame.ack)
            jobs = (*jobs, *unaware)
        reported = Reported(frame.revision, jobs, frame.draining, self._known(frame.source_states), frame.notices)
        # An idle runner that says what it said before is the usual heartbeat, and the sign of life is all of its news.
        if reported != self._reported or self._attempts or not is_alive:
            self._reported = None if reported.source_states else reported
            instructions.append(reported)
        is_behind = frame.revision != self._wanted_revision and frame.ack >= self._pushed_before
        if is_behind and self._repushes.take(now):
            instructions.append(Repush())
        return instructions

    def _on_in_force(self, frame: AssignmentInForce, now: float) -> list[GatewayInstruction]:
        self._reported = None
        states = self._known(frame.source_states)
        if self._late_revision is None and self._reports.take(now):
            return [InForce(frame.revision, states)]
        self._late_revision = frame.revision
        self._late_states.update((state.source, state) for state in states)
        return []

    def _late_report(self) -> list[GatewayInstruction]:
        if self._late_revision is None:
            return []
        report = InForce(self._late_revision, tuple(self._late_states.values()))
        self._late_revision, self._late_states = None, {}
        return [report]

    def _known(self, states: tuple[SourceState, ...]) -> tuple[SourceState, ...]:
        """The states of sources that this session was pushed; of others nothing is kept."""
        if not states:
            return states
        return tuple(state for state in states if state.source in self._assigned)

    def _on_answer(self, frame: Answer, now: float) -> list[GatewayInstruction]:
        key = (frame.job, frame.attempt)
        attempt = self._attempts.get(key)
        if attempt is None:
            raise ProtocolError("answer_to_no_offer")
        kind = type(frame)
        if kind is Accept or kind is Refuse:
            if attempt.is_accepted:
                raise ProtocolError("offer_answered_twice")
            attempt.is_accepted = True
        elif not attempt.is_accepted:
            raise ProtocolError("answer_before_accept")
        elif isinstance(frame, Data):
            attempt.stream.data(frame)
        elif isinstance(frame, End):
            if len(frame.result) > END_MARK_BYTES_MAX:
                raise ProtocolError("end_mark_too_large")
            attempt.stream.end(frame)
        if kind is Refuse or kind is End or kind is Fail:
            del self._attempts[key]
        instructions: list[GatewayInstruction] = [Answered(frame)]
        # Once in a quarter of an interval is enough to know it.
        if isinstance(frame, Data) and now - self._heard_at >= self._heartbeat_seconds / 4:
            self._heard_at = now
            instructions.insert(0, Heard())
        return instructions

    # --- words ----------------------------------------------------------------------------------------------------------

    def _on_word(self, word: GatewayWord, now: float) -> list[GatewayInstruction]:
        kind = _STIMULUS_OF_WORD[type(word)]
        if not self._machine.may(kind):
            raise IllegalTransitionError(
                f"{GATEWAY_TABLE.name}: {kind.value} is not possible in state {self._machine.state.value}"
            )
        instructions: list[GatewayInstruction]
        match word:
            case Give():
                instructions = self._give(word.order)
            case Push():
                instructions = self._push(word)
            case Tick():
                instructions = self._tick(now)
            case Admit():
                self._heartbeat_seconds = word.welcome.heartbeat_ms / 1000
                instructions = [Send(word.welcome), *self._beat(now)]
                # Sessions that open together do not stay together, or all of them would be served in one turn of the loop.
                self._wake = _on_grid(now + self._heartbeat_seconds * (word.welcome.session * _SPREAD % 1.0))
            case OrderDrain():
                instructions = [Send(Drain(reason=word.reason, after_ms=word.after_ms))]
            case OrderResume():
                instructions = [Send(Resume())]
            case Finish():
                self._wake = None
                close = Close(reason=word.reason, message=word.message, after_ms=word.after_ms)
                instructions = [Send(close), Over(word.reason.value)]
        self._machine.move(kind)
        return instructions

    def _give(self, order: Order) -> list[GatewayInstruction]:
        key = (order.job, order.attempt)
        attempt = self._attempts.get(key)
        match order:
            case Offer():
                if len(self._attempts) >= ATTEMPTS_OPEN_MAX:
                    raise ProtocolError("offers_unanswered", reason=CloseReason.OVERLOADED)
                stream = ReceiveStream(credit=order.credit)
                self._attempts[key] = _Attempt(stream=stream, known_from=self._numbers.last + 1)
            case Credit():
                if attempt is None:
                    return []
                attempt.stream.grant(order.bytes)
            case Cancel():
                if attempt is None:
                    return []
        return [Send(order)]

    def _push(self, push: Push) -> list[GatewayInstruction]:
        parts = parts_of(push.revision, push.sources)
        self._wanted_revision = push.revision
        self._assigned = frozenset(source.source for source in push.sources)
        self._pushed_before = self._numbers.last + 1
        return [] if push.is_lost else [Send(part) for part in parts]

    def _tick(self, now: float) -> list[GatewayInstruction]:
        if self._wake is None or now < self._wake:
            return []
        if self._machine.state is GatewayState.AWAITING_HELLO:
            raise ProtocolError("no_hello")
        return [*self._late_report(), *self._beat(now)]

    def _beat(self, now: float) -> list[GatewayInstruction]:
        # A late one does not move those that follow: heartbeats that a standstill bunched must spread out again.
        late_seconds = 0.0 if self._wake is None else (now - self._wake) % self._heartbeat_seconds
        self._wake = _on_grid(now + self._heartbeat_seconds - late_seconds)
        number = self._numbers.next(now)
        return [Send(Heartbeat(sequence=number, ack=self._peer_sequence, revision=self._wanted_revision))]


def _on_grid(time: float) -> float:
    return round(time / HEARTBEAT_GRID_SECONDS) * HEARTBEAT_GRID_SECONDS


_STIMULUS_OF_FRAME: Final[Mapping[type[AnyFrame], GatewayStimulus]] = {
    Hello: GatewayStimulus.HELLO,
    Heartbeat: GatewayStimulus.HEARTBEAT,
    AssignmentInForce: GatewayStimulus.IN_FORCE,
    Accept: GatewayStimulus.ANSWER,
    Refuse: GatewayStimulus.ANSWER,
    Data: GatewayStimulus.ANSWER,
    End: GatewayStimulus.ANSWER,
    Fail: GatewayStimulus.ANSWER,
    Drain: GatewayStimulus.PEER_DRAIN,
    Close: GatewayStimulus.PEER_CLOSE,
}
_STIMULUS_OF_WORD: Final[Mapping[type[GatewayWord], GatewayStimulus]] = {
    Admit: GatewayStimulus.ADMIT,
    Push: GatewayStimulus.PUSH,
    Give: GatewayStimulus.ORDER,
    OrderDrain: GatewayStimulus.DRAIN,
    OrderResume: GatewayStimulus.RESUME,
    Finish: GatewayStimulus.CLOSE,
    Tick: GatewayStimulus.TICK,
}
