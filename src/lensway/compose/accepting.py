"""A listening socket whose connections begin a few in each turn of the event loop, addresses taking turns.

The event loop's own server accepts one connection a turn: while turns are busy, a crowd of strangers fills the kernel's backlog,
and honest callers wait behind it for ten seconds. So sockets are taken from the backlog quickly, which costs little, and wait
here by address (a /64 of IPv6 is one). To begin a connection costs more, and all at once would make one long turn of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from lensway import limits
from lensway.auth.address import block_of


class AcceptingServer(asyncio.AbstractServer):
    """Accepts on one socket until it is closed; the socket's owner closes the socket."""

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> None:
        self._factory = factory
        self._sock: socket.socket | None = sock
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: dict[str, deque[socket.socket]] = {}
        self._is_beginning = False
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
        for waiting in self._waiting.values():
            for accepted in waiting:
                accepted.close()
        self._waiting.clear()

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
                accepted, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError:
                # No more files, or no memory: it would be asked again at once.
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(limits.ACCEPT_PAUSE_SECONDS, self._resume)
                break
            accepted.setblocking(False)
            waiting = self._waiting.setdefault(block_of(str(peer[0])), deque())
            if len(waiting) < limits.ACCEPTED_PER_ADDRESS_MAX:
                waiting.append(accepted)
            else:
                accepted.close()
        if self._waiting and not self._is_beginning:
            self._begin()

    def _begin(self) -> None:
        """Begin some connections, one of each address in turn."""
        for _ in range(limits.BEGINNINGS_PER_TURN_MAX):
            if not self._waiting:
                self._is_beginning = False
                return
            block = next(iter(self._waiting))
            waiting = self._waiting.pop(block)
            accepted = waiting.popleft()
            if waiting:
                self._waiting[block] = waiting
            task = self._loop.create_task(self._open(accepted), name="accept")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._is_beginning = True
        self._loop.call_soon(self._begin)

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
