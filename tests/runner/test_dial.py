"""Dialling: every address of the gateway is tried, a name that cannot be looked up stands for what it stood for."""

from __future__ import annotations

import asyncio
import contextlib
import http
import pathlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator

import pytest
import uvloop
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from lensway.compose.websocket import WebSocketTransport
from lensway.protocol.version import SUBPROTOCOL
from lensway.runner.dial import Dialer, DialError
from lensway.runner.settings import read_settings
from lensway.testing.postgres import write_certificate


@contextlib.asynccontextmanager
async def gateway(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def wait(connection) -> None:
        await connection.wait_closed()

    server: Server = await serve(wait, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], ssl=tls)
    async with server:
        yield next(iter(server.sockets)).getsockname()[1]


def dialer(port: int, *answers: list[str] | None, scheme: str = "ws", **environment: str) -> Dialer:
    """One whose resolver gives these answers in turn; None is a failure."""
    left = iter(answers)

    async def resolve(_host: str, _port: int) -> list[str]:
        answer = next(left)
        if answer is None:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return answer

    settings = read_settings(
        {
            "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
            "LENSWAY_RUNNER_TOKEN": "rk_" + "a" * 43,
            "LENSWAY_GATEWAY_URL": f"{scheme}://localhost:{port}/connect",
        }
        | environment,
        insecure=True,
    )
    return Dialer(settings, WebSocketTransport, resolve)


def test_every_address_is_tried_and_the_last_good_ones_are_remembered() -> None:
    async def run() -> None:
        async with gateway() as port:
            # Nothing listens at the second loopback address.
            dial = dialer(port, ["127.0.0.2", "127.0.0.1"], None, ["127.0.0.1"])
            for _ in range(3):
                transport = await dial()
                await transport.close()

    asyncio.run(run())


def test_a_peer_that_accepts_and_closes_is_one_cause_however_soon_it_closes() -> None:
    async def run() -> set[tuple[str, bool]]:
        found = set()
        server = await asyncio.start_server(lambda _reader, writer: writer.transport.abort(), "127.0.0.1", 0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=close_all, args=(listener,), daemon=True).start()
            for port in (listener.getsockname()[1], server.sockets[0].getsockname()[1]):
                for _ in range(100):
                    with pytest.raises(DialError) as caught:
                        await dialer(port, ["127.0.0.1"])()
                    found.add((caught.value.cause, caught.value.is_brief))
            listener.shutdown(socket.SHUT_RDWR)
        server.close()
        await server.wait_closed()
        return found

    # The runner's own loop sees an early end sooner than that of the standard library.
    assert uvloop.run(run()) == {("closed", True)}


def close_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def test_a_name_that_was_never_looked_up_is_said_so() -> None:
    with pytest.raises(DialError) as caught:
        asyncio.run(dialer(1, None)())
    assert caught.value.cause == "dns_silent"
    assert not caught.value.is_final


@pytest.mark.parametrize("location", ["ws://127.0.0.2:1/connect", "https://login.example/", "/elsewhere"])
def test_whoever_answers_with_another_place_is_no_gateway(location: str) -> None:
    def redirect(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(http.HTTPStatus.FOUND, "")
        response.headers["Location"] = location
        return response

    async def run() -> None:
        server = await serve(lambda _connection: None, "127.0.0.1", 0, process_request=redirect)
        async with server:
            with pytest.raises(DialError) as caught:
                await dialer(next(iter(server.sockets)).getsockname()[1], ["127.0.0.1"])()
        assert (caught.value.cause, caught.value.is_final) == ("redirected", False)

    asyncio.run(run())


def test_a_token_file_that_is_being_written_is_read_again_later(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("rk_" + "a" * 43)

    async def run() -> None:
        async with gateway() as port:
            dial = dialer(port, ["127.0.0.1"], ["127.0.0.1"], ["127.0.0.1"], LENSWAY_RUNNER_TOKEN_FILE=str(token))
            token.write_text("")
            with pytest.raises(DialError) as caught:
                await dial()
            assert (caught.value.cause, caught.value.is_final) == ("token", False)
            assert "LENSWAY_RUNNER_TOKEN_FILE" in caught.value.hint
            token.write_text("rk_" + "b" * 43)
            transport = await dial()
            await transport.close()

    asyncio.run(run())


def test_a_certificate_that_nobody_vouches_for_is_refused_with_the_variable_that_helps(tmp_path: pathlib.Path) -> None:
    write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    async def run() -> None:
        async with gateway(tls) as port:
            with pytest.raises(DialError) as caught:
                await dialer(port, ["127.0.0.1"], scheme="wss")()
            assert (caught.value.cause, caught.value.is_final) == ("untrusted", False)
            assert "LENSWAY_CA_FILE" in caught.value.hint
            authority = tmp_path / "ca.crt"
            (tmp_path / "other").mkdir()
            write_certificate(tmp_path / "other")
            authority.write_bytes((tmp_path / "other" / "server.crt").read_bytes())
            dial = dialer(port, *[["127.0.0.1"]] * 3, scheme="wss", LENSWAY_CA_FILE=str(authority))
            with pytest.raises(DialError):
                await dial()
            # The file is read again, and while it is being written the last good one stays in use.
            authority.write_bytes((tmp_path / "server.crt").read_bytes())
            for _ in range(2):
                transport = await dial()
                await transport.close()
                authority.write_text("half a certif")

    asyncio.run(run())
