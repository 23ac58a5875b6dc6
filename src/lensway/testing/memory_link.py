"""A link in memory between runner and gateway, with the faults of a real one: delay, standstill of either direction, cuts, and
messages that are repeated or overtake each other."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable

from lensway.protocol.transport import TransportClosedError
from lensway.testing.virtual_time import VirtualLoop

_UNREAD_MAX = 16


class Mischief(enum.Enum):
    """What a broken middlebox does to one message."""

    REPEAT = "repeat"
    OVERTAKE = "overtake"
    LOSE = "lose"


class MemoryLink:
    """Two ends. ``delay`` gives the seconds that the next message takes, ``mischief`` what else happens to it; ``read`` is told
    of every message that is about to be read, and whether it goes to the gateway."""

    def __init__(
        self,
        loop: VirtualLoop,
        delay: Callable[[], float],
        *,
        mischief: Callable[[], Mischief | None] = lambda: None,
        read: Callable[[bool], None] = lambda _to_gateway: None,
    ) -> None:
        self.disturbances = 0
        """Grows with every fault; a link that shows the same number later was well in between."""
        self.to_gateway = _Direction(loop, delay, mischief, lambda: read(True))
        self.to_runner = _Direction(loop, delay, mischief, lambda: read(False))
        self.runner_end = MemoryTransport(self, sends=self.to_gateway, receives=self.to_runner)
        self.gateway_end = MemoryTransport(self, sends=self.to_runner, receives=self.to_gateway)

    @property
    def is_open(self) -> bool:
        """False once it was cut or closed."""
        return self.to_gateway.cause is None

    @property
    def is_well(self) -> bool:
        """True when both directions carry."""
        return self.is_open and not (self.to_gateway.is_frozen or self.to_runner.is_frozen)

    def cut(self, cause: str = "reset", *, arrived_is_kept: bool = False) -> None:
        """Both ends notice at once; what has arrived by now may still be read by them, or is lost too."""
        self.disturbances += 1
        for direction in (self.to_gateway, self.to_runner):
            direction.close(cause, arrived_is_kept=arrived_is_kept)

    def freeze(self, *, to_gateway: bool, to_runner: bool) -> None:
        """Hold messages of these directions; neither end notices."""
        self.disturbances += 1
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

    @property
    def is_ready(self) -> bool:
        """True while it is open and too many are not unread."""
        return self._sends.is_ready

    def send_now(self, message: bytes | bytearray) -> None:
        """Send one message while it `is_ready`."""
        self._sends.put_now(bytes(message))

    async def prove(self, arrived: Callable[[], None]) -> None:
        """Call when everything sent so far was received; the way back takes no time."""
        await self._sends.put(arrived)

    async def recv(self) -> bytes:
        """The next message."""
        return await self._receives.get()

    async def close(self) -> None:
        """Close as a handshake does: returns when the peer has read what was sent, or the link is gone."""
        self._receives.close("closed")
        await self._sends.end()

    def abort(self) -> None:
        """Cut the link."""
        self._link.cut()


class _Direction:
    def __init__(
        self,
        loop: VirtualLoop,
        delay: Callable[[], float],
        mischief: Callable[[], Mischief | None],
        read: Callable[[], None],
    ) -> None:
        self.cause: str | None = None
        self.is_frozen = False
        self._loop = loop
        self._delay = delay
        self._mischief = mischief
        self._read = read
        self._messages: deque[tuple[float, bytes | Callable[[], None]]] = deque()
        self._last_due = 0.0
        self._is_ending = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_ready(self) -> bool:
        return self.cause is None and not self._is_ending and len(self._messages) < _UNREAD_MAX

    async def put(self, message: bytes | Callable[[], None]) -> None:
        while self.cause is None and len(self._messages) >= _UNREAD_MAX:
            await self._wait()
        if self.cause is not None or self._is_ending:
            raise TransportClosedError(self.cause or "closed")
        self.put_now(message)

    def put_now(self, message: bytes | Callable[[], None]) -> None:
        self._last_due = max(self._last_due, self._loop.virtual_now + self._delay())
        if isinstance(message, bytes):
            self._place((self._last_due, message))
        else:
            self._messages.append((self._last_due, message))
        self._wake()

    def _place(self, entry: tuple[float, bytes | Callable[[], None]]) -> None:
        match self._mischief():
            case None:
                self._messages.append(entry)
            case Mischief.REPEAT:
                self._messages.extend((entry, entry))
            case Mischief.OVERTAKE:
                before = self._messages.pop() if self._messages else None
                self._messages.append(entry)
                if before is not None:
                    self._messages.append(before)
            case Mischief.LOSE:
                pass

    async def get(self) -> bytes:
        while True:
            due = self._messages[0][0] if self._messages else None
            if due is not None and due <= self._loop.virtual_now and (not self.is_frozen or self.cause is not None):
                message = self._messages.popleft()[1]
                self._wake()
                self._read()
                if isinstance(message, bytes):
                    return message
                message()
                continue
            if self.cause is not None:
                raise TransportClosedError(self.cause)
            if self._is_ending and due is None:
                raise TransportClosedError("closed")
            if due is not None and not self.is_frozen:
                self._loop.call_at_true(due, self._wake)
            await self._wait()

    def set_frozen(self, is_frozen: bool) -> None:
        self.is_frozen = is_frozen
        self._wake()

    async def end(self) -> None:
        self._is_ending = True
        self._wake()
        while self._messages and self.cause is None:
            await self._wait()

    def close(self, cause: str, *, arrived_is_kept: bool = False) -> None:
        if self.cause is None:
            self.cause = cause
            now = self._loop.virtual_now
            kept = arrived_is_kept and not self.is_frozen
            self._messages = deque(entry for entry in self._messages if kept and entry[0] <= now)
        self._wake()

    async def _wait(self) -> None:
        changed = self._loop.create_future()
        self._waiting.append(changed)
        await changed

    def _wake(self) -> None:
        while self._waiting:
            changed = self._waiting.popleft()
            if not changed.done():
                changed.set_result(None)
