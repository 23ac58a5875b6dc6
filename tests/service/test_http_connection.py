"""What a connection does with the answer to a request, and what that leaves behind in the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from lensway import limits
from lensway.service.connection import Connection
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
async def connected(app, **options) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **options)
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


async def not_read_any_more(wire) -> None:
    """Until the server reads this connection no further, since the caller has sent enough."""
    while not wire._connection.flow.read_paused:
        await asyncio.sleep(0)


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


def test_a_caller_that_goes_away_is_noticed_at_once_also_behind_requests_that_wait_their_turn() -> None:
    gone: list[str] = []

    async def serve(requests: bytes) -> None:
        is_waiting, is_gone = asyncio.Event(), asyncio.Event()

        async def waits(scope, receive, send) -> None:
            await receive()
            scope[WIRE].when_gone(lambda: (gone.append("told"), is_gone.set()))
            is_waiting.set()
            await is_gone.wait()
            scope[WIRE].when_gone(lambda: gone.append("told again"))  # it is gone by now
            scope[WIRE].when_gone(None)

        async with connected(waits) as (_, writer):
            writer.write(requests)
            await is_waiting.wait()
            writer.transport.abort()
            async with asyncio.timeout(5):
                await is_gone.wait()

    for requests in (REQUEST, REQUEST * 3):
        asyncio.run(serve(requests))
        assert gone == ["told", "told again"]
        gone.clear()


def test_who_does_not_ask_to_be_told_of_its_caller_any_more_is_not() -> None:
    gone: list[str] = []

    async def answers(scope, receive, send) -> None:
        scope[WIRE].when_gone(lambda: gone.append("told"))
        scope[WIRE].when_gone(None)
        await at_once(scope, receive, send)

    async def serve() -> None:
        async with connected(answers) as (reader, writer):
            writer.write(REQUEST)
            await reader.readuntil(b"ok")

    asyncio.run(serve())
    assert not gone


def test_a_body_is_taken_at_once_when_all_of_it_is_there_and_once() -> None:
    bodies: list[bytes | None] = []

    async def takes(scope, receive, send) -> None:
        wire = scope[WIRE]
        body = wire.take_body()
        bodies.append(body)
        if body is None:
            is_more = True
            while is_more:
                message = await receive()
                is_more = message["more_body"]
                bodies.append(message["body"])
        bodies.append(wire.take_body())
        await wire.answer(200, [(b"content-length", b"2")], b"ok")

    async def serve() -> None:
        async with connected(takes) as (reader, writer):
            writer.write(REQUEST)
            await reader.readuntil(b"ok")
            assert bodies == [b"{}", None]
            bodies.clear()
            writer.write(REQUEST[:-1])
            while bodies != [None, b"{"]:
                await asyncio.sleep(0)
            writer.write(REQUEST[-1:])
            await reader.readuntil(b"ok")

    asyncio.run(serve())
    assert bodies == [None, b"{", b"}", None]


def test_a_connection_that_asks_nothing_more_is_closed_and_one_that_waits_for_its_answer_is_not() -> None:
    async def serve() -> tuple[float, float]:
        loop = asyncio.get_running_loop()

        async def slow(scope, receive, send) -> None:
            await asyncio.sleep(0.6)
            await at_once(scope, receive, send)

        async with connected(slow, timeout_keep_alive=0.2) as (reader, writer):
            asked = loop.time()
            writer.write(REQUEST)
            await reader.readuntil(b"ok")
            answered = loop.time()
            assert await reader.read() == b""
            return answered - asked, loop.time() - answered

    waited, idle = asyncio.run(serve())
    assert waited >= 0.6
    assert 0.15 <= idle < 5


@pytest.mark.parametrize(
    ("more", "is_reset"),
    [(REQUEST, True), (REQUEST, False), (REQUEST.replace(b": 2", b": 200000")[:-2] + b"x" * 100_000, True)],
    ids=["reset", "closed", "in the middle of a large body"],
)
def test_a_caller_that_sent_its_next_request_and_went_is_noticed_too(more: bytes, is_reset: bool) -> None:
    """uvicorn reads on only when the first one is answered, and then nobody would hear of it (I7)."""

    async def serve() -> None:
        is_waiting, is_gone = asyncio.Event(), asyncio.Event()

        wires = []

        async def waits(scope, receive, send) -> None:
            wires.append(scope[WIRE])
            scope[WIRE].when_gone(is_gone.set)
            is_waiting.set()
            await is_gone.wait()

        async with connected(waits) as (_, writer):
            writer.write(REQUEST)
            await is_waiting.wait()
            writer.write(more)
            await not_read_any_more(wires[0])
            if is_reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
            async with asyncio.timeout(5):
                await is_gone.wait()

    asyncio.run(serve())


def test_what_is_sent_to_a_caller_that_is_gone_is_no_error(caplog) -> None:
    async def serve() -> None:
        is_waiting, is_gone, is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def answers_late(scope, receive, send) -> None:
            scope[WIRE].when_gone(is_gone.set)
            is_waiting.set()
            await is_gone.wait()
            try:
                assert scope[WIRE].is_gone
                await in_parts(scope, receive, send)
            finally:
                is_over.set()

        async with connected(answers_late) as (_, writer):
            writer.write(REQUEST * 2)
            await is_waiting.wait()
            writer.transport.abort()
            async with asyncio.timeout(5):
                await is_over.wait()

    asyncio.run(serve())
    assert not caplog.records


def test_trailers_are_no_headers_and_have_an_end() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def notes(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append(scope["headers"])
        await scope[WIRE].answer(200, [(b"content-length", b"2")], b"ok")

    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    trailer = b"Authorization: Bearer sk_somebody\r\n"

    async def serve() -> int:
        async with connected(notes) as (reader, writer):
            writer.write(head + trailer + b"\r\n" + REQUEST)
            await reader.readuntil(b"ok")
            await reader.readuntil(b"ok")
            writer.write(head)
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 400 * limits.HTTP_HEAD_BYTES_MAX:
                    writer.write(trailer * 100)
                    await writer.drain()
                    sent += 100 * len(trailer)
            return sent

    sent = asyncio.run(serve())
    assert [name for name, _ in seen[0]] == [b"host", b"transfer-encoding"]
    assert [name for name, _ in seen[1]] == [b"host", b"content-length"]
    assert sent < 400 * limits.HTTP_HEAD_BYTES_MAX, "the connection was cut"


def test_a_request_that_waits_for_its_turn_is_not_late(monkeypatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_SECONDS_MAX", 0.2)

    wires = []

    async def slow(scope, receive, send) -> None:
        wires.append(scope[WIRE])
        await asyncio.sleep(0.7)
        await at_once(scope, receive, send)

    async def serve() -> None:
        async with connected(slow) as (reader, writer):
            writer.write(REQUEST)
            while not wires:
                await asyncio.sleep(0)
            writer.write(REQUEST[:-2])
            await not_read_any_more(wires[0])
            writer.write(REQUEST[-2:])
            async with asyncio.timeout(10):
                await reader.readuntil(b"ok")
                await reader.readuntil(b"ok")

    asyncio.run(serve())
