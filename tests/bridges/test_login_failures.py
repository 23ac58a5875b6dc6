"""Every failure of a PostgreSQL login has a class and a hint: while the server stops and starts, and for each refusal."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from lensway.bridges.kit.failures import HINTS
from lensway.errors import ErrorCode, LenswayError
from lensway.testing.postgres import PostgresCluster
from tests.bridges.asking import Asked

pytestmark = pytest.mark.acceptance


def refusal(state: str) -> bytes:
    body = f"SFATAL\0VFATAL\0C{state}\0Ma text that must not be repeated\0\0".encode()
    return b"E" + struct.pack("!I", len(body) + 4) + body


@contextlib.asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    """Answers every login with these bytes, and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            size, _code = struct.unpack("!II", await reader.readexactly(8))
            await reader.readexactly(size - 8)
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def failure_at(config: dict[str, object]) -> LenswayError:
    async with Asked("postgres", config) as asked:
        with pytest.raises(LenswayError) as error:
            await asked.tables()
        return error.value


def checked(error: LenswayError, cause: str) -> None:
    assert error.code is ErrorCode.SOURCE_UNREACHABLE
    assert error.failure.details["class"] == cause
    assert error.failure.hint == HINTS[cause]
    assert "must not be repeated" not in f"{error} {error.failure.hint} {error.failure.details}"


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("57P01", "starting_up"),
        ("57P02", "starting_up"),
        ("57P03", "starting_up"),
        ("57P04", "unknown_database"),
        ("28P01", "password"),
        ("28000", "not_permitted"),
        ("42501", "not_permitted"),
        ("55000", "not_accepting"),
        ("3D000", "unknown_database"),
        ("53300", "too_many_connections"),
        ("53400", "too_many_connections"),
        ("08P01", "protocol"),
        ("22023", "login"),
        ("XX000", "login"),
    ],
)
def test_each_refusal_of_a_login_has_a_hint(state: str, cause: str) -> None:
    async def ask() -> LenswayError:
        async with server(refusal(state)) as port:
            config = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d"}
            return await failure_at(config | {"sslmode": "disable"})

    error = asyncio.run(ask())
    checked(error, cause)
    assert error.failure.details["sqlstate"] == state


def test_a_server_that_closes_connections_while_it_stops() -> None:
    async def ask() -> LenswayError:
        async with server(b"") as port:
            config = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d"}
            return await failure_at(config | {"sslmode": "disable"})

    checked(asyncio.run(ask()), "reset")


@pytest.mark.parametrize(
    ("change", "back", "cause"),
    [
        ("ALTER DATABASE {} ALLOW_CONNECTIONS false", "ALTER DATABASE {} ALLOW_CONNECTIONS true", "not_accepting"),
        ("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", "GRANT CONNECT ON DATABASE {} TO PUBLIC", "not_permitted"),
        ("ALTER ROLE {}_reader SET search_path_of_old.x = '1'", "ALTER ROLE {}_reader RESET ALL", None),
        ("ALTER ROLE {}_reader NOLOGIN", "ALTER ROLE {}_reader LOGIN", "not_permitted"),
        ("ALTER ROLE {}_reader PASSWORD 'another'", "ALTER ROLE {}_reader PASSWORD 'one'", "password"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_of_a_real_server(postgres: PostgresCluster, change: str, back: str, cause: str | None) -> None:
    asyncio.run(_real(postgres, change.format("logins"), back.format("logins"), cause))


async def _real(postgres: PostgresCluster, change: str, back: str, cause: str | None) -> None:
    made: Callable[..., object] = postgres.create_role_and_database
    with contextlib.suppress(Exception):  # made by an earlier case
        await made("logins_reader", "one", "logins")  # type: ignore[misc]
    await postgres.execute(change)
    try:
        config = {"url": postgres.url("logins_reader", "one", "logins")}
        if cause is None:
            async with Asked("postgres", config) as asked:
                assert isinstance(await asked.tables(), list)
        else:
            checked(await failure_at(config), cause)
    finally:
        await postgres.execute(back)
