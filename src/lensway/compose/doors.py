"""The door before a TLS connection: it counts while it shakes hands, which the event loop's own listeners cannot see."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

from lensway import limits
from lensway.auth.shares import Shares

_FAILURES: Final = (OSError, ssl.SSLError, EOFError)


class TlsDoor(asyncio.Protocol):
    """Shakes hands in the name of a connection, which begins when that is done, and shares its place from the first byte."""

    def __init__(self, connection: asyncio.BaseProtocol, guest: object, shares: Shares, tls: ssl.SSLContext) -> None:
        self._connection = connection
        self._guest = guest
        self._shares = shares
        self._tls = tls
        self._opening: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A TCP connection is there."""
        loop = asyncio.get_running_loop()
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if self._shares.enter(self._guest, str(peer[0]) if peer else "", loop.time(), transport.abort):
            self._opening = loop.create_task(self._open(loop, transport), name="TLS door")
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """The handshake begins before the connection has an owner."""
        assert self._transport is not None, "what is received has come over a transport"
        self._early += data
        self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """It went before its handshake began."""
        self._shares.leave(self._guest)

    async def _open(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        first = _FirstBytes()
        shaking = loop.create_task(
            loop.start_tls(
                transport,
                first,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=limits.HANDSHAKE_TIMEOUT_SECONDS,
                ssl_shutdown_timeout=limits.CLOSE_TIMEOUT_SECONDS,
            ),
            name="TLS handshake",
        )
        try:
            # In one turn of the loop it takes the transport over, in the next it connects TLS; then this goes on, and only
            # when that turn is done the socket is read again.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if self._early and not shaking.done():
                _receive(transport.get_protocol(), bytes(self._early))
            secured = await shaking
        except _FAILURES:
            secured = None
        if secured is None or first.is_lost:
            self._shares.leave(self._guest)
            transport.abort()
            return
        connection = self._connection
        connection.connection_made(secured)
        if first.data:
            _receive(connection, bytes(first.data))
        secured.set_protocol(connection)


class _FirstBytes(asyncio.Protocol):
    """What a peer sends with the end of its handshake, before the connection can take it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


def _receive(connection: asyncio.BaseProtocol, data: bytes) -> None:
    if isinstance(connection, asyncio.Protocol) and not hasattr(connection, "get_buffer"):
        connection.data_received(data)
        return
    buffered = cast(asyncio.BufferedProtocol, connection)
    left = memoryview(data)
    while left:
        buffer = memoryview(buffered.get_buffer(len(left)))
        size = min(len(buffer), len(left))
        buffer[:size] = left[:size]
        buffered.buffer_updated(size)
        left = left[size:]
