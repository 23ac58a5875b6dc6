"""A request has one reading, and no answer repeats what a stranger has written as an address."""

from __future__ import annotations

import json
import socket

import httpx2
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance


def answer_to(deployment: Deployment, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", deployment.http_port), timeout=10) as caller:
        caller.sendall(head + b"Connection: close\r\n\r\n" + body)
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    return int(answer.split()[1]), answer


@pytest.mark.parametrize(
    ("header", "second"),
    [
        ("Host", "b.example"),
        ("X-Environment", "other"),
        ("Authorization", "Bearer ak_" + "x" * 40),
        ("Content-Type", "text/plain"),
        ("Content-Encoding", "gzip"),
    ],
)
def test_a_header_that_decides_comes_once(shared: Deployment, header: str, second: str) -> None:
    first = {
        "Host": "a.example",
        "X-Environment": "default",
        "Authorization": f"Bearer {shared.admin_key}",
        "Content-Type": "application/json",
        "Content-Encoding": "identity",
    }
    head = "POST /v1/query/nothing HTTP/1.1\r\nContent-Length: 2\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in first.items())
    assert answer_to(shared, head.encode(), b"{}")[0] == 404, "each of them once"
    status, answer = answer_to(shared, f"{head}{header.lower()}: {second}\r\n".encode(), b"{}")
    assert status == 400
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert (error["code"], header in error["message"]) == ("invalid_request", True)


def test_headers_that_may_repeat_are_taken(shared: Deployment) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAccept: text/plain\r\nCookie: a=b\r\nCookie: c=d\r\n"
    assert answer_to(shared, head)[0] == 200


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked", "chunked;q=1"])
def test_a_body_has_no_other_transfer_encoding_than_chunked(shared: Deployment, coding: str) -> None:
    head = f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {shared.admin_key}\r\nTransfer-Encoding: {coding}\r\n"
    assert answer_to(shared, head.encode(), b"2\r\n{}\r\n0\r\n\r\n")[0] == 400


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/console", "/console/"),
        ("/console/", "/console/login?next=%2Fconsole%2F"),
        ("/console/login/", "/console/login"),
        ("/console/e/default/runners/", "/console/e/default/runners"),
        ("/console/%2f%2fevil.example/", "/console/evil.example"),
        ("/console//evil.example//", "/console/evil.example"),
    ],
)
def test_the_console_redirects_to_its_own_paths_whatever_the_host(shared: Deployment, path: str, target: str) -> None:
    answer = httpx2.get(
        f"{shared.url}{path}", headers={"Host": "evil.example"}, trust_env=False, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, target)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "evil.example" not in answer.headers["Location"].partition("//")[2]
