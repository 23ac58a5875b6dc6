"""Connections of one PostgreSQL source: opened when needed, kept while used, bounded, never reused after a cancel.

No reset round trip lies between two uses: nothing that a plan can say changes a session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Generic, Protocol, TypeVar

import asyncpg

from lensway import limits
from lensway.bridges import postgres_errors as errors
from lensway.bridges.addresses import resolve
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.failures import type_mismatch, unreachable
from lensway.bridges.postgres_guard import GuardedConnection
from lensway.bridges.postgres_pulse import Pulse, Wait, watch_socket
from lensway.bridges.postgres_settings import PostgresSettings
from lensway.bridges.postgres_values import TEXT_DECODERS, fits, written
from lensway.errors import LenswayError
from lensway.query.cache import BoundedCache
from lensway.query.compile import Compiled
from lensway.query.plan import PlanKind

_CANCEL_AGAIN_SECONDS: Final = 0.05
"""Before the first repetition of a cancel; twice as long before each further one."""
_STATEMENTS_MAX: Final = 200
_STATEMENTS_BYTES_MAX: Final = 4 * limits.MIB
_IDLE_IN_TRANSACTION_MS: Final = int((limits.STALL_TIMEOUT_SECONDS + 10) * 1000)

# These set a session up. Through set_config, because poolers refuse unknown start-up parameters; the second one only what the
# server knows. Nothing is compiled to machine code: that takes longer than most queries, and made the first row of a large export
# come 50 ms later and its last one no sooner. A statement whose client died ends within half a second (14 and newer), and one
# whose client's machine or network died within seconds, because the server's own kernel looks for a sign of life.
SESSION_STATEMENTS: Final = (
    f"""
SELECT set_config('default_transaction_read_only', 'on', false), set_config('timezone', 'UTC', false),
  set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false),
  set_config('extra_float_digits', '1', false), set_config('bytea_output', 'hex', false),
  set_config('standard_conforming_strings', 'on', false), set_config('search_path', current_setting('search_path'), false),
  set_config('application_name', 'lensway', false),
  set_config('idle_in_transaction_session_timeout', '{_IDLE_IN_TRANSACTION_MS}', false)
""",
    f"""
SELECT set_config(wanted.name, wanted.value, false) FROM pg_settings JOIN (VALUES
  ('jit', 'off'), ('client_connection_check_interval', '500'), ('tcp_keepalives_idle', '{limits.SOCKET_IDLE_SECONDS}'),
  ('tcp_keepalives_interval', '1'), ('tcp_keepalives_count', '{limits.SOCKET_PROBES_MAX}'),
  ('tcp_user_timeout', '{_IDLE_IN_TRANSACTION_MS}')) AS wanted (name, value) USING (name)
