"""Connections of callers that do not behave: bounded, and answered in the one shape of errors where that is possible."""

from __future__ import annotations

import json
import socket

import psutil
import pytest

from lensway.limits import HTTP_HEAD_BYTES_MAX, MIB
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


def test_a_head_of_the_size_that_is_allowed_is_read(site) -> None:
    answer = exchange(
        site.deployment.http_port,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: ",
        b"x" * (HTTP_HEAD_BYTES_MAX // 2),
        b"\r\n\r\n",
    )
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
