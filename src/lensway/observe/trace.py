"""Traces: the W3C context as it travels, finished spans as values, and the seam to their exporter.

No span exists while its work runs: the records hold what happened, and spans are made from them afterwards. A place that
is not traced has no tracer, and a request that is not sampled has no context, so both cost one look.
"""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from lensway import limits

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e\t]*")
_SPAN_BITS: Final = 64
_LAST_SPAN: Final = 2**_SPAN_BITS - 1
_SAMPLED: Final = 1


class SpanKind(enum.StrEnum):
    """Which side of a conversation a span is, as OpenTelemetry names it."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class SpanName(enum.StrEnum):
    """The names of spans; that of a request is its method and route."""

    DISPATCH = "dispatch"
    ATTEMPT = "attempt"
    JOB = "job"
    SELECT = "SELECT"


class Attribute(enum.StrEnum):
    """Every attribute that a span may have. None holds a value of a row or of a request's body, nor anything of a credential."""

    HTTP_METHOD = "http.request.method"
    HTTP_ROUTE = "http.route"
    HTTP_STATUS = "http.response.status_code"
    ERROR = "error.type"
    REQUEST = "lensway.request"
    ENVIRONMENT = "lensway.environment"
    LENS = "lensway.lens"
    SOURCE = "lensway.source"
    KIND = "lensway.kind"
    VIA = "lensway.via"
    RUNNER = "lensway.runner"
    INSTANCE = "lensway.instance"
    ATTEMPT = "lensway.attempt"
    ATTEMPTS = "lensway.attempts"
    OUTCOME = "lensway.outcome"
    BYTES = "lensway.bytes"
    DB_SYSTEM = "db.system.name"
    DB_OPERATION = "db.operation.name"
    DB_TABLE = "db.collection.name"
    DB_ROWS = "db.response.returned_rows"
    DB_STATUS = "db.response.status_code"


class Moment(enum.StrEnum):
    """The events of spans."""

    WAITED = "waited"
    QUEUED = "queued"
    RELEASED = "released"
    ACCEPTED = "accepted"
    FIRST_ROW = "first_row"


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """One span of one trace, as the W3C names it. ``state`` is the `tracestate` that travels with it."""

    trace: int
    span: int
    state: str = ""
    is_sampled: bool = True

    def text(self) -> str:
        """The context in one line: `traceparent`, and `tracestate` behind a space where there is one."""
        parent = f"00-{self.trace:032x}-{self.span:016x}-{int(self.is_sampled):02x}"
        return f"{parent} {self.state}" if self.state else parent

    def of_attempt(self, number: int) -> TraceContext:
        """The span of this attempt of the job: both sides know it while it runs, and it is made when the job is over."""
        return msgspec.structs.replace(self, span=(self.span ^ number) or _LAST_SPAN)

    def below(self) -> TraceContext:
        """A new span of the same trace."""
        return msgspec.structs.replace(self, span=new_span())


def read_context(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context that a caller sent; None when it is not valid, which is no error: a new trace begins."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(span, 16):
        return None
    is_kept = len(tracestate) <= limits.TRACE_STATE_CHARACTERS_MAX and _TRACESTATE.fullmatch(tracestate)
    state = tracestate.strip() if is_kept else ""
    return TraceContext(int(trace, 16), int(span, 16), state, bool(int(flags, 16) & _SAMPLED))


def read_text(text: str) -> TraceContext | None:
    """The context of one line, as `TraceContext.text` writes it; None when it is not valid."""
    traceparent, _, tracestate = text.partition(" ")
    return read_context(traceparent, tracestate)


def text_of_attempt(text: str, number: int) -> str:
    """The context of an attempt of the job with this one; "" for a job that is not traced."""
    context = read_text(text)
    return "" if context is None else context.of_attempt(number).text()


def new_span() -> int:
    """The id of a new span."""
    return random.getrandbits(_SPAN_BITS) or 1


AttributeValue = str | int | float | bool


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished span. Times are monotonic seconds; ``error`` is a code, None for what went well."""

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    started_at: float
    ended_at: float
    attributes: Mapping[Attribute, AttributeValue | None]
    moments: Sequence[tuple[Moment, float | None]] = ()
    error: str | None = None


class Tracer(Protocol):
    """Decides what is traced, and takes finished spans. It never waits and never raises."""

    def begin(self, name: str, kind: SpanKind, caller: TraceContext | None) -> TraceContext | None:
        """The context of a span that begins now in this process; None when it is not sampled."""

    def export(self, span: Span) -> None:
        """Take a span whose context was given by `begin`, or lies below one that was."""

    def close(self) -> None:
        """Send what was taken, for at most `limits.TRACE_FLUSH_SECONDS`."""


class StatementWatch:
    """What the execution library notes about the statement of one traced job."""

    __slots__ = ("code", "ended_at", "rows", "started_at", "status", "system", "tables")

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.ended_at = 0.0
        self.system = ""
        self.tables: tuple[str, ...] = ()
        self.rows: int | None = None
        self.code: str | None = None
        self.status: str | None = None

    def span(self, parent: TraceContext) -> Span | None:
        """The span of the statement below this one; None when no statement was begun."""
        if self.started_at is None:
            return None
        tables = ", ".join(self.tables)[: limits.SPAN_TABLES_CHARACTERS_MAX]
        return Span(
            name=f"{SpanName.SELECT} {tables}",
            kind=SpanKind.CLIENT,
            context=parent.below(),
            parent=parent,
            started_at=self.started_at,
            ended_at=self.ended_at,
            attributes={
                Attribute.DB_SYSTEM: self.system,
                Attribute.DB_OPERATION: SpanName.SELECT.value,
                Attribute.DB_TABLE: tables,
                Attribute.DB_ROWS: self.rows,
                Attribute.DB_STATUS: self.status,
            },
            error=self.code,
        )
