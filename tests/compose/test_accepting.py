"""A listener accepts a few connections a turn: neither one, behind which others wait, nor all of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
import uvloop

from lensway import limits
from lensway.compose.accepting import accept


class Counted(asyncio.Protocol):
    def __init__(self, made: list[asyncio.WriteTransport]) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.WriteTransport) -> None:
        self.made.append(transport)
        transport.write(b"hello")


async def ended(made: list[asyncio.WriteTransport]) -> None:
    for transport in made:
        transport.close()
    await asyncio.sleep(0.01)


@contextlib.contextmanager
def listening(count: int = 0):
    """A socket that listens, and so many connections in its backlog."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        callers = [stack.enter_context(socket.create_connection(sock.getsockname(), timeout=5)) for _ in range(count)]
        yield sock, callers


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_full_backlog_is_taken_in_small_steps(run) -> None:
    async def steps(sock: socket.socket) -> list[int]:
        made: list[asyncio.WriteTransport] = []
        server = accept(lambda: Counted(made), sock)
        found = []
        while len(made) < 60:
            before = len(made)
            await asyncio.sleep(0)
            found.append(len(made) - before)
        server.close()
        await server.wait_closed()
        await ended(made)
        return found

    with listening(60) as (sock, callers):
        found = run(steps(sock))
        assert max(found) <= 2 * limits.BEGINNINGS_PER_TURN_MAX, "what was accepted in two turns may begin in one"
        assert max(found) > 1
        assert all(caller.recv(5) == b"hello" for caller in callers)


def from_address(address: str, sock: socket.socket) -> socket.socket:
    return socket.create_connection(sock.getsockname(), timeout=5, source_address=(address, 0))


def test_a_crowd_delays_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACCEPTED_PER_ADDRESS_MAX", 100)

    async def run(sock: socket.socket) -> list[str]:
        made: list[asyncio.WriteTransport] = []
        server = accept(lambda: Counted(made), sock)
        while len(made) < 101:
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
        found = [each.get_extra_info("peername")[0] for each in made]
        await ended(made)
        return found

    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        crowd = [stack.enter_context(from_address("127.0.0.2", sock)) for _ in range(300)]
        other = stack.enter_context(from_address("127.0.0.3", sock))
        found = uvloop.run(run(sock))
        turns_max = 1 + 300 // limits.ACCEPTS_PER_TURN_MAX
        assert found.index("127.0.0.3") <= (1 + turns_max) * limits.BEGINNINGS_PER_TURN_MAX
        assert other.recv(5) == b"hello"
        begun = 0
        for caller in crowd:
            with contextlib.suppress(ConnectionError):
                begun += caller.recv(5) == b"hello"
        assert 100 <= begun < 200, "what is too much for one address is closed"


def test_a_server_without_files_accepts_again_when_it_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE_SECONDS", 0.01)

    class Short(socket.socket):
        """A socket of a process that has no more files for a while."""

        left = 3

        def accept(self):
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def run(sock: Short) -> None:
        made: list[asyncio.WriteTransport] = []
        server = accept(lambda: Counted(made), sock)
        async with asyncio.timeout(10):
            while not made:
                await asyncio.sleep(0.005)
        assert sock.left == 0
        server.close()
        await ended(made)

    with listening(1) as (sock, _):
        short = Short(fileno=sock.detach())
        with short:
            uvloop.run(run(short))


def test_a_closed_server_accepts_no_more_and_leaves_connections_alone() -> None:
    async def run(sock: socket.socket, caller: socket.socket) -> None:
        made: list[asyncio.WriteTransport] = []
        server = accept(lambda: Counted(made), sock)
        assert server.is_serving()
        assert server.sockets == (sock,)
        while not made:
            await asyncio.sleep(0.001)
        server.close()
        server.close()
        await server.wait_closed()
        assert (server.is_serving(), server.sockets) == (False, ())
        with socket.create_connection(sock.getsockname()):
            for _ in range(20):
                await asyncio.sleep(0.001)
        assert len(made) == 1
        assert caller.recv(5) == b"hello"
        await ended(made)

    with listening(1) as (sock, callers):
        uvloop.run(run(sock, callers[0]))
