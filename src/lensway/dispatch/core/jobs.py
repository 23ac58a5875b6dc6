"""A job and its attempts: their states, and what must be remembered of them. The tables are the only way a state changes.

A job is one request. It has at most one *current* attempt. An attempt that was given up is not forgotten before its place is
known to have ended it: until then it keeps its reservation, and everything it still says is counted and dropped.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from lensway import limits
from lensway.dispatch.core.events import JobRequest, Release
from lensway.dispatch.core.records import AttemptRecord, JobRecord
from lensway.errors import Failure
from lensway.fleet import CandidateNote, Pair, SessionFacts, Table, Verdict
from lensway.fleet.load import Load
from lensway.ids import JobId, SessionId


class JobState(enum.Enum):
    """Where a job stands."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    ROUTING = "routing"
    WAITING = "waiting"
    QUEUED = "queued"
    OFFERED = "offered"
    EXECUTING = "executing"
    RELEASED = "released"
    DELIVERING = "delivering"
    OVER = "over"


class JobStimulus(enum.Enum):
    """What moves a job."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    WAIT = "no runner is live, one may come back"
    ENQUEUE = "all busy"
    OFFER = "a place was chosen"
    ACCEPT = "accepted"
    RETURN = "refused, unanswered, handed back or lost"
    RELEASE = "first rows released"
    COMPLETE = "complete, rows still to be taken"
    SETTLE = "outcome given"
    TAKEN = "last row taken, or the caller is gone"


_S = JobState
_ON = JobStimulus
JOB_TABLE: Final[Table[JobState, JobStimulus]] = Table(
    "job",
    _S.ROUTING,
    {
        (_S.ROUTING, _ON.OFFER): _S.OFFERED,
        (_S.ROUTING, _ON.ENQUEUE): _S.QUEUED,
        (_S.ROUTING, _ON.WAIT): _S.WAITING,
        (_S.ROUTING, _ON.SETTLE): _S.OVER,
        (_S.WAITING, _ON.OFFER): _S.OFFERED,
        (_S.WAITING, _ON.ENQUEUE): _S.QUEUED,
        (_S.WAITING, _ON.SETTLE): _S.OVER,
        (_S.QUEUED, _ON.OFFER): _S.OFFERED,
        (_S.QUEUED, _ON.WAIT): _S.WAITING,
        (_S.QUEUED, _ON.SETTLE): _S.OVER,
        (_S.OFFERED, _ON.ACCEPT): _S.EXECUTING,
        (_S.OFFERED, _ON.RETURN): _S.ROUTING,
        (_S.OFFERED, _ON.SETTLE): _S.OVER,
        (_S.EXECUTING, _ON.RETURN): _S.ROUTING,
        (_S.EXECUTING, _ON.RELEASE): _S.RELEASED,
        (_S.EXECUTING, _ON.COMPLETE): _S.DELIVERING,
        (_S.EXECUTING, _ON.SETTLE): _S.OVER,
        (_S.RELEASED, _ON.COMPLETE): _S.DELIVERING,
        (_S.RELEASED, _ON.SETTLE): _S.OVER,
        (_S.DELIVERING, _ON.TAKEN): _S.OVER,
    },
)


class AttemptState(enum.Enum):
    """Where an attempt stands."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    OFFERED = "offered"
    EXECUTING = "executing"
    STOPPING = "stopping"
    OVER = "over"


class AttemptStimulus(enum.Enum):
    """What moves an attempt."""

    __hash__ = object.__hash__  # of the member, not of its name: every event looks a transition up

    ACCEPT = "accepted"
    STOP = "superseded, cancelled or expired"
    FINISH = "refused, ended, failed or lost"


_A = AttemptState
_DO = AttemptStimulus
ATTEMPT_TABLE: Final[Table[AttemptState, AttemptStimulus]] = Table(
    "attempt",
    _A.OFFERED,
    {
        (_A.OFFERED, _DO.ACCEPT): _A.EXECUTING,
        (_A.OFFERED, _DO.STOP): _A.STOPPING,
        (_A.OFFERED, _DO.FINISH): _A.OVER,
        (_A.EXECUTING, _DO.STOP): _A.STOPPING,
        (_A.EXECUTING, _DO.FINISH): _A.OVER,
        (_A.STOPPING, _DO.FINISH): _A.OVER,
    },
)


