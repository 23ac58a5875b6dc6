"""Typed failures on the wire, and which codes a runner may report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from lensway.errors import ErrorCode, Failure
from lensway.limits import FAILURE_BYTES_MAX, RUNNER_TEXT_CHARACTERS_MAX
from lensway.protocol.errors import ProtocolError

MESSAGE_CHARACTERS_MAX: Final = 2_000
DETAILS_BYTES_MAX: Final = 16_384
WORDS: Final = ("stage", "class")
"""Details that are short words wherever they are shown, compared or counted."""

RETRY_AFTER_SECONDS_MAX: Final = 3600.0
"""The most that a runner may ask for: no runner sends a caller away for ever."""
REPORTABLE: Final = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNSUPPORTED_OPERATOR,
        ErrorCode.NOT_FOUND,
        ErrorCode.NOT_ACCEPTABLE,
        ErrorCode.REFUSED_BY_RUNNER,
        ErrorCode.LIMIT_EXCEEDED,
        ErrorCode.ROW_TOO_LARGE,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.SOURCE_QUERY_FAILED,
        ErrorCode.SOURCE_UNREACHABLE,
        ErrorCode.OVERLOADED,
        ErrorCode.QUERY_TIMEOUT,
        ErrorCode.CANCELLED,
        ErrorCode.INTERNAL,
    }
)
"""A runner must not be able to tell a caller that its key is wrong, or that a runner was lost; the rest becomes `internal`."""


class _WireFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: str
    message: str
    hint: str | None = None
    details: Mapping[str, object] = {}
    retry_after_seconds: float | None = None


_decoder: Final = msgspec.json.Decoder(_WireFailure)


def encode_failure(failure: Failure) -> bytes:
    """The failure as JSON, cut to what a frame may hold."""
    details = msgspec.to_builtins(failure.details, str_keys=True)
    if len(msgspec.json.encode(details)) > DETAILS_BYTES_MAX:
        details = {}
    return msgspec.json.encode(
        _WireFailure(
            code=failure.code.value,
            message=failure.message[:MESSAGE_CHARACTERS_MAX],
            hint=failure.hint[:MESSAGE_CHARACTERS_MAX] if failure.hint else None,
            details=details,
            retry_after_seconds=failure.retry_after_seconds,
        )
    )


def decode_failure(data: bytes) -> Failure:
    """The failure of these bytes; a code that a runner may not report becomes `internal` without its text, and so does a failure
    that is larger than one may be.

    Raises:
        ProtocolError: for anything but a failure.
    """
    if len(data) > FAILURE_BYTES_MAX:
        return Failure(code=ErrorCode.INTERNAL, message="the runner reported a failure that is larger than the limit")
    try:
        wire = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ProtocolError("malformed_failure") from None
    if wire.code not in REPORTABLE:
        return Failure(code=ErrorCode.INTERNAL, message="the runner failed in a way that it cannot report")
    return Failure(
        code=ErrorCode(wire.code),
        message=wire.message[:MESSAGE_CHARACTERS_MAX],
        hint=wire.hint[:MESSAGE_CHARACTERS_MAX] if wire.hint else None,
        details=_bounded_details(wire.details, len(data)),
        retry_after_seconds=_bounded(wire.retry_after_seconds),
    )


def _bounded_details(details: Mapping[str, object], encoded_bytes: int) -> Mapping[str, object]:
    if encoded_bytes > DETAILS_BYTES_MAX and len(msgspec.json.encode(details)) > DETAILS_BYTES_MAX:
        return {}
    if any(name in details and not _is_word(details[name]) for name in WORDS):
        return {name: value for name, value in details.items() if name not in WORDS or _is_word(value)}
    return details


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= RUNNER_TEXT_CHARACTERS_MAX and value.isprintable()


def _bounded(retry_after_seconds: float | None) -> float | None:
    if retry_after_seconds is None:
        return None
    return min(max(0.0, retry_after_seconds), RETRY_AFTER_SECONDS_MAX)
