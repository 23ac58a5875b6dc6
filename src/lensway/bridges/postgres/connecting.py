"""A new connection to PostgreSQL: each address of a source in turn, TLS as its settings say, and set up for reading."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import asyncpg

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import is_loopback
from lensway.bridges.kit.failures import unreachable
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.clear_text import GuardedLoop
from lensway.bridges.postgres.endpoints import Endpoint, endpoints_of
from lensway.bridges.postgres.guard import GuardedConnection
from lensway.bridges.postgres.pool import PooledConnection
from lensway.bridges.postgres.pulse import Pulse, Wait, watch_socket
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.transaction import (
    OWN_TIMEOUT,
    begin_sql,
    end_sql,
    session_sql,
    timeout_seconds,
)
from lensway.bridges.postgres.values import TEXT_DECODERS
from lensway.errors import LenswayError

_OTHER_SESSION: Final = "session_attributes"
_FINAL: Final = frozenset({"password", "unknown_database", "not_permitted"})
"""Another server of the list says the same, and a wrong password that is sent to all of them may lock the login."""


async def connect(
    settings: PostgresSettings, policy: AddressPolicy, pulse: Pulse | None = None, *, is_shared: bool = False
) -> PooledConnection:
    """A connection to the first address that answers, set up for reading. ``pulse`` finds out early that none will.

    ``is_shared`` is known of a pooler that this login need not show again.

    Raises:
        LenswayError: SOURCE_UNREACHABLE with stage and class.
    """
    endpoints = await endpoints_of(settings, policy)
    failure: LenswayError | None = None
    for attributes in settings.attributes_in_turn():
        answered: set[tuple[str, int]] = set()
        for endpoint in endpoints:
            if (place := (endpoint.host, endpoint.port)) in answered:
                continue  # another address of the same server says the same
            if pulse is not None and pulse.is_silent(endpoint):
                failure = _telling(failure, unreachable("tcp", "timeout"))
                continue
            try:
                return await _connect_to(endpoint, settings.at(endpoint, attributes), pulse, is_shared=is_shared)
            except TimeoutError:
                failure = _telling(failure, unreachable("tcp", "timeout"))
            except (*errors.DRIVER_ERRORS, LenswayError) as error:
                failure = _telling(failure, errors.of_connecting(error))
                if failure.failure.details.get("class") in _FINAL:
                    raise failure from None
                if errors.of_connecting(error).failure.details.get("stage") == "login":
                    answered.add(place)
    raise failure or unreachable("tcp", "unreachable")


def _telling(before: LenswayError | None, failure: LenswayError) -> LenswayError:
    """Which of the two failures tells more: the last one, but that a server is down says more than that another is no primary."""
    return before if before is not None and failure.failure.details.get("class") == _OTHER_SESSION else failure


async def _connect_to(
    endpoint: Endpoint, settings: PostgresSettings, pulse: Pulse | None, *, is_shared: bool
) -> PooledConnection:
    async with asyncio.timeout(settings.connect_timeout_seconds) as limit:
        wait = Wait(endpoint, lambda: limit.reschedule(0.0))
        if pulse is not None:
            pulse.began(wait)
        driver = None
        try:
            driver = await connect_driver(settings, endpoint.address)
            watch_socket(driver)
            own_timeout_ms = None if is_shared or settings.pooler == "transaction" else await _set_up(driver, settings)
            if is_shared := own_timeout_ms is None:
                own_timeout_ms = await _try_transaction(driver)
            for name, decode in TEXT_DECODERS.items():
                await _set_decoder(driver, name, decode)
            return PooledConnection(
                driver,
                endpoint,
                has_statement_tags=settings.has_statement_tags,
                is_shared=is_shared,
                own_timeout_ms=own_timeout_ms or 0,
            )
        except BaseException:
            if driver is not None:
                driver.terminate()
            raise
        finally:
            if pulse is not None:
                pulse.over(wait)


async def _set_up(driver: Any, settings: PostgresSettings) -> int | None:
    """Set the session up, and give the login's own statement timeout. None, and nothing is set, when its backend is not the one
    that the login named.

    A pooler names itself at the login, because a cancel must come to it and not to one server connection.
    """
    pid = driver.get_server_pid() if settings.pooler == "auto" else None
    row = await driver.fetchrow(session_sql(pid))
    return None if row is None else row["own_timeout_ms"] or 0


async def _try_transaction(driver: Any) -> int:
    """The login's own statement timeout. A pooler that assigns a server connection to each statement ends the connection here."""
    try:
        await driver.execute(begin_sql(timeout_seconds(0.0), is_shared=True))
        own_timeout_ms: int | None = await driver.fetchval(OWN_TIMEOUT)
        await driver.execute(end_sql(unlocks=False))
        return own_timeout_ms or 0
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
    is_local = address.startswith("/") or is_loopback(address)
    loop = GuardedLoop() if context is None and not is_local else None
    try:
        return await asyncpg.connect(
            host=address,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            database=settings.database,
            ssl=False if context is None else context,
            direct_tls=False,
            timeout=settings.connect_timeout_seconds,
            statement_cache_size=0,
            target_session_attrs=settings.target_session_attrs,
            connection_class=GuardedConnection,
            loop=loop,
        )
    except asyncpg.exceptions.TargetServerAttributeNotMatched:
        raise unreachable("login", _OTHER_SESSION) from None
    except errors.DRIVER_ERRORS:
        if loop is not None and loop.has_refused:
            raise unreachable("login", "clear_text_password") from None
        raise
    except Exception:  # noqa: BLE001 - the driver raises anything at a peer that breaks the protocol
        raise errors.broken_protocol() from None
