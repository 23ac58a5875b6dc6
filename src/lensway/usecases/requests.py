"""What became of recent requests: a bounded ring in memory, and what may be done with one of them."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from lensway import limits
from lensway.api.shapes import RouteTaken
from lensway.auth import decisions
from lensway.auth.caller import Caller
from lensway.catalog.names import not_found
from lensway.dispatch.core.records import AttemptRecord, JobRecord
from lensway.errors import Failure
from lensway.fleet import CandidateNote
from lensway.ids import EnvironmentId, KeyId, RequestId, new_request_id
from lensway.usecases.desk import Desk


class RequestEntry(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """One request: who asked for what, and the record of its job once that is over."""

    id: str
    environment: EnvironmentId
    key: KeyId
    kind: str
    lens: str
    source: str
    at: datetime.datetime
    record: JobRecord | None = None


class RequestRing:
    """The latest requests, by id.

    What is over is kept as bytes: a dozen objects for each of thousands of requests would make every new request take, and give
    back, memory that no cache has seen for a long time, which cost more than anything else that a short query does here.
    """

    def __init__(self, entries_max: int = limits.REQUEST_RING_ENTRIES) -> None:
        self._running: dict[str, RequestEntry] = {}
        self._over: deque[bytes] = deque(maxlen=entries_max)

    def add(self, entry: RequestEntry) -> None:
        """Remember a request whose job begins."""
        self._running[entry.id] = entry

    def over(self, record: JobRecord) -> None:
        """The job of a request has its outcome; what was over first is forgotten when there are too many. Does nothing for a
        job that is no request's."""
        entry = self._running.pop(record.request, None)
        if entry is not None:
            entry.record = record
            if record.failure is not None:
                entry.record = msgspec.structs.replace(record, failure=_shown_of(record.failure))
            self._over.append(entry.id.encode() + _ENCODER.encode(entry))

    def get(self, id: str) -> RequestEntry | None:
        """The request of this id."""
        if (entry := self._running.get(id)) is not None:
            return entry
        wanted = id.encode(errors="replace")
        if len(wanted) != _ID_BYTES:
            return None
        for packed in reversed(self._over):
            if packed.startswith(wanted) and (entry := unpacked(packed)).id == id:
                return entry
        return None

    def newest(self, environment: EnvironmentId) -> Iterator[RequestEntry]:
        """The requests of an environment: those that run, newest first, then those that are over, latest end first."""
        yield from (entry for entry in reversed(self._running.values()) if entry.environment == environment)
        wanted = environment.encode()
        for packed in reversed(self._over):
            if wanted in packed and (entry := unpacked(packed)).environment == environment:
                yield entry

    def mark(self) -> tuple[str, bytes, int]:
        """A value that differs as soon as a request began or ended."""
        return next(reversed(self._running), ""), self._over[-1][:_ID_BYTES] if self._over else b"", len(self._running)

    def running(self, environment: EnvironmentId) -> list[RequestEntry]:
        """The requests of an environment that run, newest first."""
        return [entry for entry in reversed(self._running.values()) if entry.environment == environment]

    def over_packed(self) -> Sequence[bytes]:
        """The finished requests of every environment as they are kept, latest end first; `unpacked` reads one."""
        return list(reversed(self._over))


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(RequestEntry)
_ID_BYTES: Final = len(new_request_id())
_FACTS: Final = ("stage", "class", "sqlstate", "phase", "cause", "reason")
"""Details of a failure that are closed words; they tell apart the causes of one code."""


def unpacked(packed: bytes) -> RequestEntry:
    """A finished request as the ring keeps it."""
    return _DECODER.decode(memoryview(packed)[_ID_BYTES:])


def _shown_of(failure: Failure) -> Failure:
    """The displayed part of a failure: its code, and closed words about it. Other details need not fit into these bytes."""
    facts = {name: value for name in _FACTS if isinstance(value := failure.details.get(name), str) and _is_word(value)}
    return Failure(code=failure.code, message="", details=facts)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= limits.NAME_CHARACTERS_MAX and text.isascii() and text.replace("_", "").isalnum()


