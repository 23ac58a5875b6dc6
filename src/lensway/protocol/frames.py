"""The frames between runner and gateway, as values.

Plans, rows and sealed credentials are opaque bytes here. Every control frame is a tagged record in compact MessagePack
(an array whose first element is the tag); new fields go to the end and have defaults, so that adjacent versions understand
each other. `Data` is the exception: a fixed binary header and raw bytes (see `codec`).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec


class Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Root of all frames."""


class Hello(Frame, tag=1):
    """Runner → gateway, first: who I am, what I can do.

    ``public_key`` is the instance's X25519 key as raw 32 bytes; ``versions`` the protocol versions it speaks. ``bridges`` maps
    the kinds it can execute to the driver's version.
    """

    runner: str
    instance: str
    versions: tuple[int, ...]
    software: str
    public_key: bytes
    bridges: dict[str, str]
    capacity: int
    features: tuple[str, ...] = ()
    hostname: str = ""
    started_at: str = ""


class Welcome(Frame, tag=2):
    """Gateway → runner, first: the session is open. All durations in milliseconds; no wall clock is compared."""

    version: int
    session: int
    runner_name: str
    environment: str
    heartbeat_ms: int
    fence_ms: int
    nonce: bytes
    features: tuple[str, ...] = ()


class Heartbeat(Frame, tag=3):
    """Both ways. ``ack`` is the highest ``sequence`` seen of the peer: only that proves that the link carries both ways.

    From the runner, ``revision`` is the revision of the set in force and ``jobs`` the (job, attempt) pairs it holds. From the
    gateway, ``revision`` is the wanted one. ``sources`` (runner) lists health facts per source id that changed.
    """

    sequence: int
    ack: int
    revision: int
    jobs: tuple[tuple[int, int], ...] = ()
    loop_lag_ms: int = 0
    draining: bool = False
    source_states: tuple[SourceState, ...] = ()


class SourceState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a runner knows of one assigned source: ``state`` is ``ready``, ``no_bridge``, ``no_credentials``,
    ``credentials_ambiguous``, ``refused`` (by local policy) or ``unreachable``; ``cause`` a class, never a driver's text."""

    source: str
    state: str
    cause: str = ""


class AssignedSource(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One source of an assignment set. ``sealed_config`` is sealed to the instance; None for runner-local credentials."""

    source: str
    name: str
    bridge: str
    config_version: int
    sealed_config: bytes | None = None


class AssignmentSet(Frame, tag=4):
    """Gateway → runner: the whole set at a revision, in ``parts`` parts; in force when the last part has arrived."""

    revision: int
    part: int
    parts: int
    sources: tuple[AssignedSource, ...]


class AssignmentInForce(Frame, tag=5):
    """Runner → gateway: this set is in force now (heartbeats repeat it)."""

    revision: int
    source_states: tuple[SourceState, ...] = ()


class JobKind(enum.StrEnum):
    """What an offer asks for. The payload of each is opaque to the protocol."""

    ROWS = "rows"
    EXPORT = "export"
    TEST = "test"
    TABLES = "tables"
    TABLE = "table"


class Offer(Frame, tag=6):
    """Gateway → runner: execute this, or refuse at once. ``deadline_ms`` is what remains of the caller's time.

    ``revision`` is the set that the decision was made on. ``spec`` is only set for a test of a source that is not assigned.
    """

    job: int
    attempt: int
    kind: JobKind
    source: str
    revision: int
    payload: bytes
    format: str
    deadline_ms: int
    credit: int
    rows_max: int
    bytes_max: int
    row_bytes_max: int
    request: str = ""
    spec: AssignedSource | None = None
    trace: str = ""


class Accept(Frame, tag=7):
    """Runner → gateway: I execute this attempt."""

    job: int
    attempt: int


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


class Refuse(Frame, tag=8):
    """Runner → gateway: I do not execute this attempt; nothing was started. ``revision`` is the set in force."""

    job: int
    attempt: int
    reason: RefuseReason
    revision: int
    message: str = ""


class Data(Frame, tag=9):
    """Runner → gateway: encoded rows, in order, at most DATA_FRAME_BYTES_MAX and never more than the credit left."""

    job: int
    attempt: int
    payload: bytes


class Credit(Frame, tag=10):
    """Gateway → runner: the caller took so many bytes more."""

    job: int
    attempt: int
    bytes: int


class End(Frame, tag=11):
    """Runner → gateway: complete. ``result`` is the encoded end mark; ``tail`` the last rows when they are small (saves a
    frame for small results); it counts against the credit as data does. ``sent_bytes`` is all data including the tail."""

    job: int
    attempt: int
    result: bytes
    sent_bytes: int
    tail: bytes = b""


class Fail(Frame, tag=12):
    """Runner → gateway: the attempt ended without a result. ``failure`` is an encoded typed failure; ``retryable`` says that
    another runner could succeed (connection failures, hand-backs)."""

    job: int
    attempt: int
    failure: bytes
    retryable: bool = False
    handed_back: bool = False


class Cancel(Frame, tag=13):
    """Gateway → runner: stop this attempt; answered by End or Fail."""

    job: int
    attempt: int
    reason: str = ""


class Drain(Frame, tag=14):
    """Either way: no new work. From the runner: I am leaving. From the gateway: come back after ``after_ms`` (0 = now drain
    by order of an operator, stay connected)."""

    reason: str
    after_ms: int = 0


class Resume(Frame, tag=15):
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


class Close(Frame, tag=16):
    """Either way, last: the session ends; ``after_ms`` says when to dial again."""

    reason: CloseReason
    message: str = ""
    after_ms: int = 0


AnyFrame: TypeAlias = (
    Hello | Welcome | Heartbeat | AssignmentSet | AssignmentInForce | Offer | Accept | Refuse | Data | Credit | End | Fail
    | Cancel | Drain | Resume | Close
)
