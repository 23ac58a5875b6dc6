"""Connections of callers that do not behave: bounded, and answered in the one shape of errors where that is possible."""

from __future__ import annotations

import contextlib
import json
import pathlib
import resource
import socket
from collections.abc import Iterator

import psutil
import pytest

from lensway.limits import HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, MIB
from lensway.testing.deployment import Deployment, wait_until
from lensway.testing.http_caller import Answer, judged

pytestmark = pytest.mark.acceptance


def exchange(port: int, *parts: bytes) -> Answer:
    """What the server answers to these bytes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        try:
            for part in parts:
                caller.sendall(part)
            while part := caller.recv(65536):
                received += part
        except ConnectionError:
            pass
    return judged(received)


def test_what_is_not_http_is_refused_in_the_shape_of_errors(site) -> None:
    answer = exchange(site.deployment.http_port, b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_request")
    assert answer.headers["x-request-id"] == json.loads(answer.body)["error"]["requestId"]


@pytest.mark.parametrize("shape", ["one endless header", "headers without end", "an endless path"])
def test_a_request_whose_head_has_no_end_is_refused_and_costs_no_memory(site, shape: str) -> None:
    process = psutil.Process(site.deployment.server.pid)
    before = process.memory_info().rss
    block = {
        "one endless header": b"x" * 65536,
        "headers without end": b"a: b\r\n" * 11000,
        "an endless path": b"x" * 65536,
    }[shape]
    start = b"GET /" if shape == "an endless path" else b"GET / HTTP/1.1\r\nHost: x\r\n"
    if shape == "one endless header":
        start += b"X-Long: "
    answer = exchange(site.deployment.http_port, start, *([block] * 1000))
    # What is still on its way when the server closes may reset the connection before the answer is read.
    assert answer.status in (0, 400, 413)
    assert process.memory_info().rss - before < 16 * MIB
    assert site.client.get("/healthz").status_code == 200


@pytest.fixture
def few_files() -> Iterator[None]:
    """Programs that are started now may open 1,024 files, unless they ask for more; this process as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_caller_too_many_is_told_so(tmp_path: pathlib.Path, few_files: None) -> None:
    # Those of a proxy are no strangers, of which an address has a smaller share.
    proxy = ("--trusted-proxies", "127.0.0.1/32")
    with Deployment(tmp_path, serve_options=proxy) as deployment, contextlib.ExitStack() as stack:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(HTTP_CONNECTIONS_MAX):
            stack.enter_context(socket.create_connection(("127.0.0.1", deployment.http_port), timeout=20))
        answer = exchange(deployment.http_port)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
        stack.close()
        wait_until(lambda: exchange_health(deployment.http_port) == 200, seconds=10, what="room again")


def exchange_health(port: int) -> int:
    return exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status


def test_a_head_of_the_size_that_is_allowed_is_read(site) -> None:
    answer = exchange(
        site.deployment.http_port,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: ",
        b"x" * (HTTP_HEAD_BYTES_MAX // 2),
        b"\r\n\r\n",
    )
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
