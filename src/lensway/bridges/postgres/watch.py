"""The pool that queries use: its connections are watched for silence, and replaced with age.

A new connection is watched from its first packet, one in use while a task waits for its answer, an idle one by the kernel.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection
from typing import Final

import asyncpg

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.postgres.connecting import connect, connect_driver
from lensway.bridges.postgres.endpoints import Endpoint
from lensway.bridges.postgres.pool import Pool, PooledConnection
from lensway.bridges.postgres.pulse import Pulse
from lensway.bridges.postgres.relations import Relations
from lensway.bridges.postgres.servers import server_of
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.errors import LenswayError

_OURS: Final = "SELECT pid, state FROM pg_stat_activity WHERE pid = ANY($1::int[]) AND usename = current_user"
_RESTING: Final = frozenset({"idle", "idle in transaction", "idle in transaction (aborted)"})


class WatchedPool(Pool[PooledConnection]):
    """A pool that ends the wait for a server that went silent, or that lost a connection."""

    def __init__(
        self,
        settings: PostgresSettings,
        policy: AddressPolicy,
        *,
        size: int,
        relations: Relations | None = None,
        age_seconds_max: float = limits.CONNECTION_AGE_SECONDS_MAX,
    ) -> None:
        super().__init__(settings, policy, size=size, connect=self._connect_watched)
        self.relations = relations or Relations()
        self._age_seconds_max = age_seconds_max
        self._is_shared = False
        self.server = server_of(settings.host, settings.port)
        self.server.join(self)
        self._pulse = Pulse(functools.partial(lost_backends, settings), self._drop_silent)

    def take_idle(self) -> PooledConnection | None:
        """As of any pool. From now on a task waits for the server."""
        connection = super().take_idle()
        if connection is not None:
            self._pulse.began(connection.wait)
        return connection

    async def acquire(self, *, fresh: bool = False) -> PooledConnection:
        """As of any pool. From now on a task waits for the server."""
        connection = await super().acquire(fresh=fresh)
        self._pulse.began(connection.wait)
        return connection

    def rests(self, connection: PooledConnection) -> None:
        """Its answer has come, and its user is busy with it: no task waits for the server."""
        self._pulse.over(connection.wait)
        connection.wait.has_answered = True

    def waits(self, connection: PooledConnection) -> None:
        """Its user waits for the server again."""
        self._pulse.began(connection.wait)

    def release(self, connection: PooledConnection) -> None:
        """The connection may be used again, unless it is old, or is not protected any more."""
        self._pulse.over(connection.wait)
        connection.wait.has_answered = False
        now = self._loop.time()
        is_old = now - connection.opened_at > self._age_seconds_max or (self._is_shared and not connection.is_shared)
        if is_old or not connection.is_protected():
            self._drop(connection)
            return
        if now - connection.judged_at > limits.RELATION_KNOWN_SECONDS:
            connection.forget_statements()
        super().release(connection)

    def answered(self) -> None:
        """The server has just answered another connection."""
        self._pulse.answered()

    async def discard(self, connection: PooledConnection) -> None:
        """As of any pool."""
        self._pulse.over(connection.wait)
        await super().discard(connection)

    async def close(self) -> None:
        """As of any pool."""
        self._pulse.close()
        await super().close()

    async def _connect_watched(self, settings: PostgresSettings, policy: AddressPolicy) -> PooledConnection:
        async with self.server.place():
            connection = await connect(settings, policy, self._pulse, is_shared=self._is_shared)
            self.server.opened(connection.driver)
        return connection

    def found_pooler(self) -> None:
        """A pooler gives transactions different server connections: read in transactions from now on."""
        self._is_shared = True
        self.drop_idle()

    def idle_since(self) -> float | None:
        """Since when the longest idle connection is idle; None without one."""
        return self._idle[0].idle_since if self._idle else None

    def drop_oldest(self) -> None:
        """Close that connection: another source of the server needs its place."""
        self._drop(self._idle.popleft())

    def untouched(self, connection: PooledConnection, idle_since: float) -> None:
        """As `release`, and it counts as idle since this moment: a probe keeps no connection alive."""
        self.release(connection)
        connection.idle_since = idle_since

    def _drop_silent(self, address: Endpoint) -> None:
        """The server is silent: its idle connections are worth nothing, and it may be another one when it speaks again."""
        for connection in [each for each in self._idle if each.wait.address == address]:
            self._idle.remove(connection)
            connection.driver.terminate()
            self._count -= 1
            self._wake_one()


async def lost_backends(settings: PostgresSettings, address: Endpoint, pids: Collection[int]) -> Collection[int]:
    """Those of our backends that the server does not know as active; none when it cannot be asked."""
    driver = None
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            driver = await connect_driver(settings.at(address), address.address)
            if await driver.fetchval("SELECT pg_backend_pid()") != driver.get_server_pid():
                return ()  # something in between gives its own numbers
            rows = await driver.fetch(_OURS, list(pids))
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, EOFError, LenswayError):
        return ()
    finally:
        if driver is not None:
            driver.terminate()
    at_work = {row["pid"] for row in rows if row["state"] not in _RESTING}
    return [pid for pid in pids if pid not in at_work]
