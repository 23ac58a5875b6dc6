"""How much an HTTP connection reads: small pieces, none while earlier requests wait, and turns for requests sent ahead.

A caller may send many requests before it reads an answer. The connection parses one, holds one small read of the others, and
stops reading; the kernel then stops the caller. All connections share the turns in which such requests are started.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from lensway import limits

_BUFFER: Final = memoryview(bytearray(limits.HTTP_READ_BYTES_MAX))
"""Shared by all connections: the event loop fills it and hands it over in one step, and the bytes are copied at once."""


class Reading(asyncio.BufferedProtocol):
    """Reads for a connection in pieces of bounded size; the event loop's own choice is up to 250 KiB."""

    __slots__ = ("_connection", "_received")

    def __init__(self, connection: asyncio.Protocol) -> None:
        self._connection = connection
        self._received: Callable[[bytes], None] = connection.data_received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass it on."""
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    def get_buffer(self, _size: int) -> memoryview:
        """Where the next bytes go."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass the bytes on."""
        self._received(_BUFFER[:nbytes].tobytes())

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()


class Flow(FlowControl):
    """Flow control that does not resume reading while bytes read earlier still wait."""

    is_held = False

    def hold(self) -> None:
        """Pause reading until `release`, even when another part resumes it meanwhile."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """The bytes are parsed: reading may resume."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Resume, unless reading is held."""
        if not self.is_held:
            super().resume_reading()


class Ahead(Protocol):
    """A connection with requests that were sent ahead."""

    def take_turn(self) -> None:
        """Start the next one."""


class Turns:
    """Starts requests that were sent ahead, a few in each turn of the event loop, so that thousands delay no other request."""

    def __init__(self) -> None:
        self._waiting: deque[Ahead] = deque()

    def wait(self, connection: Ahead, loop: asyncio.AbstractEventLoop) -> None:
        """Let this connection take a turn soon."""
        if not self._waiting:
            loop.call_soon(self._give, loop)
        self._waiting.append(connection)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(len(self._waiting), limits.HTTP_AHEAD_PER_TURN_MAX)):
            self._waiting[0].take_turn()
            self._waiting.popleft()
        if self._waiting:
            loop.call_soon(self._give, loop)
