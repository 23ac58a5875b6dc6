"""What dispatch hears and what it orders: values, never frames, never I/O.

A *place* is where an attempt executes: a session of a runner, or inline. Every event of a place names job and attempt; one
that names an older attempt, or comes from another session than the attempt's, changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from lensway import limits
from lensway.dispatch.core.records import JobRecord
from lensway.errors import Failure
from lensway.fleet.facts import SessionFacts
from lensway.ids import EnvironmentId, JobId, RequestId, RunnerId, SessionId, SourceId

INLINE: Final = SessionId(0)
"""The place of the service itself. Sessions of runners count from 1."""


class Release(enum.Enum):
    """When rows may leave for the caller."""

    AT_END = "at_end"
    STREAM = "stream"


class RefusalKind(enum.Enum):
    """Why a place refused an offer, as dispatch needs to tell them apart."""

    NOT_ASSIGNED = "not_assigned"
    BUSY = "busy"
    DRAINING = "draining"
    NO_BRIDGE = "no_bridge"
    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS_AMBIGUOUS = "credentials_ambiguous"
    POLICY = "policy"
    STALE = "stale"
    UNKNOWN_KIND = "unknown_kind"
    UNWRITTEN = "unwritten"
    """The offer never left this node: the link was closed already. Said by the link, never by a runner."""


class Asker(msgspec.Struct, frozen=True, gc=False):
    """Who asks, by names that a runner may log: the key's id and name, the environment's name, the lens."""

    key: str
    key_name: str
    environment: str
    lens: str = ""


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request to be executed. ``payload`` is opaque (an encoded plan). ``deadline`` is monotonic time.

    ``runner`` pins the job to one runner, ``session`` to one instance (connection tests); pinned jobs are never executed
    elsewhere. ``unassigned`` lets a pinned job go to a runner without an assignment. ``may_overflow`` lets a page that is
    more than may be held go on as a stream, instead of failing. ``trace`` is the context of the job's span where it is traced,
    as `lensway.observe.trace` writes it. ``owner`` is the key that asked, with which the job ends.
    ``asker`` tells a runner who asks; ``needs`` are the features that a runner must have named to be offered the job.
    """

    request: RequestId
    environment: EnvironmentId
    source: SourceId
    kind: str
    payload: bytes
    format: str
    deadline: float
    release: Release
    rows_max: int
    bytes_max: int
    row_bytes_max: int
    may_retry: bool = True
    is_export: bool = False
    runner: RunnerId | None = None
    session: SessionId | None = None
    unassigned: bool = False
    page_bytes_max: int | None = None
    may_overflow: bool = False
    stall_seconds: float = limits.STALL_TIMEOUT_SECONDS
    trace: str = ""
    owner: str = ""
    asker: Asker | None = None
    needs: frozenset[str] = frozenset()


# --- events ---------------------------------------------------------------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """A caller wants this job done."""

    job: JobId
    request: JobRequest


class CallerGone(msgspec.Struct, frozen=True, gc=False):
    """The caller cancelled or went away."""

    job: JobId


class CancelWanted(msgspec.Struct, frozen=True, gc=False):
    """The caller or an operator asked to end the job."""

    job: JobId


class OwnersEnded(msgspec.Struct, frozen=True, gc=False):
    """These keys or environments were deleted: their jobs end as `unauthenticated`."""

    owners: frozenset[str]


class Consumed(msgspec.Struct, frozen=True, gc=False):
    """The caller took so many released bytes."""

    job: JobId
    bytes: int


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The place executes the attempt."""

    session: SessionId
    job: JobId
    attempt: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The place does not execute the attempt; nothing was started."""

    session: SessionId
    job: JobId
    attempt: int
    reason: RefusalKind
    revision: int = 0
    message: str = ""


