"""Rows, counts and exports: who may ask what, the plan, and the job that executes it. Knows no HTTP."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from lensway import limits
from lensway.api.shapes import CountRequest, ExportRequest, PageMeta, QueryRequest
from lensway.auth import decisions
from lensway.auth.caller import Caller
from lensway.auth.gate import KeyGate
from lensway.catalog.records import Lens, RetryMode, Source
from lensway.dialects.registry import capabilities_of
from lensway.dispatch.core.events import Asker, JobRequest, Release
from lensway.dispatch.core.records import JobRecord
from lensway.dispatch.shell import JobHandle
from lensway.ids import RequestId
from lensway.query import unavailable
from lensway.query.capabilities import Capabilities
from lensway.query.plan import ROWS_AND_COUNTS, Plan
from lensway.query.planner import PlannedRows, plan_count, plan_export, plan_rows
from lensway.query.result import ResultEnd, RowFormat
from lensway.usecases.bounds import bounds_of, default_page_rows
from lensway.usecases.desk import Desk
from lensway.usecases.requests import RequestEntry, RequestRing, route_taken
from lensway.usecases.whose_limit import WhoseLimit


class Delivery(enum.Enum):
    """How the caller takes rows."""

    WHOLE = "whole"
    """Held until the result is complete; more than may be held is a failure."""
    WHOLE_OR_STREAM = "whole_or_stream"
    """Held until it is complete; more than may be held comes as a stream."""
    STREAM = "stream"
    """As the rows come."""


class Following(Protocol):
    """Follows the job of a request, for traces."""

    def text(self) -> str:
        """The trace context that the job carries."""

    def follow(self, handle: JobHandle, environment: str, lens: Lens, source: Source) -> None:
        """This job is the request's."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lens that the caller may ask, its source, and what that can do."""

    access: decisions.LensAccess
    source: Source
    capabilities: Capabilities

    @property
    def lens(self) -> Lens:
        """The lens."""
        return self.access.lens


class Answering(msgspec.Struct, frozen=True, gc=False):
    """A question whose job is under way. `handle` gives the rows, `meta` the facts about them at the end."""

    handle: JobHandle
    asked: Asked
    caller: Caller
    planned: PlannedRows | None = None

    def meta(self, end: ResultEnd, record: JobRecord) -> PageMeta:
        """What a caller is told beside the rows."""
        return PageMeta(
            lens=self.asked.lens.name,
            count=end.rows,
            has_more=end.has_more,
            next_cursor=None if self.planned is None else self.planned.next_cursor(end, by_runner=record.is_by_runner),
            total=end.total,
            duration_ms=round(((record.ended_at or record.submitted_at) - record.submitted_at) * 1000, 3),
            request_id=self.caller.request_id,
            route=route_taken(record, with_runners=self.asked.access.shows_runners),
        )


