"""A link in memory between runner and gateway, with the faults of a real one: delay, standstill of either direction, cuts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lensway.protocol.transport import TransportClosedError

_UNREAD_MAX = 16


class MemoryLink:
    """Two ends. ``delay`` gives the seconds that the next message takes; messages keep their order."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self.to_gateway = _Direction(delay)
        self.to_runner = _Direction(delay)
        self.runner_end = MemoryTransport(self, sends=self.to_gateway, receives=self.to_runner)
        self.gateway_end = MemoryTransport(self, sends=self.to_runner, receives=self.to_gateway)

    @property
    def is_open(self) -> bool:
        """False once it was cut or closed."""
        return self.to_gateway.cause is None

    def cut(self, cause: str = "reset") -> None:
        """Both ends notice at once."""
        for direction in (self.to_gateway, self.to_runner):
            direction.close(cause)

    def freeze(self, *, to_gateway: bool, to_runner: bool) -> None:
        """Let messages of these directions stand still; nobody notices."""
        self.to_gateway.set_frozen(to_gateway)
        self.to_runner.set_frozen(to_runner)


class MemoryTransport:
    """One end. Implements `lensway.protocol.transport.Transport`."""

    def __init__(self, link: MemoryLink, *, sends: _Direction, receives: _Direction) -> None:
        self._link = link
        self._sends = sends
        self._receives = receives

    async def send(self, message: bytes | bytearray) -> None:
        """Send one message; waits while too many are unread."""
        await self._sends.put(bytes(message))

    async def recv(self) -> bytes:
        """The next message."""
        return await self._receives.get()

    async def close(self) -> None:
        """Close: what was sent still arrives."""
        self._sends.close("closed", after_delivery=True)
        self._receives.close("closed")

    def abort(self) -> None:
        """Cut the link."""
        self._link.cut()


class _Direction:
    def __init__(self, delay: Callable[[], float]) -> None:
        self.cause: str | None = None
        self._delay = delay
        self._messages: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0
        self._is_frozen = False
        self._is_ending = False
        self._changed: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, message: bytes) -> None:
        while self.cause is None and len(self._messages) >= _UNREAD_MAX:
            await self._wait()
        if self.cause is not None or self._is_ending:
            raise TransportClosedError(self.cause or "closed")
        loop = asyncio.get_running_loop()
        self._last_due = max(self._last_due, loop.time() + self._delay())
        self._messages.append((self._last_due, message))
        self._wake()

    async def get(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            if self.cause is not None:
                raise TransportClosedError(self.cause)
            if self._messages and not self._is_frozen and self._messages[0][0] <= loop.time():
                message = self._messages.popleft()[1]
                self._wake()
                return message
            if self._is_ending and not self._messages:
                raise TransportClosedError("closed")
            if self._messages and not self._is_frozen:
                self._timer = loop.call_at(self._messages[0][0], self._wake)
            await self._wait()

    def set_frozen(self, is_frozen: bool) -> None:
        self._is_frozen = is_frozen
        self._wake()

    def close(self, cause: str, *, after_delivery: bool = False) -> None:
        if after_delivery and not self._is_frozen:
            self._is_ending = True
        elif self.cause is None:
            self.cause = cause
            self._messages.clear()
        self._wake()

    async def _wait(self) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(changed)
        await changed

    def _wake(self) -> None:
        while self._changed:
            changed = self._changed.popleft()
            if not changed.done():
                changed.set_result(None)
