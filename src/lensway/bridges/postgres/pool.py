"""Connections of one PostgreSQL source: opened when needed, kept while used, bounded, never reused after a cancel.

No reset round trip lies between two uses: a statement that could change its session reads in the transaction form.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import asyncpg

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.endpoints import Endpoint
from lensway.bridges.postgres.pulse import Wait
from lensway.bridges.postgres.relations import Relation
from lensway.bridges.postgres.servers import login_of
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.transaction import (
    ReadOnlyTransaction,
    stricter_ms,
)
from lensway.bridges.postgres.types import RANGE, base_types, range_types
from lensway.bridges.postgres.values import KNOWN_KINDS, column_mismatch, fits, written
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.cache import BoundedCache

_CANCEL_AGAIN_SECONDS: Final = 0.05
"""Before the first repetition of a cancel; twice as long before each further one."""
_STATEMENTS_MAX: Final = 200
_STATEMENTS_BYTES_MAX: Final = 4 * limits.MIB
_READ_ONLY: Final = "default_transaction_read_only"
_OWN: Final = "pg_catalog"


class PooledConnection:
    """One connection with its prepared statements and the statement timeout that is in force on it.

    ``is_shared``: a pooler may give every transaction another server connection. Then nothing is set and nothing has a name
    outside of a transaction.
    """

    def __init__(
        self,
        connection: Any,
        endpoint: Endpoint,
        *,
        has_statement_tags: bool = False,
        is_shared: bool = False,
        own_timeout_ms: int = 0,
    ) -> None:
        self.driver = connection
        self.own_timeout_ms = own_timeout_ms
        self.is_shared = is_shared
        self._has_statement_tags = has_statement_tags
        self.opened_at = self.judged_at = asyncio.get_running_loop().time()
        self.idle_since = 0.0
        # A pooler gives numbers of its own, which tell the server nothing.
        self.wait = Wait(endpoint, connection.terminate, None if is_shared else connection.get_server_pid())
        self.timeout_seconds = 0
        self._types: dict[int, str] = {}
        self._ranges: frozenset[int] = frozenset()
        # Random: no two connections share a name, not even through a pooler that was not recognised.
        self._prefix = f"lensway_{secrets.token_hex(8)}"
        self._named = 0
        self._reported = connection.get_settings()
        # Servers before 14 do not report it, nor do poolers.
        self._is_reported = not is_shared and getattr(self._reported, _READ_ONLY, None) == "on"
        self.forget_statements()

    def known(self, sql: str) -> Any | None:
        """The guarded statement, if it is prepared and may be used without a tag."""
        return None if self._has_statement_tags else self._guarded.get(sql)

    async def guarded(self, relation: Relation, compiled: Compiled, sql: str, tag: str) -> Any:
        """The prepared statement for a plain table, used without a transaction. Raises as `prepared`."""
        if self._has_statement_tags:
            return await self._unnamed(compiled, sql, f"{_guarded(relation, compiled, sql)} {_comment(tag)}")
        statement = self._guarded.get(sql)
        if statement is None:
            statement = await self._named_statement(compiled, sql, _guarded(relation, compiled, sql))
            self._guarded.put(sql, statement, len(sql))
        return statement

    async def prepared(
        self,
        compiled: Compiled,
        sql: str,
        tag: str = "",
        *,
        always_tags: bool = False,
        relation: Relation | None = None,
    ) -> Any:
        """The prepared statement, used in a transaction; its columns fit the lens.

        It is one of its own, with the tag as a comment, where the source wants that or ``always_tags``. A transaction that
        relies on ``relation`` being plain has its guard in the statement.

        Raises:
            LenswayError: type_mismatch; and the driver's errors.
        """
        text = sql if relation is None else _guarded(relation, compiled, sql)
        if always_tags or (self._has_statement_tags and tag):
            return await self._unnamed(compiled, sql, f"{text} {_comment(tag)}")
        if self.is_shared:
            return await self._unnamed(compiled, sql, text)
        statement = self._statements.get(text)
        if statement is None:
            statement = await self._named_statement(compiled, sql, text)
            self._statements.put(text, statement, len(text))
        return statement

    async def _named_statement(self, compiled: Compiled, sql: str, text: str) -> Any:
        # Without a name the driver has it parsed and planned again by each execution.
        self._named += 1
        return await self._checked(compiled, sql, text, f"{self._prefix}_{self._named}")

    async def _unnamed(self, compiled: Compiled, sql: str, text: str) -> Any:
        return await self._checked(compiled, sql, text, "")

    async def _checked(self, compiled: Compiled, sql: str, text: str, name: str) -> Any:
        """The statement under this name, with decoders for all of its types. Raises as `prepared`."""
        # Each further try follows ranges that the driver learned to read, so that there is an end.
        while (statement := await self._decoded(text, name)) is None:
            name = name and f"{name}_"
        if sql == compiled.sql and not compiled.shape.measures:
            kinds = check_columns(compiled, statement, self._types)
            self._note_digits(compiled, sql, kinds)
        return statement

    async def _decoded(self, text: str, name: str) -> Any | None:
        """The statement; None when it is to be prepared again, because more of its types can be decoded now."""
        try:
            statement = await self.driver.prepare(text, name=name)
        except (asyncpg.InterfaceError, asyncpg.InternalClientError):
            # The driver has no decoder for ranges of what it reads as text.
            if self.driver.is_closed() or not await self._take_ranges():
                raise
            return None
        return statement if await self._decodes(statement) else None

    async def _decodes(self, statement: Any) -> bool:
        """Learn the types of the statement that are not known yet. False when it is to be prepared again for them."""
        used = [*(each.type for each in statement.get_attributes()), *statement.get_parameters()]
        unknown = {type.oid for type in used if not _is_known(type)} - self._types.keys()
        if not unknown:
            return True
        found = await base_types(self.driver, list(unknown))
        self._types |= dict.fromkeys(unknown, "") | {each.of: each.kind for each in found}
        return (
            self._ranges.issuperset(each.oid for each in found if each.kind == RANGE) or not await self._take_ranges()
        )

    async def _take_ranges(self) -> bool:
        """Read the ranges of this database as text from now on. False when nothing changes."""
        found = {each.oid: each for each in await range_types(self.driver)}
        new = found.keys() - self._ranges
        for oid in new:
            self.driver.take_as_text(oid, found[oid].name, found[oid].schema)
        self._ranges |= new
        return bool(new)

    def _note_digits(self, compiled: Compiled, sql: str, kinds: Sequence[str]) -> None:
        positions = [
            position
            for position, (column, kind) in enumerate(zip(compiled.columns, kinds, strict=True))
            if written(column.type, kind)
        ]
        if positions:
            if len(self.digits) >= _STATEMENTS_MAX:
                self.forget_statements()
            self.digits[sql] = tuple(positions)

    def is_protected(self) -> bool:
        """False when the server has reported that a statement took the session's protection against writes away."""
        return not self._is_reported or getattr(self._reported, _READ_ONLY) == "on"

    def forget_statements(self) -> None:
        """Prepare everything again: a table has changed, or may have."""
        self.judged_at = asyncio.get_running_loop().time()
        self._guarded = _statements()
        self._statements = _statements()
        self.digits: dict[str, tuple[int, ...]] = {}
        """Columns whose integers are shown as texts, by the statements that have some."""

    def transaction(self, deadline: float, *, is_plain: bool, has_steps: bool = False) -> ReadOnlyTransaction:
        """A block that reads in a transaction and leaves nothing behind. ``is_plain``: nothing of the database's owner runs."""
        return ReadOnlyTransaction(
            self.driver,
            deadline,
            is_shared=self.is_shared,
            is_plain=is_plain,
            has_steps=has_steps,
            own_timeout_ms=self.own_timeout_ms,
            forget=self.forget_statements,
        )

    def timeout_for(self, remaining_seconds: float) -> int | None:
        """The statement timeout that lets the database itself end what begins now by the deadline and at most a second; None
        when it is in force.

        Rounded up to whole seconds, so that a stream of requests with equal time-outs needs no further round trip.
        """
        seconds = max(1, int(remaining_seconds) + 1)
        return None if seconds == self.timeout_seconds else seconds

    async def limit_time(self, seconds: int) -> None:
        """Put this statement timeout in force for the session."""
        assert not self.is_shared, "the session belongs to other clients too"
        await self.driver.execute(f"SET statement_timeout = {stricter_ms(seconds, self.own_timeout_ms)}")
        self.timeout_seconds = seconds

    def is_usable(self) -> bool:
        """False once the driver knows that it is closed."""
        return not self.driver.is_closed()

    async def discard(self, seconds: float = limits.CANCEL_SECONDS) -> None:
        """Close it and wait until the server has, at most for ``seconds``: the driver has cancelled what runs.

        PostgreSQL ignores a cancel that comes between two messages of a statement that is just beginning. It is sent again until
        the statement is gone, ever more rarely, as each takes a connection.
        """
        self.driver.is_ending = True
        closing = asyncio.ensure_future(self.driver.close(timeout=seconds))
        pause = _CANCEL_AGAIN_SECONDS
        try:
            while not (await asyncio.wait((closing,), timeout=pause))[0]:
                self.driver.cancel_again()
                pause *= 2
            closing.result()
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pass
        finally:
            closing.cancel()
            self.driver.is_ending = False
            self.driver.terminate()


