"""Streams of events have shares, so that one key takes them from nobody else."""

from __future__ import annotations

import contextlib
import functools
import socket

import httpx2
import pytest

from lensway import limits
from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance


def opened(stack: contextlib.ExitStack, port: int, key: str, path: str = "/v1/events", header: str = "") -> int:
    """The status of a stream that stays open with the stack."""
    caller = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
    caller.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{header}\r\n".encode())
    return int(caller.recv(65536).split()[1])


def test_a_viewer_with_hundreds_of_streams_takes_none_from_others(tmp_path) -> None:
    with Deployment(tmp_path) as deployment, contextlib.ExitStack() as streams:
        admin, port = deployment.client(), deployment.http_port
        assert admin.post("/v1/environments", json={"name": "other"}).status_code == 201
        there = deployment.client(environment="other")

        def viewer(name: str) -> str:
            return there.post("/v1/keys", json={"kind": "ak", "name": name, "role": "viewer"}).json()["key"]

        first, second, third = viewer("a"), viewer("b"), viewer("c")
        share = limits.EVENT_SUBSCRIBERS_PER_KEY_MAX
        with contextlib.ExitStack() as hostile:
            answers = [opened(hostile, port, first) for _ in range(share + 50)]
            assert answers == [200] * share + [503] * 50
            assert opened(streams, port, second) == 200, "another key of the same environment"
            answers = [opened(hostile, port, second) for _ in range(share)]
            assert answers == [200] * (share - 1) + [503]
            assert opened(streams, port, third) == 503, "the environment's share is taken"
            assert opened(streams, port, deployment.admin_key) == 200, "other environments have theirs"

            with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
                assert browser.post("/console/login", data={"key": first}).status_code == 303
                cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            stream = "/console/e/other/runners/stream"
            answer = opened(streams, port, "", stream, f"Cookie: {cookie}\r\n")
            assert answer == 503, "the Console says so too"
        assert "Traceback" not in deployment.emitted()


def test_a_key_with_hundreds_of_open_pages_takes_none_from_others(tmp_path) -> None:
    with Deployment(tmp_path) as deployment, contextlib.ExitStack() as pages:
        admin, port = deployment.client(), deployment.http_port

        @functools.cache
        def cookie_of(key: str) -> str:
            with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
                assert browser.post("/console/login", data={"key": key}).status_code == 303
                return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

        def page_of(key: str) -> int:
            caller = pages.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            path = "/console/e/default/runners/stream"
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie_of(key)}\r\n\r\n".encode())
            answer = caller.recv(65536)
            while answer.startswith(b"HTTP/1.1 200") and b"retry: " not in answer:
                answer += caller.recv(65536)
            return int(answer.split()[1])

        first, second = (
            admin.post("/v1/keys", json={"kind": "ak", "name": name, "role": "viewer"}).json()["key"] for name in "ab"
        )
        share = limits.CONSOLE_STREAMS_PER_KEY_MAX
        assert [page_of(first) for _ in range(share + 20)] == [200] * share + [503] * 20
        assert page_of(second) == 200
        assert opened(pages, port, first) == 200, "pages that show the same list are one watch"
        assert "Traceback" not in deployment.emitted()
