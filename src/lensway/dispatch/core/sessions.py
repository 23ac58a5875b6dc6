"""What happens to sessions: they open, give signs of life, report, leave and are lost; and what that means for their attempts."""

from __future__ import annotations

from lensway import limits
from lensway.dispatch.core.attempts import Attempts
from lensway.dispatch.core.events import (
    CloseSession,
    SendCancel,
    SessionAlive,
    SessionAssigned,
    SessionDraining,
    SessionHeard,
    SessionLost,
    SessionMarked,
    SessionOpened,
    SessionReported,
)
from lensway.dispatch.core.jobs import AttemptState
from lensway.dispatch.core.state import State
from lensway.fleet import Finding, Session


class Sessions:
    """Handles the events of sessions."""

    def __init__(self, state: State, attempts: Attempts) -> None:
        self._state = state
        self._attempts = attempts

    def opened(self, event: SessionOpened, now: float) -> bool:
        """A runner is connected; True: waiting jobs may go to it."""
        state = self._state
        superseded = state.fleet.superseded_by(event.facts)
        session = state.fleet.open(event.facts, now)
        state.held[session.id] = {}
        state.show(session)
        # After it, so that the older one's jobs find its successor, and the runner never shows as offline in between.
        for older in superseded:
            self._close(older, "superseded", now)
        return True

    def alive(self, event: SessionAlive, now: float) -> bool:
        """A sign of life; True when a suspect session is back."""
        session = self._state.fleet.sessions.get(event.session)
        if session is None or not self._state.fleet.alive(session, now):
            return False
        self._state.show(session)
        return True

    def heard(self, event: SessionHeard, now: float) -> None:
        """Rows came in; that alone does not make the session live again."""
        session = self._state.fleet.sessions.get(event.session)
        if session is not None:
            self._state.fleet.heard(session, now)

    def reported(self, event: SessionReported, now: float) -> bool:
        """A heartbeat's facts; True when they may let waiting jobs go."""
        state = self._state
        session = state.fleet.sessions.get(event.session)
        if session is None:
            return False
        was_behind = session.revision != event.revision
        has_moved, changed = state.fleet.report(
            session, event.revision, event.source_states, now, is_draining=event.draining
        )
        has_notices = event.notices is not None and session.notice(event.notices, now)
        if has_moved or was_behind or changed or has_notices:
            # Another set is in force, or the health of a source changed: watchers of the session want to know.
            state.show(session, changed)
        if event.jobs is not None:
            self._compare(session, frozenset(event.jobs), now)
        return was_behind or bool(changed)

    def draining(self, event: SessionDraining, now: float) -> bool:
        """It takes nothing new, or does again."""
        session = self._state.fleet.sessions.get(event.session)
        if session is None:
            return False
        if self._state.fleet.order_drain(session, now, is_draining=event.is_draining):
            self._state.show(session)
        return not event.is_draining

    def marked(self, event: SessionMarked, now: float) -> None:
        """An operator drained or resumed it: its displayed state starts now."""
        session = self._state.fleet.sessions.get(event.session)
        if session is not None:
            session.marked_at = now
            self._state.show(session)

    def assigned(self, event: SessionAssigned, now: float) -> None:
        """What it said of other sources is over; if one of them was not ready, the displayed state starts now."""
        session = self._state.fleet.sessions.get(event.session)
        if session is not None and session.forget_others(event.sources, now):
            self._state.show(session)

    def lost(self, event: SessionLost, now: float) -> None:
        """Its connection is gone."""
        session = self._state.fleet.sessions.get(event.session)
        if session is not None:
            self._lose(session, event.cause, now)

    def sweep(self, now: float) -> None:
        """Look at silence: who is suspect now, and who is dead."""
        for session, finding in self._state.fleet.sweep(now):
            if finding is Finding.SUSPECT:
                self._state.show(session)
            else:
                self._close(session, "heartbeat_lost", now)

    def close_broken(self, order: CloseSession, now: float) -> None:
        """The session broke the rules and is being closed: it is lost at once."""
        session = self._state.fleet.sessions.get(order.session)
        if session is not None:
            self._lose(session, order.cause, now)

    def _close(self, session: Session, cause: str, now: float) -> None:
        self._state.out.append(CloseSession(session.id, cause))
        self._lose(session, cause, now)

    def _lose(self, session: Session, cause: str, now: float) -> None:
        state = self._state
        held = state.held.pop(session.id)
        state.fleet.lose(session, cause, now)
        state.show(session)
        for attempt in list(held.values()):
            self._attempts.lost(attempt, cause, now)
        state.has_room_again = True

    def _compare(self, session: Session, reported: frozenset[tuple[int, int]], now: float) -> None:
        """An attempt that reports do not list, twice in a row, is provably gone: the runner has forgotten it. One that is
        listed although it was to stop is told so again, as it may not have heard it."""
        held = self._state.held[session.id]
        for key, attempt in list(held.items()):
            if key in reported:
                attempt.reports_missed = 0
                if attempt.state is AttemptState.STOPPING:
                    self._state.out.append(SendCancel(session.id, attempt.job.id, attempt.number, "repeated"))
                continue
            attempt.reports_missed += 1
            is_counted_on = attempt.state is not AttemptState.OFFERED
            if is_counted_on and attempt.reports_missed >= limits.REPORTS_MISSED_MAX and key in held:
                self._state.count("forgotten_attempt")
                self._attempts.lost(attempt, "forgotten", now)
