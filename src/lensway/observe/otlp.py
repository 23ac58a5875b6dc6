"""The tracer that OpenTelemetry's own variables configure: its sampler, its batches in a thread of their own, OTLP over HTTP.

Imported only where tracing is configured; needs the extra `otel`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from lensway import limits
from lensway.clock import Clock
from lensway.observe.trace import Attribute, Span, SpanKind, TraceContext, new_span

_KINDS: Final = {
    SpanKind.SERVER: api.SpanKind.SERVER,
    SpanKind.CLIENT: api.SpanKind.CLIENT,
    SpanKind.INTERNAL: api.SpanKind.INTERNAL,
}
_SAMPLED: Final = api.TraceFlags(api.TraceFlags.SAMPLED)
_DRIFT_SECONDS_MAX: Final = 0.001
"""Spans of one trace are placed by one offset between the clocks; one that is further off means that the wall clock was set."""


class OtlpTracer:
    """Implements `lensway.observe.trace.Tracer`."""

    def __init__(self, service: str, version: str, environment: Mapping[str, str], clock: Clock) -> None:
        # What the variables say goes before what is said here, which the library has the other way round.
        is_named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        own = {} if is_named else {SERVICE_NAME: service}
        provider = TracerProvider(resource=Resource.create({SERVICE_VERSION: version, **own}), shutdown_on_exit=False)
        self._ids = provider.id_generator
        self._sampler = provider.sampler
        self._resource = provider.resource
        self._scope = InstrumentationScope("lensway", version)
        self._batches = BatchSpanProcessor(OTLPSpanExporter())
        self._clock = clock
        self._offset = self._offset_now()

    def begin(self, name: str, kind: SpanKind, caller: TraceContext | None) -> TraceContext | None:
        """The context of a span that begins now, as the sampler says; None when it is not sampled."""
        parent = (
            None if caller is None else api.set_span_in_context(api.NonRecordingSpan(_otel(caller, is_remote=True)))
        )
        trace = self._ids.generate_trace_id() if caller is None else caller.trace
        decided = self._sampler.should_sample(parent, trace, name, _KINDS[kind])
        if decided.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        state = decided.trace_state
        return TraceContext(trace, new_span(), state.to_header() if state else "")

    def export(self, span: Span) -> None:
        """Put it into the next batch; when too many wait, the oldest are dropped."""
        # Made as they leave the library's own pipeline: it would give them ids of its own, and runners were told ours before.
        self._batches.on_end(
            ReadableSpan(
                name=span.name,
                context=_otel(span.context),
                parent=None if span.parent is None else _otel(span.parent),
                resource=self._resource,
                attributes=_attributes(span),
                events=[
                    Event(moment, timestamp=self._nanoseconds(at)) for moment, at in span.moments if at is not None
                ],
                kind=_KINDS[span.kind],
                status=api.Status(api.StatusCode.UNSET if span.error is None else api.StatusCode.ERROR),
                start_time=self._nanoseconds(span.started_at),
                end_time=self._nanoseconds(max(span.started_at, span.ended_at)),
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Send what waits; a collector that does not answer delays the end by a bounded time only."""
        last = threading.Thread(target=self._batches.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(limits.TRACE_FLUSH_SECONDS)

    def _nanoseconds(self, monotonic: float) -> int:
        now = self._offset_now()
        if abs(now - self._offset) > _DRIFT_SECONDS_MAX:
            self._offset = now
        return int((monotonic + self._offset) * 1e9)

    def _offset_now(self) -> float:
        return self._clock.wall().timestamp() - self._clock.monotonic()


def _otel(context: TraceContext, *, is_remote: bool = False) -> api.SpanContext:
    state = api.TraceState.from_header([context.state]) if context.state else None
    flags = _SAMPLED if context.is_sampled else api.TraceFlags(api.TraceFlags.DEFAULT)
    return api.SpanContext(context.trace, context.span, is_remote, flags, state)


def _attributes(span: Span) -> dict[str, str | int | float | bool]:
    given = {name.value: value for name, value in span.attributes.items() if value is not None}
    return given if span.error is None else {**given, Attribute.ERROR.value: span.error}
