"""Servers that die, cut and lie: what reaches the caller, on both clients."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

import lensway
from lensway.client import core_operations, exceptions
from lensway.testing.deployment import Deployment, wait_until

pytestmark = pytest.mark.acceptance

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\nX-Request-Id: req_1\r\n\r\n"
COUNT = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"count":7}'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\nContent-Length: 68\r\n\r\n"
    b'{"error":{"code":"overloaded","message":"all busy","requestId":"r"}}'
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextlib.contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each connection with the next of these bytes and hangs up: its URL, and what it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    request = connection.recv(65536)
                    while request[:1] == b"\x16":
                        # A second look at a port whose first answer made no sense: does it speak TLS?
                        connection.close()
                        connection, _ = listener.accept()
                        request = connection.recv(65536)
                    with connection:
                        heard.append(request)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("ndjson", chunk(b'{"id":1}\n')),
        ("ndjson", chunk(b'{"id":1}\n') + b"0\r\n\r\n"),
        ("ndjson", chunk(b'{"id":1}\n{"$end":{"rows":2}}\n') + b"0\r\n\r\n"),
        ("csv", chunk(b"id\r\n1\r\n")),
        ("csv", b"ffff\r\nid\r\n1\r\n"),
        ("arrow", chunk(b"\xff\xff\xff\xff") + b"0\r\n\r\n"),
        ("parquet", chunk(b"PAR1")),
    ],
)
def test_a_cut_stream_is_an_error_and_never_a_file(face, tmp_path: pathlib.Path, format: str, body: bytes) -> None:
    head = CHUNKED % {"ndjson": b"application/x-ndjson", "csv": b"text/csv"}.get(
        format, b"application/vnd.apache." + {"arrow": b"arrow.stream"}.get(format, format.encode())
    )
    with scripted(head + body) as (url, _), face.at(url) as client:
        with client.export("l", format=format) as stream, pytest.raises(exceptions.IncompleteStreamError) as caught:
            stream.save(tmp_path / "rows")
    assert (caught.value.request_id, list(tmp_path.iterdir())) == ("req_1", [])
    assert "safe to repeat" in caught.value.hint


def whole_answer(server: Deployment, media: str) -> bytes:
    """Every byte that the server sends for an export, head and trailers included."""
    body = b'{"where":{"id":{"$lte":40}}}'
    head = (
        f"POST /v1/query/orders/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin_key}\r\n"
        f"Accept: {media}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        connection.sendall(head.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("format", ["ndjson", "csv", "arrow", "parquet"])
def test_the_servers_answer_cut_at_any_byte_is_an_error(face, server, format: str) -> None:
    whole = whole_answer(server, core_operations.ACCEPT[format])
    # All over head and body, and each of the last: chunk, end of chunks, trailers.
    ends = sorted({*range(0, len(whole), 11), *range(len(whole) - 80, len(whole))})
    with scripted(*(whole[:end] for end in ends), whole) as (url, heard), face.at(url, repeats=False) as client:
        for end in ends:
            with pytest.raises((exceptions.IncompleteStreamError, exceptions.UnreachableError)):
                with client.export("orders", format=format) as stream:
                    stream.read()
                raise AssertionError(f"cut at {end} of {len(whole)} and not noticed")
        with client.export("orders", format=format) as stream:
            assert len(stream.read()) > 500
            assert stream.rows_received in (40, None)
    assert len(heard) == len(ends) + 1


def test_what_cannot_be_written_leaves_nothing_behind(client, tmp_path: pathlib.Path) -> None:
    with client.export("orders") as stream, pytest.raises(OSError, match="No such file"):
        stream.save(tmp_path / "nowhere" / "rows.ndjson")

    def stop(written: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), client.export("orders") as stream:
        stream.save(tmp_path / "rows.ndjson", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_reads_are_repeated_through_cuts_and_refusals(face) -> None:
    half = COUNT[:-5]
    with scripted(b"", half, BUSY, COUNT) as (url, heard), face.at(url) as client:
        assert client.count("l") == 7
    assert len(heard) == 4
    with scripted(BUSY) as (url, heard), face.at(url, repeats=False) as client:
        with pytest.raises(exceptions.OverloadedError) as caught:
            client.count("l")
    assert (caught.value.retry_after_seconds, len(heard)) == (1, 1)
    with scripted(half) as (url, heard), face.at(url) as client, pytest.raises(exceptions.UnreachableError):
        client.call("POST", "/v1/keys", {"kind": "sk", "name": "a change is not repeated"})
    assert len(heard) == 1


def test_the_key_goes_nowhere_but_to_the_server(face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with scripted(moved) as (url, heard), face.at(url, "sk_secret") as client:
        with pytest.raises(exceptions.UnreachableError) as caught:
            client.count("l")
    assert b"Bearer sk_secret" in heard[0]
    assert "sk_secret" not in repr(client.it) + str(caught.value) + str(caught.value.details)


def test_nobody_there_and_no_answer(face) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with face.at(f"http://127.0.0.1:{port}", timeout=0.2) as client:
            with pytest.raises(exceptions.QueryTimeoutError):
                client.count("l")
    with face.at(f"http://127.0.0.1:{port}", repeats=False) as client:
        with pytest.raises(exceptions.UnreachableError, match="No program listens"):
            client.count("l")


def test_a_call_outlasts_a_restart_of_the_server(tmp_path: pathlib.Path, declare) -> None:
    with Deployment(tmp_path) as deployment:
        declare(deployment)
        with lensway.connect(deployment.url, deployment.admin_key) as client:
            assert client.count("orders") == 5000
            deployment.server.kill()
            answers: list[int] = []
            asking = threading.Thread(target=lambda: answers.append(client.count("orders")))
            asking.start()
            deployment.start_server()
            asking.join(60)
            assert answers == [5000]


def test_a_runner_killed_in_mid_stream_is_an_error_and_not_an_end(
    client, server, tmp_path: pathlib.Path, request
) -> None:
    name = f"mortal-{request.node.callspec.params['face']}"
    runner = server.start_runner(server.create_runner(name))
    server.assign(name, "shop")
    try:
        with (
            client.export("big") as stream,
            client.export("big", format="csv") as csv,
            client.export("big", format="arrow") as arrow,
        ):
            rows, lines = stream.rows(), csv.chunks()
            assert next(rows)["id"] == 1
            assert next(lines).startswith(b"id,")
            assert (stream.route.via, stream.route.runner) == ("runner", name)
            os.kill(runner.pid, signal.SIGKILL)
            with pytest.raises(exceptions.IncompleteStreamError):
                for _ in rows:
                    pass
            with pytest.raises(exceptions.IncompleteStreamError):
                for _ in lines:
                    pass
            with pytest.raises(exceptions.IncompleteStreamError):
                arrow.save(tmp_path / "big.arrow")
        assert list(tmp_path.iterdir()) == []
        runner.wait()
    finally:
        server.unassign(name, "shop")
    wait_until(lambda: client.count("orders") == 5000, seconds=5, what="the next query")
