"""Dispatch's words ↔ frames: one pure function each way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from lensway import limits
from lensway.dispatch.core import events
from lensway.dispatch.core.events import (
    Accepted,
    AttemptFailed,
    Ended,
    Event,
    RefusalKind,
    Refused,
    Rows,
    SendOffer,
)
from lensway.ids import JobId, SessionId, SourceId
from lensway.observe.trace import text_of_attempt
from lensway.protocol.failures import MESSAGE_CHARACTERS_MAX, decode_failure
from lensway.protocol.frames import (
    Accept,
    Asker,
    AssignedSource,
    Data,
    End,
    Fail,
    JobKind,
    Offer,
    Refuse,
    RefuseReason,
    SourceState,
)

_REFUSALS: Final = {reason: RefusalKind(reason.value) for reason in RefuseReason}


def offer_frame(order: SendOffer, spec: AssignedSource | None) -> Offer:
    """The offer that carries this order."""
    request = order.request
    return Offer(
        job=order.job,
        attempt=order.attempt,
        kind=JobKind(request.kind),
        source=request.source,
        revision=order.revision,
        payload=request.payload,
        format=request.format,
        deadline_ms=max(1, int(order.remaining_seconds * 1000)),
        credit=order.credit,
        rows_max=request.rows_max,
        bytes_max=request.bytes_max,
        row_bytes_max=request.row_bytes_max,
        request=request.request,
        spec=spec,
        trace=text_of_attempt(request.trace, order.attempt) if request.trace else "",
        may_repeat=request.may_retry,
        asker=None if request.asker is None else _asker(request.asker),
    )


def _asker(asker: events.Asker) -> Asker:
    return Asker(key=asker.key, key_name=asker.key_name, environment=asker.environment, lens=asker.lens)


def answer_event(session: SessionId, frame: Accept | Refuse | Data | End | Fail) -> Event:
    """The event that this answer of a runner is. Raises ProtocolError for a failure that cannot be read."""
    job = JobId(frame.job)
    match frame:
        case Accept():
            return Accepted(session, job, frame.attempt)
        case End():
            return Ended(session, job, frame.attempt, frame.result, frame.sent_bytes, frame.tail)
        case Data():
            return Rows(session, job, frame.attempt, frame.payload)
        case Refuse():
            message = frame.message[:MESSAGE_CHARACTERS_MAX]
            return Refused(session, job, frame.attempt, _REFUSALS[frame.reason], frame.revision, message)
        case Fail():
            failure = decode_failure(frame.failure)
            return AttemptFailed(
                session, job, frame.attempt, failure, retryable=frame.retryable, handed_back=frame.handed_back
            )
        case _:
            assert_never(frame)


def states_of(states: tuple[SourceState, ...]) -> dict[SourceId, tuple[str, str]]:
    """What the runner reports of its sources, by source id: state and cause."""
    return {SourceId(each.source): (clipped(each.state), clipped(each.cause)) for each in states}


def known_bridges(bridges: Mapping[str, str]) -> dict[str, str]:
    """The bridges of a hello, as many as a frame may name, with versions cut to what is kept and shown."""
    return {name: clipped(version) for name, version in bridges.items()}


def clipped(text: str) -> str:
    """A short text of a runner, cut to what is kept and shown."""
    return text[: limits.RUNNER_TEXT_CHARACTERS_MAX]
