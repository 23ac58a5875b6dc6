"""The formats of rows: which one a caller gets, and what surrounds the rows in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request

from lensway.api.negotiation import ARROW, CSV, JSON, NDJSON, PARQUET, Chosen, choose_coding, choose_media
from lensway.api.shapes import PageMeta
from lensway.dispatch.core.records import JobRecord
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import ResultEnd, RowFormat
from lensway.service.compression import CODINGS
from lensway.service.streaming import Closing, Framing
from lensway.usecases.requests import route_taken

_FORMATS: Final[Mapping[str, RowFormat]] = {
    JSON: RowFormat.JSON,
    NDJSON: RowFormat.NDJSON,
    CSV: RowFormat.CSV,
    ARROW: RowFormat.ARROW,
    PARQUET: RowFormat.PARQUET,
}
_REMEMBERED_CHARACTERS_MAX: Final = 300
"""Longer headers are read anew each time: what callers send must not decide how much is remembered."""
_PARAMETERS: Final[Mapping[str, tuple[str, str]]] = {NDJSON: ("end", "record"), ARROW: ("codec", "zstd")}
"""What may stand beside a media type, and the value that it may have. Other parameters (`charset`, say) say nothing here."""
_COMPRESSED: Final = frozenset({PARQUET})
"""Compressed in themselves: doing it again gains nothing."""
_TRAILERS: Final = "Lensway-Rows, Lensway-Has-More, Lensway-Next-Cursor, Lensway-Total"
VARY: Final = "Accept, Accept-Encoding"

Meta = Callable[[ResultEnd, JobRecord], PageMeta]


class Wanted(msgspec.Struct, frozen=True):
    """What the caller gets. ``coding`` is the compression it asked for, None for none."""

    media: str
    row_format: RowFormat
    has_end_record: bool
    coding: str | None


def wanted(accept: str | None, accept_encoding: str | None, offered: tuple[str, ...]) -> Wanted:
    """The format for a request with these headers. Raises LenswayError NOT_ACCEPTABLE."""
    is_short = len(accept or "") + len(accept_encoding or "") <= _REMEMBERED_CHARACTERS_MAX
    return (_remembered if is_short else _wanted)(accept, accept_encoding, offered)


def _wanted(accept: str | None, accept_encoding: str | None, offered: tuple[str, ...]) -> Wanted:
    chosen = choose_media(accept, offered)
    if chosen is None:
        raise LenswayError(ErrorCode.NOT_ACCEPTABLE, "None of the accepted formats is available", hint=_hint(offered))
    coding = None
    if chosen.name not in _COMPRESSED and accept_encoding is not None:
        coding = choose_coding(accept_encoding, CODINGS)
    row_format = _FORMATS[chosen.name]
    has_parameter = _has_parameter(chosen)
    if chosen.name == ARROW and has_parameter:
        row_format, coding = RowFormat.ARROW_ZSTD, None
    return Wanted(chosen.name, row_format, chosen.name == NDJSON and has_parameter, coding)


def _has_parameter(chosen: Chosen) -> bool:
    """Whether the parameter of the type is there. Raises LenswayError NOT_ACCEPTABLE for an unknown value: who asked for
    an end record must not take its absence for a cut, nor the other way round."""
    if chosen.name not in _PARAMETERS:
        return False
    name, value = _PARAMETERS[chosen.name]
    found = chosen.parameters.get(name)
    if found not in (None, value):
        raise LenswayError(
            ErrorCode.NOT_ACCEPTABLE,
            f"Rows as {chosen.name} are not available with this `{name}`",
            hint=f"Supported: {name}={value}.",
        )
    return found is not None


_remembered = functools.lru_cache(maxsize=256)(_wanted)


def takes_streams(request: Request) -> bool:
    """False for HTTP/1.0, which ends every stream the same way, complete or not."""
    return request.scope.get("http_version") != "1.0"


def require_streams(request: Request) -> None:
    """Raises LenswayError NOT_ACCEPTABLE for a caller that takes none."""
    if not takes_streams(request):
        raise LenswayError(
            ErrorCode.NOT_ACCEPTABLE,
            "HTTP/1.0 cannot tell a complete stream from a cut one",
            hint="Use HTTP/1.1; in nginx that is `proxy_http_version 1.1`.",
        )


def framing(wanted: Wanted, meta: Meta) -> Framing:
    """What surrounds the rows of a stream in this format."""
    opening = b""
    closing: Closing = _nothing
    if wanted.row_format is RowFormat.JSON:
        opening = b'{"rows":['
        closing = lambda end, record: json_end(meta(end, record))  # noqa: E731 - it needs what stands around it
    elif wanted.has_end_record:
        closing = lambda end, record: _end_record(meta(end, record))  # noqa: E731 - as above
    return Framing(
        media_type=wanted.media + ("; charset=utf-8" if wanted.media == CSV else ""),
        trailer_names=_TRAILERS,
        trailers=lambda end, record: _trailers(meta(end, record)),
        opening=opening,
        closing=closing,
        is_arrow=wanted.row_format in (RowFormat.ARROW, RowFormat.ARROW_ZSTD),
        is_lines=wanted.row_format is RowFormat.NDJSON,
    )


def json_end(meta: PageMeta) -> bytes:
    """What stands behind the rows of a JSON document."""
    return b'],"meta":' + msgspec.json.encode(meta) + b"}"


def stream_headers(record: JobRecord, *, with_runners: bool) -> dict[str, str]:
    """The facts of a stream when it begins."""
    route = msgspec.json.encode(route_taken(record, with_runners=with_runners))
    return {"Lensway-Route": route.decode(), "Lensway-Request": record.request, "Vary": VARY}


def _trailers(meta: PageMeta) -> list[tuple[bytes, bytes]]:
    found = [
        (b"Lensway-Rows", b"%d" % meta.count),
        (b"Lensway-Has-More", b"true" if meta.has_more else b"false"),
    ]
    if meta.next_cursor is not None:
        found.append((b"Lensway-Next-Cursor", str(meta.next_cursor).encode("ascii")))
    if meta.total is not None:
        found.append((b"Lensway-Total", b"%d" % meta.total))
    return found


def _nothing(_end: ResultEnd, _record: JobRecord) -> bytes:
    return b""


def _end_record(meta: PageMeta) -> bytes:
    """For callers whose HTTP library does not show trailers: how to go on stands here too."""
    end: dict[str, Any] = {"rows": meta.count}
    if meta.next_cursor is not None:
        end["nextCursor"] = meta.next_cursor
    if meta.total is not None:
        end["total"] = meta.total
    return msgspec.json.encode({"$end": end}) + b"\n"


def _hint(offered: Sequence[str]) -> str:
    elsewhere = " Parquet is a file format: POST to …/export." if PARQUET not in offered else ""
    return f"Accept {', '.join(offered[:-1])} or {offered[-1]}.{elsewhere}"