class Queries:
    """What applications ask."""

    def __init__(
        self,
        desk: Desk,
        ring: RequestRing,
        cursor_key: bytes,
        *,
        stall_seconds: float = limits.STALL_TIMEOUT_SECONDS,
        previous_cursor_keys: Sequence[bytes] = (),
    ) -> None:
        self._desk = desk
        self._ring = ring
        self._cursor_key = cursor_key
        self._previous_cursor_keys = previous_cursor_keys
        self._stall_seconds = stall_seconds
        self._gate = KeyGate()

    def admit(self, caller: Caller) -> None:
        """Count a request against its key before any work, so that failing requests count too.

        Raises:
            LenswayError: RATE_LIMITED.
        """
        identity = caller.identity
        if identity.limits.counts_requests:
            self._gate.count(identity.key, identity.limits, self._desk.clock.monotonic())

    def rows(
        self,
        caller: Caller,
        lens: str,
        question: QueryRequest,
        *,
        format: RowFormat,
        delivery: Delivery,
        following: Following | None = None,
    ) -> Answering:
        """Begin to answer with one page of rows.

        Raises:
            LenswayError: NOT_FOUND, FORBIDDEN, RATE_LIMITED, and as `plan_rows`.
        """
        asked, planned = self.plan(caller, lens, question)
        job = _Job(planned.plan, format, delivery, timeout_ms=question.timeout_ms, following=following)
        return Answering(self._submit(caller, asked, job), asked, caller, planned)

    def count(
        self, caller: Caller, lens: str, question: CountRequest, *, following: Following | None = None
    ) -> Answering:
        """Begin to count the matching rows. Raises LenswayError as `rows`."""
        asked = self._asked(caller, lens)
        plan = plan_count(asked.lens.definition, question.where, asked.capabilities)
        job = _Job(plan, RowFormat.JSON, Delivery.WHOLE, timeout_ms=question.timeout_ms, following=following)
        return Answering(self._submit(caller, asked, job), asked, caller)

    def export(
        self,
        caller: Caller,
        lens: str,
        question: ExportRequest,
        *,
        format: RowFormat,
        following: Following | None = None,
    ) -> Answering:
        """Begin to stream every matching row. Raises LenswayError as `rows`."""
        asked = self._asked(caller, lens)
        plan = plan_export(asked.lens.definition, question, asked.capabilities)
        job = _Job(plan, format, Delivery.STREAM, timeout_ms=question.timeout_ms, following=following)
        return Answering(self._submit(caller, asked, job), asked, caller)

    def plan(self, caller: Caller, lens: str, question: QueryRequest) -> tuple[Asked, PlannedRows]:
        """Check and plan one page of rows; nothing runs. Raises LenswayError as `rows`."""
        asked = self._asked(caller, lens)
        if question.include is not None:
            raise unavailable.key_refusal("include")
        if question.limit is None:
            rows = default_page_rows(asked.lens.limits, caller.identity.limits)
            question = msgspec.structs.replace(question, limit=rows)
        return asked, plan_rows(
            asked.lens.definition,
            question,
            asked.capabilities,
            cursor_key=self._cursor_key,
            environment=caller.environment.id,
            # A walk goes on over a rotation of the master key.
            previous_cursor_keys=self._previous_cursor_keys,
        )

    def _asked(self, caller: Caller, name: str) -> Asked:
        snapshot = self._desk.snapshot()
        access = decisions.access(snapshot, caller.identity, caller.environment, name)
        source = snapshot.source(caller.environment.id, access.lens.source)
        assert source is not None, "a lens points at a source of its environment"
        return Asked(
            access=access, source=source, capabilities=capabilities_of(source.bridge, self._desk.kinds, source.dialect)
        )

    def _submit(self, caller: Caller, asked: Asked, job: _Job) -> JobHandle:
        identity, now = caller.identity, self._desk.clock.monotonic()
        plan, is_stream = job.plan, job.delivery is Delivery.STREAM
        may_overflow = job.delivery is Delivery.WHOLE_OR_STREAM
        bounds = bounds_of(
            asked.lens.limits,
            identity.limits,
            plan.limit,
            job.timeout_ms,
            is_stream=is_stream,
            is_held=job.delivery is Delivery.WHOLE,
        )
        request = JobRequest(
            request=RequestId(caller.request_id),
            environment=caller.environment.id,
            source=asked.source.id,
            kind="export" if is_stream else "rows",
            payload=plan.encode(),
            format=job.format.value,
            deadline=now + bounds.timeout_ms / 1000,
            release=Release.STREAM if is_stream else Release.AT_END,
            rows_max=bounds.rows_max,
            bytes_max=bounds.bytes_max,
            row_bytes_max=bounds.row_bytes_max,
            may_retry=asked.lens.retry is RetryMode.AUTO,
            is_export=is_stream,
            page_bytes_max=None if is_stream else limits.PAGE_BYTES_MAX,
            may_overflow=may_overflow,
            stall_seconds=self._stall_seconds,
            trace="" if job.following is None else job.following.text(),
            owner=identity.key,
            asker=Asker(identity.key, identity.name, caller.environment.name, asked.lens.name),
            needs=ROWS_AND_COUNTS,
        )
        entry = RequestEntry(
            id=caller.request_id,
            environment=caller.environment.id,
            key=identity.key,
            kind="export" if is_stream and plan.limit is None else "rows",
            lens=asked.lens.name,
            source=asked.source.name,
            at=self._desk.clock.wall(),
        )
        is_counted = identity.limits.counts_requests
        if is_counted:
            self._gate.enter(identity.key, identity.limits, now)
        self._ring.add(entry)
        handle = self._desk.dispatcher.submit(request)
        handle.explain = WhoseLimit(asked.lens, identity.limits, bounds, is_stream and plan.limit is None)
        if job.following is not None:
            job.following.follow(handle, caller.environment.name, asked.lens, asked.source)
        if is_counted:
            handle.on_settled(lambda _is_complete: self._gate.leave(identity.key))
        return handle


class _Job(msgspec.Struct, frozen=True, gc=False):
    plan: Plan
    format: RowFormat
    delivery: Delivery
    timeout_ms: object
    following: Following | None
