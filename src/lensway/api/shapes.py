"""What travels over HTTP, as types: the OpenAPI document is made of them, and answers are checked against them in tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from lensway import limits

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS_MAX)]
Moment: TypeAlias = Annotated[str, msgspec.Meta(description="RFC 3339")]
FieldKind: TypeAlias = Literal[
    "text", "integer", "number", "decimal", "boolean", "date", "time", "timestamp", "uuid", "json", "bytes"
]
DriftCode: TypeAlias = Literal[
    "table_missing",
    "column_missing",
    "type_differs",
    "list_differs",
    "nullable",
    "key_not_unique",
    "key_nullable",
    "key_unknown",
    "column_unused",
]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Root of request bodies: unknown keys are refused."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Root of answers; more members may be added to any of them."""


# --- data plane -----------------------------------------------------------------------------------------------------------


class OrderTerm(Request, frozen=True, kw_only=True):
    """One term of an order."""

    field: str
    dir: Literal["asc", "desc"] = "asc"


class QueryRequest(Request, frozen=True, kw_only=True):
    """A query. `where` is an object of fields and operators; see the reference of operators."""

    where: dict[str, Any] | None = None
    order_by: OrderTerm | list[OrderTerm] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.ROWS_PER_PAGE_MAX)] | None = None
    offset: Annotated[int, msgspec.Meta(ge=0, le=limits.OFFSET_MAX)] | None = None
    cursor: str | None = None
    select: list[str] | None = None
    include: dict[str, Any] | None = None
    total: bool = False
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=limits.QUERY_TIMEOUT_MS_MAX)] | None = None


class ExportRequest(Request, frozen=True, kw_only=True):
    """An export: every matching row."""

    where: dict[str, Any] | None = None
    order_by: OrderTerm | list[OrderTerm] | None = None
    select: list[str] | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=limits.QUERY_TIMEOUT_MS_MAX)] | None = None


class CountRequest(Request, frozen=True, kw_only=True):
    """How many rows match."""

    where: dict[str, Any] | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=limits.QUERY_TIMEOUT_MS_MAX)] | None = None


class RouteTaken(Answer, frozen=True, kw_only=True):
    """Where a request was executed. `runner` is absent for a key that learns nothing of runners."""

    via: Literal["inline", "runner"]
    attempts: Count
    runner: str | msgspec.UnsetType | None = msgspec.UNSET


class PageMeta(Answer, frozen=True, kw_only=True):
    """The facts about one page."""

    lens: str
    count: Count
    has_more: bool
    next_cursor: str | None
    duration_ms: float
    request_id: str
    route: RouteTaken
    total: int | None = None


class QueryAnswer(Answer, frozen=True, kw_only=True):
    """A page of rows."""

    rows: list[dict[str, Any]]
    meta: PageMeta


class CountAnswer(Answer, frozen=True, kw_only=True):
    """How many rows match."""

    count: Count


class Candidate(Answer, frozen=True, kw_only=True):
    """A place that could execute, and the verdict on it."""

    runner: str
    verdict: str
    session: int | None = None
    score: float | None = None


class ExplainRoute(Answer, frozen=True, kw_only=True):
    """Where it would run."""

    via: Literal["inline", "runner"] | None
    runner: str | None
    candidates: list[Candidate]
    error: str | None = None


class ExplainAnswer(Answer, frozen=True, kw_only=True):
    """What would run and where; nothing ran. A publishable key gets neither source nor statement."""

    lens: str
    source: str | None
    bridge: str | None
    statement: str | None
    parameters: list[str]
    route: ExplainRoute


class FieldAnswer(Answer, frozen=True, kw_only=True):
    """One field of a lens."""

    name: str
    type: FieldKind
    nullable: bool
    primary_key: bool
    list: bool


class LensSummary(Answer, frozen=True, kw_only=True):
    """A lens that this key may ask."""

    name: str
    fields: list[FieldAnswer]
    primary_key: list[str]
    operators: dict[str, list[str]] = {}


class LensList(Answer, frozen=True, kw_only=True):
    """The lenses that this key may ask."""

    lenses: list[LensSummary]


# --- control plane ----------------------------------------------------------------------------------------------------------


class WarningAnswer(Answer, frozen=True, kw_only=True):
    """A bad pattern, pointed out."""

    code: str
    message: str
    source: str | None = None
    runner: str | None = None
    lenses: list[str] = []


