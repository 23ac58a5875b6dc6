"""Every fault of the proxy does what its name says, to connections that are open and to new ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lensway.testing.chaos.proxy import ChaosProxy, Faults, Way
from lensway.testing.deployment import wait_until


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            while data := near.recv(65536):
                near.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[ChaosProxy]:
    with ChaosProxy(("127.0.0.1", echo)) as proxy:
        yield proxy


def dial(proxy: ChaosProxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    connection.settimeout(10)
    return connection


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        chunk = connection.recv(65536)
        if not chunk:
            break
        got += chunk
    return got


def is_silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    return False


def test_without_faults_bytes_pass_unchanged_and_ends_pass_too(proxy: ChaosProxy) -> None:
    data = os.urandom(1_000_000)
    with dial(proxy) as connection:
        writer = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        writer.start()
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
        writer.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    wait_until(lambda: proxy.connections == 0, seconds=5, what="the connection to be let go")


def test_latency_is_added_each_way(proxy: ChaosProxy) -> None:
    with dial(proxy) as connection:
        ask(connection, b"warm")
        proxy.set(
            up=Faults(latency_seconds=0.1, jitter_seconds=0.01), down=Faults(latency_seconds=0.1, jitter_seconds=0.01)
        )
        started = time.monotonic()
        assert ask(connection, b"late") == b"late"
        assert 0.17 <= time.monotonic() - started < 2.0


def test_a_rate_is_kept(proxy: ChaosProxy) -> None:
    with dial(proxy) as connection:
        proxy.set(up=Faults(bytes_per_second=100_000))
        started = time.monotonic()
        assert len(ask(connection, b"x" * 30_000)) == 30_000
        assert 0.25 <= time.monotonic() - started < 3.0


def test_slices_arrive_one_byte_at_a_time_and_whole_in_the_end(proxy: ChaosProxy) -> None:
    proxy.set(down=Faults(slice_bytes=1))
    with dial(proxy) as connection:
        data = bytes(range(256)) * 16
        connection.sendall(data)
        pieces = []
        while sum(map(len, pieces)) < len(data):
            pieces.append(connection.recv(65536))
        assert b"".join(pieces) == data
        assert len(pieces) > 20


@pytest.mark.parametrize("after", [0, 1, 7, 4096])
def test_a_cut_lets_exactly_so_many_bytes_pass_and_resets(proxy: ChaosProxy, after: int) -> None:
    with dial(proxy) as connection:
        ask(connection, b"what passed before does not count")
        proxy.set(down=Faults(cut_after_bytes=after))
        connection.sendall(b"x" * 10_000)
        got = b""
        with pytest.raises(ConnectionResetError):
            while chunk := connection.recv(1):
                got += chunk
    # A reset may overtake bytes that were not read yet; it never lets more of them through.
    assert len(got) <= after


@pytest.mark.parametrize("way", [Way.UP, Way.DOWN])
def test_a_stall_holds_one_way_and_open_connections_go_on_after_it(proxy: ChaosProxy, way: Way) -> None:
    with dial(proxy) as connection:
        assert ask(connection, b"before") == b"before"
        proxy.stall(way)
        connection.sendall(b"during")
        assert is_silent(connection)
        proxy.heal()
        assert connection.recv(65536) == b"during"


def test_swallowed_connections_stay_dead_and_new_ones_work_after_healing(proxy: ChaosProxy) -> None:
    with dial(proxy) as old:
        ask(old, b"before")
        proxy.swallow()
        old.sendall(b"into the hole")
        assert is_silent(old)
        with dial(proxy) as taken:
            taken.sendall(b"hello?")
            assert is_silent(taken)
            proxy.heal()
            assert is_silent(old)
            assert is_silent(taken)
        with dial(proxy) as new:
            assert ask(new, b"after") == b"after"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            old.recv(1)


def test_refused_means_new_ones_only_and_is_over_after_healing(proxy: ChaosProxy) -> None:
    with dial(proxy) as connection:
        ask(connection, b"before")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert ask(connection, b"still") == b"still"
        proxy.heal()
        with dial(proxy) as new:
            assert ask(new, b"again") == b"again"


def test_cut_resets_and_close_ends_in_order(proxy: ChaosProxy) -> None:
    with dial(proxy) as connection:
        ask(connection, b"before")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with dial(proxy) as connection:
        ask(connection, b"before")
        proxy.close()
        assert connection.recv(1) == b""
