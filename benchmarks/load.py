"""A lean HTTP/1.1 client for load: a general one costs more per request than what is measured, on the same two cores."""

from __future__ import annotations

import asyncio
import time
from collections import deque


class LeanClient:
    """Keep-alive connections to one server; one request at a time on each."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._address = (host, port)
        self._head = f"Host: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        reader, writer = self._idle.popleft() if self._idle else await asyncio.open_connection(*self._address)
        writer.write(f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start : lower.index(b"\r\n", start)])
        answer = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return int(head[9:12]), answer

    def close(self) -> None:
        """Close every connection."""
        for _, writer in self._idle:
            writer.close()


async def steady(client: LeanClient, rate: int, seconds: float, rows: int) -> list[float]:
    """Point queries at a steady rate; the milliseconds of each, from when it is sent."""
    taken: list[float] = []

    async def ask(number: int) -> None:
        sent = time.perf_counter()
        body = b'{"where":{"id":%d},"limit":1}' % (number * 7919 % rows + 1)
        status, answer = await client.post("/v1/query/orders", body)
        assert status == 200, answer
        taken.append((time.perf_counter() - sent) * 1000)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            pause = started + number / rate - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            group.create_task(ask(number))
    return taken
