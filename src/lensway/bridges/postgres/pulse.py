"""Whether a PostgreSQL server still works on what is waited for: silence is found in seconds, not at the deadline of a query.

A server that vanished without a word (its machine, a firewall), or a connection that something in between has forgotten, looks
like a server that works on a long statement. So a task that has waited for a while starts a question over a new connection:

1. The one byte with which every PostgreSQL answers a request for TLS in any state: no login, no place among its
   connections. When that is not answered either, the ones who wait are cut off and can be served elsewhere. A server that
   refuses is not silent: its connections end by themselves.
2. Whether it knows our backends as active. One that is gone, or idle while we wait for it, has lost our question or its answer.

Nothing is asked, and no timer runs, while statements are answered promptly. Beside it the kernel watches each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Protocol

from lensway import limits
from lensway.bridges.postgres.endpoints import Endpoint

_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""`SSLRequest`: a server answers S or N."""
_STREAM_FAILURES: Final = 3
"""Cutting a stream that was under way costs its caller the rest: only after so many unanswered questions in a row."""


class Wait:
    """A task that waits for the server at ``address``, for the answer of backend ``pid`` when it has one. ``cut`` ends it."""

    __slots__ = ("address", "cut", "has_answered", "looked_at", "pid", "since")

    def __init__(self, address: Endpoint, cut: Callable[[], None], pid: int | None = None) -> None:
        self.address = address
        self.cut = cut
        self.pid = pid
        self.has_answered = False
        self.since = 0.0
        self.looked_at = 0.0

    @property
    def is_new(self) -> bool:
        """True while no question about it is under way."""
        return self.looked_at == self.since


class Witness(Protocol):
    """Asks the server about its backends, over a connection of its own."""

    def __call__(self, address: Endpoint, pids: Collection[int]) -> Awaitable[Collection[int]]:
        """Those of the backends that are certainly not working for us. Raises nothing but for cancellation."""


class Pulse:
    """All tasks that wait for one server, and the state of its silence. All methods are called on one event loop."""

    def __init__(self, witness: Witness, on_silence: Callable[[Endpoint], None]) -> None:
        self._witness = witness
        self._on_silence = on_silence
        self._waits: dict[Wait, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}
        self._failures: dict[Endpoint, int] = {}
        self._asked_at: dict[Endpoint, float] = {}
        self._silent_at: dict[Endpoint, float] = {}
        # Kept: to ask for the running one is a system call, for each query.
        self._loop = asyncio.get_running_loop()

    def began(self, wait: Wait) -> None:
        """It waits from now on."""
        loop = self._loop
        wait.since = wait.looked_at = loop.time()
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_later(limits.PULSE_LOOK_SECONDS, self._look)

    def over(self, wait: Wait) -> None:
        """It does not wait any more."""
        self._waits.pop(wait, None)

    def is_silent(self, address: Endpoint) -> bool:
        """True when the server at this address did not answer a moment ago."""
        at = self._silent_at.get(address)
        return at is not None and self._loop.time() - at < limits.PULSE_SECONDS

    def answered(self) -> None:
        """The server has just answered another connection: the next one to connect does not consider it silent."""
        self._silent_at.clear()
        self._failures.clear()

    def close(self) -> None:
        """No timer and no question outlives the source."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._asking.values():
            task.cancel()

    def _look(self) -> None:
        self._timer = None
        loop = self._loop
        if not self._waits:
            # The next to wait starts the timer again.
            self._failures.clear()
            return
        self._timer = loop.call_later(limits.PULSE_LOOK_SECONDS, self._look)
        for address in {wait.address for wait in self._waits if self._is_due(wait, loop.time())}:
            if address not in self._asking:
                task = self._asking[address] = loop.create_task(self._ask(address), name="ask a silent server")
                task.add_done_callback(functools.partial(self._asked, address))

    def _asked(self, address: Endpoint, _task: asyncio.Task[None]) -> None:
        del self._asking[address]

    def _is_due(self, wait: Wait, now: float) -> bool:
        if now - wait.since < limits.PULSE_AFTER_SECONDS:
            return False
        return wait.is_new or now - self._asked_at.get(wait.address, 0.0) >= limits.PULSE_SECONDS

    async def _ask(self, address: Endpoint) -> None:
        now = self._asked_at[address] = self._loop.time()
        if not await _answers(address):
            self._found_silent(address, now)
            return
        self._failures.pop(address, None)
        asked: dict[int, tuple[Wait, float]] = {}
        for wait in self._waits:
            is_patient = now - wait.since >= limits.PULSE_AFTER_SECONDS
            if (
                wait.address == address
                and is_patient
                and (wait.is_new or now - wait.looked_at >= _pause(now - wait.since))
            ):
                wait.looked_at = now
                if wait.pid is not None:
                    asked[wait.pid] = (wait, wait.since)
        if asked and (lost := await self._witness(address, asked.keys())):
            # An answer that was under way when the witness looked has arrived by then.
            await asyncio.sleep(limits.PULSE_LOOK_SECONDS)
            for wait, began in (asked[pid] for pid in lost):
                if wait in self._waits and wait.since == began:
                    self._cut(wait)

    def _found_silent(self, address: Endpoint, asked_at: float) -> None:
        failures = self._failures[address] = self._failures.get(address, 0) + 1
        self._silent_at[address] = self._loop.time()
        self._on_silence(address)
        for wait in list(self._waits):
            is_enough = failures >= _STREAM_FAILURES or not wait.has_answered
            if wait.address == address and wait.since <= asked_at and is_enough:
                self._cut(wait)

    def _cut(self, wait: Wait) -> None:
        self._waits.pop(wait)
        wait.cut()


def _pause(waited_seconds: float) -> float:
    """The longer it has worked, the rarer the question whether it does; each costs a login."""
    return min(max(limits.PULSE_SECONDS, waited_seconds / 2), limits.WITNESS_AGAIN_SECONDS_MAX)


async def _answers(endpoint: Endpoint) -> bool:
    """False when nothing at all comes back. Being refused is an answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(limits.PULSE_SECONDS):
            if (path := endpoint.socket_path) is None:
                reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
            else:
                reader, writer = await asyncio.open_unix_connection(path)
            writer.write(_REQUEST)
            await reader.read(1)
            return True
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        if writer is not None:
            writer.transport.abort()


def watch_socket(driver: Any) -> None:
    """Let the kernel end a connection whose peer acknowledges nothing for a while, be it busy or idle; where it can."""
    # The driver does not expose its socket; without it only the slower ways of noticing are left.
    transport = getattr(driver, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", limits.SOCKET_IDLE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", limits.SOCKET_PROBES_MAX),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(limits.SOCKET_UNANSWERED_SECONDS * 1000)),
    )
    for level, name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                found.setsockopt(level, option, value)
