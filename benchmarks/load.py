"""The load generator: a process of its own, so that what it costs is seen beside what it measures.

    python -m benchmarks.load SPECIFICATION RESULT-FILE

Raw protocols on uvloop, one request at a time on each keep-alive connection. A general HTTP client costs more per request than
the servers that are compared here, on the same two cores.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import uvloop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to ask: ``body`` with `%d` for a key from 1 to ``keys``. Closed loop without ``rate``, else so many a second."""

    port: int
    path: str
    body: str
    keys: int
    seconds: float
    authorization: str = ""
    connections: int = 16
    rate: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What came of it: the milliseconds of each request, in ascending order, and the generator's own CPU time."""

    milliseconds: list[float]
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        """The milliseconds that this share of the requests stayed below."""
        return self.milliseconds[min(len(self.milliseconds) - 1, int(len(self.milliseconds) * share))]


class Running:
    """A load under way in a process of its own."""

    def __init__(self, load: Load) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._result = pathlib.Path(self._directory.name) / "result.json"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", json.dumps(dataclasses.asdict(load)), str(self._result)]
        )

    def result(self) -> Measured:
        """What it measured; waits for its end."""
        assert self._process.wait() == 0, "the load generator failed; its error stands above"
        with self._directory:
            return Measured(**json.loads(self._result.read_bytes()))


def drive(load: Load) -> Measured:
    """Run the load to its end."""
    return Running(load).result()


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._transport: Any = None
        self._received = b""
        self._wanted = 0
        self.sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        if not self._wanted:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._received = data
                return
            head = data[:end].lower()
            at = head.index(b"content-length:") + 15
            line_end = head.find(b"\r", at)
            self._wanted = end + 4 + int(head[at : line_end if line_end > 0 else end])
        if len(data) < self._wanted:
            self._received = data
            return
        if data[9:12] != b"200":
            raise SystemExit(f"the load was refused: {data[:600]!r}")
        self._received, self._wanted = b"", 0
        self._generator.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._generator.lost()


class _Generator:
    """Keeps every connection busy (closed loop), or sends at a steady rate over as many as that takes."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = self._make_requests()
        self._idle: deque[_Connection] = deque()
        self._milliseconds: list[float] = []
        self._under_way = 0
        self._is_stopping = False
        self._idle_again = asyncio.Event()

    def _make_requests(self) -> Iterator[bytes]:
        head = (
            f"POST {self._load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {self._load.authorization}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        number = 0
        template = self._load.body.encode()
        while True:
            number += 1
            body = template % (number * 7919 % self._load.keys + 1) if b"%d" in template else template
            yield b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def answered(self, connection: _Connection) -> None:
        self._milliseconds.append((time.perf_counter() - connection.sent_at) * 1000)
        if self._is_stopping or self._load.rate:
            self._under_way -= 1
            self._idle.append(connection)
            if not self._under_way:
                self._idle_again.set()
        else:
            connection.send(next(self._requests))

    def lost(self) -> None:
        if not self._is_stopping or self._under_way:
            raise SystemExit("the server closed a connection under load")

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._load.port)
            self._idle.append(connection)
        started, cpu = time.perf_counter(), time.process_time()
        if self._load.rate:
            await self._steadily(started)
        else:
            for _ in range(self._load.connections):
                self._send()
            await asyncio.sleep(self._load.seconds)
        self._is_stopping = True
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu
        count = len(self._milliseconds)
        while self._under_way:
            self._idle_again.clear()
            await self._idle_again.wait()
        return {
            "milliseconds": sorted(self._milliseconds[: count or None]),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }

    async def _steadily(self, started: float) -> None:
        loop = asyncio.get_running_loop()
        for number in range(int(self._load.rate * self._load.seconds)):
            pause = started + number / self._load.rate - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            if not self._idle:
                _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._load.port)
                self._idle.append(connection)
            self._send()

    def _send(self) -> None:
        self._under_way += 1
        self._idle.popleft().send(next(self._requests))


if __name__ == "__main__":
    measured = uvloop.run(_Generator(Load(**json.loads(sys.argv[1]))).run())
    pathlib.Path(sys.argv[2]).write_text(json.dumps(measured))
