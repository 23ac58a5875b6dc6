"""Refuse to send a password in clear text over an unencrypted connection to another machine.

A server, or anyone between it and this machine, may ask for the password itself instead of a proof. The driver would answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from lensway.bridges.postgres.relay import Relay

_HEADER_BYTES: Final = 5
_CODE_BYTES: Final = 4
_AUTHENTICATION: Final = ord("R")
_CLEAR_TEXT_PASSWORD: Final = 3  # AuthenticationCleartextPassword


class Login(Relay):
    """Stands before the driver's protocol during a login, and cuts the connection when the server asks for the password."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self._transport: Any = None
        self._unread = b""
        self._skip = 0
        self.has_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it on."""
        self._transport = transport
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Look at every request for a login before the driver does."""
        if self.has_refused:
            return
        if self._asks_for_password(data):
            self.has_refused = True
            self._transport.abort()
            return
        self._protocol.data_received(data)

    def _asks_for_password(self, data: bytes) -> bool:
        """Go from message to message: a letter, a length that counts itself, and for a login the way of it."""
        unread = self._unread + data
        at, end = self._skip, len(unread)
        while at + _HEADER_BYTES <= end:
            if unread[at] == _AUTHENTICATION:
                code = unread[at + _HEADER_BYTES : at + _HEADER_BYTES + _CODE_BYTES]
                if len(code) < _CODE_BYTES:
                    break
                if int.from_bytes(code, "big") == _CLEAR_TEXT_PASSWORD:
                    return True
            at += int.from_bytes(unread[at + 1 : at + _HEADER_BYTES], "big") + 1
        self._unread, self._skip = (unread[at:], 0) if at < end else (b"", at - end)
        return False


class GuardedLoop:
    """The running event loop as the driver uses it for one login; it gives back the driver's own protocol."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._logins: list[Login] = []

    @property
    def has_refused(self) -> bool:
        """True once a server asked for the password itself."""
        return any(login.has_refused for login in self._logins)

    async def create_connection(self, factory: Callable[[], Any], *address: Any) -> tuple[Any, Any]:
        """Connect, with `Login` between the transport and the protocol. Raises OSError."""
        protocol = factory()
        login = Login(protocol)
        self._logins.append(login)
        transport, _ = await self._loop.create_connection(lambda: login, *address)
        return transport, protocol

    def __getattr__(self, name: str) -> Any:
        """Everything else is the loop's."""
        return getattr(self._loop, name)
