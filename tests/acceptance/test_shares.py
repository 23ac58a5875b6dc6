"""Strangers who hold connections open leave room for others on both listeners, with and without TLS."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lensway import limits
from lensway.protocol.version import SUBPROTOCOL
from lensway.testing.deployment import Deployment, RunnerIdentity, wait_until
from lensway.testing.http_caller import can_connect

pytestmark = pytest.mark.acceptance

CROWD = "127.0.0.2"
SLOW = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "


@contextlib.contextmanager
def crowd(port: int, count: int, sends: bytes = b"", address: str = CROWD) -> Iterator[list[socket.socket]]:
    """So many connections from one address that send no more than this."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
            )
            with contextlib.suppress(OSError):
                one.sendall(sends)
            made.append(one)
        yield made


def health(port: int, address: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0)) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = caller.recv(4096)
        return int(answer.split()[1]) if answer else 0


def test_thousands_of_slow_requests_leave_room_for_everybody(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        port = deployment.http_port
        transport = httpx2.HTTPTransport(local_address=CROWD, verify=False)
        with httpx2.Client(base_url=deployment.url, transport=transport, trust_env=False) as known:
            good = {"Authorization": f"Bearer {deployment.admin_key}"}
            assert known.get("/v1/sources", headers=good).status_code == 200
            with crowd(port, 2 * limits.HTTP_STRANGERS_PER_ADDRESS_MAX, SLOW):
                assert health(port, "127.0.0.1") == 200
                wait_until(lambda: health(port, CROWD) == 200, seconds=5, what="room at the crowded address too")
                before = known.get("/v1/sources", headers=good)
                assert before.status_code == 200, "a connection that has shown a good key is kept"
        deployment.server.wait_line("connections refused")
        (line,) = [each for each in deployment.emitted().splitlines() if "connections refused" in each]
        counted = json.loads(line)
        assert counted["listener"] == "http"
        assert counted.get("evicted", 0) + counted.get("refused", 0) > 100


def test_half_open_links_and_wrong_tokens_do_not_keep_runners_out(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        alpha, beta = deployment.create_runner("alpha"), deployment.create_runner("beta")
        with crowd(deployment.gateway_port, limits.HANDSHAKES_PENDING_MAX + 100):
            deployment.start_runner(alpha)
        silent, refused = silent_links(deployment, beta, 100)
        with contextlib.closing(silent):
            assert refused.status_code == 503
            deployment.start_runner(deployment.create_runner("gamma"))
        deployment.start_runner(beta)
        deployment.server.wait_line("connections refused")


def silent_links(deployment: Deployment, runner: RunnerIdentity, count: int):
    """Links of a runner that say no hello, as many as it gets; and the refusal of the next one."""
    links = contextlib.ExitStack()
    for _ in range(count):
        try:
            links.enter_context(
                connect(
                    deployment.gateway_url,
                    additional_headers={"Authorization": f"Bearer {runner.token}"},
                    subprotocols=[SUBPROTOCOL],
                    compression=None,
                    close_timeout=0.1,
                )
            )
        except InvalidStatus as refused:
            return links, refused.response
    raise AssertionError(f"{count} links without hello were taken")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    directory = tmp_path_factory.mktemp("certificate")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {cert} -days 2"
            " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
        ).split(),
        check=True,
        capture_output=True,
    )
    return cert, key


class SecureDeployment(Deployment):
    """With TLS on both listeners."""

    def __init__(self, directory: pathlib.Path, certificate: tuple[pathlib.Path, pathlib.Path]) -> None:
        cert, key = map(str, certificate)
        super().__init__(directory, serve_options=("--tls-cert", cert, "--tls-key", key))
        self.context = ssl.create_default_context(cafile=cert)

    def wait_ready(self) -> None:
        assert self.server is not None
        self.server.wait_line("Lensway serves")
        wait_until(lambda: can_connect(self.http_port), seconds=10, what="the listener")

    def secure_client(self, key: str) -> httpx2.Client:
        return httpx2.Client(
            base_url=f"https://127.0.0.1:{self.http_port}",
            headers={"Authorization": f"Bearer {key}"},
            verify=self.context,
            trust_env=False,
            timeout=20,
        )


def test_half_open_tls_ends_in_seconds_and_keeps_nobody_out(tmp_path: pathlib.Path, certificate) -> None:
    with (
        SecureDeployment(tmp_path, certificate) as deployment,
        deployment.secure_client(deployment.admin_key) as client,
    ):
        ports = (deployment.http_port, deployment.gateway_port)
        started = time.monotonic()
        with crowd(ports[0], 1_100) as callers, crowd(ports[1], 1_100, b"\x16\x03\x01") as runners:
            made = client.post("/v1/runners", json={"name": "alpha"})
            assert made.status_code == 201, made.text
            deployment.secrets["token"] = made.json()["token"]
            identity = RunnerIdentity(name="alpha", id=made.json()["id"], token=made.json()["token"])
            deployment.start_runner(
                identity,
                gateway_url=f"wss://127.0.0.1:{ports[1]}/connect",
                environment={"LENSWAY_CA_FILE": str(certificate[0])},
            )
            for one in (callers[0], callers[-1], runners[0], runners[-1]):
                one.settimeout(10)
                with contextlib.suppress(ConnectionError):
                    assert one.recv(100) == b"", "the server ends it"
            assert time.monotonic() - started < 4 * limits.HANDSHAKE_TIMEOUT_SECONDS
        assert client.post("/v1/keys", json={"kind": "sk", "name": "x" * 900_000}).status_code == 400, "a large body"
        assert "Traceback" not in deployment.emitted()


def test_bytes_that_come_with_the_end_of_the_handshake_are_read(tmp_path: pathlib.Path, certificate) -> None:
    """A client may send its first request in one packet with its last bytes of the handshake."""
    with SecureDeployment(tmp_path, certificate) as deployment:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = deployment.context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with socket.create_connection(("127.0.0.1", deployment.http_port), timeout=20) as caller:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            caller.sendall(outgoing.read())
            while True:
                incoming.write(caller.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    break
            tls.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            caller.sendall(outgoing.read())
            received = b""
            while received.count(b'{"status":"ok"}') < 2:
                incoming.write(caller.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    while True:
                        received += tls.read(65536)
        assert deployment.server.stop() == 0