class EnvironmentRequest(Request, frozen=True, kw_only=True):
    """A new environment."""

    name: Name


class EnvironmentAnswer(Answer, frozen=True, kw_only=True):
    """An environment."""

    id: str
    name: str
    created_at: Moment


class EnvironmentList(Answer, frozen=True, kw_only=True):
    """Every environment that this key may see."""

    environments: list[EnvironmentAnswer]


class SourceRequest(Request, frozen=True, kw_only=True):
    """A new source."""

    name: Name
    bridge: str
    dialect: str | None = None
    credentials: Literal["managed", "runner-local"] = "managed"
    config: dict[str, Any] | None = None
    execution: Literal["auto", "runner_required"] = "auto"


class SourcePatch(Request, frozen=True, kw_only=True):
    """Changes of a source; what is absent stays."""

    name: Name | None = None
    bridge: str | None = None
    dialect: str | None = None
    credentials: Literal["managed", "runner-local"] | None = None
    config: dict[str, Any] | None = None
    execution: Literal["auto", "runner_required"] | None = None


class SourceCondition(Answer, frozen=True, kw_only=True):
    """What holds a source back although it answers. ``runner`` None is the service itself."""

    code: str
    runner: str | None
    hint: str


class SourceAnswer(Answer, frozen=True, kw_only=True):
    """A source. Its config is never returned."""

    id: str
    name: str
    bridge: str
    dialect: str
    credentials: str
    execution: str
    has_config: bool
    runners: list[str]
    lenses: list[str]
    created_at: Moment
    warnings: list[WarningAnswer] = []
    conditions: list[SourceCondition] = []
    overrides: dict[str, list[str]] = {}
    """The keys of its config that runners override by settings of their own, by the name of the runner."""


class SourceList(Answer, frozen=True, kw_only=True):
    """The sources of the environment."""

    sources: list[SourceAnswer]


class StageAnswer(Answer, frozen=True, kw_only=True):
    """One stage of a connection test; `ok: null` is skipped."""

    stage: str
    ok: bool | None
    ms: float = 0.0
    error: str | None = None
    hint: str | None = None


class TestResult(Answer, frozen=True, kw_only=True):
    """What one place found; `runner: null` is the service itself."""

    runner: str | None
    ok: bool
    stages: list[StageAnswer]
    warnings: list[dict[str, Any]] = []
    instance: str | None = None
    server_version: str | None = None


class TestAnswer(Answer, frozen=True, kw_only=True):
    """One result per place."""

    results: list[TestResult]


class ScaffoldRequest(Request, frozen=True, kw_only=True):
    """Which tables to declare: all that the source's login can read, when `tables` is absent. `prefix` begins new names."""

    tables: list[str] | None = None
    prefix: str = ""


class ScaffoldNote(Answer, frozen=True, kw_only=True):
    """Something to know of a table or column: above all what was left out, and why."""

    table: str
    column: str | None = None
    reason: str


class ScaffoldAnswer(Answer, frozen=True, kw_only=True):
    """Declarations of lenses. `declaration` is a document that `POST /v1/push` takes; `relations` are foreign keys, by lens."""

    source: str
    declaration: dict[str, Any]
    relations: dict[str, dict[str, Any]]
    notes: list[ScaffoldNote]


class DriftFinding(Answer, frozen=True, kw_only=True):
    """One difference between a lens and its table."""

    level: Literal["error", "note"]
    code: DriftCode
    message: str
    field: str | None = None
    column: str | None = None


class LensDrift(Answer, frozen=True, kw_only=True):
    """How a lens differs from its table; `ok` is false when one of the findings is an error."""

    lens: str
    source: str
    table: str
    ok: bool
    findings: list[DriftFinding]


class LensRequest(Request, frozen=True, kw_only=True):
    """A lens as declared."""

    source: Name
    table: str
    fields: dict[str, dict[str, Any]]
    grants: dict[str, str] = {}
    limits: dict[str, int] = {}
    relations: dict[str, Any] = {}
    retry: Literal["auto", "never"] = "auto"


class RunnerRequest(Request, frozen=True, kw_only=True):
    """A new runner. `like` takes over network and assignments of another one."""

    name: Name
    network: str | None = None
    like: str | None = None


class RunnerPatch(Request, frozen=True, kw_only=True):
    """Another network label; null takes it away."""

    network: str | None


