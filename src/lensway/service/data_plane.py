"""The data plane: rows, counts, exports, what would run, and what became of a request."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from lensway import limits
from lensway.api import numbers
from lensway.api.negotiation import EXPORT_MEDIA, PAGE_MEDIA
from lensway.auth import decisions
from lensway.auth.gate import KeyGate
from lensway.catalog.names import invalid, not_found
from lensway.catalog.reading import mapping
from lensway.catalog.records import Lens, RetryMode, Source
from lensway.dialects.registry import capabilities_of
from lensway.dispatch.core.events import JobRequest, Release
from lensway.dispatch.core.records import JobRecord
from lensway.dispatch.shell import JobHandle, PageResult
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import RequestId
from lensway.query.capabilities import Capabilities
from lensway.query.fields import Field, FieldType
from lensway.query.plan import PATTERN_OPERATORS, Operator, Plan
from lensway.query.planner import PlannedRows, RowsRequest, plan_count, plan_export, plan_rows
from lensway.query.result import ResultEnd, RowFormat, decode_end
from lensway.query.suggestions import nearest
from lensway.service import formats
from lensway.service.answers import Page
from lensway.service.compression import compressed_whole
from lensway.service.http import Call, json_response
from lensway.service.streaming import HeldPage, StreamedRows
from lensway.usecases.believing import check_count, check_page
from lensway.usecases.bounds import bounds_of, default_page_rows
from lensway.usecases.desk import Desk
from lensway.usecases.explain import explain
from lensway.usecases.requests import RequestEntry, RequestRing, request_document, route_document

_PAGE_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ((b"vary", formats.VARY.encode()),)
_ROWS_OPENING: Final = b'{"rows":['
_QUERY_KEYS: Final = ("where", "orderBy", "limit", "offset", "cursor", "select", "include", "total", "timeoutMs")
_EXPORT_KEYS: Final = ("where", "orderBy", "select", "timeoutMs")
_COUNT_KEYS: Final = ("where", "timeoutMs")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A lens that the caller may ask, its source, and what that can do."""

    lens: Lens
    source: Source
    capabilities: Capabilities
    body: Mapping[str, object]


