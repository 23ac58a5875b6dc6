"""What places say of attempts, and what follows: acceptance, refusal, rows, ends, failures, losses.

Counting: refusals, unanswered offers and hand-backs are not attempts; at most three attempts, one at a time; two runners lost
under one job are enough. Nothing is repeated once rows were released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lensway import limits
from lensway.dispatch.core import failures
from lensway.dispatch.core.events import (
    Accepted,
    AttemptFailed,
    CallerGone,
    CancelWanted,
    Consumed,
    Deliver,
    Ended,
    OwnersEnded,
    PushSet,
    RefusalKind,
    Refused,
    Rows,
    SendCredit,
    Submitted,
)
from lensway.dispatch.core.jobs import Attempt, AttemptState, Job, JobState, JobStimulus
from lensway.dispatch.core.records import ENDED, HANDED_BACK, Cause, EndKind
from lensway.dispatch.core.routing import Router
from lensway.dispatch.core.state import State
from lensway.errors import CANCELLED_BY_DATABASE, ErrorCode, Failure
from lensway.fleet import Verdict

_EXCLUDING: Final[Mapping[RefusalKind, Verdict]] = {
    RefusalKind.DRAINING: Verdict.DRAINING,
    RefusalKind.NO_BRIDGE: Verdict.NO_BRIDGE,
    RefusalKind.NO_CREDENTIALS: Verdict.NO_CREDENTIALS,
    RefusalKind.CREDENTIALS_AMBIGUOUS: Verdict.CREDENTIALS_AMBIGUOUS,
    RefusalKind.POLICY: Verdict.POLICY,
    RefusalKind.UNKNOWN_KIND: Verdict.UNKNOWN_KIND,
    RefusalKind.UNWRITTEN: Verdict.CLOSING,
}
_FROM_THE_DATABASE: Final = frozenset(
    {ErrorCode.SOURCE_QUERY_FAILED, ErrorCode.LIMIT_EXCEEDED, ErrorCode.ROW_TOO_LARGE}
)
"""Failures that only a database that answered can cause. A timeout does not count: a silent database causes it too."""
_UNREACHABLE_FACTS: Final = ("stage", "class", "sqlstate")


class Attempts:
    """Handles the events of jobs and attempts."""

    def __init__(self, state: State, router: Router) -> None:
        self._state = state
        self._router = router

    # --- callers ----------------------------------------------------------------------------------------------------------

    def submitted(self, event: Submitted, now: float) -> None:
        """A new job."""
        state = self._state
        job = Job(event.job, event.request, now)
        state.jobs[event.job] = job
        state.budget.earn(event.request.source)
        if state.is_stopping:
            state.fail(job, failures.overloaded("the server is stopping"), now)
        elif not self._router.enqueue_behind(job, now):
            self._router.route(job, now)

    def caller_gone(self, event: CallerGone, now: float) -> None:
        """The caller stopped waiting for the job."""
        job = self._state.jobs.get(event.job)
        if job is None:
            return
        if job.state is JobState.DELIVERING:
            self._state.taken(job)
        else:
            self._state.fail(job, failures.cancelled("caller_gone"), now, stop_cause="caller_gone")

    def cancel_wanted(self, event: CancelWanted, now: float) -> None:
        """Its caller is told so; what is complete already is delivered."""
        job = self._state.jobs.get(event.job)
        if job is not None and job.state is not JobState.DELIVERING:
            self._state.fail(job, failures.cancelled("on_request"), now, stop_cause="on_request")

    def owners_ended(self, event: OwnersEnded, now: float) -> None:
        """Fail every job of these keys and environments. Results that are complete already are cut off by their connections."""
        for job in list(self._state.jobs.values()):
            request = job.request
            is_theirs = request.owner in event.owners or request.environment in event.owners
            if is_theirs and job.state is not JobState.DELIVERING:
                self._state.fail(job, failures.key_ended(), now, stop_cause="key_ended")

    def consumed(self, event: Consumed, now: float) -> None:
        """The caller took released bytes: the executor may send as many more."""
        job = self._state.jobs.get(event.job)
        if job is None or job.attempt is None:
            return
        attempt = job.attempt
        attempt.flow.take(event.bytes)
        job.progress_at = now
        if job.state is JobState.DELIVERING and not attempt.flow.untaken:
            self._state.taken(job)
            return
        spooled = min(event.bytes, job.page_bytes)
        self._state.unspool(job, spooled)
        if job.state is JobState.RELEASED:
            self._grant(attempt, event.bytes - spooled)

    def _grant(self, attempt: Attempt, taken: int) -> None:
        grant = attempt.flow.grant_for(taken)
        if grant and attempt.state is AttemptState.EXECUTING:
            self._state.out.append(SendCredit(attempt.session, attempt.job.id, attempt.number, grant))

    # --- places -----------------------------------------------------------------------------------------------------------

    def accepted(self, event: Accepted, now: float) -> None:
        """The place executes it."""
        attempt = self._state.find(event.session, event.job, event.attempt, "accept")
        if attempt is None:
            return
        self._answered(attempt, now)
        if attempt.state is AttemptState.OFFERED:
            attempt.accept(now)

    def refused(self, event: Refused, now: float) -> None:
        """The place does not execute it; nothing was started there."""
        state = self._state
        attempt = state.find(event.session, event.job, event.attempt, "refusal")
        if attempt is None:
            return
        self._answered(attempt, now)
        was_offered = attempt.state is AttemptState.OFFERED
        state.free(attempt, Cause(EndKind.REFUSED, event.reason.value), now)
        if not was_offered:
            return
        job = attempt.job
        job.move(JobStimulus.RETURN)
        match event.reason:
            case RefusalKind.NOT_ASSIGNED:
                count = job.not_assigned[event.session] = job.not_assigned.get(event.session, 0) + 1
                state.out.append(PushSet(event.session))
                if count > limits.NOT_ASSIGNED_MAX:
                    job.excluded[event.session] = Verdict.NOT_READY
            case RefusalKind.BUSY | RefusalKind.STALE:
                attempt.pair.busy_until = now + limits.BUSY_BACKOFF_SECONDS
                due = attempt.pair.busy_until
                state.pump_at = due if state.pump_at is None else min(state.pump_at, due)
            case _:
                job.excluded[event.session] = _EXCLUDING[event.reason]
                if event.reason is RefusalKind.POLICY:
                    job.refusal_message = event.message
        self._router.route(job, now)

    def rows(self, event: Rows, now: float) -> None:
        """Rows of the attempt: held, or passed on when rows were released already."""
        attempt = self._state.find(event.session, event.job, event.attempt, "rows")
        if attempt is None or not self._take_bytes(attempt, len(event.payload), now):
            return
        job, flow = attempt.job, attempt.flow
        if flow.received == flow.granted:
            self._state.count("credit_stalls")
        if job.is_page:
            flow.hold(event.payload)
            self._grant(attempt, len(event.payload))
        elif job.state is JobState.RELEASED:
            self._state.out.append(Deliver(job.id, flow.release(event.payload), job.record))
        else:
            flow.hold(event.payload)
            if flow.held_bytes >= limits.HOLD_BACK_BYTES:
                self.release(job, now)
            elif job.phase_due is None:
                job.phase_due = now + limits.HOLD_BACK_SECONDS
                self._state.timers.schedule(job)

    def release(self, job: Job, now: float) -> None:
        """From now on the caller has rows of this attempt, and of no other."""
        attempt = job.attempt
        assert attempt is not None, "only an attempt has rows to release"
        job.move(JobStimulus.RELEASE)
        job.record.released_at = now
        job.progress_at = now
        job.phase_due = now + job.request.stall_seconds
        self._state.timers.schedule(job)
        if chunks := attempt.flow.release():
            self._state.out.append(Deliver(job.id, chunks, job.record))

    def ended(self, event: Ended, now: float) -> None:
        """The attempt is complete, and so is the job."""
        attempt = self._state.find(event.session, event.job, event.attempt, "end")
        if attempt is None:
            return
        if attempt.state is AttemptState.STOPPING:
            self._heard(attempt, now)
            self._state.free(attempt, ENDED, now)
            return
        if not self._take_bytes(attempt, len(event.tail), now, is_last=True):
            return
        if attempt.flow.received != event.sent_bytes:
            self._broke_rules(attempt, "byte_count_differs", now)
            return
        attempt.pair.record_reached()
        job = attempt.job
        if job.record.released_at is None:
            job.record.released_at = now
        self._state.complete(job, attempt.flow.release(event.tail), event.result, now)

    def failed(self, event: AttemptFailed, now: float) -> None:
        """The attempt ended without a result."""
        state = self._state
        attempt = state.find(event.session, event.job, event.attempt, "failure")
        if attempt is None:
            return
        self._heard(attempt, now)
        if attempt.state is not AttemptState.EXECUTING:
            was_offered = attempt.state is AttemptState.OFFERED
            state.free(attempt, Cause(EndKind.FAILED, event.failure.code.value), now)
            if was_offered:
                attempt.job.move(JobStimulus.RETURN)
                state.fail(attempt.job, event.failure, now)
            return
        job, failure = attempt.job, event.failure
        if _is_given_up(failure) and not attempt.place.is_service and not event.handed_back:
            # This node did not ask for that: a runner whose session breaks gives up its attempts, and may still report it.
            self.lost(attempt, "given_up", now)
            return
        is_unreachable = failure.code is ErrorCode.SOURCE_UNREACHABLE
        if is_unreachable:
            attempt.pair.record_unreachable(now)
        elif failure.code in _FROM_THE_DATABASE:
            attempt.pair.record_reached()
        lost = failures.runner_failed(job, "handed_back") if event.handed_back else failure
        cause = HANDED_BACK if event.handed_back else Cause(EndKind.FAILED, failure.code.value)
        state.free(attempt, cause, now)
        if job.state is JobState.RELEASED:
            state.fail(job, lost, now)
            return
        job.move(JobStimulus.RETURN)
        if event.handed_back:
            self._handed_back(job, attempt, lost, now)
        elif event.retryable:
            self._elsewhere(job, attempt, failure, now)
        else:
            state.fail(job, failure, now)

    def _handed_back(self, job: Job, attempt: Attempt, lost: Failure, now: float) -> None:
        if not job.request.may_retry:
            self._state.fail(job, lost, now)
            return
        job.record.executed -= 1
        job.excluded[attempt.session] = Verdict.DRAINING
        self._router.route(job, now)

    def _elsewhere(self, job: Job, attempt: Attempt, failure: Failure, now: float) -> None:
        """A failure of the place rather than of the query: the second candidate's word decides."""
        state = self._state
        facts = {name: failure.details[name] for name in _UNREACHABLE_FACTS if name in failure.details}
        if attempt.record.runner_name is not None:
            job.unreachable.append({"name": attempt.record.runner_name, **facts})
        job.pending_failure = failure
        job.excluded[attempt.session] = Verdict.FAILED
        may_try = (
            not attempt.place.is_service
            and job.request.may_retry
            and job.record.executed < limits.ATTEMPTS_MAX
            and (
                _is_without_contact(failure)
                or self._router.has_sound_candidate(job)
                or state.budget.spend(job.request.source)
            )
        )
        if may_try:
            self._router.route(job, now)
        else:
            state.fail(job, failures.with_runners(failure, job.unreachable), now)

    def lost(self, attempt: Attempt, cause: str, now: float) -> None:
        """The place is gone, or provably does not have the attempt any more."""
        state, job = self._state, attempt.job
        before = attempt.state
        failure = failures.runner_failed(job, cause)
        state.free(attempt, Cause(EndKind.LOST, cause), now)
        if before is AttemptState.STOPPING:
            return
        if job.state is JobState.RELEASED:
            state.fail(job, failure, now)
            return
        job.move(JobStimulus.RETURN)
        job.losses += before is AttemptState.EXECUTING
        is_over = job.losses >= limits.RUNNERS_LOST_MAX or job.record.executed >= limits.ATTEMPTS_MAX
        if is_over or not job.request.may_retry:
            state.fail(job, failure, now)
        else:
            self._router.route(job, now)

    def unanswered(self, attempt: Attempt, now: float) -> None:
        """The offer was not answered in time: it goes elsewhere, and the silent session is suspect."""
        state, job = self._state, attempt.job
        failure = failures.runner_failed(job, "unanswered")
        session = state.fleet.sessions.get(attempt.session)
        state.stop(attempt, "unanswered", now)
        job.move(JobStimulus.RETURN)
        if session is not None and state.fleet.offer_unanswered(session, now):
            state.show(session)
        if not job.request.may_retry:
            state.fail(job, failure, now)
            return
        job.excluded[attempt.session] = Verdict.UNANSWERED
        self._router.route(job, now)

    # --- parts ------------------------------------------------------------------------------------------------------------

    def _take_bytes(self, attempt: Attempt, size: int, now: float, *, is_last: bool = False) -> bool:
        """Count bytes of an executing attempt; False when they are not to be used."""
        state, job = self._state, attempt.job
        if attempt.state is not AttemptState.EXECUTING:
            if attempt.state is AttemptState.OFFERED:
                self._broke_rules(attempt, "rows_before_accept", now)
            else:
                state.count("stopped_rows")
            return False
        if attempt.record.first_row_at is None:
            attempt.record.first_row_at = now
            if not attempt.place.is_service:  # the service has no rivals to be compared with
                attempt.pair.record_latency(now - attempt.record.offered_at, now)
            attempt.pair.record_reached()
        if not attempt.flow.receive(size):
            self._broke_rules(attempt, "credit_overrun", now)
            return False
        if size and job.is_page:
            bound = job.request.page_bytes_max or limits.PAGE_BYTES_MAX
            is_too_large = job.page_bytes + size > bound
            if is_too_large or state.page_bytes + size > limits.PAGE_BYTES_TOTAL_MAX:
                return self._overflow(attempt, bound, now, is_too_large=is_too_large, is_last=is_last)
            job.page_bytes += size
            state.page_bytes += size
        return True

    def _overflow(self, attempt: Attempt, bound: int, now: float, *, is_too_large: bool, is_last: bool) -> bool:
        """The page is more than may be held: it goes on as a stream. False when it cannot, and failed.

        From now on it is as slow as its caller and keeps a connection for so long, so it counts as an export.
        """
        state, job = self._state, attempt.job
        if not job.request.may_overflow:
            held = failures.overloaded("too many pages are held at once")
            state.fail(job, failures.page_too_large(bound) if is_too_large else held, now)
            return False
        if not is_last and not attempt.turn_into_export():
            state.fail(job, failures.overloaded("too many large pages and exports are under way"), now)
            return False
        state.count("pages_overflowed")
        state.has_room_again = True
        self.release(job, now)
        return True

    def _broke_rules(self, attempt: Attempt, cause: str, now: float) -> None:
        if attempt.place.is_service:
            self._state.broke_executor(attempt, cause, now)
        else:
            self._state.count(cause)
            self._state.close_broken(attempt.session)

    def _answered(self, attempt: Attempt, now: float) -> None:
        """An answer to a fresh offer proves both directions, as an acknowledged heartbeat does."""
        session = self._state.fleet.sessions.get(attempt.session)
        if session is None:
            return
        if now - attempt.record.offered_at > session.timings.fresh_seconds:
            self._state.fleet.heard(session, now)
        elif self._state.fleet.alive(session, now):
            self._state.show(session)
            self._state.is_somebody_back = True

    def _heard(self, attempt: Attempt, now: float) -> None:
        session = self._state.fleet.sessions.get(attempt.session)
        if session is not None:
            self._state.fleet.heard(session, now)


def _is_given_up(failure: Failure) -> bool:
    """The executor ended the attempt. A database whose administrator ended the statement has answered, and that stands."""
    return failure.code is ErrorCode.CANCELLED and failure.details.get("reason") != CANCELLED_BY_DATABASE


def _is_without_contact(failure: Failure) -> bool:
    """The place could not even try to reach the database: repeating elsewhere does not hammer that."""
    return failure.code is ErrorCode.OVERLOADED and failure.details.get("class") == "descriptors"
