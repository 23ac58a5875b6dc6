"""Connections of one PostgreSQL source: opened when needed, kept while used, bounded, never reused after a cancel.

No reset round trip lies between two uses: a statement that could change its session reads in the transaction form.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Generic, Protocol, TypeVar

import asyncpg

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import is_loopback, resolve
from lensway.bridges.kit.failures import type_mismatch, unreachable
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.clear_text import GuardedLoop
from lensway.bridges.postgres.guard import GuardedConnection
from lensway.bridges.postgres.pulse import Pulse, Wait, watch_socket
from lensway.bridges.postgres.relations import Relation
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.transaction import ReadOnlyTransaction, begin_sql, end_sql, session_sql, timeout_seconds
from lensway.bridges.postgres.values import TEXT_DECODERS, fits, written
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.cache import BoundedCache
from lensway.query.plan import PlanKind

_CANCEL_AGAIN_SECONDS: Final = 0.05
"""Before the first repetition of a cancel; twice as long before each further one."""
_STATEMENTS_MAX: Final = 200
_STATEMENTS_BYTES_MAX: Final = 4 * limits.MIB
_READ_ONLY: Final = "default_transaction_read_only"
_OWN: Final = ("pg_catalog", "information_schema")
_ENUMS: Final = """
SELECT t.oid FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
WHERE t.oid = ANY($1::oid[]) AND coalesce(e.typtype, t.typtype) = 'e'
"""


class PooledConnection:
    """One connection with its prepared statements and the statement timeout that is in force on it.

    ``is_shared``: a pooler may give every transaction another server connection. Then nothing is set and nothing has a name
    outside of a transaction.
    """

    def __init__(
        self, connection: Any, address: str, *, has_statement_tags: bool = False, is_shared: bool = False
    ) -> None:
        self.driver = connection
        self.is_shared = is_shared
        self._has_statement_tags = has_statement_tags
        self.opened_at = self.judged_at = asyncio.get_running_loop().time()
        self.idle_since = 0.0
        # A pooler gives numbers of its own, which tell the server nothing.
        self.wait = Wait(address, connection.terminate, None if is_shared else connection.get_server_pid())
        self.timeout_seconds = 0
        self._enums: set[int] = set()
        self._known_types: set[int] = set()
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
        statement = await self.driver.prepare(text, name=f"{self._prefix}_{self._named}")
        await self._check(compiled, sql, statement)
        return statement

    async def _unnamed(self, compiled: Compiled, sql: str, text: str) -> Any:
        statement = await self.driver.prepare(text, name="")
        await self._check(compiled, sql, statement)
        return statement

    async def _check(self, compiled: Compiled, sql: str, statement: Any) -> None:
        if sql != compiled.sql or compiled.shape.kind is PlanKind.COUNT:
            return
        types = {attribute.type.oid for attribute in statement.get_attributes() if attribute.type.schema not in _OWN}
        if unknown := types - self._known_types:
            # The driver does not say which types are enums.
            found = await self.driver.fetch(_ENUMS, list(unknown))
            self._enums.update(row["oid"] for row in found)
            self._known_types |= unknown
        check_columns(compiled, statement, self._enums)
        self._note_digits(compiled, sql, statement)

    def _note_digits(self, compiled: Compiled, sql: str, statement: Any) -> None:
        names = [each.type.name.removesuffix("[]").removeprefix("_") for each in statement.get_attributes()]
        positions = [
            position
            for position, (column, name) in enumerate(zip(compiled.columns, names, strict=True))
            if written(column.type, name)
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
            self.driver, deadline, is_shared=self.is_shared, is_plain=is_plain, has_steps=has_steps
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
        await self.driver.execute(f"SET statement_timeout = {seconds * 1000}")
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


def check_columns(compiled: Compiled, statement: Any, enums: Collection[int]) -> None:
    """Raises LenswayError type_mismatch naming the first field whose column is something else.

    ``enums`` are the types that are enums, or lists of them.
    """
    for column, attribute in zip(compiled.columns, statement.get_attributes(), strict=True):
        kind, name = attribute.type.kind, attribute.type.name
        is_list = kind == "array"
        element = name.removesuffix("[]").removeprefix("_")
        element_kind = "enum" if attribute.type.oid in enums else kind
        if is_list != column.is_list or not fits(column.type, element, element_kind):
            wanted = f"a list of {column.type.value}" if column.is_list else column.type.value
            raise type_mismatch(column.name, wanted, name)


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
        # Kept: to ask for the running one is a system call, for each query.
        self._loop = asyncio.get_running_loop()

    def take_idle(self) -> AnyConnection | None:
        """An idle connection, or None: then `acquire` opens one, or waits for one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self._count -= 1
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
                return await self._open()
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

    async def discard(self, connection: AnyConnection) -> None:
        """Close it; returns when its statement is gone from the database, or `limits.CANCEL_SECONDS` later.

        It keeps its place for as long as its backend works on: some work of a database looks at no cancel.
        """
        # A task of its own: our own cancellation must not leave the statement running.
        closing = self._begin_closing(connection, limits.BACKEND_GONE_SECONDS)
        await asyncio.wait((closing,), timeout=limits.CANCEL_SECONDS)

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

    async def _open(self) -> AnyConnection:
        self._count += 1
        try:
            return await self._connect(self._settings, self._policy)
        except BaseException:
            self._count -= 1
            self._wake_one()
            raise

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


