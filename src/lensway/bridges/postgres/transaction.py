"""What a session of PostgreSQL is set to, and the transaction form of reading: settings, rows and end in one transaction.

Two kinds of reading need that form. Behind a pooler that assigns a server connection to each transaction, settings and statement
names outside a transaction reach other clients of the pool. And where functions of the database's owner are in reach (views,
foreign tables, row security), a statement can change settings for the session; ROLLBACK undoes that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

import asyncpg

from lensway import limits
from lensway.errors import LenswayError

_IDLE_IN_TRANSACTION_MS: Final = int((limits.STALL_TIMEOUT_SECONDS + 10) * 1000)

# How rows are written, and how soon a statement ends whose client is gone: a dead process within half a second (14 and newer).
# Nothing is compiled to machine code: that takes longer than most queries, and made the first row of a large export come 50 ms
# later and its last one no sooner. The second group is set only where the server knows the name.
_SETTINGS: Final = (
    ("timezone", "UTC"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("application_name", "lensway"),
    ("idle_in_transaction_session_timeout", str(_IDLE_IN_TRANSACTION_MS)),
)
_IF_KNOWN: Final = (("jit", "off"), ("client_connection_check_interval", "500"))
# The server's kernel looks for a sign of life of ours, so that a statement of a dead machine ends within seconds.
_SOCKET: Final = (
    ("tcp_keepalives_idle", str(limits.SOCKET_IDLE_SECONDS)),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", str(limits.SOCKET_PROBES_MAX)),
    ("tcp_user_timeout", str(_IDLE_IN_TRANSACTION_MS)),
)
# What other clients of a pool may have left behind and what would change rows.
_DEFAULTS: Final = (
    "SESSION AUTHORIZATION DEFAULT",
    "ROLE NONE",
    *(
        f"{name} TO DEFAULT"
        for name in ("search_path", "row_security", "array_nulls", "transform_null_equals", "lc_monetary", "xmlbinary")
    ),
)


def _set(name: str, value: str, *, is_local: bool) -> str:
    # Through set_config, because poolers refuse unknown start-up parameters.
    return f"pg_catalog.set_config('{name}', '{value}', {str(is_local).lower()})"


def _set_path(*, is_local: bool) -> str:
    # Operators are found on the search path alone. Where the schema of an extension is not on it, citext would be compared as
    # text and ordered as citext, so that pages lose rows. It comes last, so that every name means what it meant before.
    return f"""pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ',
      nullif(pg_catalog.current_setting('search_path'), ''), (
        SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(n.nspname), ', ')
        FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
        WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND n.nspname <> ALL (pg_catalog.current_schemas(true))
      )), {str(is_local).lower()})"""  # noqa: S608 - made of our own texts


def _set_if_known(name: str, value: str, *, is_local: bool) -> str:
    known = f"pg_catalog.current_setting('{name}', true) IS NOT NULL"
    return f"CASE WHEN {known} THEN {_set(name, value, is_local=is_local)} END"


OWN_TIMEOUT: Final = "SELECT reset_val::pg_catalog.int4 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'"
"""The statement timeout that the database sets for this login, in milliseconds; 0 means no timeout."""


def session_sql(backend_pid: int | None) -> str:
    """The statement that sets a session up. With a pid: only in that backend, and it gives a row only there."""
    calls = [_set("default_transaction_read_only", "on", is_local=False)]
    calls += [_set(*each, is_local=False) for each in _SETTINGS]
    calls.append(_set_path(is_local=False))
    calls += [_set_if_known(*each, is_local=False) for each in (*_IF_KNOWN, *_SOCKET)]
    calls.append(f"({OWN_TIMEOUT}) AS own_timeout_ms")
    where = "" if backend_pid is None else f" WHERE pg_catalog.pg_backend_pid() = ({backend_pid})"
    return f"SELECT {', '.join(calls)}{where}"


_LOCAL_SETTINGS: Final = "SELECT " + ", ".join(
    [_set(*each, is_local=True) for each in _SETTINGS]
    + [_set_path(is_local=True)]
    + [_set_if_known(*each, is_local=True) for each in _IF_KNOWN]
)
_BEGIN_SHARED: Final = "; ".join(
    ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", *(f"SET LOCAL {each}" for each in _DEFAULTS), _LOCAL_SETTINGS)
)
_SAVEPOINT: Final = "lensway"
_END: Final = "ROLLBACK"
_END_UNLOCKING: Final = "ROLLBACK; SELECT pg_catalog.pg_advisory_unlock_all()"
"""Advisory locks of a session outlive its transactions."""
ADVISORY_LOCKS: Final = (
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()"
)
"""How many the session holds that this runs in."""
PREPARED: Final = "ARRAY(SELECT name::pg_catalog.text FROM pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1000)"
"""Statements that PREPARE has made in the session, as an array of names. The driver makes its own in another way."""
_PREPARED_NOW: Final = f"SELECT {PREPARED}"
_MUST_HAVE_NONE_PREPARED: Final = (
    "SELECT 1 / CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) THEN 0 ELSE 1 END"
)
"""Fails where a function has prepared a statement, which outlives its transaction too, and may stand in the place of one of the
driver's. A question would take a round trip more."""
_LEFT_PREPARED: Final = asyncpg.DivisionByZeroError


