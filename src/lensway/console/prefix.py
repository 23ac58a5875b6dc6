"""The Console below a path prefix: a reverse proxy takes the prefix away, and the pages' own addresses get it back."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REWRITTEN: Final = (b"text/html", b"text/javascript", b"application/javascript", b"text/css")
_ADDRESS: Final = re.compile(
    rb"""((?:\b(?:from|import)\s+|(?:[(+,?:]|(?<!value)=)\s*)["'`]|:\s*&(?:\#34|quot);)(/console[/"'`?])"""
)
"""An address in an attribute, an import, an expression or JSON; never the value of a field, which comes back in a form."""


class Prefixed:
    """An ASGI application whose addresses begin with a prefix outside, and without it inside."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.encode("ascii")
        self._quoted = urllib.parse.quote(prefix + "/console", "").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].replace(self._quoted, b"%2Fconsole")
        # What is compressed cannot be rewritten; the reverse proxy may compress.
        headers = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
        await self._app({**scope, "query_string": query, "headers": headers}, receive, _Answer(send, self._prefix))


class _Answer:
    """Gives an answer's addresses their prefix: whole for pages and scripts, passed on for everything else."""

    def __init__(self, send: Send, prefix: bytes) -> None:
        self._send = send
        self._prefix = prefix
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [self._header(*each) for each in message["headers"]]}
            kind = next((value for name, value in message["headers"] if name.lower() == b"content-type"), b"")
            if kind.startswith(_REWRITTEN):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            await self._finish()
            return
        await self._send(message)

    async def _finish(self) -> None:
        assert self._start is not None, "a body follows its head"
        body = _ADDRESS.sub(rb"\g<1>" + self._prefix + rb"\g<2>", bytes(self._body))
        headers = self._start["headers"]
        if body:
            length = (b"content-length", str(len(body)).encode())
            headers = [length if each[0].lower() == b"content-length" else each for each in headers]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _header(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        lower = name.lower()
        if lower in (b"location", b"content-location") and value.startswith(b"/console"):
            value = self._prefix + value
        elif lower == b"set-cookie":
            value = re.sub(rb"(?i)(;\s*path=)/console", rb"\g<1>" + self._prefix + b"/console", value)
        elif lower == b"link":
            value = value.replace(b"</console", b"<" + self._prefix + b"/console")
        return name, value
