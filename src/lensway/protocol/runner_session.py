"""The runner's side of one session: handshake, heartbeats, its fence, sets and offers. No I/O.

The fence: when nothing that the runner *sent* has been acknowledged for the time that `Welcome` names, counted from the sending,
the runner ends the session and cancels its statements. Counting from the sending (and not from the acknowledgement's arrival)
makes the runner give up before the gateway calls it dead, without comparing two clocks.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, TypeAlias, cast

import msgspec

from lensway.limits import ATTEMPTS_REMEMBERED_MAX, HANDSHAKE_TIMEOUT_SECONDS, WELCOME_INTERVAL_MS_MAX
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import (
    AnyFrame,
    AssignedSource,
    AssignmentInForce,
    AssignmentSet,
    Cancel,
    Close,
    CloseReason,
    Credit,
    Drain,
    Heartbeat,
    Hello,
    Offer,
    Refuse,
    RefuseReason,
    Resume,
    SourceState,
    Welcome,
)
from lensway.protocol.session import HeartbeatNumbers, SetAssembler
from lensway.protocol.version import VERSIONS_SPOKEN
from lensway.transitions import IllegalTransitionError, Machine, Table


class RunnerState(enum.Enum):
    """Where the runner's side of a session stands."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    STARTING = "starting"
    AWAITING_WELCOME = "awaiting_welcome"
    SERVING = "serving"
    DRAINED = "drained"
    LEAVING = "leaving"
    CLOSED = "closed"


class RunnerStimulus(enum.Enum):
    """What can happen to it: frames of the gateway, words of the runner itself, the timer."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    BEGIN = "begin"
    WELCOME = "welcome"
    HEARTBEAT = "heartbeat"
    SET = "set"
    ORDER = "order"
    PEER_DRAIN = "peer_drain"
    PEER_RESUME = "peer_resume"
    PEER_CLOSE = "peer_close"
    TICK = "tick"
    APPLIED = "applied"
    LEAVE = "leave"
    CLOSE = "close"


def _serving(self: RunnerState, *, drain: RunnerState, resume: RunnerState) -> Mapping[RunnerStimulus, RunnerState]:
    stays = (
        RunnerStimulus.HEARTBEAT,
        RunnerStimulus.SET,
        RunnerStimulus.ORDER,
        RunnerStimulus.TICK,
        RunnerStimulus.APPLIED,
    )
    return dict.fromkeys(stays, self) | {
        RunnerStimulus.PEER_DRAIN: drain,
        RunnerStimulus.PEER_RESUME: resume,
        RunnerStimulus.LEAVE: RunnerState.LEAVING,
        RunnerStimulus.CLOSE: RunnerState.CLOSED,
        RunnerStimulus.PEER_CLOSE: RunnerState.CLOSED,
    }


RUNNER_TABLE: Final = Table.nested(
    "The runner's side",
    RunnerState.STARTING,
    {
        RunnerState.STARTING: {
            RunnerStimulus.BEGIN: RunnerState.AWAITING_WELCOME,
            RunnerStimulus.CLOSE: RunnerState.CLOSED,
        },
        RunnerState.AWAITING_WELCOME: {
            RunnerStimulus.WELCOME: RunnerState.SERVING,
            RunnerStimulus.TICK: RunnerState.AWAITING_WELCOME,
            RunnerStimulus.CLOSE: RunnerState.CLOSED,
            RunnerStimulus.PEER_CLOSE: RunnerState.CLOSED,
        },
        RunnerState.SERVING: _serving(RunnerState.SERVING, drain=RunnerState.DRAINED, resume=RunnerState.SERVING),
        RunnerState.DRAINED: _serving(RunnerState.DRAINED, drain=RunnerState.DRAINED, resume=RunnerState.SERVING),
        RunnerState.LEAVING: _serving(RunnerState.LEAVING, drain=RunnerState.LEAVING, resume=RunnerState.LEAVING),
        RunnerState.CLOSED: {},
    },
)


# --- the runner's own words -------------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, gc=False):
    """The link is up: introduce ourselves."""

    hello: Hello


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The set of this revision is in force here."""

    revision: int
    source_states: tuple[SourceState, ...]


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Take no new work; the process is about to end."""

    reason: str


class EndSession(msgspec.Struct, frozen=True, gc=False):
    """End the session."""

    reason: CloseReason
    message: str = ""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """The time of `next_wake` has come."""


RunnerWord: TypeAlias = Begin | Applied | Leave | EndSession | Tick


# --- instructions -----------------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Queue the frame in the control lane."""

    frame: AnyFrame


