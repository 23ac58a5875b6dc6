"""Reading a stream: where it ends, what belongs to the rows, and how a cut is told from an end.

HTTP/1.1 says so itself (no last chunk), but something in between may hide it. So the marks of the formats are looked at too:
NDJSON is asked for with its end record, an Arrow stream ends with its end-of-stream mark, Parquet with its footer's magic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from lensway import limits
from lensway.api import numbers, shapes
from lensway.client import core, core_arrow, exceptions
from lensway.client.arrow import ArrowRows
from lensway.client.core import Answer, Connection, Emit, Lost, Read, Request, Steps, Work
from lensway.errors import ErrorCode, LenswayError

ARROW: Final = "application/vnd.apache.arrow.stream"
_NDJSON: Final = "application/x-ndjson"
_TAILS: Final = {
    # The mark, and the bytes of the shortest whole stream: a Parquet file begins with the same magic as it ends.
    ARROW: (b"\xff\xff\xff\xff\x00\x00\x00\x00", 8),
    "application/vnd.apache.parquet": (b"PAR1", 12),
}
_AGAIN: Final = "ask for it again: each call of export, encoded or stream makes a new one"
_ROWS: Final = numbers.decoder_of(dict[str, Any])


class _CutError(Exception):
    """The bytes have no end mark; the text says what is missing."""


class _EndMark(Protocol):
    def take(self, data: bytes) -> bytes:
        """What of the rows is certain by now."""

    def finish(self) -> None:
        """The bytes are at their end. Raises _CutError when the rows are not."""


class _CsvCount:
    """CSV has no end mark, but its rows can be counted: the line ends outside quotes, less the header's."""

    def __init__(self) -> None:
        self._lines = 0
        self._is_quoted = False

    @property
    def rows(self) -> int:
        return max(0, self._lines - 1)

    def take(self, data: bytes) -> bytes:
        outside = data.split(b'"')[self._is_quoted :: 2]
        self._lines += sum(part.count(b"\n") for part in outside)
        self._is_quoted ^= bool(data.count(b'"') % 2)
        return data

    def finish(self) -> None:
        pass


class _Unmarked:
    """A format without a mark: only HTTP tells its end."""

    def take(self, data: bytes) -> bytes:
        return data

    def finish(self) -> None:
        pass


class _Tail:
    """A format whose last bytes are always the same."""

    def __init__(self, mark: bytes, bytes_min: int) -> None:
        self._mark = mark
        self._missing = bytes_min
        self._last = b""

    def take(self, data: bytes) -> bytes:
        self._missing -= len(data)
        self._last = (self._last + data[-len(self._mark) :])[-len(self._mark) :]
        return data

    def finish(self) -> None:
        if self._last != self._mark or self._missing > 0:
            raise _CutError("its end mark is missing")


class _ArrowTail(_Tail):
    """An Arrow stream: its end mark, and the rows of its batches."""

    def __init__(self, mark: bytes, bytes_min: int) -> None:
        super().__init__(mark, bytes_min)
        self._count = core_arrow.BatchCount()

    @property
    def rows(self) -> int | None:
        return self._count.rows

    def take(self, data: bytes) -> bytes:
        self._count.take(data)
        return super().take(data)