class Rows(msgspec.Struct, frozen=True, gc=False):
    """Encoded rows of the attempt, in order."""

    session: SessionId
    job: JobId
    attempt: int
    payload: bytes


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The attempt is complete; ``result`` is the opaque end mark, ``tail`` the last rows, ``sent_bytes`` all of its data."""

    session: SessionId
    job: JobId
    attempt: int
    result: bytes
    sent_bytes: int
    tail: bytes = b""


class AttemptFailed(msgspec.Struct, frozen=True, gc=False):
    """The attempt ended without a result."""

    session: SessionId
    job: JobId
    attempt: int
    failure: Failure
    retryable: bool = False
    handed_back: bool = False


class SessionOpened(msgspec.Struct, frozen=True, gc=False):
    """A runner is connected and authenticated."""

    facts: SessionFacts


class SessionAlive(msgspec.Struct, frozen=True, gc=False):
    """A sign of life: the peer acknowledged a heartbeat of ours that is fresh, so both directions carry."""

    session: SessionId


class SessionHeard(msgspec.Struct, frozen=True, gc=False):
    """Bytes of the peer came in: it is not dead, but nothing says that it hears us."""

    session: SessionId


class SessionReported(msgspec.Struct, frozen=True, gc=False):
    """The runner's heartbeat: the revision in force, what it holds, what it knows of its sources.

    ``jobs`` are the (job, attempt) pairs that it has accepted and not ended, ``notices`` the classes of trouble with the runner
    itself; None when this report does not say. Give it behind all frames that arrived before it.
    """

    session: SessionId
    revision: int
    jobs: tuple[tuple[int, int], ...] | None
    draining: bool
    source_states: Mapping[SourceId, tuple[str, str]]
    notices: tuple[str, ...] | None = None


class SessionDraining(msgspec.Struct, frozen=True, gc=False):
    """The runner (or an operator) takes it out of service; attempts in flight go on. ``is_draining`` False ends it."""

    session: SessionId
    is_draining: bool = True


class SessionMarked(msgspec.Struct, frozen=True, gc=False):
    """An operator drained or resumed its runner just now: the catalog says which, this says when."""

    session: SessionId


class SessionAssigned(msgspec.Struct, frozen=True, gc=False):
    """Its runner is assigned these sources from now on, and no others."""

    session: SessionId
    sources: frozenset[SourceId]


class SessionLost(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone. ``cause`` is for people: a short class such as ``closed``, ``reset``, ``heartbeat_lost``."""

    session: SessionId
    cause: str


class CatalogChanged(msgspec.Struct, frozen=True, gc=False):
    """There is a newer snapshot; queued and waiting jobs are routed again."""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """The time that `Core.next_wake` asked for has come."""


class Stopping(msgspec.Struct, frozen=True, gc=False):
    """The node goes down: nothing new is accepted, what runs is finished."""


Event: TypeAlias = (
    Submitted
    | CallerGone
    | CancelWanted
    | OwnersEnded
    | Consumed
    | Accepted
    | Refused
    | Rows
    | Ended
    | AttemptFailed
    | SessionOpened
    | SessionAlive
    | SessionHeard
    | SessionReported
    | SessionDraining
    | SessionMarked
    | SessionAssigned
    | SessionLost
    | CatalogChanged
    | Tick
    | Stopping
)


# --- instructions ---------------------------------------------------------------------------------------------------------


class SendOffer(msgspec.Struct, frozen=True, gc=False):
    """Offer the attempt to the session; or, when ``session`` is INLINE, start it, which counts as accepted."""

    session: SessionId
    job: JobId
    attempt: int
    request: JobRequest
    revision: int
    remaining_seconds: float
    credit: int


class SendCancel(msgspec.Struct, frozen=True, gc=False):
    """Stop the attempt at its place; what it still says is ignored."""

    session: SessionId
    job: JobId
    attempt: int
    reason: str


class SendCredit(msgspec.Struct, frozen=True, gc=False):
    """The attempt may send so many bytes more."""

    session: SessionId
    job: JobId
    attempt: int
    bytes: int


class PushSet(msgspec.Struct, frozen=True, gc=False):
    """The session does not have the wanted set: push it (again)."""

    session: SessionId


class CloseSession(msgspec.Struct, frozen=True, gc=False):
    """End the session now (dead, or it broke the rules)."""

    session: SessionId
    cause: str


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Give these rows to the caller, in order. ``record`` names the attempt that they are of, as it goes."""

    job: JobId
    chunks: tuple[bytes, ...]
    record: JobRecord


class Complete(msgspec.Struct, frozen=True, gc=False):
    """The job's one good outcome: the rest of the rows and the end mark.

    ``is_taken`` says that these rows do not count as held for the caller any more: no later event has to say when it took them.
    """

    job: JobId
    chunks: tuple[bytes, ...]
    result: bytes
    record: JobRecord
    is_taken: bool


class Fail(msgspec.Struct, frozen=True, gc=False):
    """The job's one bad outcome. ``released`` says that rows went out before it: the stream must visibly break."""

    job: JobId
    failure: Failure
    released: bool
    record: JobRecord


class Abandon(msgspec.Struct, frozen=True, gc=False):
    """The job has had its outcome and the caller has taken nothing of the rest for too long: drop it and cut the caller."""

    job: JobId


class StatusChanged(msgspec.Struct, frozen=True, gc=False):
    """A session's state changed; for events, metrics and the Console. The first state is ``live``, the last ``lost``.

    ``sources`` are those of which its runner says something new, never more than one report holds.
    """

    session: SessionId
    runner: RunnerId
    state: str
    cause: str
    sources: tuple[SourceId, ...] = ()


Instruction: TypeAlias = (
    SendOffer | SendCancel | SendCredit | PushSet | CloseSession | Deliver | Complete | Fail | Abandon | StatusChanged
)
