"""Ways that work: IPv6, paths with a prefix and a slash, certificates by SSL_CERT_FILE, and renewed CA files."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import serve

import lensway
from lensway.client import exceptions
from lensway.compose.websocket import WebSocketTransport
from lensway.protocol.version import SUBPROTOCOL
from lensway.runner.dial import Dialer
from lensway.runner.settings import read_settings
from lensway.testing.broken_ways import peer
from lensway.testing.certificates import Authority, server_context
from lensway.ways.causes import retry_after_seconds

pytestmark = pytest.mark.outside
COUNT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: r\r\nConnection: close\r\n"
    b'Content-Length: 11\r\n\r\n{"count":7}'
)


@contextlib.asynccontextmanager
async def gateway(host: str, paths: list[str], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def wait(connection) -> None:
        paths.append(connection.request.path)
        await connection.wait_closed()

    async with serve(wait, host, 0, subprotocols=[SUBPROTOCOL], ssl=tls) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def dial(url: str, **environment: str) -> None:
    settings = read_settings(
        {
            "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
            "LENSWAY_RUNNER_TOKEN": "rk_" + "a" * 43,
            "LENSWAY_GATEWAY_URL": url,
            **{name: value for name, value in environment.items() if name.startswith("LENSWAY_")},
        }
    )
    transport = await Dialer(settings, WebSocketTransport, environment=environment)()
    await transport.close()


@pytest.mark.parametrize(
    ("host", "shown", "path"),
    [
        ("::1", "[::1]", "/connect"),
        ("127.0.0.1", "127.0.0.1", "/connect/"),
        ("127.0.0.1", "localhost", "/lensway/connect"),
        ("127.0.0.1", "localhost", "/a/b/connect/"),
    ],
)
def test_addresses_and_paths_lead_to_the_gateway(host: str, shown: str, path: str) -> None:
    async def run() -> list[str]:
        paths: list[str] = []
        async with gateway(host, paths) as port:
            await dial(f"ws://{shown}:{port}{path}")
        return paths

    assert asyncio.run(run()) == [path]


def answers(connection: socket.socket) -> None:
    while b"\r\n\r\n" not in connection.recv(65536):
        pass
    connection.sendall(COUNT)


def test_ssl_cert_file_is_trusted_by_runner_and_client(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    tls = server_context(*authority.issue("localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    async def run() -> None:
        async with gateway("127.0.0.1", [], tls) as port:
            await dial(f"wss://localhost:{port}/connect", SSL_CERT_FILE=str(authority.file))

    asyncio.run(run())
    with peer(answers, tls=tls) as port, lensway.connect(f"https://localhost:{port}", "sk_x") as client:
        assert client.count("orders") == 7


def test_a_client_reads_a_renewed_ca_file_and_repeats(tmp_path: pathlib.Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    file = tmp_path / "ca.pem"
    file.write_bytes(first.file.read_bytes())
    with peer(answers, tls=server_context(*second.issue("localhost"))) as port:
        with lensway.connect(f"https://localhost:{port}", "sk_x", ca_file=str(file)) as client:
            with pytest.raises(exceptions.UnreachableError) as caught:
                client.count("orders")
            assert caught.value.details["cause"] == "untrusted"
            file.write_bytes(second.file.read_bytes())
            assert client.count("orders") == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("Sat, 28 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
    assert retry_after_seconds(text, now) == seconds
