"""The status of a runner in the words of the API: one pure function over its sessions and what the catalog says of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from lensway.fleet.fleet import Loss
from lensway.fleet.sessions import Session
from lensway.ids import SourceId
from lensway.protocol.policy import NOTICE_HINTS, policy_hint


class RunnerState(enum.StrEnum):
    """The closed list of a runner's states."""

    NEVER_CONNECTED = "never_connected"
    CONNECTING = "connecting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    DRAINING = "draining"
    OFFLINE = "offline"
    REVOKED = "revoked"


class RunnerFlags(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog knows: the marks on the record, the wanted revision and the assigned sources."""

    is_revoked: bool
    is_draining: bool
    wanted_revision: int
    sources: tuple[SourceId, ...] = ()


class RunnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State, since when (monotonic; None when not known to this process), why, and what to do about it."""

    state: RunnerState
    since: float | None
    cause: str
    hint: str


_READY_STATES = frozenset({"", "ready"})


def runner_status(flags: RunnerFlags, sessions: Sequence[Session], loss: Loss | None, now: float) -> RunnerStatus:
    """What to show of a runner. The first rule that fits wins, the worst news first."""
    if flags.is_revoked:
        return _status(
            RunnerState.REVOKED,
            loss.at if loss is not None and loss.cause == "revoked" else None,
            "revoked",
            "Create a new runner, or rotate this one's token to use it again.",
        )
    if not sessions:
        return _absent(loss)
    serving = [session for session in sessions if not session.is_draining]
    if flags.is_draining or not serving:
        # An order that an instance has not confirmed yet counts from when it was given.
        is_ordered = flags.is_draining
        since = max(
            each.marked_at if is_ordered and not each.is_draining else max(each.since, each.marked_at)
            for each in sessions
        )
        cause = "drained by an operator" if flags.is_draining else "the runner is leaving"
        hint = "Resume it with `lensway runners resume`." if flags.is_draining else "Start it again to bring it back."
        return _status(RunnerState.DRAINING, since, cause, hint)
    live = [session for session in serving if not session.is_suspect]
    if not live:
        newest = max(serving, key=lambda session: session.since)
        return _status(
            RunnerState.SUSPECT,
            newest.since,
            newest.cause,
            "It does not answer. Check the machine and its network; the service treats the runner as lost if it stays silent.",
        )
    return _present(flags, live, sessions, now)


def _absent(loss: Loss | None) -> RunnerStatus:
    if loss is None:
        return _status(
            RunnerState.NEVER_CONNECTED,
            None,
            "never connected",
            "Start it with `lensway runner start` and the environment block that was printed when it was created.",
        )
    return _status(
        RunnerState.OFFLINE,
        loss.at,
        loss.cause,
        "Start it again, or check its log: `lensway runner doctor` finds the obstacle.",
    )


def _present(flags: RunnerFlags, live: Sequence[Session], sessions: Sequence[Session], now: float) -> RunnerStatus:
    since = max(session.since for session in live)
    behind = [session for session in live if (session.revision or 0) < flags.wanted_revision]
    if len(behind) == len(live):
        if all(now - session.opened_at < session.timings.dead_seconds for session in live):
            return _status(RunnerState.CONNECTING, since, "receiving its assignments", "Wait a moment.")
        hint = "It does not confirm its assignments. Check the runner's log."
        return _status(RunnerState.DEGRADED, since, "assignments not in force", hint)
    for source in flags.sources:
        for session in live:
            reported, detail = session.source_states.get(source, ("", ""))
            if reported not in _READY_STATES:
                cause = f"{reported} ({detail})" if detail else reported
                hint = (
                    policy_hint(detail)
                    if reported == "refused"
                    else "Test the connection of its sources to see which stage fails."
                )
                return _status(RunnerState.DEGRADED, session.source_since.get(source, since), cause, hint)
    for session in live:
        for notice in session.notices:
            return _status(RunnerState.DEGRADED, session.notices_since, notice, NOTICE_HINTS[notice])
    weak = [session for session in sessions if session.is_suspect or session.is_draining]
    if weak:
        cause = f"{len(weak)} of {len(sessions)} instances {weak[0].shown_state}"
        return _status(RunnerState.DEGRADED, max(session.since for session in weak), cause, "The others keep serving.")
    # It has been healthy since its last source became ready and its last drain ended.
    noticed = (session.notices_since for session in live)
    well = (session.source_since[id] for session in live for id in flags.sources if id in session.source_since)
    marked = (session.marked_at for session in live)
    return _status(RunnerState.HEALTHY, max((since, *well, *marked, *noticed)), "connected", "")


def _status(state: RunnerState, since: float | None, cause: str, hint: str) -> RunnerStatus:
    return RunnerStatus(state=state, since=since, cause=cause, hint=hint)