def _guarded(relation: Relation, compiled: Compiled, sql: str) -> str:
    return relation.guarded(sql, has_offset=compiled.shape.has_offset and sql == compiled.sql)


def _comment(tag: str) -> str:
    return f"/* lensway {tag.replace('*', '')} */"


def _statements() -> BoundedCache[str, Any]:
    return BoundedCache(entries_max=_STATEMENTS_MAX, bytes_max=_STATEMENTS_BYTES_MAX)


def check_columns(compiled: Compiled, statement: Any, types: Mapping[int, str]) -> list[str]:
    """The kind of each column, of lists that of their elements. ``types`` has those that are not PostgreSQL's own, by oid.

    Raises:
        LenswayError: type_mismatch naming the first field whose column is something else.
    """
    kinds = []
    for column, attribute in zip(compiled.columns, statement.get_attributes(), strict=True):
        type = attribute.type
        kind = _element(type) if _is_known(type) else types.get(type.oid, "")
        if (type.kind == "array") != column.is_list or not fits(column.type, kind):
            shown = type.name if type.schema == _OWN else f"{type.schema}.{type.name}"
            raise column_mismatch(column, kind, shown)
        kinds.append(kind)
    return kinds


def _is_known(type: Any) -> bool:
    """True for PostgreSQL's own types, and lists of them, that a field can show. A name in another schema says nothing."""
    return type.schema == _OWN and _element(type) in KNOWN_KINDS


