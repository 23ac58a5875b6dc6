"""One live connection of a runner's instance: its state, why it is in it, and what the runner reported."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from lensway.fleet.facts import SessionFacts
from lensway.fleet.load import Load
from lensway.ids import SessionId, SourceId
from lensway.transitions import Table


class SessionState(enum.Enum):
    """Where a session stands. Both suspect states are shown as ``suspect``."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    LIVE = "live"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DRAINING_SUSPECT = "draining_suspect"
    LOST = "lost"


class SessionStimulus(enum.Enum):
    """What changes a session's state."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    SILENT = "silent"
    OFFER_UNANSWERED = "offer unanswered"
    ALIVE = "sign of life"
    DRAIN = "drain"
    RESUME = "resume"
    LOSE = "connection lost or dead"


_S = SessionState
_ON = SessionStimulus
SESSION_TABLE: Final[Table[SessionState, SessionStimulus]] = Table(
    "session",
    _S.LIVE,
    {
        (_S.LIVE, _ON.SILENT): _S.SUSPECT,
        (_S.LIVE, _ON.OFFER_UNANSWERED): _S.SUSPECT,
        (_S.LIVE, _ON.DRAIN): _S.DRAINING,
        (_S.LIVE, _ON.LOSE): _S.LOST,
        (_S.SUSPECT, _ON.ALIVE): _S.LIVE,
        (_S.SUSPECT, _ON.DRAIN): _S.DRAINING_SUSPECT,
        (_S.SUSPECT, _ON.LOSE): _S.LOST,
        (_S.DRAINING, _ON.SILENT): _S.DRAINING_SUSPECT,
        (_S.DRAINING, _ON.OFFER_UNANSWERED): _S.DRAINING_SUSPECT,
        (_S.DRAINING, _ON.RESUME): _S.LIVE,
        (_S.DRAINING, _ON.LOSE): _S.LOST,
        (_S.DRAINING_SUSPECT, _ON.ALIVE): _S.DRAINING,
        (_S.DRAINING_SUSPECT, _ON.RESUME): _S.SUSPECT,
        (_S.DRAINING_SUSPECT, _ON.LOSE): _S.LOST,
    },
)

INVALID_SETTINGS: Final = "invalid_settings"
OVERRIDES: Final = "overrides: "
"""How a runner begins the keys of managed settings that its own settings of a source override."""
_SUSPECT_STATES: Final = frozenset({SessionState.SUSPECT, SessionState.DRAINING_SUSPECT})
_DRAINING_STATES: Final = frozenset({SessionState.DRAINING, SessionState.DRAINING_SUSPECT})


class Session:
    """What this node knows of one session. Its id is its epoch: ids only grow."""

    __slots__ = (
        "cause",
        "drain_is_ordered",
        "drain_is_reported",
        "facts",
        "is_resumed",
        "last_alive",
        "load",
        "marked_at",
        "opened_at",
        "revision",
        "since",
        "source_since",
        "source_states",
        "state",
        "timings",
    )

    def __init__(self, facts: SessionFacts, now: float, *, since: float | None = None) -> None:
        self.facts = facts
        self.timings = facts.timings
        self.state = SessionState.LIVE
        self.opened_at = now
        # One that goes on where an earlier process of this node ended is as it was since before.
        self.is_resumed = since is not None
        self.since = self.marked_at = now if since is None else since
        self.cause = "connected"
        self.last_alive = now
        self.load = Load(facts.capacity)
        self.revision: int | None = None
        self.source_states: dict[SourceId, tuple[str, str]] = {}
        self.source_since: dict[SourceId, float] = {}
        self.drain_is_ordered = False
        self.drain_is_reported = False

    @property
    def id(self) -> SessionId:
        """The session's id and epoch."""
        return self.facts.session

    @property
    def is_suspect(self) -> bool:
        """True while it is silent for longer than it should be."""
        return self.state in _SUSPECT_STATES

    @property
    def is_draining(self) -> bool:
        """True while it takes nothing new."""
        return self.state in _DRAINING_STATES

    @property
    def shown_state(self) -> str:
        """The state in the words of the API."""
        return "suspect" if self.is_suspect else self.state.value

    def move(self, stimulus: SessionStimulus, cause: str, now: float) -> bool:
        """Change the state if the table lists it; True when it did."""
        if not SESSION_TABLE.has(self.state, stimulus):
            return False
        self.state = SESSION_TABLE.after(self.state, stimulus)
        self.cause = cause
        self.since = now
        return True

    def learn(
        self, revision: int, source_states: Mapping[SourceId, tuple[str, str]], now: float
    ) -> tuple[SourceId, ...]:
        """Take over what the runner reported; states not named keep what was said of them before. The sources with news."""
        is_settling = self.is_resumed and now - self.opened_at < self.timings.dead_seconds
        self.revision = revision
        changed = []
        for source, reported in source_states.items():
            said = _as_shown(reported)
            before = self.source_states.get(source)
            if before != said:
                self.source_states[source] = said
                goes_on = is_settling and before is None and said[0] == "ready"
                self.source_since[source] = self.since if goes_on else now
                changed.append(source)
                # The runner has reached the database again by itself: what queries found before is over.
                if before is not None and before[0] == "unreachable" and said[0] == "ready":
                    self.load.pair(source).record_reached()
        return tuple(changed)


def _as_shown(reported: tuple[str, str]) -> tuple[str, str]:
    """Settings that are there and cannot be used are a state of their own; the protocol says them in the cause of another."""
    state, cause = reported
    if state == "no_credentials" and cause.startswith(INVALID_SETTINGS):
        return INVALID_SETTINGS, cause.removeprefix(INVALID_SETTINGS).lstrip(": ")
    return reported
