"""A listening socket that accepts a few connections in each turn of the event loop.

The event loop's own server accepts one connection a turn: while turns are busy, a crowd of strangers fills the backlog, and
honest callers wait behind it for ten seconds. All at once, on the other hand, would make one long turn of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from lensway import limits


class AcceptingServer(asyncio.AbstractServer):
    """Accepts on one socket until it is closed; the socket's owner closes the socket."""

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> None:
        self._factory = factory
        self._sock: socket.socket | None = sock
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._resume()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket, while it is listened on."""
        return () if self._sock is None else (self._sock,)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._loop

    def is_serving(self) -> bool:
        """False once it is closed."""
        return self._sock is not None

    async def start_serving(self) -> None:
        """It serves from the beginning."""

    async def serve_forever(self) -> None:
        """Not in use."""
        raise NotImplementedError

    def close(self) -> None:
        """Accept no more. Connections live on."""
        if self._sock is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock = None

    async def wait_closed(self) -> None:
        """Return when the last accepted connection has its protocol."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _resume(self) -> None:
        self._pause = None
        if self._sock is not None:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        assert self._sock is not None, "it is not read once it is closed"
        for _ in range(limits.ACCEPTS_PER_TURN_MAX):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # No more files, or no memory: it would be asked again at once.
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(limits.ACCEPT_PAUSE_SECONDS, self._resume)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._open(accepted), name="accept")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, accepted)
        except OSError:
            # The peer is gone already.
            with contextlib.suppress(OSError):
                accepted.close()


def accept(factory: Callable[[], Any], sock: socket.socket) -> asyncio.AbstractServer:
    """Begin to accept on this socket, which listens."""
    return AcceptingServer(factory, sock)
