"""The data plane: rows, counts, exports, what would run, and what became of a request."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from lensway import limits
from lensway.auth import decisions
from lensway.catalog.names import invalid, nearest, not_found
from lensway.catalog.reading import mapping
from lensway.catalog.records import Lens, RetryMode, Source
from lensway.dispatch.events import JobRequest, Release
from lensway.dispatch.shell import JobHandle
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import RequestId
from lensway.query.capabilities import Capabilities, capabilities_of
from lensway.query.fields import Field, FieldType
from lensway.query.plan import PATTERN_OPERATORS, Operator, Plan
from lensway.query.planner import PlannedRows, RowsRequest, plan_count, plan_export, plan_rows
from lensway.query.result import RowFormat, decode_end
from lensway.service.desk import Desk
from lensway.service.explain import explain
from lensway.service.http import Call, json_response
from lensway.service.ring import RequestEntry, RequestRing, request_document, route_document

_QUERY_KEYS: Final = ("where", "orderBy", "limit", "offset", "cursor", "select", "include", "total", "timeoutMs")
_EXPORT_KEYS: Final = ("where", "orderBy", "select", "timeoutMs")
_COUNT_KEYS: Final = ("where", "timeoutMs")
_EXPORT_FORMATS: Final[Mapping[str, RowFormat]] = {
    "application/x-ndjson": RowFormat.NDJSON,
    "text/csv": RowFormat.CSV,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A lens that the caller may ask, its source, and what that can do."""

    lens: Lens
    source: Source
    capabilities: Capabilities
    body: Mapping[str, object]


