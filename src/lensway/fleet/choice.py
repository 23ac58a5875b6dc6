"""What selection is asked, and what it answers: a session or none, with a reason for every candidate."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from lensway.fleet.sessions import Session
from lensway.ids import RunnerId, SessionId, SourceId


class Verdict(enum.StrEnum):
    """Why a candidate was or was not chosen. Shown to people with the request."""

    CHOSEN = "chosen"
    OTHERS_TURN = "others_turn"
    """As good as the chosen one, which had waited longer for its turn."""
    WORSE = "worse"
    """A higher score: more outstanding work or slower."""
    SLOWER = "slower"
    """Slower than 3 × the best: gets probes only."""
    BUSY = "busy"
    EJECTED = "ejected"
    UNREACHABLE = "unreachable"
    """The runner itself reports that it cannot reach the source."""
    SUSPECT = "suspect"
    DRAINING = "draining"
    NOT_SERVING = "not_serving"
    """Revoked, or being drained by an operator at this moment."""
    NOT_CONNECTED = "not_connected"
    NO_BRIDGE = "no_bridge"
    NO_ENCODING = "no_encoding"
    """The runner cannot encode rows in the format that was asked for."""
    NO_CREDENTIALS = "no_credentials"
    INVALID_SETTINGS = "invalid_settings"
    """Its local settings of the source are there and cannot be used."""
    CREDENTIALS_AMBIGUOUS = "credentials_ambiguous"
    POLICY = "policy"
    UNKNOWN_KIND = "unknown_kind"
    FAILED = "failed"
    """This job already failed there."""
    UNANSWERED = "unanswered"
    """This job's offer was not answered there."""
    NOT_READY = "not_ready"
    """It keeps saying that the source is not assigned to it, although its set was pushed."""
    CLOSING = "closing"
    """Its link was closed already when this job was offered."""
    NOT_PINNED = "not_pinned"
    """The job is pinned to another instance."""


UNABLE = frozenset(
    {
        Verdict.NO_BRIDGE,
        Verdict.NO_ENCODING,
        Verdict.NO_CREDENTIALS,
        Verdict.INVALID_SETTINGS,
        Verdict.CREDENTIALS_AMBIGUOUS,
        Verdict.POLICY,
        Verdict.UNKNOWN_KIND,
    }
)
"""Live, but cannot serve this: waiting does not help."""

REVIVABLE = frozenset({Verdict.SUSPECT, Verdict.DRAINING, Verdict.UNANSWERED, Verdict.NOT_READY, Verdict.CLOSING})
"""Connected and perhaps able again in a moment."""


class CandidateNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One candidate and the verdict on it. ``session`` is None for a runner without one; ``score`` where it was compared."""

    runner: RunnerId
    runner_name: str
    session: SessionId | None
    verdict: Verdict
    score: float | None = None


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One question to the fleet: who executes this?

    ``excluded`` are sessions that this job must not go to, with the reason. ``live_only`` leaves suspects out. ``wanted`` is
    the revision of each runner's set: reports about sources are believed only from a session that has it in force. ``format`` is
    how rows are to be encoded; empty is any. ``needs`` are the features that a session must have.
    """

    source: SourceId
    bridge: str
    runners: tuple[RunnerId, ...]
    runner_names: tuple[str, ...]
    wanted: tuple[int, ...]
    serving: tuple[bool, ...]
    is_export: bool = False
    session: SessionId | None = None
    excluded: Mapping[SessionId, Verdict] = {}
    live_only: bool = False
    format: str = ""
    needs: frozenset[str] = frozenset()


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The answer. At most one of ``session``, ``is_busy`` and ``unable`` is set; without any, no runner is live.

    ``may_revive`` says that a session that is not usable now could be in a moment.
    """

    session: Session | None
    notes: tuple[CandidateNote, ...]
    is_busy: bool = False
    unable: Verdict | None = None
    may_revive: bool = False
