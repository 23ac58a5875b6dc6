"""What a connection does with the answer to a request, and what that leaves behind in the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from lensway.compose.http_connection import Connection
from lensway.service.wire import WIRE

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


async def in_parts(scope, receive, send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def at_once(scope, receive, send) -> None:
    await receive()
    await scope[WIRE].answer(200, [(b"content-length", b"2")], b"ok")


@contextlib.asynccontextmanager
async def connected(app) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, state, {}, loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    server.close()
    await asyncio.wait(state.tasks) if state.tasks else None


@pytest.mark.parametrize("app", [in_parts, at_once])
def test_a_served_request_is_gone_without_the_collector(app) -> None:
    """Else each request's body and answer stay until the collector finds them, which stops every other one meanwhile."""

    async def serve() -> None:
        async with connected(app) as (reader, writer):
            for _ in range(10):
                writer.write(REQUEST)
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")

    gc.collect()
    gc.disable()
    try:
        asyncio.run(serve())
        left = [each for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
        assert len(left) <= 1  # the last one is its connection's
    finally:
        gc.enable()


def test_an_answer_at_once_is_the_answer_in_parts() -> None:
    """To a request that is followed by others, and to one whose caller wants the connection closed behind it."""

    async def answers_of(app) -> bytes:
        async with connected(app) as (reader, writer):
            writer.write(REQUEST * 2 + REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
            return await reader.read()

    answers = asyncio.run(answers_of(at_once))
    assert answers == asyncio.run(answers_of(in_parts))
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.endswith(b"connection: close\r\n\r\nok")