""",  # noqa: S608 - made of our own numbers
)


_OWN: Final = ("pg_catalog", "information_schema")
_ENUMS: Final = """
SELECT t.oid FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
WHERE t.oid = ANY($1::oid[]) AND coalesce(e.typtype, t.typtype) = 'e'
"""


class PooledConnection:
    """One connection with its prepared statements and the statement timeout that is in force on it."""

    def __init__(self, connection: Any, address: str, *, has_statement_tags: bool = False) -> None:
        self.driver = connection
        self._has_statement_tags = has_statement_tags
        self.opened_at = asyncio.get_running_loop().time()
        self.idle_since = 0.0
        self.wait = Wait(address, connection.terminate, connection.get_server_pid())
        self.timeout_seconds = 0
        self._enums: set[int] = set()
        self._known_types: set[int] = set()
        self._named = 0
        self.digits: dict[str, tuple[int, ...]] = {}
        """Columns whose integers are shown as texts, by the statements that have some."""
        self._statements: BoundedCache[str, Any] = BoundedCache(
            entries_max=_STATEMENTS_MAX, bytes_max=_STATEMENTS_BYTES_MAX
        )

    def known(self, sql: str) -> Any | None:
        """The statement, if it is prepared and may be used without a tag."""
        return None if self._has_statement_tags else self._statements.get(sql)

    async def prepared(self, compiled: Compiled, sql: str) -> Any:
        """The prepared statement; its columns fit the lens. Raises LenswayError type_mismatch, and the driver's errors."""
        statement = self._statements.get(sql)
        if statement is None:
            # Without a name the driver has it parsed and planned again by each execution.
            self._named += 1
            statement = await self.driver.prepare(sql, name=f"lensway_{self._named}")
            await self._check(compiled, sql, statement)
            self._statements.put(sql, statement, len(sql))
        return statement

    async def tagged(self, compiled: Compiled, sql: str, tag: str, *, always: bool = False) -> Any:
        """As `prepared`; a statement of its own, with the tag as a comment, where the source wants that or ``always``."""
        if not (self._has_statement_tags or always):
            return await self.prepared(compiled, sql)
        statement = await self.driver.prepare(f"{sql} /* lensway {tag.replace('*', '')} */")
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

    def forget_statements(self) -> None:
        """Prepare everything again: a table has changed."""
        self._statements = BoundedCache(entries_max=_STATEMENTS_MAX, bytes_max=_STATEMENTS_BYTES_MAX)
        self.digits = {}

    def timeout_for(self, remaining_seconds: float) -> int | None:
        """The statement timeout that lets the database itself end what begins now by the deadline and at most a second; None
        when it is in force.

        Rounded up to whole seconds, so that a stream of requests with equal time-outs needs no further round trip.
        """
        seconds = max(1, int(remaining_seconds) + 1)
        return None if seconds == self.timeout_seconds else seconds

    async def limit_time(self, seconds: int) -> None:
        """Put this statement timeout in force."""
        await self.driver.execute(f"SET statement_timeout = {seconds * 1000}")
        self.timeout_seconds = seconds

    def is_usable(self) -> bool:
        """False once the driver knows that it is closed."""
        return not self.driver.is_closed()

    async def discard(self) -> None:
        """Close it, whatever it does: a running statement has been cancelled by the driver and is waited for, briefly.

        PostgreSQL ignores a cancel that comes between two messages of a statement that is just beginning. It is sent again until
        the statement is gone, ever more rarely, as each takes a connection.
        """
        closing = asyncio.ensure_future(self.driver.close(timeout=limits.CANCEL_SECONDS))
        pause = _CANCEL_AGAIN_SECONDS
        while not (await asyncio.wait((closing,), timeout=pause))[0]:
            self.driver.cancel_again()
            pause *= 2
        try:
            closing.result()
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.driver.terminate()


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

    async def discard(self) -> None:
        """Close it, whatever it does; returns when its statement is gone from the database."""


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
        """Close it; returns when its statement is gone from the database."""
        closing = asyncio.ensure_future(connection.discard())
        self._count -= 1
        self._wake_one()
        # Our own cancellation must not leave the statement running.
        await asyncio.shield(closing)

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
            await asyncio.wait(self._closing)

    async def _open(self) -> AnyConnection:
        self._count += 1
        try:
            return await self._connect(self._settings, self._policy)
        except BaseException:
            self._count -= 1
            self._wake_one()
            raise

    def _drop(self, connection: AnyConnection) -> None:
        self._count -= 1
        task = asyncio.ensure_future(connection.discard())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
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


async def connect(settings: PostgresSettings, policy: AddressPolicy, pulse: Pulse | None = None) -> PooledConnection:
    """A connection to the first address that answers, set up for reading. ``pulse`` finds out early that none will.

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
            return await _connect_to(address, settings, pulse)
        except TimeoutError:
            failure = unreachable("tcp", "timeout")
        except (*errors.DRIVER_ERRORS, LenswayError) as error:
            failure = errors.of_connecting(error)
            if failure.failure.details.get("stage") == "login":
                break  # another address of the same server says the same
    raise failure


async def _connect_to(address: str, settings: PostgresSettings, pulse: Pulse | None) -> PooledConnection:
    async with asyncio.timeout(limits.CONNECT_TIMEOUT_SECONDS) as limit:
        wait = Wait(address, lambda: limit.reschedule(0.0))
        if pulse is not None:
            pulse.began(wait)
        driver = None
        try:
            driver = await connect_driver(settings, address)
            watch_socket(driver)
            await driver.execute(";".join(SESSION_STATEMENTS))
            for name, decode in TEXT_DECODERS.items():
                await _set_decoder(driver, name, decode)
            return PooledConnection(driver, address, has_statement_tags=settings.has_statement_tags)
        except BaseException:
            if driver is not None:
                driver.terminate()
            raise
        finally:
            if pulse is not None:
                pulse.over(wait)


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
    )