class _EndRecord:
    """NDJSON whose last line counts the rows. Gives whole lines only, without that one."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.rows = 0

    def take(self, data: bytes) -> bytes:
        self._held += data
        # The last whole line may be the end record, so it waits for the next one.
        last = self._held.rfind(b"\n")
        before = self._held.rfind(b"\n", 0, last) if last > 0 else -1
        if len(self._held) - before > limits.CLIENT_LINE_BYTES_MAX:
            raise _CutError(f"a line is longer than {limits.CLIENT_LINE_BYTES_MAX:,} bytes")
        lines = bytes(self._held[: before + 1])
        del self._held[: before + 1]
        self.rows += lines.count(b"\n")
        return lines

    def finish(self) -> None:
        try:
            expected = msgspec.json.decode(self._held)["$end"]["rows"]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise _CutError("its end record is missing") from None
        if not self._held.endswith(b"\n") or expected != self.rows:
            raise _CutError(f"it holds {core.counted(self.rows, 'row')} and says {expected}")


class Incoming:
    """A stream on its way in: its facts, and how much has arrived."""

    def __init__(self, via: Connection, request: Request) -> None:
        self.via = via
        self.wanted = request
        self.stream: object = None
        self.has_begun = False
        self.media = ""
        self.is_ndjson = False
        self.bytes_received = 0
        self.failure: LenswayError | None = None
        self._is_claimed = False
        self._is_closed = False
        self._headers: Mapping[str, str] = {}
        self._mark: _EndMark = _Unmarked()

    def _request_text(self) -> str:
        """What was asked, for debuggers; never the body, which holds a caller's values."""
        return f"{self.wanted.method} {self.wanted.path}, {self.wanted.accept.partition(';')[0]}"

    def begin(self, answer: Answer) -> None:
        """The answer has begun to arrive."""
        self.stream = answer.stream
        self.has_begun = True
        self._headers = answer.headers
        self.media = self.content_type.partition(";")[0].strip()
        self.is_ndjson = self.media == _NDJSON and "end=record" in self.wanted.accept
        if self.is_ndjson:
            self._mark = _EndRecord()
        elif self.media == "text/csv":
            self._mark = _CsvCount()
        elif self.media == ARROW:
            self._mark = _ArrowTail(*_TAILS[ARROW])
        elif self.media in _TAILS:
            self._mark = _Tail(*_TAILS[self.media])

    @property
    def content_type(self) -> str:
        """The media type that the server chose."""
        return self._headers.get("content-type", "")

    @property
    def request_id(self) -> str:
        """The id to quote when something is wrong with this request."""
        return self._headers.get("x-request-id", "")

    @property
    def route(self) -> shapes.RouteTaken | None:
        """Where it is executed; None when the answer does not say."""
        route = self._headers.get("lensway-route")
        return None if route is None else msgspec.json.decode(route, type=shapes.RouteTaken)

    @property
    def rows_received(self) -> int | None:
        """Whole rows so far; None for formats that do not show it."""
        return getattr(self._mark, "rows", None)

    def claim(self) -> None:
        """Begin to read it. Raises RuntimeError the second time, because the rows are gone."""
        self.check()
        self._is_claimed = True

    def check(self) -> None:
        """Raises RuntimeError when the stream was closed or read already."""
        if self._is_claimed:
            raise RuntimeError(f"the stream was read already; {_AGAIN}")
        self.check_open()

    def check_open(self) -> None:
        """Raises RuntimeError when the stream was closed."""
        if self._is_closed:
            raise RuntimeError(f"the stream is closed; {_AGAIN}")

    def closed(self) -> None:
        """Nothing more is read."""
        self._is_closed = True

    def check_arrow(self) -> None:
        """Raises TypeError for another format."""
        if self.media != ARROW:
            raise TypeError(f'this stream is {self.content_type}, not Arrow; ask for format="arrow"')

    def take(self, data: bytes) -> bytes:
        """What of the rows is certain by now. Raises IncompleteStreamError."""
        self.bytes_received += len(data)
        try:
            return self._mark.take(data)
        except _CutError as cut:
            raise self.broken(str(cut)) from None

    def finish(self) -> None:
        """The bytes are at their end. Raises IncompleteStreamError when the rows are not."""
        try:
            self._mark.finish()
        except _CutError as cut:
            raise self.broken(str(cut)) from None

    def broken(self, reason: str) -> LenswayError:
        """The failure of this stream, kept for callers that read it through a library with errors of its own."""
        self.failure = exceptions.IncompleteStreamError(
            ErrorCode.RUNNER_FAILED,
            f"the stream broke after {core.counted(self.bytes_received, 'byte')}, before its end ({reason}); "
            "what arrived is incomplete",
            hint=f"Repeat the request; reads are safe to repeat. `lensway requests {self.request_id}` says what happened.",
            details={"requestId": self.request_id, "bytes": self.bytes_received},
        )
        return self.failure


def opened(incoming: Incoming) -> Work[None]:
    """Send the request unless that is done already.

    Raises:
        LenswayError: the class of the failure's code.
        RuntimeError: when the stream was closed or read already.
    """
    incoming.check()
    if not incoming.has_begun:
        incoming.begin((yield from core.answered(incoming.via, incoming.wanted)))


def chunks(incoming: Incoming) -> Steps[bytes]:
    """The encoded rows as they arrive; whole lines for NDJSON. Can be read once.

    Raises:
        IncompleteStreamError: when the stream broke.
    """
    yield from opened(incoming)
    incoming.claim()
    while part := (yield from next_part(incoming)):
        yield Emit(part)


def rows(incoming: Incoming) -> Steps[dict[str, Any]]:
    """The rows of an NDJSON stream, decoded. Can be read once.

    Raises:
        IncompleteStreamError: when the stream broke.
        TypeError: for another format.
    """
    yield from opened(incoming)
    if not incoming.is_ndjson:
        raise TypeError(f'rows are decoded from format="ndjson" only; this stream is {incoming.content_type}')
    incoming.claim()
    while part := (yield from next_part(incoming)):
        for row in _ROWS.decode_lines(part):
            yield Emit(row)


def read(incoming: Incoming) -> Work[bytes]:
    """Everything in memory.

    Raises:
        IncompleteStreamError: when the stream broke.
    """
    return b"".join((yield from _parts(incoming)))


def arrow(incoming: Incoming) -> Work[ArrowRows]:
    """Everything as Arrow in memory.

    Raises:
        IncompleteStreamError: when the stream broke.
        TypeError: for another format.
    """
    yield from opened(incoming)
    incoming.check_arrow()
    return ArrowRows((yield from _parts(incoming)))


def _parts(incoming: Incoming) -> Work[list[bytes]]:
    yield from opened(incoming)
    incoming.claim()
    found: list[bytes] = []
    while part := (yield from next_part(incoming)):
        found.append(part)
    return found


def next_part(incoming: Incoming) -> Work[bytes]:
    """What of the rows is certain next; empty at the end, once the end is known to be one."""
    part = b""
    while not part:
        incoming.check_open()
        data = yield Read(incoming.stream)
        if isinstance(data, Lost):
            raise incoming.broken(data.reason)
        assert isinstance(data, bytes)
        if not data:
            incoming.finish()
            return b""
        part = incoming.take(data)
    return part
