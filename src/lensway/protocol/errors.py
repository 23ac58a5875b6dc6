"""The one error for a peer that broke the rules of the link."""

from __future__ import annotations

from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.frames import CloseReason


class ProtocolError(LenswayError):
    """The peer broke the rules; the session ends with ``reason``.

    ``cause`` is a short class from our own vocabulary (``frame_too_large``, ``credit_overrun`` …) and never holds anything
    that the peer sent.
    """

    def __init__(self, cause: str, *, reason: CloseReason = CloseReason.PROTOCOL_ERROR) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, f"the peer broke the protocol: {cause}", details={"cause": cause})
        self.cause = cause
        self.reason = reason
