"""What the parts of the core share: the jobs, the attempts held by each place, the orders of this step, and the few moves
that all of them make. Decides nothing about routing."""

from __future__ import annotations

from lensway import limits
from lensway.dispatch.core import failures
from lensway.dispatch.core.events import (
    INLINE,
    CloseSession,
    Complete,
    Fail,
    Instruction,
    SendCancel,
    StatusChanged,
)
from lensway.dispatch.core.jobs import Attempt, AttemptState, AttemptStimulus, Job, JobState, JobStimulus, Place
from lensway.dispatch.core.ports import Routes
from lensway.dispatch.core.queue import Queue
from lensway.dispatch.core.records import ENDED, UNANSWERED, Cause, EndKind
from lensway.dispatch.core.timers import Timers
from lensway.errors import Failure
from lensway.fleet import Fleet, Load, Session
from lensway.ids import JobId, SessionId, SourceId


class RetryBudget:
    """Tokens per source: a request earns a part of one, a repetition after a failure spends one. So a source that fails
    always is asked at most 1.1 times per request. A repetition where the source is known to answer is free: it hammers nothing
    that fails, and the many queries that one broken place fails at once all find the other place."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: dict[SourceId, float] = {}

    def earn(self, source: SourceId) -> None:
        """One request came in. Only sources that have spent something are remembered."""
        tokens = self._tokens.get(source)
        if tokens is not None:
            tokens += limits.RETRY_BUDGET_RATIO
            if tokens >= limits.RETRY_BUDGET_TOKENS_MAX:
                del self._tokens[source]
            else:
                self._tokens[source] = tokens

    def spend(self, source: SourceId) -> bool:
        """Take one token for a repetition; False when there is none."""
        tokens = self._tokens.get(source, limits.RETRY_BUDGET_TOKENS_MAX)
        if tokens < 1.0:
            return False
        self._tokens[source] = tokens - 1.0
        return True


class State:
    """The shared state of one core. Every method leaves it consistent; orders collect in ``out``."""

    def __init__(self, routes: Routes, started_at: float) -> None:
        self.routes = routes
        self.started_at = started_at
        self.fleet = Fleet()
        self.service = Place(INLINE, Load(limits.JOBS_INLINE_MAX))
        self.jobs: dict[JobId, Job] = {}
        self.held: dict[SessionId, dict[tuple[int, int], Attempt]] = {INLINE: {}}
        self.waiting: dict[JobId, Job] = {}
        self.queue = Queue()
        self.timers = Timers(self.jobs.keys())
        self.budget = RetryBudget()
        self.credit_bytes = 0
        self.page_bytes = 0
        self.has_room_again = False
        self.is_somebody_back = False
        self.has_broken_session = False
        self.pump_at: float | None = None
        self.is_stopping = False
        self.counters: dict[str, int] = {}
        self.out: list[Instruction] = []

    def count(self, name: str) -> None:
        """Count something that was dropped or is worth knowing, by name."""
        self.counters[name] = self.counters.get(name, 0) + 1

    def close_broken(self, session: SessionId) -> None:
        """A session broke the rules: it is to be closed, and is lost within this event."""
        self.has_broken_session = True
        self.out.append(CloseSession(session, "protocol_error"))

    # --- attempts ---------------------------------------------------------------------------------------------------------

    def find(self, session: SessionId, job: JobId, number: int, what: str) -> Attempt | None:
        """The attempt that a frame speaks of, when its place holds it.

        Anything else changes nothing: it is late, and counted by name; unless it names the current attempt of a job that
        another session has: no honest runner knows that number.
        """
        held = self.held.get(session)
        attempt = None if held is None else held.get((job, number))
        if attempt is None:
            current = None if (owner := self.jobs.get(job)) is None else owner.attempt
            if current is not None and current.number == number and current.session != session and held is not None:
                self.count("foreign_" + what)
                self.close_broken(session)
            else:
                self.count("late_" + what)
        return attempt

    def free(self, attempt: Attempt, cause: Cause, now: float) -> None:
        """The place is done with the attempt: its reservation is given back."""
        held = self.held.get(attempt.session)
        if held is not None:
            del held[attempt.job.id, attempt.number]
        attempt.place.load.give_back(attempt.pair, is_export=attempt.is_export)
        attempt.move(AttemptStimulus.FINISH)
        self.has_room_again = True
        self._end_record(attempt, cause, now)
        self._detach(attempt)

    def stop(self, attempt: Attempt, cause: str, now: float) -> None:
        """Tell the place to stop. The reservation stays until it is known to have stopped."""
        attempt.move(AttemptStimulus.STOP)
        self.out.append(SendCancel(attempt.session, attempt.job.id, attempt.number, cause))
        self._end_record(attempt, UNANSWERED if cause == "unanswered" else Cause(EndKind.STOPPED, cause), now)
        self._detach(attempt)

    def _end_record(self, attempt: Attempt, cause: Cause, now: float) -> None:
        if attempt.record.ended_at is None:
            attempt.record.ended_at = now
            attempt.record.cause = cause

    def _detach(self, attempt: Attempt) -> None:
        """What the attempt held back is dropped: rows of it are never released any more."""
        job = attempt.job
        if job.attempt is not attempt:
            return  # given up before; what the job holds now is of a newer attempt
        if job.state in (JobState.RELEASED, JobState.DELIVERING):
            return
        job.attempt = None
        if job.page_bytes:
            self.unspool(job, job.page_bytes)
        attempt.flow.held = []
        attempt.flow.held_bytes = 0

    # --- outcomes ---------------------------------------------------------------------------------------------------------

    def fail(self, job: Job, failure: Failure, now: float, *, stop_cause: str = "settled") -> None:
        """The job's one bad outcome. Its attempt, if it has one, is stopped."""
        released = job.state is JobState.RELEASED
        attempt = job.attempt
        if attempt is not None and attempt.state in (AttemptState.OFFERED, AttemptState.EXECUTING):
            self.stop(attempt, stop_cause, now)
        self._leave(job)
        job.move(JobStimulus.SETTLE)
        record = job.record
        record.ended_at = now
        record.outcome = failure.code.value
        record.failure = failure
        if released and attempt is not None:
            record.bytes = attempt.flow.released
        self.forget(job)
        self.out.append(Fail(job.id, failure, released, record))

    def complete(self, job: Job, chunks: tuple[bytes, ...], result: bytes, now: float) -> None:
        """The job's one good outcome. The job stays until the caller has taken the bytes: they are still in memory."""
        attempt = job.attempt
        assert attempt is not None, "only an attempt completes a job"
        job.move(JobStimulus.COMPLETE)
        record = job.record
        record.ended_at = now
        record.outcome = "completed"
        record.bytes = attempt.flow.received
        self.free(attempt, ENDED, now)
        untaken = attempt.flow.untaken
        is_taken = not untaken or (untaken <= limits.TAKEN_AT_ONCE_BYTES_MAX and record.bytes == untaken)
        self.out.append(Complete(job.id, chunks, result, record, is_taken))
        job.progress_at = now
        if not is_taken:
            job.phase_due = now + job.request.stall_seconds
            self.timers.schedule(job)
        else:
            self.taken(job)

    def taken(self, job: Job) -> None:
        """Nothing of the job is in memory any more."""
        job.move(JobStimulus.TAKEN)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """The job is over: free its reservation."""
        del self.jobs[job.id]
        job.attempt = None
        if job.has_credit:
            job.has_credit = False
            self.credit_bytes -= limits.CREDIT_WINDOW_BYTES
            self.has_room_again = True
        if job.page_bytes:
            self.unspool(job, job.page_bytes)
        assert self.credit_bytes >= 0, "a credit window was given back twice"

    def unspool(self, job: Job, size: int) -> None:
        """So many bytes of the job's page are not in memory any more."""
        job.page_bytes -= size
        self.page_bytes -= size
        assert self.page_bytes >= job.page_bytes >= 0, "a page was given back twice"

    def _leave(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self.queue.left()
        elif job.state is JobState.WAITING:
            del self.waiting[job.id]

    # --- sessions ---------------------------------------------------------------------------------------------------------

    def show(self, session: Session, sources: tuple[SourceId, ...] = ()) -> None:
        """Tell that the session's state changed, or what it says of these sources."""
        self.out.append(StatusChanged(session.id, session.facts.runner, session.shown_state, session.cause, sources))

    def broke_executor(self, attempt: Attempt, cause: str, now: float) -> None:
        """Inline broke the rules of flow: our own defect, so the job fails and says so."""
        self.count("inline_" + cause)
        job = attempt.job
        released = attempt.state is AttemptState.EXECUTING and job.attempt is attempt
        if released:
            self.fail(job, failures.broken_executor(cause), now, stop_cause=cause)