class DataPlane:
    """Handlers of the data plane."""

    def __init__(self, desk: Desk, ring: RequestRing, cursor_key: bytes) -> None:
        self._desk = desk
        self._ring = ring
        self._cursor_key = cursor_key

    # --- rows -------------------------------------------------------------------------------------------------------------

    async def query(self, call: Call) -> Response:
        """A page of rows."""
        _accept_json(call)
        asked = self._asked(call, await call.body(), _QUERY_KEYS)
        planned = self._plan(call, asked)
        handle = self._submit(
            call, asked, "rows", planned.plan, row_format=RowFormat.JSON, rows_max=planned.plan.limit or 1
        )
        page = await call.while_connected(handle.page())
        end = decode_end(page.result)
        record = page.record
        meta: dict[str, Any] = {
            "lens": asked.lens.name,
            "count": end.rows,
            "hasMore": end.has_more,
            "nextCursor": planned.next_cursor(end),
        }
        if end.total is not None:
            meta["total"] = end.total
        meta["durationMs"] = round(((record.ended_at or record.submitted_at) - record.submitted_at) * 1000, 3)
        meta["requestId"] = call.request_id
        meta["route"] = route_document(record, with_runners=not call.is_public)
        body = b"".join((b'{"rows":[', *page.chunks, b'],"meta":', msgspec.json.encode(meta), b"}"))
        return Response(body, media_type="application/json")

    async def count(self, call: Call) -> Response:
        """How many rows match."""
        asked = self._asked(call, await call.body(), _COUNT_KEYS)
        plan = plan_count(asked.lens.definition, asked.body.get("where"), asked.capabilities)
        handle = self._submit(call, asked, "rows", plan, row_format=RowFormat.JSON, rows_max=1)
        page = await call.while_connected(handle.page())
        return Response(b"".join(page.chunks), media_type="application/json")

    async def export(self, call: Call) -> Response:
        """Every matching row, streamed. Failures before the first row are answered, later ones cut the stream."""
        row_format, media, has_end_mark = _export_format(call.request.headers.get("accept", "*/*"))
        asked = self._asked(call, await call.body(), _EXPORT_KEYS)
        if call.request.scope.get("http_version") == "1.0":
            raise LenswayError(
                ErrorCode.NOT_ACCEPTABLE, "HTTP/1.0 cannot tell a complete stream from a cut one", hint="Use HTTP/1.1."
            )
        request = RowsRequest(
            where=asked.body.get("where"), order_by=asked.body.get("orderBy"), select=asked.body.get("select")
        )
        plan = plan_export(asked.lens.definition, request, asked.capabilities)
        handle = self._submit(
            call,
            asked,
            "export",
            plan,
            row_format=row_format,
            rows_max=asked.lens.limits.max_rows or limits.EXPORT_ROWS_DEFAULT,
        )
        await call.while_connected(handle.released())
        headers = {"Lensway-Request": call.request_id}
        return StreamingResponse(_streamed(handle, has_end_mark=has_end_mark), media_type=media, headers=headers)

    async def explain(self, call: Call) -> Response:
        """What would run and where."""
        asked = self._asked(call, await call.body(), _QUERY_KEYS)
        planned = self._plan(call, asked)
        document = explain(self._desk, asked.lens, asked.source, planned.plan, asked.capabilities)
        if call.is_public:
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
        caller = call.by
        entry = self._ring.get(call.path("id"))
        is_own = entry is not None and entry.key == caller.identity.key
        is_admin = caller.identity.kind.value == "ak"
        if entry is None or entry.environment != caller.environment.id or not (is_own or is_admin):
            raise not_found("request", call.path("id"))
        return json_response(request_document(entry, with_runners=not call.is_public))

    # --- parts ------------------------------------------------------------------------------------------------------------------

    def _asked(self, call: Call, body: object, known: tuple[str, ...]) -> Asked:
        caller = call.by
        snapshot = self._desk.snapshot()
        lens = decisions.require_lens(snapshot, caller.identity, caller.environment, call.path("lens"))
        members = mapping(body, "")
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
        return Asked(lens=lens, source=source, capabilities=capabilities_of(source.bridge), body=members)

    def _plan(self, call: Call, asked: Asked) -> PlannedRows:
        body = asked.body
        request = RowsRequest(
            where=body.get("where"),
            order_by=body.get("orderBy"),
            limit=body.get("limit"),
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

    def _submit(
        self, call: Call, asked: Asked, kind: str, plan: Plan, *, row_format: RowFormat, rows_max: int
    ) -> JobHandle:
        lens, is_export = asked.lens, kind == "export"
        default = limits.EXPORT_TIMEOUT_MS_DEFAULT if is_export else limits.QUERY_TIMEOUT_MS_DEFAULT
        timeout_ms = _timeout(asked.body.get("timeoutMs"), min(default, lens.limits.timeout_ms or default))
        if lens.limits.timeout_ms is not None:
            timeout_ms = min(timeout_ms, lens.limits.timeout_ms)
        bytes_max = (lens.limits.max_bytes or limits.EXPORT_BYTES_DEFAULT) if is_export else limits.PAGE_BYTES_MAX
        request = JobRequest(
            request=RequestId(call.request_id),
            environment=call.by.environment.id,
            source=asked.source.id,
            kind=kind,
            payload=plan.encode(),
            format=row_format.value,
            deadline=self._desk.clock.monotonic() + timeout_ms / 1000,
            release=Release.STREAM if is_export else Release.AT_END,
            rows_max=rows_max,
            bytes_max=bytes_max,
            row_bytes_max=lens.limits.max_row_bytes or limits.ROW_BYTES_DEFAULT,
            may_retry=lens.retry is RetryMode.AUTO,
            is_export=is_export,
            page_bytes_max=None if is_export else limits.PAGE_BYTES_MAX,
        )
        entry = RequestEntry(
            id=call.request_id,
            environment=call.by.environment.id,
            key=call.by.identity.key,
            kind=kind,
            lens=lens.name,
            source=asked.source.name,
            at=self._desk.clock.wall(),
        )
        self._ring.add(entry)
        return self._desk.dispatcher.submit(request)

    def _lens_document(self, lens: Lens) -> dict[str, Any]:
        source = self._desk.snapshot().source(lens.environment, lens.source)
        capabilities = None if source is None else capabilities_of(source.bridge)
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


async def _streamed(handle: JobHandle, *, has_end_mark: bool) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(handle.stream()) as chunks:
        async for chunk in chunks:
            yield chunk
    if has_end_mark:
        yield msgspec.json.encode({"$end": {"rows": decode_end(handle.result).rows}}) + b"\n"


def _operators_of(field: Field, capabilities: Capabilities | None) -> list[str]:
    available = frozenset(Operator) if capabilities is None else capabilities.operators
    if field.is_list or field.type is FieldType.JSON:
        return ["$exists"]
    usable = [operator for operator in Operator if operator in available]
    if field.type is not FieldType.TEXT:
        usable = [operator for operator in usable if operator not in PATTERN_OPERATORS]
    return [*(f"${operator.value}" for operator in usable), "$exists"]


def _timeout(value: object, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limits.QUERY_TIMEOUT_MS_MAX:
        raise invalid("timeoutMs", f"must be a whole number from 1 to {limits.QUERY_TIMEOUT_MS_MAX:,}")
    return value


def _accepted(header: str) -> list[str]:
    """The media types of an Accept header, most wanted first; ``q=0`` left out."""
    found: list[tuple[float, int, str]] = []
    for number, part in enumerate(header.split(",")):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        extra = []
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
            else:
                extra.append(parameter)
        if quality > 0 and media:
            found.append((-quality, number, ";".join([media.lower(), *extra])))
    return [media for _, _, media in sorted(found)]


def _accept_json(call: Call) -> None:
    header = call.request.headers.get("accept")
    if header is None:
        return
    if not any(media.partition(";")[0] in ("*/*", "application/*", "application/json") for media in _accepted(header)):
        raise LenswayError(
            ErrorCode.NOT_ACCEPTABLE,
            "A page is JSON",
            hint="Accept application/json, or POST to …/export for application/x-ndjson and text/csv.",
        )


def _export_format(header: str) -> tuple[RowFormat, str, bool]:
    for media in _accepted(header) or ["*/*"]:
        name, _, parameters = media.partition(";")
        if name in ("*/*", "application/*"):
            name = "application/x-ndjson"
        if name == "text/*":
            name = "text/csv"
        row_format = _EXPORT_FORMATS.get(name)
        if row_format is not None:
            has_end = row_format is RowFormat.NDJSON and "end=record" in parameters
            return row_format, name + ("; charset=utf-8" if name == "text/csv" else ""), has_end
    raise LenswayError(
        ErrorCode.NOT_ACCEPTABLE, "An export has none of these formats", hint=f"Accept {' or '.join(_EXPORT_FORMATS)}."
    )