def timeout_seconds(deadline: float) -> int:
    """The statement timeout that lets the database end what begins now by the deadline and at most a second."""
    return max(1, int(deadline - time.monotonic()) + 1)


def stricter_ms(seconds: int, own_ms: int) -> int:
    """The statement timeout to set: ours, or the one that the database itself sets for the login (0 means no timeout)."""
    return min(seconds * 1000, own_ms or seconds * 1000)


_OWN_TIMEOUT: Final = (
    "nullif(1000 * extract(epoch FROM pg_catalog.current_setting('statement_timeout')::pg_catalog.interval), 0)"
)


def stricter_sql(seconds: int) -> str:
    """Sets, for a session of which nothing is known, the same in the transaction that is open."""
    least = f"least({_OWN_TIMEOUT}, {seconds * 1000})::pg_catalog.int4::pg_catalog.text"
    return f"SET LOCAL statement_timeout TO DEFAULT; SELECT pg_catalog.set_config('statement_timeout', {least}, true)"


def begin_sql(
    seconds: int, *, is_shared: bool, has_steps: bool = False, own_ms: int = 0, is_own_known: bool = True
) -> str:
    """Begins the transaction form. ``is_shared``: nothing is known of the session, and nothing may stay in it.

    ``has_steps``: a second statement follows in it, behind `step_sql`. ``own_ms`` is the login's own statement timeout.
    """
    begin = _BEGIN_SHARED if is_shared else "BEGIN READ ONLY"
    savepoint = f"; SAVEPOINT {_SAVEPOINT}" if has_steps else ""
    timeout = _limit_sql(seconds, own_ms) if is_own_known else stricter_sql(seconds)
    return f"{begin}; {timeout}{savepoint}"


def _limit_sql(seconds: int, own_ms: int) -> str:
    return f"SET LOCAL statement_timeout = {stricter_ms(seconds, own_ms)}"


def step_sql(seconds: int, *, own_ms: int = 0, is_own_known: bool = True) -> str:
    """Before the second statement: undoes what the first one has set, so that both mean the same tables."""
    timeout = _limit_sql(seconds, own_ms) if is_own_known else stricter_sql(seconds)
    return f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; {timeout}"


def end_sql(*, unlocks: bool, prepared: Sequence[str] = ()) -> str:
    """Ends the transaction form; also one that failed. ``prepared`` are statements to drop, by their names."""
    dropped = (f"; DEALLOCATE {_quoted(name)}" for name in prepared)
    return (_END_UNLOCKING if unlocks else _END) + "".join(dropped)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class ReadOnlyTransaction:
    """A block in which a connection reads in one transaction that is rolled back at its end."""

    def __init__(
        self,
        driver: Any,
        deadline: float,
        *,
        is_shared: bool,
        is_plain: bool,
        has_steps: bool = False,
        own_timeout_ms: int = 0,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._driver = driver
        self._own_ms = own_timeout_ms
        self._forget = forget
        self.timeout_seconds = timeout_seconds(deadline)
        self._is_shared = is_shared
        self._is_plain = is_plain
        self._has_steps = has_steps
        self._unlocks = not is_plain
        self._prepared: Sequence[str] = ()

    async def __aenter__(self) -> ReadOnlyTransaction:
        """Begin. Raises the driver's errors."""
        begin = begin_sql(
            self.timeout_seconds, is_shared=self._is_shared, has_steps=self._has_steps, own_ms=self._own_ms
        )
        await self._driver.execute(begin)
        if self._is_shared and not self._is_plain:
            # Locks that another client of the pool holds on this server connection are not ours to release.
            locks, self._prepared = await self._driver.fetchrow(f"SELECT ({ADVISORY_LOCKS}), {PREPARED}")
            self._unlocks = locks == 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._end()
        elif isinstance(error, asyncpg.PostgresError | LenswayError) and not self._driver.is_closed():
            # Where this fails too, the connection is found in a transaction and closed.
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._end()

    async def _end(self) -> None:
        if self._is_plain:
            await self._driver.execute(_END)
        elif self._is_shared:
            prepared = set(await self._found_prepared()) - set(self._prepared)
            await self._driver.execute(end_sql(unlocks=self._unlocks, prepared=sorted(prepared)))
        else:
            try:
                await self._driver.execute(f"{_END_UNLOCKING}; {_MUST_HAVE_NONE_PREPARED}")
            except _LEFT_PREPARED:
                await self._driver.execute("DEALLOCATE ALL")
                self._forget()

    async def _found_prepared(self) -> Sequence[str]:
        try:
            return list(await self._driver.fetchval(_PREPARED_NOW))
        except asyncpg.InFailedSQLTransactionError:
            # In the same message, a pooler keeps the server connection.
            await self._driver.execute(f"{_END}; BEGIN READ ONLY")
            return list(await self._driver.fetchval(_PREPARED_NOW))

    async def step(self, deadline: float) -> None:
        """Go on to the second statement: what the first one has set is undone."""
        self.timeout_seconds = timeout_seconds(deadline)
        await self._driver.execute(step_sql(self.timeout_seconds, own_ms=self._own_ms))

    async def lower(self, deadline: float) -> None:
        """Lower the statement timeout to what is left: it counts for each statement and each fetch."""
        seconds = timeout_seconds(deadline)
        if seconds < self.timeout_seconds:
            await self._driver.execute(_limit_sql(seconds, self._own_ms))
            self.timeout_seconds = seconds
