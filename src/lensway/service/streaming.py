"""Rows on their way to a caller, in chunks: what stands before and behind them, the trailers, and the cut when they end early.

A stream that fails after its start never has a last chunk, and its compressed bytes have no end: no client can
take it for complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lensway.dispatch.core.records import JobRecord
from lensway.dispatch.shell import JobHandle
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import ResultEnd, decode_end
from lensway.service.answers import Page
from lensway.service.compression import Coder, coder_of, compressed_piece
from lensway.service.wire import WIRE, Wire
from lensway.usecases.believing import CheckedLines

_log = structlog.get_logger("lensway.http")
_ARROW_ALIGNMENT: Final = 8
_ARROW_KEPT: Final = 4

Closing = Callable[[ResultEnd, JobRecord], bytes]
Trailers = Callable[[ResultEnd, JobRecord], Sequence[tuple[bytes, bytes]]]


Watched = Callable[[Callable[[], None]], contextlib.AbstractContextManager[None]]
"""Within the block, the given function is called as soon as the key that asked is no more."""


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds the rows. ``closing`` and ``trailers`` are made from the end mark, so a cut stream has neither."""

    media_type: str
    trailer_names: str
    trailers: Trailers
    opening: bytes
    closing: Closing
    is_arrow: bool
    is_lines: bool = False


class StreamedRows(Response):
    """The response. Use it for one job whose first rows have been released."""

    def __init__(
        self,
        handle: JobHandle,
        framing: Framing,
        *,
        headers: Mapping[str, str],
        watched: Watched,
        coding: str | None = None,
    ) -> None:
        self.status_code = 200
        self.media_type = framing.media_type
        self.background = None
        self.on_over: Callable[[str], None] = lambda _code: None
        """Called with `ok`, or the code of what ended it early, when nothing more is sent."""
        self._handle = handle
        self._framing = framing
        self._watched = watched
        self._coder: Coder | None = None if coding is None else coder_of(coding)
        own = {"Trailer": framing.trailer_names, "X-Accel-Buffering": "no"}
        if coding is not None:
            own["Content-Encoding"] = coding
        self.init_headers({**headers, **own})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the rows; returns when they are out, cut, or not wanted any more."""
        wire: Wire = scope[WIRE]
        # A caller that does not read cannot hear of a failure either; waiting for it would keep its connection.
        self._handle.on_settled(lambda is_complete: wire.abort() if wire.is_blocked and not is_complete else None)
        wire.when_gone(self._handle.cancel)
        is_complete = False
        try:
            with self._watched(lambda: _cut(self._handle, wire)):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async with contextlib.aclosing(self._pieces()) as pieces:
                    async for piece in pieces:
                        if wire.is_gone:
                            return
                        if not piece:
                            continue
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                end, record = self._end()
                wire.finish(self._framing.trailers(end, record))
                is_complete = True
        except LenswayError as error:
            _log.warning("stream cut", job=self._handle.id, code=error.code.value)
        finally:
            wire.when_gone(None)
            if not is_complete:
                self._handle.cancel()
                wire.cut()
            self.on_over("ok" if is_complete else self._cause())

    def _is_by_runner(self) -> bool:
        record = self._handle.record
        return record is not None and record.is_by_runner

    def _cause(self) -> str:
        failure = None if self._handle.record is None else self._handle.record.failure
        return (ErrorCode.CANCELLED if failure is None else failure.code).value

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        coder = self._coder
        async with contextlib.aclosing(self._plain()) as chunks:
            async for chunk in chunks:
                yield chunk if coder is None else await compressed_piece(coder, chunk)
        if coder is not None:
            yield coder.last()

    async def _plain(self) -> AsyncGenerator[bytes, None]:
        if self._framing.opening:
            yield self._framing.opening
        guard: BetweenBoundaries | CheckedLines | None = None
        if self._framing.is_arrow:
            guard = BetweenBoundaries()
        elif self._framing.is_lines and self._is_by_runner():
            guard = CheckedLines()
        async with contextlib.aclosing(self._handle.stream()) as chunks:
            async for chunk in chunks:
                yield chunk if guard is None else guard.feed(chunk)
        if guard is not None:
            yield guard.rest()
        if closing := self._framing.closing(*self._end()):
            yield closing

    def _end(self) -> tuple[ResultEnd, JobRecord]:
        record = self._handle.record
        assert record is not None, "a job that ended has its record"
        return decode_end(self._handle.result, by_runner=record.is_by_runner), record


def _cut(handle: JobHandle, wire: Wire) -> None:
    handle.cancel()
    wire.cut()


class BetweenBoundaries:
    """Passes bytes on such that what was given never ends where a message may end, before all of them are given.

    An Arrow stream that ends between two messages is complete for its readers. Messages are padded to eight bytes, so a stream
    that ends anywhere else is broken for all of them: a few bytes are kept until more come.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._count = 0

    def feed(self, chunk: bytes) -> bytes:
        """What may be given now."""
        self._count += len(chunk)
        data = self._kept + chunk
        keep = 0 if self._count % _ARROW_ALIGNMENT else min(_ARROW_KEPT, len(data))
        self._kept = data[len(data) - keep :]
        return data[: len(data) - keep]

    def rest(self) -> bytes:
        """What was kept."""
        return self._kept


class HeldPage(Page):
    """A whole page that is too large for the connection's buffer: it counts as held until the caller has taken it."""

    def __init__(
        self, body: bytes, handle: JobHandle, headers: Sequence[tuple[bytes, bytes]], *, watched: Watched
    ) -> None:
        super().__init__(body, headers)
        self._handle = handle
        self._watched = watched

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; returns when it has been taken, or the caller is gone."""
        wire: Wire = scope[WIRE]
        try:
            with self._watched(wire.abort):
                await super().__call__(scope, receive, send)
                await wire.drained()
        finally:
            self._handle.taken()
