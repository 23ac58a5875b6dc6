"""What became of a job, as plain values: for `GET /v1/requests/{id}`, logs and metrics. Times are monotonic seconds."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from lensway.errors import Failure
from lensway.fleet import CandidateNote
from lensway.ids import EnvironmentId, InstanceId, JobId, RequestId, RunnerId, SessionId, SourceId


class EndKind(enum.StrEnum):
    """How an attempt ended."""

    ENDED = "ended"
    """Its place is done with it."""
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    LOST = "lost"
    FAILED = "failed"
    HANDED_BACK = "handed_back"
    STOPPED = "stopped"
    """Dispatch told the place to stop."""


class Cause(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why an attempt ended. ``detail`` is a closed word: a refusal, an error code, what was lost, who stopped it."""

    kind: EndKind
    detail: str = ""

    def __str__(self) -> str:
        """As people are shown it: `lost:closed`, `ended`."""
        return f"{self.kind.value}:{self.detail}" if self.detail else self.kind.value


ENDED: Final = Cause(EndKind.ENDED)
UNANSWERED: Final = Cause(EndKind.UNANSWERED)
HANDED_BACK: Final = Cause(EndKind.HANDED_BACK)


class AttemptRecord(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """One offer and what followed. ``runner`` None is inline; ``cause`` is None while the attempt runs."""

    number: int
    session: SessionId
    runner: RunnerId | None
    runner_name: str | None
    instance: InstanceId | None
    candidates: tuple[CandidateNote, ...]
    offered_at: float
    accepted_at: float | None = None
    first_row_at: float | None = None
    ended_at: float | None = None
    cause: Cause | None = None


class JobRecord(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """One job from submission to outcome. ``attempts`` are all offers in order; ``executed`` counts the accepted ones.

    ``undecided`` is the last decision that found no runner (why the job waited, was queued, or failed); ``outcome`` is
    ``completed`` or the code of the failure, "" while the job runs.
    """

    request: RequestId
    job: JobId
    environment: EnvironmentId
    source: SourceId
    kind: str
    submitted_at: float
    deadline: float
    attempts: list[AttemptRecord] = msgspec.field(default_factory=list)
    executed: int = 0
    undecided: tuple[CandidateNote, ...] = ()
    waited_at: float | None = None
    queued_at: float | None = None
    released_at: float | None = None
    ended_at: float | None = None
    bytes: int = 0
    outcome: str = ""
    failure: Failure | None = None

    def placed_at(self) -> AttemptRecord | None:
        """The attempt that gave the outcome, or the last one that was executed."""
        for attempt in reversed(self.attempts):
            if attempt.accepted_at is not None:
                return attempt
        return None

    @property
    def is_by_runner(self) -> bool:
        """Whether a runner gave the outcome, and not the service itself."""
        placed = self.placed_at()
        return placed is not None and placed.runner is not None
