"""Failures on the wire."""

from __future__ import annotations

import pytest

from lensway.errors import ErrorCode, Failure
from lensway.protocol.errors import ProtocolError
from lensway.protocol.failures import (
    DETAILS_BYTES_MAX,
    MESSAGE_CHARACTERS_MAX,
    REPORTABLE,
    decode_failure,
    encode_failure,
)


@pytest.mark.parametrize("code", ErrorCode)
def test_only_a_runners_own_codes_come_through(code: ErrorCode) -> None:
    failure = Failure(code=code, message="m", hint="h", details={"stage": "tcp"}, retry_after_seconds=1.5)
    decoded = decode_failure(encode_failure(failure))
    if code in REPORTABLE:
        assert decoded == failure
    else:
        assert decoded.code is ErrorCode.INTERNAL
        assert decoded.details == {}
        assert decoded.message != "m"


def test_what_is_too_long_is_cut_on_both_sides() -> None:
    failure = Failure(code=ErrorCode.INTERNAL, message="m" * 9_999, details={"x": "y" * DETAILS_BYTES_MAX})
    decoded = decode_failure(encode_failure(failure))
    assert len(decoded.message) == MESSAGE_CHARACTERS_MAX
    assert decoded.details == {}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"code":1,"message":"m"}', b'{"code":"x"}', b"\xff", b"[" * 60_000]
)
def test_anything_else_is_a_broken_peer(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed_failure"):
        decode_failure(data)
