"""Answers that cost little to make, because most answers are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lensway.service.wire import WIRE, Wire

_JSON: Final = (b"content-type", b"application/json")


class Page(Response):
    """A complete JSON document with headers that are ready as they are."""

    def __init__(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [*headers, _JSON, (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; returns when it is written."""
        wire: Wire = scope[WIRE]
        await wire.answer(self.status_code, self.raw_headers, self.body)
