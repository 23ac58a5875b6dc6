"""A stranger who tries wrong keys for ever closes the server for nobody, on either side of a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest

from lensway import limits
from lensway.testing.deployment import Deployment
from lensway.testing.nginx import nginx_before

pytestmark = pytest.mark.acceptance

WRONG = "ak_" + "x" * 40
_DIAL = (
    "GET /connect HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer rk_{token}\r\n\r\n"
)


def asked(url: str, key: str, *, address: str = "127.0.0.1", forwarded: str = "") -> int:
    """The status of a request with this key, sent from this address of the machine."""
    transport = httpx2.HTTPTransport(local_address=address, verify=False)
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
    with httpx2.Client(transport=transport, trust_env=False, headers=headers) as client:
        return client.get(f"{url}/v1/sources").status_code


def dialled(port: int, token: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as runner:
        runner.sendall(_DIAL.format(token=token).encode())
        return int(runner.recv(4096).split()[1])


@contextlib.contextmanager
def guessing(deployment: Deployment) -> Iterator[None]:
    """Wrong keys everywhere, until all doors refuse to hear more of them, and on without an end."""
    stop, refused = threading.Event(), threading.Event()

    def guess() -> None:
        with httpx2.Client(base_url=deployment.url, trust_env=False) as stranger:
            while not stop.is_set():
                asked = stranger.get("/v1/sources", headers={"Authorization": f"Bearer {WRONG}"}).status_code
                signed_in = stranger.post("/console/login", data={"key": WRONG}).status_code
                if (asked, signed_in, dialled(deployment.gateway_port, "wrong" * 10)) == (429, 429, 429):
                    refused.set()

    thread = threading.Thread(target=guess)
    thread.start()
    try:
        assert refused.wait(20)
        yield
    finally:
        stop.set()
        thread.join()


def test_good_keys_and_tokens_open_while_a_stranger_at_the_same_address_guesses(tmp_path) -> None:
    with Deployment(tmp_path) as deployment:
        runner = deployment.create_runner("alpha")
        with guessing(deployment):
            for _ in range(5):
                assert asked(deployment.url, deployment.admin_key) == 200
            with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
                assert browser.post("/console/login", data={"key": deployment.admin_key}).status_code == 303
            deployment.start_runner(runner)


def test_behind_nginx_as_documented_only_the_stranger_is_limited(tmp_path) -> None:
    with Deployment(tmp_path, serve_options=("--trusted-proxies", "127.0.0.1/32")) as deployment:
        with nginx_before(deployment.http_port, tmp_path) as port:
            url = f"http://127.0.0.1:{port}"
            answers = [
                # What it writes itself into the header makes it no other.
                asked(url, WRONG, address="127.0.0.2", forwarded=f"198.51.100.{number}")
                for number in range(limits.FAILED_LOGINS_PER_MINUTE_MAX + 20)
            ]
            assert answers[:60] == [401] * 60
            assert answers[-1] == 429
            assert asked(url, WRONG, address="127.0.0.3") == 401, "the failures of others are not its own"
            assert asked(url, deployment.admin_key, address="127.0.0.2") == 200, "a good key is a good key"
        assert "not trusted" not in deployment.emitted()


def test_a_proxy_that_is_not_trusted_is_named_once_in_the_log(tmp_path) -> None:
    with Deployment(tmp_path) as deployment:
        with nginx_before(deployment.http_port, tmp_path) as port:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                for _ in range(3 * limits.PROXY_WARNING_REQUESTS):
                    assert client.get("/healthz").status_code == 200
        deployment.server.wait_line("--trusted-proxies")
        assert deployment.emitted().count("requests come from a proxy that is not trusted") == 1
