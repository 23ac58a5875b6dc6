"""The listener of a runner's health pages: off by default, for the owner's own monitoring, and bounded."""

from __future__ import annotations

import asyncio
import http
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.runner.health import Health


class HealthListener:
    """Answers GET requests with `lensway.runner.health.Health`, one on each connection."""

    def __init__(self, health: Health, address: tuple[str, int]) -> None:
        self._health = health
        self._host, self._port = address
        self._open: set[ServerConnection] = set()
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen. Raises LenswayError CONFLICT when the address cannot be used."""
        opened = self._open

        class Connection(ServerConnection):
            """One of few: further ones are closed at once."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                if len(opened) >= limits.HEALTH_REQUESTS_AT_ONCE_MAX:
                    self.transport.abort()
                else:
                    opened.add(self)

            def connection_lost(self, exc: Exception | None) -> None:
                opened.discard(self)
                super().connection_lost(exc)

        try:
            self._server = await serve(
                _no_session,
                self._host,
                self._port,
                process_request=self._answer,
                create_connection=Connection,
                open_timeout=limits.HANDSHAKE_PATIENCE_SECONDS,
                compression=None,
            )
        except OSError as error:
            raise LenswayError(
                ErrorCode.CONFLICT,
                f"LENSWAY_RUNNER_HEALTH cannot listen on {self._host}:{self._port} ({error.strerror or 'unknown host'})",
                hint="Set it to another HOST:PORT, or unset it.",
            ) from None

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close(close_connections=True)
            await self._server.wait_closed()

    def _answer(self, connection: ServerConnection, request: Request) -> Response:
        page = self._health.page(request.path)
        response = connection.respond(http.HTTPStatus(page.status), page.text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = page.content_type
        response.headers["Cache-Control"] = "no-store"
        return response


async def _no_session(_connection: Any) -> None:
    """No WebSocket is opened: every request has been answered."""
