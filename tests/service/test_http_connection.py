"""What a request leaves behind in the process that served it."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from lensway.compose.http_connection import Connection

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


async def app(scope, receive, send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_served_request_is_gone_without_the_collector() -> None:
    """Else each request's body and answer stay until the collector finds them, which stops every other one meanwhile."""

    async def serve() -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(config, state, {}, loop), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        for _ in range(10):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()
        await asyncio.wait(state.tasks) if state.tasks else None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(serve())
        left = [each for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
        assert len(left) <= 1  # the last one is its connection's
    finally:
        gc.enable()