class Requests:
    """Recent requests: listed, explained, cancelled."""

    def __init__(self, desk: Desk, ring: RequestRing) -> None:
        self._desk = desk
        self._ring = ring

    def list(self, caller: Caller, *, limit: int) -> dict[str, Any]:
        """The newest requests of the environment, with their attempts."""
        newest = self._ring.newest(caller.environment.id)
        running = self._desk.dispatcher.running()
        found = [request_document(entry, running) for entry, _ in zip(newest, range(limit), strict=False)]
        return {"requests": found}

    def show(self, caller: Caller, id: str) -> dict[str, Any]:
        """What became of a request. Raises LenswayError NOT_FOUND."""
        running = self._desk.dispatcher.running()
        return request_document(self._entry(caller, id), running, with_runners=not caller.identity.is_public)

    async def cancel(self, caller: Caller, id: str) -> dict[str, Any]:
        """End a request: one's own, or any of the environment for an operator. Raises LenswayError NOT_FOUND, FORBIDDEN."""
        entry = self._entry(caller, id)
        decisions.require_cancel(caller.identity, by=entry.key)
        self._desk.dispatcher.cancel(RequestId(entry.id))
        self._desk.note(caller, "cancel_request", entry.id)
        return request_document(entry, self._desk.dispatcher.running())

    def _entry(self, caller: Caller, id: str) -> RequestEntry:
        entry = self._ring.get(id)
        if entry is None or not decisions.may_see_request(
            caller.identity, caller.environment, of=entry.environment, by=entry.key
        ):
            raise not_found("request", id)
        return entry


def request_document(
    entry: RequestEntry, running: Mapping[RequestId, JobRecord], *, with_runners: bool = True
) -> dict[str, Any]:
    """A request as the API shows it, with what has become of it so far. ``with_runners`` False leaves out who executed it."""
    record = entry.record or running.get(RequestId(entry.id))
    document: dict[str, Any] = {
        "id": entry.id,
        "kind": entry.kind,
        "lens": entry.lens,
        "at": entry.at.isoformat(timespec="milliseconds"),
        "outcome": "running" if record is None or not record.outcome else record.outcome,
    }
    if record is None:
        return document
    placed = record.placed_at()
    end = record.ended_at
    document["durationMs"] = None if end is None else round((end - record.submitted_at) * 1000, 3)
    document["bytes"] = record.bytes
    if placed is not None or record.outcome:
        document["route"] = route_taken(record, with_runners=with_runners)
    if record.failure is not None:
        document["error"] = {"code": record.failure.code.value} | (dict(record.failure.details) if with_runners else {})
    if with_runners:
        document["source"] = entry.source
        document["attempts"] = [_attempt(record, attempt) for attempt in record.attempts]
        if placed is None and record.undecided:
            document["candidates"] = [_candidate(note) for note in record.undecided]
    return document


def route_taken(record: JobRecord, *, with_runners: bool) -> RouteTaken:
    """Where the request was executed."""
    placed = record.placed_at()
    return RouteTaken(
        via="runner" if record.is_by_runner else "inline",
        attempts=max(1, record.executed),
        runner=msgspec.UNSET if not with_runners else None if placed is None else placed.runner_name,
    )


def _attempt(record: JobRecord, attempt: AttemptRecord) -> dict[str, Any]:
    def since(at: float | None) -> float | None:
        return None if at is None else round((at - record.submitted_at) * 1000, 3)

    return {
        "number": attempt.number,
        "via": "inline" if attempt.runner is None else "runner",
        "runner": attempt.runner_name,
        "instance": attempt.instance,
        "offeredMs": since(attempt.offered_at),
        "acceptedMs": since(attempt.accepted_at),
        "firstRowMs": since(attempt.first_row_at),
        "endedMs": since(attempt.ended_at),
        "outcome": "running" if attempt.cause is None else str(attempt.cause),
        "candidates": [_candidate(note) for note in attempt.candidates],
    }


def _candidate(note: CandidateNote) -> dict[str, Any]:
    document: dict[str, Any] = {"runner": note.runner_name, "verdict": note.verdict.value}
    if note.session is not None:
        document["session"] = note.session
    if note.score is not None:
        document["score"] = round(note.score, 4)
    return document


candidate_document = _candidate
