"""The core of dispatch: one entry, events in, instructions out. No I/O, no clock, no chance.

Owns the fleet and every job. `handle` decides completely: after it returns, every invariant holds again, and what is to be
done about it stands in the instructions, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lensway import limits
from lensway.dispatch.core import failures
from lensway.dispatch.core.attempts import Attempts
from lensway.dispatch.core.events import (
    Abandon,
    Accepted,
    AttemptFailed,
    CallerGone,
    CancelWanted,
    CatalogChanged,
    CloseSession,
    Consumed,
    Ended,
    Event,
    Instruction,
    OwnersEnded,
    Refused,
    Rows,
    SessionAlive,
    SessionAssigned,
    SessionDraining,
    SessionHeard,
    SessionLost,
    SessionMarked,
    SessionOpened,
    SessionReported,
    Stopping,
    Submitted,
    Tick,
)
from lensway.dispatch.core.jobs import AttemptState, Job, JobState
from lensway.dispatch.core.ports import Routes
from lensway.dispatch.core.records import JobRecord
from lensway.dispatch.core.routing import Consideration, Router, consider, gave_up
from lensway.dispatch.core.sessions import Sessions
from lensway.dispatch.core.state import State
from lensway.fleet import Fleet
from lensway.ids import EnvironmentId, JobId, RequestId, SourceId


class Core:
    """Decides everything about jobs and sessions of one node."""

    def __init__(self, routes: Routes, started_at: float) -> None:
        self._state = State(routes, started_at)
        self._router = Router(self._state)
        self._attempts = Attempts(self._state, self._router)
        self._sessions = Sessions(self._state, self._attempts)
        self._grace_until = started_at
        # By type: what happens most often is not found behind what happens rarely.
        self._reactions: Mapping[type[Event], Callable[[Any, float], None]] = {
            Submitted: self._attempts.submitted,
            Accepted: self._attempts.accepted,
            Rows: self._attempts.rows,
            Ended: self._attempts.ended,
            Consumed: self._attempts.consumed,
            Refused: self._attempts.refused,
            AttemptFailed: self._attempts.failed,
            CallerGone: self._attempts.caller_gone,
            CancelWanted: self._attempts.cancel_wanted,
            OwnersEnded: self._attempts.owners_ended,
            Tick: lambda _event, now: self._tick(now),
            Stopping: lambda _event, _now: self._stop(),
        }

    @property
    def fleet(self) -> Fleet:
        """The sessions, to read."""
        return self._state.fleet

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped or is worth knowing, by name."""
        return self._state.counters

    def consider(
        self, environment: EnvironmentId, source: SourceId, now: float, *, needs: frozenset[str] = frozenset()
    ) -> Consideration:
        """Where a new job on this source would go now. Changes nothing."""
        return consider(self._state, environment, source, now, needs=needs)

    def job_of(self, request: RequestId) -> JobId | None:
        """The job of this request that is not over; asked rarely, so it is looked for."""
        return next((id for id, job in self._state.jobs.items() if job.request.request == request), None)

    def running(self) -> Mapping[RequestId, JobRecord]:
        """The records of all jobs that are not over, by their request."""
        return {job.request.request: job.record for job in self._state.jobs.values()}

    @property
    def jobs_count(self) -> int:
        """Jobs that are not over."""
        return len(self._state.jobs)

    @property
    def queued(self) -> int:
        """Jobs that wait for a place, or for a runner to return."""
        return self._state.queue.count + len(self._state.waiting)

    @property
    def held_bytes(self) -> int:
        """Bytes of rows in memory here, at most: credit windows that are open, and pages."""
        return self._state.credit_bytes + self._state.page_bytes

    def job_state(self, job: int) -> JobState | None:
        """Where a job stands; None when it is over."""
        found = self._state.jobs.get(job)  # type: ignore[call-overload]  # any number may be asked for
        return None if found is None else found.state

    def next_wake(self) -> float | None:
        """When `handle` wants a `Tick`; None for never."""
        state = self._state
        found = state.timers.next_due()
        for due in (state.fleet.next_sweep(), state.pump_at):
            if due is not None and (found is None or due < found):
                found = due
        if found is not None and found < self._grace_until:
            return self._grace_until
        return found

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about an event."""
        state = self._state
        assert not state.out, "instructions of the event before were taken"
        self._reactions.get(type(event), self._react_to_session)(event, now)
        if state.has_broken_session:
            self._close_broken(now)
        if state.is_somebody_back:
            state.is_somebody_back = False
            self._route_waiting(now)
        if state.has_room_again and state.queue.count:
            state.queue.serve(lambda job: self._router.route(job, now))
        state.has_room_again = False
        out, state.out = state.out, []
        return out

    def _react_to_session(self, event: Event, now: float) -> None:
        may_place = False
        match event:
            case SessionAlive():
                may_place = self._sessions.alive(event, now)
            case SessionHeard():
                self._sessions.heard(event, now)
            case SessionReported():
                may_place = self._sessions.reported(event, now)
            case SessionOpened():
                may_place = self._sessions.opened(event, now)
            case SessionDraining():
                may_place = self._sessions.draining(event, now)
            case SessionMarked():
                self._sessions.marked(event, now)
            case SessionAssigned():
                self._sessions.assigned(event, now)
            case SessionLost():
                self._sessions.lost(event, now)
            case CatalogChanged():
                may_place = True
            case _:
                raise AssertionError("every event is handled")
        if may_place:
            self._state.is_somebody_back = True

    def _route_waiting(self, now: float) -> None:
        self._state.has_room_again = True
        for job in list(self._state.waiting.values()):
            if job.state is JobState.WAITING:
                self._router.route(job, now)

    def _stop(self) -> None:
        self._state.is_stopping = True

    def _close_broken(self, now: float) -> None:
        """Sessions that were ordered closed for breaking the rules are lost within the same event."""
        self._state.has_broken_session = False
        for order in [each for each in self._state.out if isinstance(each, CloseSession)]:
            self._sessions.close_broken(order, now)

    # --- time -------------------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        state = self._state
        expected = self.next_wake()
        if expected is not None and now - expected > limits.NODE_STALL_SECONDS and now >= self._grace_until:
            # This node stood still: messages of peers wait in sockets, and are read before any peer is blamed.
            self._grace_until = now + limits.NODE_STALL_GRACE_SECONDS
            state.count("node_stalled")
        is_graceful = now < self._grace_until
        if state.pump_at is not None and now >= state.pump_at:
            state.pump_at = None
            state.has_room_again = True
        for job_id in state.timers.due(now):
            job = state.jobs.get(job_id)
            if job is not None:
                self._due(job, now, is_graceful=is_graceful)
        if not is_graceful:
            self._sessions.sweep(now)

    def _due(self, job: Job, now: float, *, is_graceful: bool) -> None:
        """An entry of the job surfaced: act if something is due, and make sure that it surfaces again."""
        state = self._state
        job.scheduled = None
        due = job.due
        if due is None:
            return
        if now < due:
            state.timers.schedule(job)
            return
        if job.state is JobState.DELIVERING:
            self._delivering_due(job, now)
        elif now >= job.request.deadline:
            state.fail(job, failures.timed_out(job, now), now, stop_cause="deadline")
        elif job.state is JobState.OFFERED and is_graceful:
            job.phase_due = self._grace_until
        else:
            self._phase_due(job, now)
        if job.id in state.jobs:
            state.timers.schedule(job)

    def _phase_due(self, job: Job, now: float) -> None:
        state, attempt = self._state, job.attempt
        match job.state:
            case JobState.OFFERED:
                assert attempt is not None
                assert attempt.state is AttemptState.OFFERED
                job.phase_due = None
                self._attempts.unanswered(attempt, now)
            case JobState.EXECUTING:
                job.phase_due = None
                self._attempts.release(job, now)
            case JobState.RELEASED:
                assert attempt is not None
                if attempt.flow.untaken and now - job.progress_at >= job.request.stall_seconds:
                    state.fail(job, failures.cancelled("stalled"), now, stop_cause="stalled")
                else:
                    since = job.progress_at if attempt.flow.untaken else now
                    job.phase_due = since + job.request.stall_seconds
            case JobState.WAITING:
                self._router.route(job, now)
            case JobState.QUEUED:
                state.fail(job, gave_up(job, failures.overloaded("every place that could serve it is busy")), now)
            case _:
                job.phase_due = None

    def _delivering_due(self, job: Job, now: float) -> None:
        due = job.progress_at + job.request.stall_seconds
        if now >= due:
            self._state.out.append(Abandon(job.id))
            self._state.taken(job)
        else:
            job.phase_due = due
