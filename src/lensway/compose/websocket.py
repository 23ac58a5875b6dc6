"""A WebSocket as the transport that both ends of the runner link are written against."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.protocol import State

from lensway.limits import DATA_FRAME_BYTES_MAX, LINK_UNANSWERED_SECONDS
from lensway.protocol.transport import TransportClosedError

_CAUSES: Final = {
    1001: "going_away",
    1006: "reset",
    1009: "message_too_large",
    1002: "protocol_error",
    1007: "protocol_error",
}


class WebSocketTransport:
    """Implements `lensway.protocol.transport.Transport`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _set_options(connection)

    async def send(self, message: bytes | bytearray) -> None:
        """Send one message; waits while the peer does not take it.

        While the connection is open this is what the library's own `send` does without the parts that whole messages of one
        writer do not need (fragments, text, turns): a quarter less for each message.
        """
        connection = self._connection
        try:
            if connection.protocol.state is not State.OPEN:
                await connection.send(message)  # which says how it closed
                return
            connection.protocol.send_binary(message)
            connection.send_data()
            if connection.paused or connection.transport.is_closing():
                await connection.drain()
        except ConnectionClosed as error:
            raise TransportClosedError(_cause(error)) from None
        except (OSError, RuntimeError, WebSocketException):
            # The socket went away beneath the library; uvloop says so by a RuntimeError.
            raise TransportClosedError("reset") from None

    @property
    def is_ready(self) -> bool:
        """True while it is open and `send` would not wait."""
        connection = self._connection
        return (
            connection.protocol.state is State.OPEN and not connection.paused and not connection.transport.is_closing()
        )

    def send_now(self, message: bytes | bytearray) -> None:
        """Send one message while it `is_ready`."""
        self._connection.protocol.send_binary(message)
        self._connection.send_data()

    async def recv(self) -> bytes:
        """The next message; a text message is a broken peer."""
        try:
            message = await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise TransportClosedError(_cause(error)) from None
        except (OSError, RuntimeError, WebSocketException):
            raise TransportClosedError("reset") from None
        return message

    async def prove(self, arrived: Callable[[], None]) -> None:
        """A ping, which travels behind what was sent, and whose pong the peer's end sends by itself."""
        try:
            pong = asyncio.ensure_future(await self._connection.ping())
        except ConnectionClosed as error:
            raise TransportClosedError(_cause(error)) from None
        except (OSError, RuntimeError, WebSocketException):
            raise TransportClosedError("reset") from None
        pong.add_done_callback(lambda done: None if done.cancelled() or done.exception() else arrived())

    async def close(self) -> None:
        """Close with the usual handshake; the library bounds it by its close timeout."""
        with contextlib.suppress(OSError, RuntimeError, WebSocketException):
            await self._connection.close()

    def abort(self) -> None:
        """Cut the link now."""
        self._connection.transport.abort()


def _cause(error: ConnectionClosed) -> str:
    received = error.rcvd or error.sent
    return "reset" if received is None else _CAUSES.get(received.code, "closed")


def _set_options(connection: Connection) -> None:
    """The socket's options, each where the system has it; Nagle's algorithm is off already, by the event loop."""
    sock = connection.transport.get_extra_info("socket")
    if sock is None:
        return
    # What the kernel holds unsent cannot be overtaken by control frames; on a slow link that is most of their delay.
    for name, value in (
        ("TCP_NOTSENT_LOWAT", 2 * DATA_FRAME_BYTES_MAX),
        ("TCP_USER_TIMEOUT", int(LINK_UNANSWERED_SECONDS * 1000)),
    ):
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
