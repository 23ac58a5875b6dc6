"""A TCP proxy that breaks connections on purpose, while they are in use and from any thread.

Each way of a link has its own faults: latency and jitter, a rate, slices, a cut (RST) after so many bytes, a stall (nothing
passes until it is over, as when packets are dropped and sent again). For the link as a whole: refuse, reset, close, and the
black hole, which swallows connections for ever: they get neither data nor an end, also when new ones work again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Self

_READ_BYTES: Final = 64 * 1024
_CHUNKS_UNDER_WAY_MAX: Final = 64
_PACE_SECONDS: Final = 0.02
_RESET: Final = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """A direction: ``UP`` from who connected to the target, ``DOWN`` back."""

    UP = "up"
    DOWN = "down"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to bytes that go one way. ``cut_after_bytes`` counts from when it is set, for each connection."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: float | None = None
    slice_bytes: int | None = None
    cut_after_bytes: int | None = None
    is_stalled: bool = False


NONE: Final = Faults()


class _Lane:
    """One way of all connections: its faults, and a gate that is shut while it is stalled."""

    def __init__(self) -> None:
        self.faults = NONE
        self.generation = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def set(self, faults: Faults) -> None:
        self.faults = faults
        self.generation += 1
        if faults.is_stalled:
            self.gate.clear()
        else:
            self.gate.set()


@dataclasses.dataclass(eq=False)
class _Connection:
    near: socket.socket
    far: socket.socket | None = None
    task: asyncio.Task[None] | None = None
    is_swallowed: bool = False
    passed: int = 0


class ChaosProxy:
    """Listens on ``host`` and forwards to ``target``. A context manager; it works in a thread of its own."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0, seed: int = 0) -> None:
        self.target = target
        self.host = host
        self.port = port
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"chaos proxy to {target[1]}", daemon=True)
        self._lanes = {way: _Lane() for way in Way}
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._is_hole = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- control, from any thread -----------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections are held, swallowed ones included."""
        return len(self._connections)

    def set(self, *, up: Faults | None = None, down: Faults | None = None) -> None:
        """Put these faults in force, for open and for new connections; a way that is not given stays as it is."""

        def change() -> None:
            for way, faults in ((Way.UP, up), (Way.DOWN, down)):
                if faults is not None:
                    self._lanes[way].set(faults)

        self._do(change)

    def stall(self, *ways: Way) -> None:
        """Let nothing pass these ways (both, when none is named) until `heal`; open connections go on then."""

        def change() -> None:
            for way in ways or tuple(Way):
                self._lanes[way].set(dataclasses.replace(self._lanes[way].faults, is_stalled=True))

        self._do(change)

    def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        self._do(self._unlisten)

    def swallow(self) -> None:
        """The black hole: open connections are dead for ever without an end; new ones are taken and get no answer."""

        def change() -> None:
            self._is_hole = True
            for connection in self._connections:
                self._swallow(connection)

        self._do(change)

    def cut(self) -> None:
        """Reset every connection (RST to both sides)."""
        self._do(lambda: self._end_all(reset=True))

    def close(self) -> None:
        """End every connection in order (FIN to both sides)."""
        self._do(lambda: self._end_all(reset=False))

    def heal(self) -> None:
        """No more faults: everything passes, new connections are taken. What was swallowed stays so, until it is cut."""

        def change() -> None:
            self._is_hole = False
            for lane in self._lanes.values():
                lane.set(NONE)
            self._listen()

        self._do(change)

    def _do(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    # --- in the thread of the proxy ---------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.create_server((self.host, self.port), backlog=256)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener))

    def _unlisten(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            near, _ = await self._loop.sock_accept(listener)
            near.setblocking(False)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(near)
            self._connections.add(connection)
            if self._is_hole:
                self._swallow(connection)
            else:
                connection.task = self._loop.create_task(self._serve(connection))

    async def _serve(self, connection: _Connection) -> None:
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        far.setblocking(False)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.far = far
        try:
            await self._lanes[Way.UP].gate.wait()
            await self._loop.sock_connect(far, self.target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(connection, Way.UP, connection.near, far))
                group.create_task(self._carry(connection, Way.DOWN, far, connection.near))
        except* OSError:
            self._end(connection, reset=True)
        else:
            self._end(connection, reset=False)

    async def _carry(self, connection: _Connection, way: Way, source: socket.socket, sink: socket.socket) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY_MAX)
        lane = self._lanes[way]
        reading = self._loop.create_task(self._read(lane, source, under_way))
        try:
            await self._write(connection, lane, sink, under_way)
        finally:
            reading.cancel()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _read(self, lane: _Lane, source: socket.socket, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            await lane.gate.wait()
            try:
                data = await self._loop.sock_recv(source, _READ_BYTES)
            except OSError:
                data = b""
            faults = lane.faults
            delay = max(0.0, faults.latency_seconds + self._random.uniform(-1.0, 1.0) * faults.jitter_seconds)
            await under_way.put((time.monotonic() + delay, data))

    async def _write(
        self, connection: _Connection, lane: _Lane, sink: socket.socket, under_way: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        generation, passed = lane.generation, 0
        while True:
            due, data = await under_way.get()
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            view = memoryview(data)
            while view:
                await lane.gate.wait()
                if lane.generation != generation:
                    generation, passed = lane.generation, 0
                piece = view[: _piece_bytes(lane.faults, passed, len(view))]
                if not piece:
                    raise ConnectionResetError("cut on purpose")
                await self._loop.sock_sendall(sink, piece)
                passed += len(piece)
                connection.passed += len(piece)
                view = view[len(piece) :]
                await _pace(lane.faults, len(piece))
            if not data:
                await lane.gate.wait()
                return

    def _swallow(self, connection: _Connection) -> None:
        connection.is_swallowed = True
        if connection.task is not None:
            connection.task.cancel()
            connection.task = None

    def _end_all(self, *, reset: bool) -> None:
        for connection in list(self._connections):
            self._end(connection, reset=reset)

    def _end(self, connection: _Connection, *, reset: bool) -> None:
        self._connections.discard(connection)
        if connection.task is not None and connection.task is not asyncio.current_task(self._loop):
            connection.task.cancel()
        for each in (connection.near, connection.far):
            if each is not None and each.fileno() >= 0:
                self._loop.remove_reader(each)
                self._loop.remove_writer(each)
                with contextlib.suppress(OSError):
                    if reset:
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    else:
                        each.shutdown(socket.SHUT_WR)
                each.close()

    async def _shut_down(self) -> None:
        self._unlisten()
        self._end_all(reset=True)
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        for task in others:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in others if task is not None), return_exceptions=True)


def _piece_bytes(faults: Faults, passed: int, size: int) -> int:
    """How many bytes go next; 0 is the cut."""
    if faults.slice_bytes is not None:
        size = min(size, faults.slice_bytes)
    if faults.bytes_per_second is not None:
        size = min(size, max(1, int(faults.bytes_per_second * _PACE_SECONDS)))
    if faults.cut_after_bytes is not None:
        size = min(size, max(0, faults.cut_after_bytes - passed))
    return size


async def _pace(faults: Faults, sent: int) -> None:
    if faults.bytes_per_second is not None:
        await asyncio.sleep(sent / faults.bytes_per_second)
    elif faults.slice_bytes is not None:
        await asyncio.sleep(0)