class Welcomed(msgspec.Struct, frozen=True, gc=False):
    """The session is open."""

    welcome: Welcome


class Beat(msgspec.Struct, frozen=True, gc=False):
    """Queue a heartbeat with these numbers; the caller adds what it holds."""

    sequence: int
    ack: int
    revision: int
    is_draining: bool


class Assigned(msgspec.Struct, frozen=True, gc=False):
    """A whole set: apply it now, before anything that follows, then say `Applied`."""

    revision: int
    sources: tuple[AssignedSource, ...]


class Offered(msgspec.Struct, frozen=True, gc=False):
    """An offer that passed the fence: accept or refuse at once."""

    offer: Offer


class Ordered(msgspec.Struct, frozen=True, gc=False):
    """More credit for an attempt, or its cancellation. The attempt may have ended already: then nothing is to be done."""

    order: Credit | Cancel


class Drained(msgspec.Struct, frozen=True, gc=False):
    """The gateway gives no new work; ``after_ms`` > 0 says that it goes away and when to dial again."""

    reason: str
    after_ms: int


class Resumed(msgspec.Struct, frozen=True, gc=False):
    """The drain is over."""


class Over(msgspec.Struct, frozen=True, gc=False):
    """The session is over: cancel every statement, flush (briefly), cut the link. ``close`` is the gateway's last word when it
    was the gateway that ended it."""

    cause: str
    close: Close | None = None


RunnerInstruction: TypeAlias = Send | Welcomed | Beat | Assigned | Offered | Ordered | Drained | Resumed | Over


class AttemptFence:
    """The highest attempt seen of each of the latest jobs."""

    def __init__(self) -> None:
        self._highest: OrderedDict[int, int] = OrderedDict()

    def passes(self, job: int, attempt: int) -> bool:
        """True, and remembered, when no attempt as high was seen of this job."""
        if attempt <= self._highest.get(job, 0):
            return False
        self._highest[job] = attempt
        self._highest.move_to_end(job)
        if len(self._highest) > ATTEMPTS_REMEMBERED_MAX:
            self._highest.popitem(last=False)
        return True


