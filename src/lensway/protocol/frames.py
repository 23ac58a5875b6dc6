"""The frames between runner and gateway, as values.

Plans, rows and sealed credentials are opaque bytes here. Every control frame is a tagged record in compact MessagePack
(an array whose first element is the tag); new fields go to the end and have defaults, so that adjacent versions understand
each other. `Data` is the exception: a fixed binary header and raw bytes (see `codec`).
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

import msgspec

from lensway.limits import ATTEMPTS_OPEN_MAX, INSTANCE_CHARACTERS_MAX, NOTICES_MAX, SOURCE_STATES_MAX

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""A number that every language holds exactly. Job ids, revisions, sequences, bytes and milliseconds are counts."""
Attempt: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=255)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=2_000)]
"""A text for people."""
Names: TypeAlias = Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]
Notices: TypeAlias = Annotated[tuple[Name, ...], msgspec.Meta(max_length=NOTICES_MAX)]
"""Classes of trouble with a runner itself."""
PublicKey: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Root of all frames."""


class Hello(Frame, tag=1, frozen=True, kw_only=True):
    """Runner → gateway, first: who I am, what I can do.

    ``public_key`` is the instance's X25519 key as raw 32 bytes; ``versions`` the protocol versions it speaks. ``bridges`` maps
    the kinds it can execute to the driver's version. ``encodings`` are the formats it can encode rows in; an older runner names
    none, and may have every one.
    """

    runner: Name
    instance: Annotated[str, msgspec.Meta(max_length=INSTANCE_CHARACTERS_MAX)]
    versions: Annotated[tuple[Count, ...], msgspec.Meta(max_length=64)]
    software: Name
    public_key: PublicKey
    bridges: Annotated[dict[Name, Name], msgspec.Meta(max_length=64)]
    capacity: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    features: Names = ()
    hostname: Name = ""
    started_at: Name = ""
    encodings: Names = ()


class Welcome(Frame, tag=2, frozen=True, kw_only=True):
    """Gateway → runner, first: the session is open. All durations in milliseconds; no wall clock is compared."""

    version: Count
    session: Count
    runner_name: Name
    environment: Name
    heartbeat_ms: Count
    fence_ms: Count
    nonce: Annotated[bytes, msgspec.Meta(max_length=64)]
    features: Names = ()
    wall_ms: Count = 0
    """The gateway's wall clock: the runner judges the expiry of sealed credentials on it, never on its own."""


class Heartbeat(Frame, tag=3, frozen=True, kw_only=True):
    """Both ways. ``ack`` is the highest ``sequence`` seen of the peer: only that proves that the link carries both ways.

    From the runner, ``revision`` is the revision of the set in force and ``jobs`` the (job, attempt) pairs it holds. From the
    gateway, ``revision`` is the wanted one. ``source_states`` (runner) lists health facts per source id that changed. ``notices``
    (runner) are all classes of trouble with the runner itself that last, such as ``policy_invalid``.
    """

    sequence: Count
    ack: Count
    revision: Count
    jobs: Annotated[tuple[tuple[Count, Attempt], ...], msgspec.Meta(max_length=ATTEMPTS_OPEN_MAX)] = ()
    loop_lag_ms: Count = 0
    draining: bool = False
    source_states: SourceStates = ()
    notices: Notices = ()