async def connect(
    settings: PostgresSettings, policy: AddressPolicy, pulse: Pulse | None = None, *, is_shared: bool = False
) -> PooledConnection:
    """A connection to the first address that answers, set up for reading. ``pulse`` finds out early that none will.

    ``is_shared`` is known of a pooler that this login need not show again.

    Raises:
        LenswayError: SOURCE_UNREACHABLE with stage and class.
    """
    addresses = await resolve(settings.host, settings.port, policy)
    failure = unreachable("tcp", "unreachable")
    for address in addresses:
        if pulse is not None and pulse.is_silent(address):
            failure = unreachable("tcp", "timeout")
            continue
        try:
            return await _connect_to(address, settings, pulse, is_shared=is_shared)
        except TimeoutError:
            failure = unreachable("tcp", "timeout")
        except (*errors.DRIVER_ERRORS, LenswayError) as error:
            failure = errors.of_connecting(error)
            if failure.failure.details.get("stage") == "login":
                break  # another address of the same server says the same
    raise failure


async def _connect_to(
    address: str, settings: PostgresSettings, pulse: Pulse | None, *, is_shared: bool
) -> PooledConnection:
    async with asyncio.timeout(limits.CONNECT_TIMEOUT_SECONDS) as limit:
        wait = Wait(address, lambda: limit.reschedule(0.0))
        if pulse is not None:
            pulse.began(wait)
        driver = None
        try:
            driver = await connect_driver(settings, address)
            watch_socket(driver)
            is_shared = is_shared or settings.pooler == "transaction" or not await _set_up(driver, settings)
            if is_shared:
                await _try_transaction(driver)
            for name, decode in TEXT_DECODERS.items():
                await _set_decoder(driver, name, decode)
            return PooledConnection(
                driver, address, has_statement_tags=settings.has_statement_tags, is_shared=is_shared
            )
        except BaseException:
            if driver is not None:
                driver.terminate()
            raise
        finally:
            if pulse is not None:
                pulse.over(wait)


async def _set_up(driver: Any, settings: PostgresSettings) -> bool:
    """Set the session up, unless its backend is not the one that the login named: False, and nothing is set.

    A pooler names itself at the login, because a cancel must come to it and not to one server connection.
    """
    pid = driver.get_server_pid() if settings.pooler == "auto" else None
    return bool(await driver.fetch(session_sql(pid)))


async def _try_transaction(driver: Any) -> None:
    """A pooler that assigns a server connection to each statement ends the connection here."""
    try:
        await driver.execute(begin_sql(timeout_seconds(0.0), is_shared=True))
        await driver.execute(end_sql(unlocks=False))
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
        raise unreachable("login", "no_transactions") from None


async def is_other_backend(connection: PooledConnection) -> bool:
    """True when this session has another backend now than at its login: a pooler that was not recognised."""
    try:
        pid: int = await connection.driver.fetchval("SELECT pg_catalog.pg_backend_pid()")
    except errors.DRIVER_ERRORS:
        return False
    at_login: int = connection.driver.get_server_pid()
    return pid != at_login


async def _set_decoder(driver: Any, name: str, decode: Any) -> None:
    with contextlib.suppress(ValueError):  # a server that does not know the type
        await driver.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=decode, format="text")


async def connect_driver(settings: PostgresSettings, address: str) -> Any:
    """The driver's connection; everything is given, so that no variable, password or service file of this machine is used.

    Raises the driver's errors.
    """
    context = settings.tls()
    try:
        return await _driver(settings, address, context)
    except asyncpg.exceptions.ClientConfigurationError:
        raise unreachable("login", "login") from None
    except ConnectionError as error:
        # The server rejects TLS: for `prefer` that is an answer too. A refused or broken connection is no such answer.
        if isinstance(error, ConnectionRefusedError | ConnectionResetError) or context is None:
            raise
        if settings.sslmode == "prefer":
            return await _driver(settings, address, None)
        raise unreachable("tls", "no_tls") from None


async def _driver(settings: PostgresSettings, address: str, context: Any) -> Any:
    # A password travels in clear text under TLS or on this machine only.
    loop = GuardedLoop() if context is None and not is_loopback(address) else None
    try:
        return await asyncpg.connect(
            host=address,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            database=settings.database,
            ssl=False if context is None else context,
            direct_tls=False,
            timeout=limits.CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=0,
            target_session_attrs="any",
            connection_class=GuardedConnection,
            loop=loop,
        )
    except errors.DRIVER_ERRORS:
        if loop is not None and loop.has_refused:
            raise unreachable("login", "clear_text_password") from None
        raise
