"""The bridge contract: what an adapter for one kind of database gives the execution library.

An adapter turns a checked plan into encoded rows under a deadline, read-only, and never shows a driver's text: every failure
leaves as a `LenswayError`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from lensway.observe.trace import StatementWatch
from lensway.query.fields import TableName
from lensway.query.plan import Plan
from lensway.query.result import ResultEnd, ResultLimits, RowFormat

CONNECTION_LIMIT: Final = "connection_limit"
"""The database grants the source's login fewer connections than the source may open, so queries wait for each other."""


class RowSink(Protocol):
    """Where encoded rows go. Waits while the caller has no room: that is all of back-pressure an adapter must know."""

    async def write(self, chunk: bytes) -> None:
        """Take these bytes, in order. Any size; the sink splits. Returns when there was credit for them."""


class Execution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one plan is to be run.

    ``deadline`` is on the monotonic clock of this process. ``tag`` stands as a comment in the statement (``job/attempt``), so
    that the database's own log is a witness. ``is_export`` chooses the connections that exports may use. ``watch`` notes when
    the statement ran, for a job that is traced. ``allows_table`` and ``allows_column`` are the policy of the process that
    executes it: may plans read ``schema.table``, and this column of it; None allows each. ``may_repeat``: the lens lets a bridge
    run the statement a second time, as long as no row has left.
    """

    deadline: float
    format: RowFormat
    limits: ResultLimits
    tag: str
    is_export: bool = False
    watch: StatementWatch | None = None
    allows_table: Callable[[str], bool] | None = None
    allows_column: Callable[[TableName, str], bool] | None = None
    may_repeat: bool = True


class Stage(enum.StrEnum):
    """The stages of a connection test, in order."""

    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    LOGIN = "login"
    QUERY = "query"
    READ_ONLY = "read_only"
    LENSES = "lenses"


class StageResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stage of a connection test. ``ok`` None is skipped. ``error`` is a class (``refused``, ``timeout``, ``password`` …),
    ``hint`` what to do."""

    stage: Stage
    ok: bool | None
    ms: float = 0.0
    error: str | None = None
    hint: str | None = None


class ConnectionReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a connection test found: all seven stages in order, warnings with closed codes, the server's version."""

    ok: bool
    stages: Sequence[StageResult]
    warnings: Sequence[Mapping[str, str]] = ()
    server_version: str | None = msgspec.field(default=None, name="serverVersion")


class TableColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One column as the database declares it; ``type`` is the lens type that fits best, None where there is none.

    ``types`` are all lens types that can show the column; empty where the bridge cannot know. ``reason`` says why ``type`` is
    None, and what to do.
    """

    name: str
    database_type: str = msgspec.field(name="databaseType")
    type: str | None
    is_list: bool = msgspec.field(name="list", default=False)
    nullable: bool = True
    primary_key: bool = msgspec.field(name="primaryKey", default=False)
    types: Sequence[str] = ()
    reason: str | None = None


class ForeignKey(msgspec.Struct, frozen=True, kw_only=True):
    """A foreign key: ``columns`` refer to ``references`` of ``table``, pair by pair. ``table`` is as a lens would declare it."""

    columns: Sequence[str]
    table: str
    references: Sequence[str]


class TableSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One table or view that this login can read; ``name`` is as a lens would declare it."""

    name: str
    kind: str


class TableDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One table with its columns in their order.

    ``key`` are the columns of the primary key in the key's own order; ``unique_keys`` are the other keys that the database keeps
    unique for all rows. Both are empty for views, and where a runner of an earlier version looked.
    ``folds_case`` says that names of columns compare without case.
    """

    name: str
    kind: str
    columns: Sequence[TableColumn]
    key: Sequence[str] = ()
    unique_keys: Sequence[Sequence[str]] = msgspec.field(name="uniqueKeys", default=())
    foreign_keys: Sequence[ForeignKey] = msgspec.field(name="foreignKeys", default=())
    folds_case: bool = msgspec.field(name="foldsCase", default=False)


class OpenSource(Protocol):
    """One source with its pooled connections. Safe for concurrent use."""

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows. Cancelling the task cancels the statement in the database before this returns.

        Raises:
            LenswayError: SOURCE_UNREACHABLE, SOURCE_QUERY_FAILED, QUERY_TIMEOUT, LIMIT_EXCEEDED, ROW_TOO_LARGE, OVERLOADED.
        """

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """Prove each stage by the path that queries take; ``lenses`` are plans that read no row. Never raises for a failed
        stage."""

    async def probe(self, *, deadline: float) -> None:
        """One round trip. Raises LenswayError SOURCE_UNREACHABLE."""

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """Every table and view that this login can read."""

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """One table's columns. Raises LenswayError NOT_FOUND."""

    @property
    def connections(self) -> int:
        """Connections to the database that are open now, or open files; for metrics."""

    def condition(self) -> str:
        """What holds the source back now although it answers: `CONNECTION_LIMIT`, or empty. Contacts nothing."""

    async def close(self) -> None:
        """Close every idle connection now, and each one in use when its job ends. Jobs that run are the caller's to cancel."""


class Bridge(Protocol):
    """The adapter for one kind of database."""

    kind: str

    def driver_version(self) -> str | None:
        """The driver's version, or None when it is not installed."""

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse unknown keys, dangerous options and addresses that the policy forbids. Contacts nothing.

        Raises:
            LenswayError: INVALID_REQUEST naming the key.
        """

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> OpenSource:
        """A source ready for use; connections are made when needed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Where an executing process may connect, and which files it may read.

    Link-local and metadata addresses are always refused for the service itself. ``source_dirs`` None means that path sources
    may stand anywhere outside ``forbidden_dirs``; a tuple confines them.
    """

    deny_link_local: bool = True
    deny_private: bool = False
    source_dirs: tuple[str, ...] | None = None
    forbidden_dirs: tuple[str, ...] = ("/proc", "/sys", "/dev")
    allowed_hosts: tuple[str, ...] | None = None
    allowed_ports: tuple[int, ...] | None = None
    is_runner: bool = False
    """For the hints: it comes from the local policy of a runner, not from the options of the server."""
    allows_sockets: bool = False
    """May databases be reached over Unix sockets; ``allowed_hosts`` then names their directories, if it is set."""