class CreatedRunner(Answer, frozen=True, kw_only=True):
    """A new runner, or a new token of one; the token is shown once. `warnings` of what `like` assigned."""

    id: str
    name: str
    token: str
    env: str
    network: str | None = None
    warnings: list[WarningAnswer] = []


class InstanceAnswer(Answer, frozen=True, kw_only=True):
    """One connected process of a runner."""

    id: str
    state: str
    since: Moment
    cause: str
    version: str
    hostname: str
    address: str
    bridges: dict[str, str]
    capacity: Count
    outstanding: Count
    revision: int | None
    wanted_revision: int


class CoveredSource(Answer, frozen=True, kw_only=True):
    """A source that a runner covers, with its health there."""

    name: str
    health: str
    bridge: str
    since: Moment | None = None
    cause: str | None = None
    hint: str | None = None
    overrides: list[str] = []


class RunnerAnswer(Answer, frozen=True, kw_only=True):
    """A runner with its state, since when, why, and what to do."""

    id: str
    name: str
    network: str | None
    status: str
    since: Moment | None
    cause: str
    hint: str
    revision: int
    instances: list[InstanceAnswer]
    sources: list[CoveredSource]
    warnings: list[WarningAnswer] = []
    created_at: Moment


class RunnerList(Answer, frozen=True, kw_only=True):
    """The runners of the environment."""

    runners: list[RunnerAnswer]


class AssignmentAnswer(Answer, frozen=True, kw_only=True):
    """A changed set: its revision, and what is bad about it."""

    revision: int
    warnings: list[WarningAnswer]


class RunnerSources(Answer, frozen=True, kw_only=True):
    """The set of one runner."""

    runner: str
    revision: int
    sources: list[str]


class AssignmentPair(Answer, frozen=True, kw_only=True):
    """A source and a runner that serves it."""

    source: str
    runner: str
    created_at: Moment


class AssignmentList(Answer, frozen=True, kw_only=True):
    """The whole set."""

    revision: int
    assignments: list[AssignmentPair]


class PushChange(Answer, frozen=True, kw_only=True):
    """One object of a diff."""

    action: str
    kind: str
    name: str
    details: str | None = None


class PushAnswer(Answer, frozen=True, kw_only=True):
    """A diff, applied or not."""

    changes: list[PushChange]
    warnings: list[WarningAnswer]
    revision: int
    dry_run: bool


class KeyRequest(Request, frozen=True, kw_only=True):
    """A new key."""

    kind: Literal["ak", "sk", "pk"]
    name: str
    role: Literal["admin", "operator", "viewer"] | None = None
    instance_wide: bool = False
    limits: dict[str, int] = {}
    expires_at: Moment | None = None
    origins: list[str] = []


class KeyAnswer(Answer, frozen=True, kw_only=True):
    """A key; the key itself only when it was just created."""

    id: str
    kind: str
    name: str
    created_at: Moment
    role: str | None = None
    environment: str | None = None
    limits: dict[str, int] = {}
    expires_at: Moment | None = None
    last_used_at: Moment | None = None
    origins: list[str] = []
    key: str | None = None


class KeyList(Answer, frozen=True, kw_only=True):
    """Keys, without their secrets."""

    keys: list[KeyAnswer]


class SignInAnswer(Answer, frozen=True, kw_only=True):
    """A sign-in to the Console, by which key and from where."""

    id: str
    key: str
    key_name: str
    role: str
    address: str
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment


class SignInList(Answer, frozen=True, kw_only=True):
    """Sign-ins, the newest first."""

    sign_ins: list[SignInAnswer]


class SignInsEnded(Answer, frozen=True, kw_only=True):
    """How many sign-ins were ended."""

    ended: Count


class AuditHead(Answer, frozen=True, kw_only=True):
    """The newest row of the audit and the value of its chain."""

    sequence: int
    chain: str


class AuditVerdict(Answer, frozen=True, kw_only=True):
    """What a verification of the audit found; ``broken`` is the first row that does not fit."""

    ok: bool
    rows: Count
    keyed_from: Count
    broken: Count | None
    reason: str
    head: AuditHead


class ErrorBody(Answer, frozen=True, kw_only=True):
    """What happened, where, what to do."""

    code: str
    message: str
    request_id: str
    details: dict[str, Any]
    hint: str | None = None


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """Every failure has this shape."""

    error: ErrorBody
