"""What the sources of one database server share in this process: a bound on their connections, and the pace of probes.

A server counts its connections over all of its databases and logins, so a bound for each source says little: fifty sources of
one server would take all of its places. A source that needs a place when none is free gets that of the longest idle connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import msgspec

from lensway import limits
from lensway.bridges.contract import CONNECTION_LIMIT, ConnectionReport

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


class Bounded(Protocol):
    """A pool whose connections count against the bound of its login."""

    def may_open_again(self) -> None:
        """A place may be free: wake one that waits."""

    def drop_one_idle(self) -> bool:
        """Close an idle connection, if there is one."""


class Login:
    """The connections that one login holds at one server, in every pool of this process, and how many it may hold.

    The bound is learned: a server that refuses one more login names no number. The pools then wait for their own connections.
    Now and then one more is tried, as the bound may be shared with other processes. All methods are called on one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pools: weakref.WeakSet[Bounded] = weakref.WeakSet()
        self._open = 0
        self._opening = 0
        self._try_at = self._refused_at = -math.inf
        self.learned: int | None = None
        """How many connections it may hold, as far as that is known; None without a bound."""

    def join(self, pool: Bounded) -> None:
        """Its connections count from now on."""
        self._pools.add(pool)

    def has_room(self) -> bool:
        """True when one more connection may be opened."""
        if self.learned is None or self._open + self._opening < self.learned:
            return True
        if self._clock() < self._try_at:
            return False
        self._try_at = self._clock() + limits.LOGIN_BOUND_SECONDS
        return True

    def make_room(self, pool: Bounded) -> None:
        """Close an idle connection of another pool."""
        any(other.drop_one_idle() for other in list(self._pools) if other is not pool)

    def opening(self) -> None:
        """A connection is being opened: `opened` or `refused` or `closed` tells how that ends."""
        self._opening += 1

    def opened(self) -> None:
        """It is open."""
        self._opening -= 1
        self._open += 1
        if self.learned is not None and self._open > self.learned:
            self.learned = self._open

    def failed(self) -> None:
        """It could not be opened."""
        self._opening -= 1

    def learn(self) -> bool:
        """The server refuses one more connection. False when this process holds none that could be waited for."""
        if not self._open and not self._opening:
            self.learned = None
            return False
        self.learned = max(1, self._open)
        self._refused_at = self._clock()
        self._try_at = self._refused_at + limits.LOGIN_BOUND_SECONDS
        return True

    def is_short(self) -> bool:
        """True while the server has refused one more connection lately: under load it is asked again now and then."""
        return self._clock() - self._refused_at < limits.LOGIN_SHORT_SECONDS

    def noted(self, report: ConnectionReport) -> ConnectionReport:
        """The report of a connection test, with a warning where the bound is met."""
        if self.learned is None:
            return report
        granted = "1 connection" if self.learned == 1 else f"{self.learned} connections"
        message = (
            f"The server grants this login only {granted} at a time, so queries wait for each other. Raise "
            "the login's CONNECTION LIMIT or the server's max_connections, or limit each process with `pool_size`."
        )
        warning = {"code": CONNECTION_LIMIT, "message": message}
        return msgspec.structs.replace(report, warnings=[*report.warnings, warning])

    def closed(self) -> None:
        """One that was open is closed."""
        self._open -= 1
        self.wake()

    def wake(self) -> None:
        """Let each pool that waits look again."""
        if self.learned is not None:
            for pool in list(self._pools):
                pool.may_open_again()


_servers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], Server]] = (
    weakref.WeakKeyDictionary()
)


def server_of(host: str, port: int) -> Server:
    """The server at this address, as this process knows it."""
    known = _servers.setdefault(asyncio.get_running_loop(), {})
    return known.setdefault((host.lower().rstrip("."), port), Server())


_logins: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, weakref.WeakValueDictionary[tuple[str, int, str], Login]
] = weakref.WeakKeyDictionary()


def login_of(host: str, port: int, user: str) -> Login:
    """This login at this address, as long as a pool keeps it."""
    known = _logins.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    key = (host.lower().rstrip("."), port, user)
    login = known.get(key)
    if login is None:
        login = known[key] = Login()
    return login
