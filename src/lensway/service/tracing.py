"""The spans of one request: itself, its dispatch, and each attempt, made from what is on record when they are over."""

from __future__ import annotations

from collections.abc import Callable

from lensway.api.routes import Route
from lensway.catalog.records import Lens, Source
from lensway.clock import Clock
from lensway.dispatch.core.records import AttemptRecord, EndKind, JobRecord
from lensway.dispatch.shell import JobHandle
from lensway.observe.trace import Attribute, Moment, Span, SpanKind, SpanName, TraceContext, Tracer, read_context

_OK = "ok"
_GOOD_ENDS = frozenset({EndKind.ENDED, EndKind.REFUSED, EndKind.UNANSWERED, EndKind.HANDED_BACK, EndKind.STOPPED})
"""How an attempt ends without an error of its own."""


class RequestTrace:
    """One sampled request on its way."""

    __slots__ = ("_at", "_attributes", "_caller", "_clock", "_context", "_name", "_note", "_tracer", "job")

    def __init__(
        self,
        tracer: Tracer,
        clock: Clock,
        context: TraceContext,
        caller: TraceContext | None,
        route: Route,
        note: Callable[[str], None],
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        self._at = clock.monotonic()
        self._context = context
        self._caller = caller
        self._name = name_of(route)
        self._note = note
        self._attributes: dict[Attribute, str | int | float | bool | None] = {
            Attribute.HTTP_METHOD: route.method,
            Attribute.HTTP_ROUTE: route.path,
        }
        self.job = context.below()

    def answered(self, request_id: str, status: int) -> Callable[[str], None]:
        """Its response is made; call what this gives with `ok`, or the code of the failure, when it is over."""
        self._attributes |= {Attribute.REQUEST: request_id, Attribute.HTTP_STATUS: status}
        return self._over

    def text(self) -> str:
        """The trace context that the job carries to where it executes."""
        return self.job.text()

    def follow(self, handle: JobHandle, environment: str, lens: Lens, source: Source) -> None:
        """This job is the request's: its spans follow when it has its outcome."""
        self._attributes |= {
            Attribute.ENVIRONMENT: environment,
            Attribute.LENS: lens.name,
            Attribute.SOURCE: source.name,
        }
        handle.on_settled(lambda _is_complete: self._job_over(handle.record))

    def _over(self, code: str) -> None:
        self._note(code)
        self._tracer.export(
            Span(
                name=self._name,
                kind=SpanKind.SERVER,
                context=self._context,
                parent=self._caller,
                started_at=self._at,
                ended_at=self._clock.monotonic(),
                attributes={**self._attributes, Attribute.OUTCOME: code},
                error=None if code == _OK else code,
            )
        )

    def _job_over(self, record: JobRecord | None) -> None:
        if record is None:
            return
        end = self._clock.monotonic() if record.ended_at is None else record.ended_at
        self._tracer.export(
            Span(
                name=SpanName.DISPATCH,
                kind=SpanKind.INTERNAL,
                context=self.job,
                parent=self._context,
                started_at=record.submitted_at,
                ended_at=end,
                attributes={
                    Attribute.SOURCE: self._attributes.get(Attribute.SOURCE),
                    Attribute.KIND: record.kind,
                    Attribute.ATTEMPTS: record.executed,
                    Attribute.BYTES: record.bytes,
                    Attribute.OUTCOME: record.outcome,
                },
                moments=(
                    (Moment.WAITED, record.waited_at),
                    (Moment.QUEUED, record.queued_at),
                    (Moment.RELEASED, record.released_at),
                ),
                error=None if record.failure is None else record.failure.code.value,
            )
        )
        for attempt in record.attempts:
            self._tracer.export(_attempt_span(self.job, attempt, end))


def begin(
    tracer: Tracer, clock: Clock, route: Route, headers: dict[bytes, bytes], note: Callable[[str], None]
) -> RequestTrace | None:
    """The trace of a request with these headers; None when it is not sampled."""
    caller = None
    if (parent := headers.get(b"traceparent")) is not None:
        caller = read_context(parent.decode("latin-1").strip(), headers.get(b"tracestate", b"").decode("latin-1"))
    context = tracer.begin(name_of(route), SpanKind.SERVER, caller)
    return None if context is None else RequestTrace(tracer, clock, context, caller, route, note)


def name_of(route: Route) -> str:
    """The name of the span of a request: of bounded number."""
    return f"{route.method} {route.path}"


def _attempt_span(job: TraceContext, attempt: AttemptRecord, job_end: float) -> Span:
    is_inline = attempt.runner is None
    cause = attempt.cause
    outcome = "" if cause is None else str(cause)
    return Span(
        name=SpanName.ATTEMPT,
        kind=SpanKind.INTERNAL if is_inline else SpanKind.CLIENT,
        context=job.of_attempt(attempt.number),
        parent=job,
        started_at=attempt.offered_at,
        ended_at=job_end if attempt.ended_at is None else attempt.ended_at,
        attributes={
            Attribute.ATTEMPT: attempt.number,
            Attribute.VIA: "inline" if is_inline else "runner",
            Attribute.RUNNER: attempt.runner_name,
            Attribute.INSTANCE: attempt.instance,
            Attribute.OUTCOME: outcome,
        },
        moments=((Moment.ACCEPTED, attempt.accepted_at), (Moment.FIRST_ROW, attempt.first_row_at)),
        error=None if cause is None or cause.kind in _GOOD_ENDS else outcome,
    )