class Flow:
    """The bytes of one attempt: what it may send, what it sent, what is held back, what the caller took.

    The executor may be ahead of the caller by the window and no more. The spool of a page counts as the caller: what is held
    for a page is granted again at once, bounded by the size of a page, and not again when the caller takes it.
    """

    __slots__ = ("_ungranted", "consumed", "granted", "held", "held_bytes", "received", "released")

    def __init__(self) -> None:
        self.granted = limits.CREDIT_WINDOW_BYTES
        self.received = 0
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.released = 0
        self.consumed = 0
        self._ungranted = 0

    @property
    def untaken(self) -> int:
        """Bytes released and not yet taken by the caller."""
        return self.released - self.consumed

    def receive(self, size: int) -> bool:
        """Count bytes that arrived; False when the executor had no credit for them."""
        self.received += size
        return self.received <= self.granted

    def hold(self, payload: bytes) -> None:
        """Keep rows back."""
        self.held.append(payload)
        self.held_bytes += len(payload)

    def release(self, tail: bytes = b"") -> tuple[bytes, ...]:
        """Everything held, in order, and these rows behind it; from now on they count as released."""
        chunks = (*self.held, tail) if tail else tuple(self.held)
        self.released += self.held_bytes + len(tail)
        self.held = []
        self.held_bytes = 0
        return chunks

    def take(self, size: int) -> None:
        """The caller took released bytes."""
        self.consumed += size
        assert self.consumed <= self.released, "the caller cannot take what was not released"

    def grant_for(self, taken: int) -> int:
        """Bytes to grant now for ``taken`` more bytes out of the way; small ones are saved up, to save frames.

        What is saved up is less than a quarter of the window, so the executor always has three quarters when the caller
        has taken everything.
        """
        self._ungranted += taken
        if self._ungranted < limits.CREDIT_GRANT_BYTES_MIN:
            return 0
        grant, self._ungranted = self._ungranted, 0
        self.granted += grant
        return grant


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where attempts are executed: a session of a runner, or the service itself, which is always there.

    The service accepts what it is offered, has no rivals to be compared with, and is never lost.
    """

    session: SessionId
    load: Load
    runner: SessionFacts | None = None

    @property
    def is_service(self) -> bool:
        """True for the service itself."""
        return self.runner is None


class Attempt:
    """One offer of a job to one place."""

    __slots__ = ("flow", "is_export", "job", "number", "pair", "place", "record", "reports_missed", "session", "state")

    def __init__(self, job: Job, place: Place, pair: Pair, record: AttemptRecord) -> None:
        self.job = job
        self.number = record.number
        self.place = place
        self.session = place.session
        self.pair = pair
        self.record = record
        self.is_export = job.request.is_export
        self.state = AttemptState.OFFERED
        self.flow = Flow()
        self.reports_missed = 0

    def turn_into_export(self) -> bool:
        """Count it as an export from now on; False when its place has no room for one more."""
        assert not self.is_export, "an export is counted once"
        self.is_export = self.place.load.turn_into_export(self.pair)
        return self.is_export

    def move(self, stimulus: AttemptStimulus) -> None:
        """Change the state as the table says."""
        self.state = ATTEMPT_TABLE.after(self.state, stimulus)

    def accept(self, now: float) -> None:
        """Its place executes it, and so its job is executed."""
        job = self.job
        self.move(AttemptStimulus.ACCEPT)
        self.record.accepted_at = now
        job.record.executed += 1
        job.move(JobStimulus.ACCEPT)
        # A job that loses its runner again waits as long again: attempts are few, so this is bounded.
        job.wait_until = None
        job.phase_due = None
        job.progress_at = now


class Job:
    """One request and everything dispatch decides by."""

    __slots__ = (
        "attempt",
        "attempt_number",
        "excluded",
        "has_credit",
        "id",
        "losses",
        "not_assigned",
        "offers",
        "page_bytes",
        "pending_failure",
        "phase_due",
        "progress_at",
        "queue_until",
        "record",
        "refusal_message",
        "request",
        "scheduled",
        "state",
        "unreachable",
        "wait_until",
    )

    def __init__(self, job: JobId, request: JobRequest, now: float) -> None:
        self.id = job
        self.request = request
        self.state = JobState.ROUTING
        self.record = JobRecord(
            request=request.request,
            job=job,
            environment=request.environment,
            source=request.source,
            kind=request.kind,
            submitted_at=now,
            deadline=request.deadline,
        )
        self.attempt: Attempt | None = None
        self.attempt_number = 0
        self.offers = 0
        self.losses = 0
        self.excluded: dict[SessionId, Verdict] = {}
        self.not_assigned: dict[SessionId, int] = {}
        self.refusal_message = ""
        self.pending_failure: Failure | None = None
        self.unreachable: list[dict[str, object]] = []
        self.wait_until: float | None = None
        self.queue_until: float | None = None
        self.has_credit = False
        self.page_bytes = 0
        self.progress_at = now
        self.phase_due: float | None = None
        self.scheduled: float | None = None

    @property
    def is_page(self) -> bool:
        """True while nothing is to be released before the end. A page that overflowed has become a stream."""
        return self.request.release is Release.AT_END and self.state is not JobState.RELEASED

    @property
    def is_settled(self) -> bool:
        """True when the outcome has been given."""
        return self.state is JobState.DELIVERING or self.state is JobState.OVER

    @property
    def due(self) -> float | None:
        """When time alone must move this job."""
        if self.state is JobState.DELIVERING:
            return self.phase_due
        deadline = self.request.deadline
        return deadline if self.phase_due is None or deadline < self.phase_due else self.phase_due

    def move(self, stimulus: JobStimulus) -> None:
        """Change the state as the table says."""
        self.state = JOB_TABLE.after(self.state, stimulus)


def attempt_record(job: Job, place: Place, notes: tuple[CandidateNote, ...], now: float) -> AttemptRecord:
    """The record of the attempt that is offered now."""
    facts = place.runner
    return AttemptRecord(
        number=job.attempt_number,
        session=place.session,
        runner=None if facts is None else facts.runner,
        runner_name=None if facts is None else facts.runner_name,
        instance=None if facts is None else facts.instance,
        candidates=notes,
        offered_at=now,
    )
