"""The data plane over HTTP: formats, held pages and streams around what the use cases answer."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from lensway import limits
from lensway.api import numbers
from lensway.api.negotiation import EXPORT_MEDIA, PAGE_MEDIA
from lensway.api.shapes import CountRequest, ExportRequest, QueryRequest
from lensway.dispatch.shell import PageResult
from lensway.errors import LenswayError
from lensway.query.result import RowFormat, decode_end
from lensway.service import formats
from lensway.service.answers import Page
from lensway.service.compression import compressed_whole
from lensway.service.decoding import read_request
from lensway.service.http import Call, json_response
from lensway.service.streaming import HeldPage, StreamedRows
from lensway.usecases.believing import check_count, check_page
from lensway.usecases.bundle import UseCases
from lensway.usecases.query import Answering, Delivery

_ROWS_OPENING: Final = b'{"rows":['
_PAGE_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ((b"vary", formats.VARY.encode()),)


class DataPlane:
    """Handlers of the data plane."""

    def __init__(self, use: UseCases) -> None:
        self._queries = use.queries
        self._explanations = use.explanations
        self._lenses = use.lenses
        self._requests = use.requests

    # --- rows -------------------------------------------------------------------------------------------------------------

    async def query(self, call: Call) -> Response:
        """A page of rows: as JSON when it is complete; in other formats, and beyond what may be held, as it comes."""
        self._queries.admit(call.by)
        wanted = formats.wanted(call.header(b"accept"), call.header(b"accept-encoding"), PAGE_MEDIA)
        question = read_request(QueryRequest, await call.body(numbers.decode_request))
        is_page = wanted.row_format is RowFormat.JSON
        if not is_page:
            formats.require_streams(call.request)
            delivery = Delivery.STREAM
        else:
            delivery = Delivery.WHOLE_OR_STREAM if formats.takes_streams(call.request) else Delivery.WHOLE
        answering = self._queries.rows(
            call.by,
            call.path("lens"),
            question,
            format=wanted.row_format,
            delivery=delivery,
            following=call.trace,
        )
        if not is_page:
            return await _streamed(call, answering, wanted)
        handle = answering.handle
        page = await call.while_connected(handle.held_page(), handle.cancel)
        if page is None:
            return _rows_as_they_come(call, answering, wanted)
        try:
            body = _rows_document(page, answering)
        except LenswayError:
            handle.taken()
            raise
        return await _page(call, answering, body, wanted.coding)

    async def count(self, call: Call) -> Response:
        """How many rows match."""
        self._queries.admit(call.by)
        question = read_request(CountRequest, await call.body(numbers.decode_request))
        handle = self._queries.count(call.by, call.path("lens"), question, following=call.trace).handle
        page = await call.while_connected(handle.page(), handle.cancel)
        document = b"".join(page.chunks)
        if page.record.is_by_runner:
            check_count(document)
        return Page(document, ())

    async def export(self, call: Call) -> Response:
        """Every matching row, streamed. Failures before the first row are answered, later ones cut the stream."""
        self._queries.admit(call.by)
        wanted = formats.wanted(call.header(b"accept"), call.header(b"accept-encoding"), EXPORT_MEDIA)
        question = read_request(ExportRequest, await call.body(numbers.decode_request))
        formats.require_streams(call.request)
        answering = self._queries.export(
            call.by, call.path("lens"), question, format=wanted.row_format, following=call.trace
        )
        return await _streamed(call, answering, wanted)

    async def explain(self, call: Call) -> Response:
        """What would run and where."""
        self._queries.admit(call.by)
        question = read_request(QueryRequest, await call.body(numbers.decode_request))
        return json_response(self._explanations.explain(call.by, call.path("lens"), question))

    # --- looking ------------------------------------------------------------------------------------------------------------

    async def list_lenses(self, call: Call) -> Response:
        """What this key may ask."""
        return json_response(self._lenses.askable(call.by))

    async def show_lens(self, call: Call) -> Response:
        """One lens with its field types."""
        return json_response(self._lenses.show(call.by, call.path("lens")))

    async def show_request(self, call: Call) -> Response:
        """What became of a request, for the key that made it, or an admin key."""
        return json_response(self._requests.show(call.by, call.path("id")))

    async def cancel_request(self, call: Call) -> Response:
        """End a request: one's own, or any of the environment for an operator."""
        return json_response(await self._requests.cancel(call.by, call.path("id")))


async def _streamed(call: Call, answering: Answering, wanted: formats.Wanted) -> Response:
    handle = answering.handle
    await call.while_connected(handle.released(), handle.cancel)
    return _rows_as_they_come(call, answering, wanted)


def _rows_document(page: PageResult, answering: Answering) -> bytes:
    """The answer of a page. Raises LenswayError RUNNER_FAILED when the rows of a runner are malformed."""
    end = decode_end(page.result, by_runner=page.record.is_by_runner)
    closing = formats.json_end(answering.meta(end, page.record))
    body = b"".join((_ROWS_OPENING, *page.chunks, closing))
    if page.record.is_by_runner:
        # From the bracket that opens the rows to the one that closes them, which is the first byte of `closing`.
        check_page(body, len(_ROWS_OPENING) - 1, len(body) - len(closing) + 1, end)
    return body


def _rows_as_they_come(call: Call, answering: Answering, wanted: formats.Wanted) -> Response:
    handle = answering.handle
    assert handle.record is not None, "released rows are of an attempt"
    headers = formats.stream_headers(handle.record, with_runners=answering.asked.access.shows_runners)
    framing = formats.framing(wanted, answering.meta)
    return StreamedRows(handle, framing, headers=headers, watched=call.watched, coding=wanted.coding)


async def _page(call: Call, answering: Answering, body: bytes, coding: str | None) -> Response:
    headers = _PAGE_HEADERS
    if coding is not None and len(body) >= limits.COMPRESS_BYTES_MIN:
        body = await compressed_whole(coding, body)
        headers = (*headers, (b"content-encoding", coding.encode()))
    if len(body) > limits.HTTP_UNWRITTEN_BYTES_MAX:
        return HeldPage(body, answering.handle, headers, watched=call.watched)
    answering.handle.taken()
    return Page(body, headers)
