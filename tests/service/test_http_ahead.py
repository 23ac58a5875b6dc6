"""Requests that a caller sends before it has the answer to the one before: few wait, all are answered, in their order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from lensway import limits
from lensway.service.connection import Connection
from lensway.service.wire import WIRE

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nA: b\r\n\r\n"
UPGRADE = b"GET /%d HTTP/1.1\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


async def echoes(scope, receive, send) -> None:
    """Answers with the path, behind the whole body."""
    while (await receive()).get("more_body"):
        pass
    path = scope["raw_path"]
    await scope[WIRE].answer(200, [(b"content-length", b"%d" % len(path))], path)


async def refuses(scope, receive, send) -> None:
    """Answers without a look at the body, as to a caller without a key."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def connected(app) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    config.load()
    state, loop, made = ServerState(), asyncio.get_running_loop(), Connection.stalling_after(60)
    server = await loop.create_server(lambda: made(config, state, {}, loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    server.close()
    await asyncio.wait(state.tasks) if state.tasks else None


def answers(app, *parts: bytes) -> bytes:
    """All that comes back when this is sent, up to the end of the connection."""

    async def serve() -> bytes:
        async with connected(app) as (reader, writer):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(), 20)

    return asyncio.run(serve())


def paths(answered: bytes) -> list[bytes]:
    return [part.partition(b"\r\n\r\n")[2] for part in answered.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("request_bytes", [GET, POST, CHUNKED, UPGRADE], ids=["get", "post", "chunked", "upgrade"])
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_every_request_sent_ahead_is_answered_in_its_order(request_bytes: bytes, size: int) -> None:
    count = 20 if size < 100 else 2_000
    data = b"".join(request_bytes % number for number in range(count)) + LAST
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    assert paths(answers(echoes, *parts)) == [*(b"/%d" % number for number in range(count)), b"/last"]


def test_bodies_that_look_like_heads_are_bodies() -> None:
    body = b"\r\n\r\n" * 50_000
    request = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
    data = b"".join(request % (number, len(body), body) for number in range(3)) + LAST
    assert paths(answers(echoes, data)) == [b"/0", b"/1", b"/2", b"/last"]
    assert answers(refuses, data).count(b"HTTP/1.1 401") == 4


def requests_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects())


def test_few_requests_are_parsed_while_one_is_at_work() -> None:
    before = requests_in_memory()

    async def serve() -> tuple[int, int]:
        at_work, go_on = asyncio.Event(), asyncio.Event()
        wires = []

        async def waits(scope, receive, send) -> None:
            wires.append(scope[WIRE])
            at_work.set()
            await go_on.wait()
            await echoes(scope, receive, send)

        async with connected(waits) as (reader, writer):
            writer.write(GET % 0)
            await at_work.wait()
            writer.write(GET % 1 * 50_000)
            while not wires[0]._connection.flow.read_paused:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            made = requests_in_memory() - before
            held = len(wires[0]._connection._ahead)
            go_on.set()
            await reader.readuntil(b"/1")
            return made, held

    made, held = asyncio.run(serve())
    assert made <= 2
    assert 0 < held <= limits.HTTP_READ_BYTES_MAX


@pytest.mark.parametrize("rubbish", [b"rubbish\r\n\r\n", b"rubbish", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"])
@pytest.mark.parametrize("good", [GET, POST, CHUNKED], ids=["get", "post", "chunked"])
def test_rubbish_is_refused_behind_the_answer_to_the_good_request(good: bytes, rubbish: bytes) -> None:
    answered = answers(echoes, good % 7 + rubbish)
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.index(b"/7") < answered.index(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_body_that_breaks_is_refused_at_once() -> None:
    broken = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nrubbish\r\n"
    assert answers(echoes, broken).startswith(b"HTTP/1.1 400 Bad Request\r\n")


EXPECTING = b"POST /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


def test_an_answer_instead_of_the_expected_100_closes_the_connection() -> None:
    """The caller may send the body or not, so that nobody could tell where the next request begins."""
    answered = answers(refuses, EXPECTING)
    assert answered.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nconnection: close\r\n" in answered


def test_a_body_that_was_asked_for_keeps_the_connection() -> None:
    async def serve() -> bytes:
        async with connected(echoes) as (reader, writer):
            writer.write(EXPECTING)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"{}" + GET % 2)
            await reader.readuntil(b"/1")
            return await reader.readuntil(b"/2")

    assert b"close" not in asyncio.run(serve())
    assert answers(refuses, EXPECTING + b"{}" + LAST).count(b"HTTP/1.1 401") == 2, "a body that came all the same"


@pytest.mark.parametrize("more", [0, 1])
def test_the_number_of_headers_is_bounded(more: int) -> None:
    head = b"GET /many HTTP/1.1\r\nConnection: close\r\n" + b"a:b\r\n" * (limits.HTTP_HEADERS_MAX - 1 + more) + b"\r\n"
    assert answers(echoes, head).startswith(b"HTTP/1.1 413 " if more else b"HTTP/1.1 200 ")