def _element(type: Any) -> str:
    name: str = type.name.removesuffix("[]")
    return name.removeprefix("_")


class Connection(Protocol):
    """What a pool must know of a connection."""

    idle_since: float

    def is_usable(self) -> bool:
        """False once it is known to be closed."""

    async def discard(self, seconds: float = limits.CANCEL_SECONDS) -> None:
        """Close it, whatever it does; returns when its backend is gone from the database, or after so long."""


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Pool(Generic[AnyConnection]):
    """Up to ``size`` connections. The one used last is used first, so that idle ones grow old and are closed."""

    def __init__(
        self,
        settings: PostgresSettings,
        policy: AddressPolicy,
        *,
        size: int,
        connect: Callable[[PostgresSettings, AddressPolicy], Awaitable[AnyConnection]],
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._size = size
        self._connect = connect
        self._idle: deque[AnyConnection] = deque()
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pruning: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.login = login_of(settings.host, settings.port, settings.user)
        self.login.join(self)
        # Kept: to ask for the running one is a system call, for each query.
        self._loop = asyncio.get_running_loop()

    @property
    def count(self) -> int:
        """Connections that are open, idle ones included."""
        return self._count

    def take_idle(self) -> AnyConnection | None:
        """An idle connection, or None: then `acquire` opens one, or waits for one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self._count -= 1
            self.login.closed()
        return None

    async def acquire(self, *, fresh: bool = False) -> AnyConnection:
        """A connection, idle or new; waits while all are used. Bound it by the deadline.

        Raises:
            LenswayError: SOURCE_UNREACHABLE.
        """
        while True:
            if not fresh and (connection := Pool.take_idle(self)) is not None:
                return connection
            if fresh and self._idle and self._count >= self._size:
                self._drop(self._idle.popleft())
            if self._count < self._size:
                if not self.login.has_room():
                    # For a fresh one an idle one must go, which may be as stale as the one before.
                    if not self.drop_one_idle():
                        self.login.make_room(self)
                elif (opened := await self._open()) is not None:
                    return opened
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_one()
                raise

    def release(self, connection: AnyConnection) -> None:
        """The connection may be used again."""
        if self._is_closed or not connection.is_usable():
            self._drop(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._pruning is None:
            self._pruning = self._loop.call_later(limits.CONNECTION_IDLE_SECONDS, self._prune)
        self._wake_one()
        if self.login.learned is not None:
            self.login.wake()

    async def discard(self, connection: AnyConnection) -> None:
        """Close it; returns when its statement is gone from the database, or `limits.CANCEL_SECONDS` later.

        It keeps its place for as long as its backend works on: some work of a database looks at no cancel.
        """
        # A task of its own: our own cancellation must not leave the statement running.
        closing = self._begin_closing(connection, limits.BACKEND_GONE_SECONDS)
        await asyncio.wait((closing,), timeout=limits.CANCEL_SECONDS)

    @contextlib.asynccontextmanager
    async def spare(self, deadline: float) -> AsyncIterator[None]:
        """A place for a connection that is opened beside the pool, where the login may not hold any number."""
        if self.login.learned is None:
            yield
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                connection = await self.acquire()
                self.login.opening()
                await self.discard(connection)
        except (TimeoutError, LenswayError):
            yield  # what is in the way, the one beside the pool meets too
            return
        try:
            yield
        finally:
            self.login.failed()
            self.login.wake()

    def drop_idle(self) -> None:
        """Close what nobody uses."""
        while self._idle:
            self._drop(self._idle.pop())

    async def close(self) -> None:
        """Close every idle connection; the ones in use close when they are released."""
        self._is_closed = True
        if self._pruning is not None:
            self._pruning.cancel()
        self.drop_idle()
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=2 * limits.CANCEL_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def may_open_again(self) -> None:
        """A place may be free: wake one that waits."""
        self._wake_one()

    def drop_one_idle(self) -> bool:
        """Close an idle connection, if there is one."""
        if self._idle:
            self._drop(self._idle.popleft())
            return True
        return False

    async def _open(self) -> AnyConnection | None:
        """A new connection; None when the server grants the login no more than it holds, and one of these must be waited for."""
        self._count += 1
        self.login.opening()
        try:
            connection = await self._connect(self._settings, self._policy)
        except BaseException as error:
            self._count -= 1
            self.login.failed()
            self._wake_one()
            self.login.wake()
            if isinstance(error, LenswayError) and errors.is_login_full(error) and self.login.learn():
                self.login.make_room(self)
                return None
            raise
        self.login.opened()
        return connection

    def _drop(self, connection: AnyConnection) -> None:
        _ = self._begin_closing(connection, limits.CANCEL_SECONDS)

    def _begin_closing(self, connection: AnyConnection, seconds: float) -> asyncio.Task[None]:
        task = asyncio.create_task(connection.discard(seconds), name="close a connection")
        self._closing.add(task)
        task.add_done_callback(self._closed)
        return task

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._count -= 1
        self.login.closed()
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _prune(self) -> None:
        self._pruning = None
        oldest_allowed = self._loop.time() - limits.CONNECTION_IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= oldest_allowed:
            self._drop(self._idle.popleft())
        if self._idle:
            due = self._idle[0].idle_since + limits.CONNECTION_IDLE_SECONDS
            self._pruning = self._loop.call_at(due, self._prune)
