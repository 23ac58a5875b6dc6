"""The spans of one attempt on its runner: the job, and the statement below it."""

from __future__ import annotations

from lensway.clock import Clock
from lensway.observe.trace import (
    Attribute,
    Span,
    SpanKind,
    SpanName,
    StatementWatch,
    TraceContext,
    Tracer,
    read_text,
)
from lensway.protocol.frames import Offer


class AttemptTrace:
    """One sampled attempt that was accepted."""

    __slots__ = ("_at", "_caller", "_clock", "_context", "_tracer", "code", "statement")

    def __init__(self, tracer: Tracer, clock: Clock, context: TraceContext, caller: TraceContext) -> None:
        self._tracer = tracer
        self._clock = clock
        self._at = clock.monotonic()
        self._context = context
        self._caller = caller
        self.statement = StatementWatch()
        self.code: str | None = None

    def over(self, offer: Offer, source: str, count: int) -> None:
        """Its last frame has been made; it was of so many bytes in all."""
        if (statement := self.statement.span(self._context)) is not None:
            self._tracer.export(statement)
        self._tracer.export(
            Span(
                name=SpanName.JOB,
                kind=SpanKind.SERVER,
                context=self._context,
                parent=self._caller,
                started_at=self._at,
                ended_at=self._clock.monotonic(),
                attributes={
                    Attribute.REQUEST: offer.request or None,
                    Attribute.ATTEMPT: offer.attempt,
                    Attribute.SOURCE: source,
                    Attribute.KIND: offer.kind.value,
                    Attribute.BYTES: count,
                    Attribute.OUTCOME: self.code or "completed",
                },
                error=self.code,
            )
        )


def begin(tracer: Tracer, clock: Clock, offer: Offer) -> AttemptTrace | None:
    """The trace of this attempt; None when the other side does not trace it, or the sampler here says no."""
    caller = read_text(offer.trace) if offer.trace else None
    if caller is None:
        return None
    context = tracer.begin(SpanName.JOB, SpanKind.SERVER, caller)
    return None if context is None else AttemptTrace(tracer, clock, context, caller)