class RunnerSession:
    """One session as the runner sees it."""

    def __init__(self, now: float) -> None:
        self.revision_in_force = 0
        self._machine = Machine(RUNNER_TABLE)
        self._numbers = HeartbeatNumbers()
        self._peer_sequence = 0
        self._assembler = SetAssembler()
        self._fence = AttemptFence()
        self._proven_at = now
        self._fence_seconds = HANDSHAKE_TIMEOUT_SECONDS

    @property
    def state(self) -> RunnerState:
        """The present state."""
        return self._machine.state

    @property
    def proven_at(self) -> float:
        """When the last thing that the gateway has acknowledged was sent."""
        return self._proven_at

    def next_wake(self) -> float | None:
        """When `handle` wants a `Tick`; None for never."""
        return None if self.state is RunnerState.CLOSED else self._proven_at + self._fence_seconds

    def handle(self, stimulus: AnyFrame | RunnerWord, now: float) -> list[RunnerInstruction]:
        """What to do about a frame of the gateway or a word of the runner.

        Raises:
            ProtocolError: the gateway broke the rules; end the session with the error's reason.
            IllegalTransitionError: a word of the runner that the present state does not know. Nothing was changed.
        """
        kind = type(stimulus)
        if kind in _STIMULUS_OF_FRAME:
            return self._on_frame(cast(AnyFrame, stimulus), now)
        if kind in _STIMULUS_OF_WORD:
            return self._on_word(cast(RunnerWord, stimulus), now)
        raise ProtocolError("unexpected_frame")

    def _on_frame(self, frame: AnyFrame, now: float) -> list[RunnerInstruction]:
        kind = _STIMULUS_OF_FRAME[type(frame)]
        if not self._machine.may(kind):
            raise ProtocolError("unexpected_frame")
        match frame:
            case Offer():
                instructions = self._on_offer(frame)
            case Heartbeat():
                instructions = self._on_heartbeat(frame, now)
            case Credit() | Cancel():
                instructions = [Ordered(frame)]
            case AssignmentSet():
                sources = self._assembler.add(frame)
                instructions = [] if sources is None else [Assigned(frame.revision, sources)]
            case Welcome():
                instructions = self._on_welcome(frame)
            case Drain():
                instructions = [Drained(frame.reason, frame.after_ms)]
            case Resume():
                instructions = [Resumed()]
            case Close():
                instructions = [Over(f"closed_by_gateway_{frame.reason.value}", close=frame)]
            case _:
                raise ProtocolError("unexpected_frame")
        self._machine.move(kind)
        return instructions

    def _on_welcome(self, frame: Welcome) -> list[RunnerInstruction]:
        if frame.version not in VERSIONS_SPOKEN:
            raise ProtocolError("no_common_version", reason=CloseReason.VERSION)
        is_bounded = frame.heartbeat_ms <= WELCOME_INTERVAL_MS_MAX and frame.fence_ms <= 10 * WELCOME_INTERVAL_MS_MAX
        if not (0 < frame.heartbeat_ms < frame.fence_ms and is_bounded):
            raise ProtocolError("welcome_timings")
        # The hello counts as acknowledged heartbeat: it was sent when `proven_at` was set.
        self._fence_seconds = frame.fence_ms / 1000
        return [Welcomed(frame)]

    def _on_heartbeat(self, frame: Heartbeat, now: float) -> list[RunnerInstruction]:
        if frame.sequence <= self._peer_sequence:
            raise ProtocolError("sequence_repeated")
        sent_at = self._numbers.acknowledge(frame.ack)
        self._peer_sequence = frame.sequence
        if sent_at is not None:
            self._proven_at = sent_at
        is_draining = self.state is RunnerState.LEAVING
        return [Beat(self._numbers.next(now), self._peer_sequence, self.revision_in_force, is_draining)]

    def _on_offer(self, frame: Offer) -> list[RunnerInstruction]:
        if self._fence.passes(frame.job, frame.attempt):
            return [Offered(frame)]
        refuse = Refuse(
            job=frame.job, attempt=frame.attempt, reason=RefuseReason.STALE, revision=self.revision_in_force
        )
        return [Send(refuse)]

    def _on_word(self, word: RunnerWord, now: float) -> list[RunnerInstruction]:
        kind = _STIMULUS_OF_WORD[type(word)]
        if not self._machine.may(kind):
            raise IllegalTransitionError(
                f"{RUNNER_TABLE.name}: {kind.value} is not possible in state {self._machine.state.value}"
            )
        instructions: list[RunnerInstruction]
        match word:
            case Begin():
                self._proven_at = now
                instructions = [Send(word.hello)]
            case Applied():
                self.revision_in_force = word.revision
                instructions = [Send(AssignmentInForce(revision=word.revision, source_states=word.source_states))]
            case Leave():
                instructions = [Send(Drain(reason=word.reason))]
            case EndSession():
                instructions = [Send(Close(reason=word.reason, message=word.message)), Over(word.reason.value)]
            case Tick():
                if now < self._proven_at + self._fence_seconds:
                    return []
                cause = "no_welcome" if self.state is RunnerState.AWAITING_WELCOME else "heartbeat_lost"
                self._machine.move(RunnerStimulus.CLOSE)
                return [Send(Close(reason=CloseReason.HEARTBEAT_LOST)), Over(cause)]
        self._machine.move(kind)
        return instructions


_STIMULUS_OF_FRAME: Final[Mapping[type[AnyFrame], RunnerStimulus]] = {
    Welcome: RunnerStimulus.WELCOME,
    Heartbeat: RunnerStimulus.HEARTBEAT,
    AssignmentSet: RunnerStimulus.SET,
    Offer: RunnerStimulus.ORDER,
    Credit: RunnerStimulus.ORDER,
    Cancel: RunnerStimulus.ORDER,
    Drain: RunnerStimulus.PEER_DRAIN,
    Resume: RunnerStimulus.PEER_RESUME,
    Close: RunnerStimulus.PEER_CLOSE,
}
_STIMULUS_OF_WORD: Final[Mapping[type[RunnerWord], RunnerStimulus]] = {
    Begin: RunnerStimulus.BEGIN,
    Applied: RunnerStimulus.APPLIED,
    Leave: RunnerStimulus.LEAVE,
    EndSession: RunnerStimulus.CLOSE,
    Tick: RunnerStimulus.TICK,
}
