"""What the sources of one database server share in this process: a bound on their connections, and the pace of probes.

A server counts its connections over all of its databases and logins, so a bound for each source says little: fifty sources of
one server would take all of its places. A source that needs a place when none is free gets that of the longest idle connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from lensway import limits

_LOOK_AGAIN_SECONDS: Final = 0.05
"""A connection that ends without a word is noticed after so long by those who wait for a place."""


class SharingPool(Protocol):
    """A pool whose connections count."""

    def idle_since(self) -> float | None:
        """Since when its longest idle connection is idle; None without one."""

    def drop_oldest(self) -> None:
        """Close that connection."""


class Server:
    """One database server, by host and port. All methods are called on one event loop."""

    def __init__(self) -> None:
        self._drivers: set[Any] = set()
        self._opening = 0
        self._pools: weakref.WeakSet[SharingPool] = weakref.WeakSet()
        self._moved = asyncio.Event()
        self._next_probe_at = 0.0

    def join(self, pool: SharingPool) -> None:
        """Its idle connections may be closed for others."""
        self._pools.add(pool)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for one connection that is being opened; tell `opened` of it before leaving."""
        while self._is_full():
            self._make_room()
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    await self._moved.wait()
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
            self._moved.set()

    def opened(self, driver: Any) -> None:
        """This connection takes a place until it is closed."""
        self._drivers.add(driver)
        driver.add_termination_listener(self._ended)

    async def pace(self) -> None:
        """Wait for the turn of a probe that logs in: a login costs the server a process."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next_probe_at)
        self._next_probe_at = turn + limits.PROBE_LOGIN_SECONDS
        await asyncio.sleep(turn - now)

    def _is_full(self) -> bool:
        if len(self._drivers) + self._opening < limits.CONNECTIONS_PER_SERVER_MAX:
            return False
        # One that is being closed says that it is closed, and its backend may work on.
        self._drivers = {driver for driver in self._drivers if driver.is_ending or not driver.is_closed()}
        return len(self._drivers) + self._opening >= limits.CONNECTIONS_PER_SERVER_MAX

    def _make_room(self) -> None:
        resting = [(since, pool) for pool in self._pools if (since := pool.idle_since()) is not None]
        if resting:
            min(resting, key=lambda each: each[0])[1].drop_oldest()

    def _ended(self, driver: Any) -> None:
        self._drivers.discard(driver)
        self._moved.set()


_servers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], Server]] = (
    weakref.WeakKeyDictionary()
)


def server_of(host: str, port: int) -> Server:
    """The server at this address, as this process knows it."""
    known = _servers.setdefault(asyncio.get_running_loop(), {})
    return known.setdefault((host.lower().rstrip("."), port), Server())
