"""The end mark of a result: it lets a caller page without decoding rows."""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

import msgspec

from lensway.errors import ErrorCode, LenswayError


class RowFormat(enum.StrEnum):
    """How rows are encoded, once, next to the database.

    `JSON` is the inside of a JSON array: objects joined by commas, no brackets. `DOCUMENT` is one whole JSON document, for
    jobs that are not rows of a lens (introspection, connection tests). `ARROW` is an Arrow IPC stream, `ARROW_ZSTD` one with
    compressed bodies.
    """

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    ARROW = "arrow"
    ARROW_ZSTD = "arrow+zstd"
    PARQUET = "parquet"
    DOCUMENT = "document"

    @classmethod
    def named(cls, name: str) -> RowFormat:
        """The format of this name. Raises LenswayError NOT_ACCEPTABLE: the other side may know formats that are newer."""
        found = _NAMED.get(name)
        if found is None:
            raise not_available(name)
        return found


ARROW_FORMATS: Final = frozenset({RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET})
"""Formats that take the libraries of the extra `arrow`."""
ARROW_HINT: Final = (
    "Request another format, or install its extra where the source is executed: pip install 'lensway[arrow]'."
)
_NAMED: Final = {each.value: each for each in RowFormat}


def not_available(name: str) -> LenswayError:
    """The executing side cannot encode rows so."""
    return LenswayError(
        ErrorCode.NOT_ACCEPTABLE,
        f"Rows are not available as {name[:20]} where this source is executed",
        hint=ARROW_HINT,
    )


class ResultLimits(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Bounds that the executing side enforces. Meeting one fails the job, it never shortens the result."""

    rows_max: int
    bytes_max: int
    row_bytes_max: int


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class ResultEnd(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The end mark of a complete result.

    ``last_key`` holds the values of the shape's ``keys`` in the last row that was written, at full precision and in the form
    of plans (see `lensway.query.values`: text, integer, float, boolean, bytes; decimals, days, times and uuids as text); None
    when there is no row or the lens has no primary key. ``row_id`` tells that row from others with the same key, where the table
    has such a thing and the key is not known to be unique.
    """

    rows: Count
    bytes: Count
    has_more: bool = False
    last_key: tuple[object, ...] | None = None
    total: Count | None = None
    row_id: int | None = None


_decoder: Final = msgspec.msgpack.Decoder(ResultEnd)


def encode_end(end: ResultEnd) -> bytes:
    """The encoded end mark, opaque to everything between its two ends."""
    return msgspec.msgpack.encode(end)


def decode_end(data: bytes, *, by_runner: bool = True) -> ResultEnd:
    """The end mark of these bytes. Raises LenswayError as `unbelievable` for anything else."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise unbelievable("the end mark of the result", by_runner=by_runner) from None


def unbelievable(what: str, *, by_runner: bool = True) -> LenswayError:
    """The error for an answer that cannot be: RUNNER_FAILED, or INTERNAL where the service itself executed the query."""
    if not by_runner:
        return LenswayError(
            ErrorCode.INTERNAL,
            f"The service produced an unreadable answer: {what}",
            hint="This is a defect of Lensway. Please report it with the request id.",
        )
    return LenswayError(
        ErrorCode.RUNNER_FAILED,
        f"The runner returned an unreadable answer: {what}",
        hint="Check that the runner is a Lensway runner of this version or the previous one.",
        details={"phase": "answer"},
    )
