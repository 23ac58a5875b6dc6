"""The records of the catalog: what exists in a deployment, environment by environment. Immutable values."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from lensway.ids import EnvironmentId, KeyId, LensId, RunnerId, SourceId
from lensway.query.fields import LensDefinition


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Root of all records."""


class Environment(Record, frozen=True, kw_only=True):
    """An isolated namespace. ``default`` exists from the start."""

    id: EnvironmentId
    name: str
    created_at: str


class Credentials(enum.StrEnum):
    """Where a source's connection settings live."""

    MANAGED = "managed"
    RUNNER_LOCAL = "runner-local"


class ExecutionMode(enum.StrEnum):
    """Whether the service itself may execute a source with zero assignments."""

    AUTO = "auto"
    RUNNER_REQUIRED = "runner_required"


class Source(Record, frozen=True, kw_only=True):
    """A named database connection. The config itself is not here: ``config_version`` (0 = none) points at the stored,
    encrypted one. ``dialect`` is empty where the kind of the source is not served here."""

    environment: EnvironmentId
    id: SourceId
    name: str
    bridge: str
    credentials: Credentials
    execution: ExecutionMode
    config_version: int
    created_at: str
    dialect: str = ""


class QueryGrant(enum.StrEnum):
    """Who may query a lens besides service keys."""

    NONE = "none"
    PUBLIC = "public"


class RetryMode(enum.StrEnum):
    """Whether the platform repeats a query whose runner was lost."""

    AUTO = "auto"
    NEVER = "never"


class LensLimits(Record, frozen=True, kw_only=True):
    """Bounds of one lens; None means the deployment's default."""

    max_rows: int | None = None
    max_bytes: int | None = None
    max_row_bytes: int | None = None
    timeout_ms: int | None = None


class Lens(Record, frozen=True, kw_only=True):
    """A declared view of one table of a source."""

    environment: EnvironmentId
    id: LensId
    name: str
    source: SourceId
    definition: LensDefinition
    query_grant: QueryGrant = QueryGrant.NONE
    limits: LensLimits = LensLimits()
    relations: Mapping[str, object] = {}
    retry: RetryMode = RetryMode.AUTO
    version: int = 1
    created_at: str


class RunnerToken(Record, frozen=True, kw_only=True):
    """One accepted token of a runner: the hash only. ``expires_at`` is set when a rotation supersedes it."""

    hash: bytes
    created_at: str
    expires_at: str | None = None


class Runner(Record, frozen=True, kw_only=True):
    """A registered agent. ``set_revision`` is the revision at which its set last changed."""

    environment: EnvironmentId
    id: RunnerId
    name: str
    network: str | None = None
    tokens: tuple[RunnerToken, ...] = ()
    set_revision: int = 0
    is_revoked: bool = False
    is_draining: bool = False
    created_at: str


class Assignment(Record, frozen=True, kw_only=True):
    """(source, runner): the runner serves the source."""

    environment: EnvironmentId
    source: SourceId
    runner: RunnerId
    created_at: str


class KeyKind(enum.StrEnum):
    """What a key opens; the value is its prefix."""

    ADMIN = "ak"
    SERVICE = "sk"
    PUBLISHABLE = "pk"


class Role(enum.StrEnum):
    """What an admin key may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class KeyLimits(Record, frozen=True, kw_only=True):
    """Bounds of one key; None is no bound of its own. Beside those of lenses: the stricter one holds."""

    max_rows: int | None = None
    max_bytes: int | None = None
    max_row_bytes: int | None = None
    timeout_ms: int | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None

    @property
    def counts_requests(self) -> bool:
        """True when the key's requests have to be counted."""
        return self.requests_per_minute is not None or self.concurrent_requests is not None


class Key(Record, frozen=True, kw_only=True):
    """One API key: the hash only. ``environment`` None is an instance-wide admin key."""

    id: KeyId
    environment: EnvironmentId | None
    kind: KeyKind
    name: str
    hash: bytes
    role: Role | None = None
    limits: KeyLimits = KeyLimits()
    created_at: str
    expires_at: str | None = None
    """RFC 3339 in UTC, always in the form of `lensway.catalog.moments`; None: it does not expire."""
    origins: tuple[str, ...] = ()
    """Of a publishable key: the origins of the web pages whose browsers may read its answers."""


class RetiredKey(Record, frozen=True, kw_only=True):
    """An admin key that was deleted. Its hash is kept, because an administrator can choose the text of an admin key: without
    this record the same text could be added again."""

    id: KeyId
    environment: EnvironmentId | None
    hash: bytes
    retired_at: str


AnyRecord = Environment | Source | Lens | Runner | Assignment | Key | RetiredKey


class Put(Record, frozen=True, kw_only=True):
    """A change: this record exists now, replacing one with the same identity."""

    record: AnyRecord
    config: bytes | None = None
    """For a `Source`: the new config as plain JSON, to be encrypted by the store before it is written. Never logged."""

    def __repr__(self) -> str:
        """The record alone: a config may hold a password."""
        return f"Put({self.record!r}, config={'redacted' if self.config is not None else None})"


class Remove(Record, frozen=True, kw_only=True):
    """A change: this record exists no more."""

    record: AnyRecord


Change = Put | Remove
