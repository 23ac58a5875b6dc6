"""One live connection of a runner's instance: its state, why it is in it, and what the runner reported."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from lensway import limits
from lensway.fleet.facts import SessionFacts
from lensway.fleet.load import Load
from lensway.fleet.standing import Standing
from lensway.ids import SessionId, SourceId
from lensway.protocol.policy import NOTICE_HINTS
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
_SUSPECT_STATES: Final = frozenset({SessionState.SUSPECT, SessionState.DRAINING_SUSPECT})
_DRAINING_STATES: Final = frozenset({SessionState.DRAINING, SessionState.DRAINING_SUSPECT})


class Session:
    """What this node knows of one session. Its id is its epoch: ids only grow."""

    __slots__ = (
        "before",
        "cause",
        "drain_is_ordered",
        "drain_is_reported",
        "facts",
        "last_alive",
        "load",
        "marked_at",
        "notices",
        "notices_since",
        "opened_at",
        "revision",
        "since",
        "source_since",
        "source_states",
        "state",
        "timings",
    )

    def __init__(self, facts: SessionFacts, now: float, *, before: Standing | None = None) -> None:
        self.facts = facts
        self.timings = facts.timings
        self.state = SessionState.LIVE
        self.opened_at = now
        # One that goes on where an earlier process of this node ended is as it was since before.
        self.before = before
        self.since = now if before is None or before.is_draining else before.since
        self.marked_at = now if before is None else before.marked_at
        self.cause = "connected"
        self.last_alive = now
        self.load = Load(facts.capacity)
        self.revision: int | None = None
        self.source_states: dict[SourceId, tuple[str, str]] = {}
        self.source_since: dict[SourceId, float] = {}
        self.notices: tuple[str, ...] = ()
        self.notices_since = self.since
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
        before = self._settling(now)
        goes_on = before is not None and before.is_draining and stimulus is SessionStimulus.DRAIN
        self.since = before.since if before is not None and goes_on else now
        return True

    def notice(self, notices: tuple[str, ...], now: float) -> bool:
        """Take over the classes of trouble that the runner reports of itself; True when they are others than before."""
        known = tuple(each for each in notices if each in NOTICE_HINTS)
        if known == self.notices:
            return False
        self.notices, self.notices_since = known, now
        return True

    def learn(
        self, revision: int, source_states: Mapping[SourceId, tuple[str, str]], now: float
    ) -> tuple[SourceId, ...]:
        """Take over what the runner reported; states not named stay as they were. Returns the sources with news."""
        self.revision = revision
        changed = []
        for source, reported in source_states.items():
            said = _as_shown(reported)
            before = self.source_states.get(source)
            if before != said:
                self.source_states[source] = said
                # A ready source with another condition is ready all the same.
                if before is None:
                    self.source_since[source] = self._went_on_since(source, said, now)
                elif before[0] != "ready" or said[0] != "ready":
                    self.source_since[source] = now
                changed.append(source)
                # The runner has reached the database again by itself: what queries found before is over.
                if before is not None and before[0] == "unreachable" and said[0] == "ready":
                    self.load.pair(source).record_reached()
        return tuple(changed)

    def forget_others(self, sources: frozenset[SourceId], now: float) -> bool:
        """Forget the states of all other sources; True when one of them was not ready."""
        gone = [source for source in self.source_states if source not in sources]
        was_bad = any(self.source_states[source][0] != "ready" for source in gone)
        for source in gone:
            del self.source_states[source], self.source_since[source]
        if was_bad:
            self.marked_at = now
        return was_bad

    def standing(self) -> Standing | None:
        """What the next process of this node may go on with; None of a suspect session, which is not known to be well."""
        if self.is_suspect or self.state is SessionState.LOST:
            return None
        said, since = self.source_states, self.source_since
        bad = [id for id, state in said.items() if state[0] != "ready"][: limits.SIGHTING_SOURCES_MAX]
        return Standing(
            is_draining=self.is_draining,
            since=self.since,
            marked_at=self.marked_at,
            ready_since=max((at for id, at in since.items() if said[id][0] == "ready"), default=self.since),
            sources={id: (*said[id], since[id]) for id in bad},
        )

    def _settling(self, now: float) -> Standing | None:
        """What an earlier process showed, while the runner still says for the first time how it is."""
        return self.before if now - self.opened_at < self.timings.dead_seconds else None

    def _went_on_since(self, source: SourceId, said: tuple[str, str], now: float) -> float:
        before = self._settling(now)
        if before is None:
            return now
        if (known := before.sources.get(source)) is not None:
            return known[2] if known[:2] == said else now
        return before.ready_since if said[0] == "ready" else now


def _as_shown(reported: tuple[str, str]) -> tuple[str, str]:
    """Settings that are there and cannot be used are a state of their own; the protocol says them in the cause of another."""
    state, cause = reported
    if state == "no_credentials" and cause.startswith(INVALID_SETTINGS):
        return INVALID_SETTINGS, cause.removeprefix(INVALID_SETTINGS).lstrip(": ")
    return reported