class SourceState(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a runner knows of one assigned source: ``state`` is ``ready``, ``no_bridge``, ``no_credentials``,
    ``credentials_ambiguous``, ``refused`` (by local policy) or ``unreachable``; ``cause`` a class, never a driver's text."""

    source: Name
    state: Name
    cause: Name = ""


OVERRIDES: Final = "overrides: "
"""How a runner begins the keys of managed settings that its own settings of a source override."""
SourceStates: TypeAlias = Annotated[tuple[SourceState, ...], msgspec.Meta(max_length=SOURCE_STATES_MAX)]
"""What one report says. Checked before a single state is decoded."""


class AssignedSource(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One source of an assignment set. ``sealed_config`` is sealed to the instance; None for runner-local credentials.

    ``dialect`` is the one that the bridge must speak; empty: whichever it speaks first.
    """

    source: str
    name: str
    bridge: str
    config_version: Count
    sealed_config: bytes | None = None
    dialect: str = ""


class AssignmentSet(Frame, tag=4, frozen=True, kw_only=True):
    """Gateway → runner: the whole set at a revision, in ``parts`` parts; in force when the last part has arrived."""

    revision: Count
    part: Count
    parts: Count
    sources: tuple[AssignedSource, ...]


class AssignmentInForce(Frame, tag=5, frozen=True, kw_only=True):
    """Runner → gateway: this set is in force now (heartbeats repeat it)."""

    revision: Count
    source_states: SourceStates = ()


class JobKind(enum.StrEnum):
    """What an offer asks for. The payload of each is opaque to the protocol."""

    ROWS = "rows"
    EXPORT = "export"
    TEST = "test"
    TABLES = "tables"
    TABLE = "table"
    UNKNOWN = "unknown"
    """Never sent: what a kind that a newer gateway invented is read as, so that it is refused and not a broken link."""

    @classmethod
    def _missing_(cls, _value: object) -> JobKind:
        return cls.UNKNOWN


class Asker(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Who asks, for the log of the network's owner: the key by id and name, never the key itself."""

    key: Name = ""
    key_name: Name = ""
    environment: Name = ""
    lens: Name = ""


class Offer(Frame, tag=6, frozen=True, kw_only=True):
    """Gateway → runner: execute this, or refuse at once. ``deadline_ms`` is what remains of the caller's time.

    ``revision`` is the set that the decision was made on. ``spec`` is only set for a test of a source that is not assigned.
    ``asker`` is None for jobs of the service itself.
    """

    job: Count
    attempt: Attempt
    kind: JobKind
    source: str
    revision: Count
    payload: bytes
    format: str
    deadline_ms: Count
    credit: Count
    rows_max: Count
    bytes_max: Count
    row_bytes_max: Count
    request: str = ""
    spec: AssignedSource | None = None
    trace: str = ""
    may_repeat: bool = True
    """The lens lets the runner run the statement a second time, as long as no row has left."""
    asker: Asker | None = None


class Accept(Frame, tag=7, frozen=True, kw_only=True):
    """Runner → gateway: I execute this attempt."""

    job: Count
    attempt: Attempt


class RefuseReason(enum.StrEnum):
    """Why an offer was refused. Deciding on it, never on text."""

    NOT_ASSIGNED = "not_assigned"
    BUSY = "busy"
    DRAINING = "draining"
    NO_BRIDGE = "no_bridge"
    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS_AMBIGUOUS = "credentials_ambiguous"
    POLICY = "policy"
    STALE = "stale"
    UNKNOWN_KIND = "unknown_kind"

    @classmethod
    def _missing_(cls, _value: object) -> RefuseReason:
        """A reason of a newer runner: this runner cannot serve the offer, and another one may."""
        return cls.UNKNOWN_KIND


class Refuse(Frame, tag=8, frozen=True, kw_only=True):
    """Runner → gateway: I do not execute this attempt; nothing was started. ``revision`` is the set in force."""

    job: Count
    attempt: Attempt
    reason: RefuseReason
    revision: Count
    message: str = ""


class Data(Frame, tag=9, frozen=True, kw_only=True):
    """Runner → gateway: encoded rows, in order, at most DATA_FRAME_BYTES_MAX and never more than the credit left.

    ``offset`` is the bytes of the attempt's rows before it: rows that were lost, repeated or overtaken are a broken link, and
    never a wrong result."""

    job: Count
    attempt: Attempt
    payload: bytes
    offset: Count = 0


class Credit(Frame, tag=10, frozen=True, kw_only=True):
    """Gateway → runner: the caller took so many bytes more."""

    job: Count
    attempt: Attempt
    bytes: Count


class End(Frame, tag=11, frozen=True, kw_only=True):
    """Runner → gateway: complete. ``result`` is the encoded end mark; ``tail`` the last rows when they are small (saves a
    frame for small results); it counts against the credit as data does. ``sent_bytes`` is all data including the tail."""

    job: Count
    attempt: Attempt
    result: bytes
    sent_bytes: Count
    tail: bytes = b""


class Fail(Frame, tag=12, frozen=True, kw_only=True):
    """Runner → gateway: the attempt ended without a result. ``failure`` is an encoded typed failure; ``retryable`` says that
    another runner could succeed (connection failures, hand-backs)."""

    job: Count
    attempt: Attempt
    failure: bytes
    retryable: bool = False
    handed_back: bool = False


class Cancel(Frame, tag=13, frozen=True, kw_only=True):
    """Gateway → runner: stop this attempt; answered by End or Fail."""

    job: Count
    attempt: Attempt
    reason: str = ""


class Drain(Frame, tag=14, frozen=True, kw_only=True):
    """Either way: no new work. From the runner: I am leaving. From the gateway: come back after ``after_ms`` (0 = now drain
    by order of an operator, stay connected)."""

    reason: str
    after_ms: Count = 0


class Resume(Frame, tag=15, frozen=True, kw_only=True):
    """Gateway → runner: an operator's drain is over."""


class CloseReason(enum.StrEnum):
    """Why a session ends. ``fatal`` ones make a runner stop dialling for a long time or exit."""

    GOING_AWAY = "going_away"
    UNAUTHENTICATED = "unauthenticated"
    REVOKED = "revoked"
    VERSION = "version"
    PROTOCOL_ERROR = "protocol_error"
    SUPERSEDED = "superseded"
    TOO_MANY_INSTANCES = "too_many_instances"
    HEARTBEAT_LOST = "heartbeat_lost"
    OVERLOADED = "overloaded"

    @classmethod
    def _missing_(cls, _value: object) -> CloseReason:
        """A reason of a newer peer is not known to be fatal."""
        return cls.GOING_AWAY


FATAL_CLOSES: Final = frozenset({CloseReason.UNAUTHENTICATED, CloseReason.REVOKED, CloseReason.VERSION})
"""Dialling again with the same token and the same software cannot help."""


class Close(Frame, tag=16, frozen=True, kw_only=True):
    """Either way, last: the session ends; ``after_ms`` says when to dial again."""

    reason: CloseReason
    message: str = ""
    after_ms: Count = 0


AnyFrame: TypeAlias = (
    Hello
    | Welcome
    | Heartbeat
    | AssignmentSet
    | AssignmentInForce
    | Offer
    | Accept
    | Refuse
    | Data
    | Credit
    | End
    | Fail
    | Cancel
    | Drain
    | Resume
    | Close
)