class DataPlane:
    """Handlers of the data plane."""

    def __init__(
        self,
        desk: Desk,
        ring: RequestRing,
        cursor_key: bytes,
        *,
        stall_seconds: float = limits.STALL_TIMEOUT_SECONDS,
    ) -> None:
        self._desk = desk
        self._ring = ring
        self._cursor_key = cursor_key
        self._stall_seconds = stall_seconds
        self._gate = KeyGate()

    # --- rows -------------------------------------------------------------------------------------------------------------

    async def query(self, call: Call) -> Response:
        """A page of rows: as JSON when it is complete, in other formats, and beyond what may be held, as it comes."""
        self._count(call)
        wanted = formats.wanted(call.header(b"accept"), call.header(b"accept-encoding"), PAGE_MEDIA)
        asked = self._asked(call, await call.body(numbers.decode_request), _QUERY_KEYS)
        planned = self._plan(call, asked)
        meta = functools.partial(_meta, call, asked, planned)
        if wanted.row_format is not RowFormat.JSON:
            return await self._streamed(call, asked, planned.plan, wanted, meta)
        may_overflow = formats.takes_streams(call.request)
        handle = self._submit(call, asked, planned.plan, RowFormat.JSON, may_overflow=may_overflow)
        page = await call.while_connected(handle.held_page(), handle.cancel)
        if page is None:
            return _rows_as_they_come(call, handle, wanted, meta)
        try:
            body = _rows_document(page, meta)
        except LenswayError:
            handle.taken()
            raise
        return await _page(call, handle, body, wanted.coding)

    async def count(self, call: Call) -> Response:
        """How many rows match."""
        self._count(call)
        asked = self._asked(call, await call.body(numbers.decode_request), _COUNT_KEYS)
        plan = plan_count(asked.lens.definition, asked.body.get("where"), asked.capabilities)
        handle = self._submit(call, asked, plan, RowFormat.JSON)
        page = await call.while_connected(handle.page(), handle.cancel)
        document = b"".join(page.chunks)
        if page.record.is_by_runner:
            check_count(document)
        return Page(document, ())

    async def export(self, call: Call) -> Response:
        """Every matching row, streamed. Failures before the first row are answered, later ones cut the stream."""
        self._count(call)
        wanted = formats.wanted(call.header(b"accept"), call.header(b"accept-encoding"), EXPORT_MEDIA)
        asked = self._asked(call, await call.body(numbers.decode_request), _EXPORT_KEYS)
        request = RowsRequest(
            where=asked.body.get("where"), order_by=asked.body.get("orderBy"), select=asked.body.get("select")
        )
        plan = plan_export(asked.lens.definition, request, asked.capabilities)
        return await self._streamed(call, asked, plan, wanted, functools.partial(_meta, call, asked, None))

    async def explain(self, call: Call) -> Response:
        """What would run and where."""
        self._count(call)
        asked = self._asked(call, await call.body(numbers.decode_request), _QUERY_KEYS)
        planned = self._plan(call, asked)
        document = explain(self._desk, asked.lens, asked.source, planned.plan, asked.capabilities)
        if call.is_public:
            # Everybody who looks at the page has the key: no names of tables, columns, sources and runners.
            document |= {"source": None, "bridge": None, "statement": None, "parameters": []}
            document["route"] = {"via": document["route"]["via"], "runner": None, "candidates": []}
        return json_response(document)

    # --- looking ------------------------------------------------------------------------------------------------------------

    async def list_lenses(self, call: Call) -> Response:
        """What this key may ask."""
        snapshot = self._desk.snapshot()
        caller = call.by
        found = [lens for lens in snapshot.lenses(caller.environment.id) if decisions.may_query(caller.identity, lens)]
        return json_response({"lenses": [self._lens_document(lens) for lens in found]})

    async def show_lens(self, call: Call) -> Response:
        """One lens with its field types."""
        caller = call.by
        lens = decisions.require_lens(self._desk.snapshot(), caller.identity, caller.environment, call.path("lens"))
        return json_response(self._lens_document(lens))

    async def show_request(self, call: Call) -> Response:
        """What became of a request, for the key that made it, or an admin key."""
        running = self._desk.dispatcher.running()
        return json_response(request_document(self._entry(call), running, with_runners=not call.is_public))

    async def cancel_request(self, call: Call) -> Response:
        """End a request: one's own, or any of the environment for who operates it."""
        entry = self._entry(call)
        caller = call.by
        if call.is_public:
            # Everybody who looks at the same page has the same key.
            raise LenswayError(ErrorCode.FORBIDDEN, "A publishable key cannot cancel requests")
        if entry.key != caller.identity.key:
            decisions.require_operate(caller.identity)
        self._desk.dispatcher.cancel(RequestId(entry.id))
        self._desk.note(caller, "cancel_request", entry.id)
        return json_response(request_document(entry, self._desk.dispatcher.running()))

    def _entry(self, call: Call) -> RequestEntry:
        """The request that is named, if this key may see it. Raises LenswayError NOT_FOUND."""
        caller = call.by
        entry = self._ring.get(call.path("id"))
        is_own = entry is not None and entry.key == caller.identity.key
        is_admin = caller.identity.kind.value == "ak"
        if entry is None or entry.environment != caller.environment.id or not (is_own or is_admin):
            raise not_found("request", call.path("id"))
        return entry

    def _count(self, call: Call) -> None:
        """Count a request against its key before any work, so that failing is no way around its limits."""
        identity = call.by.identity
        if identity.limits.counts_requests:
            self._gate.count(identity.key, identity.limits, self._desk.clock.monotonic())

    # --- parts ------------------------------------------------------------------------------------------------------------------

    def _asked(self, call: Call, body: object, known: tuple[str, ...]) -> Asked:
        caller = call.by
        snapshot = self._desk.snapshot()
        lens = decisions.require_lens(snapshot, caller.identity, caller.environment, call.path("lens"))
        members = body if type(body) is dict else mapping(body, "")
        for key in members:
            if key not in known:
                raise invalid(
                    key[: limits.NAME_CHARACTERS_MAX],
                    f"unknown key; known are {', '.join(known)}",
                    nearest=nearest(key, known),
                )
        if members.get("include") is not None:
            raise invalid("include", "is not available in this version", hint="Query the other lens by its key.")
        source = snapshot.source(caller.environment.id, lens.source)
        assert source is not None, "a lens points at a source of its environment"
        return Asked(
            lens=lens, source=source, capabilities=capabilities_of(source.bridge, self._desk.kinds), body=members
        )

    def _plan(self, call: Call, asked: Asked) -> PlannedRows:
        body = asked.body
        request = RowsRequest(
            where=body.get("where"),
            order_by=body.get("orderBy"),
            limit=default_page_rows(asked.lens.limits, call.by.identity.limits)
            if body.get("limit") is None
            else body["limit"],
            offset=body.get("offset"),
            cursor=body.get("cursor"),
            select=body.get("select"),
            total=body.get("total", False),
        )
        return plan_rows(
            asked.lens.definition,
            request,
            asked.capabilities,
            cursor_key=self._cursor_key,
            environment=call.by.environment.id,
        )

    async def _streamed(
        self, call: Call, asked: Asked, plan: Plan, wanted: formats.Wanted, meta: formats.Meta
    ) -> Response:
        formats.require_streams(call.request)
        handle = self._submit(call, asked, plan, wanted.row_format, is_stream=True)
        await call.while_connected(handle.released(), handle.cancel)
        return _rows_as_they_come(call, handle, wanted, meta)

    def _submit(
        self,
        call: Call,
        asked: Asked,
        plan: Plan,
        row_format: RowFormat,
        *,
        is_stream: bool = False,
        may_overflow: bool = False,
    ) -> JobHandle:
        identity = call.by.identity
        bounds = bounds_of(
            asked.lens.limits,
            identity.limits,
            plan.limit,
            asked.body.get("timeoutMs"),
            is_stream=is_stream,
            is_held=not (is_stream or may_overflow),
        )
        request = JobRequest(
            request=RequestId(call.request_id),
            environment=call.by.environment.id,
            source=asked.source.id,
            kind="export" if is_stream else "rows",
            payload=plan.encode(),
            format=row_format.value,
            deadline=self._desk.clock.monotonic() + bounds.timeout_ms / 1000,
            release=Release.STREAM if is_stream else Release.AT_END,
            rows_max=bounds.rows_max,
            bytes_max=bounds.bytes_max,
            row_bytes_max=bounds.row_bytes_max,
            may_retry=asked.lens.retry is RetryMode.AUTO,
            is_export=is_stream,
            page_bytes_max=None if is_stream else limits.PAGE_BYTES_MAX,
            may_overflow=may_overflow,
            stall_seconds=self._stall_seconds,
            trace="" if call.trace is None else call.trace.job.text(),
            owner=identity.key,
        )
        entry = RequestEntry(
            id=call.request_id,
            environment=call.by.environment.id,
            key=identity.key,
            kind="export" if is_stream and plan.limit is None else "rows",
            lens=asked.lens.name,
            source=asked.source.name,
            at=self._desk.clock.wall(),
        )
        is_counted = identity.limits.counts_requests
        if is_counted:
            self._gate.enter(identity.key, identity.limits, self._desk.clock.monotonic())
        self._ring.add(entry)
        handle = self._desk.dispatcher.submit(request)
        if call.trace is not None:
            call.trace.follow(handle, call.by.environment.name, asked.lens, asked.source)
        if is_counted:
            handle.on_settled(lambda _is_complete: self._gate.leave(identity.key))
        return handle

    def _lens_document(self, lens: Lens) -> dict[str, Any]:
        source = self._desk.snapshot().source(lens.environment, lens.source)
        capabilities = None if source is None else capabilities_of(source.bridge, self._desk.kinds)
        fields = list(lens.definition.fields.values())
        return {
            "name": lens.name,
            "fields": [
                {
                    "name": field.name,
                    "type": field.type.value,
                    "nullable": field.nullable and not field.primary_key,
                    "primaryKey": field.primary_key,
                    "list": field.is_list,
                }
                for field in fields
            ],
            "primaryKey": [field.name for field in lens.definition.primary_key],
            "operators": {field.name: _operators_of(field, capabilities) for field in fields},
        }


def _meta(call: Call, asked: Asked, planned: PlannedRows | None, end: ResultEnd, record: JobRecord) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "lens": asked.lens.name,
        "count": end.rows,
        "hasMore": end.has_more,
        "nextCursor": None if planned is None else planned.next_cursor(end, by_runner=record.is_by_runner),
    }
    if end.total is not None:
        meta["total"] = end.total
    meta["durationMs"] = round(((record.ended_at or record.submitted_at) - record.submitted_at) * 1000, 3)
    meta["requestId"] = call.request_id
    meta["route"] = route_document(record, with_runners=not call.is_public)
    return meta


def _rows_document(page: PageResult, meta: formats.Meta) -> bytes:
    """The answer of a page. Raises LenswayError RUNNER_FAILED when what a runner sent is none."""
    end = decode_end(page.result, by_runner=page.record.is_by_runner)
    closing = formats.json_end(meta(end, page.record))
    body = b"".join((_ROWS_OPENING, *page.chunks, closing))
    if page.record.is_by_runner:
        # From the bracket that opens the rows to the one that closes them, which is the first byte of `closing`.
        check_page(body, len(_ROWS_OPENING) - 1, len(body) - len(closing) + 1, end)
    return body


def _rows_as_they_come(call: Call, handle: JobHandle, wanted: formats.Wanted, meta: formats.Meta) -> Response:
    assert handle.record is not None, "released rows are of an attempt"
    headers = formats.stream_headers(handle.record, with_runners=not call.is_public)
    framing = formats.framing(wanted, meta)
    return StreamedRows(handle, framing, headers=headers, watched=call.watched, coding=wanted.coding)


async def _page(call: Call, handle: JobHandle, body: bytes, coding: str | None) -> Response:
    headers = _PAGE_HEADERS
    if coding is not None and len(body) >= limits.COMPRESS_BYTES_MIN:
        body = await compressed_whole(coding, body)
        headers = (*headers, (b"content-encoding", coding.encode()))
    if len(body) > limits.HTTP_UNWRITTEN_BYTES_MAX:
        return HeldPage(body, handle, headers, watched=call.watched)
    handle.taken()
    return Page(body, headers)


def _operators_of(field: Field, capabilities: Capabilities | None) -> list[str]:
    available = frozenset(Operator) if capabilities is None else capabilities.operators
    if field.is_list or field.type is FieldType.JSON:
        return ["$exists"]
    usable = [operator for operator in Operator if operator in available]
    if field.type is not FieldType.TEXT:
        usable = [operator for operator in usable if operator not in PATTERN_OPERATORS]
    return [*(f"${operator.value}" for operator in usable), "$exists"]
