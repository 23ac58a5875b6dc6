"""A lean HTTP/1.1 caller for load and chaos: it costs little beside what it measures, and tells a cut answer from a whole one."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

_SILENCE: Final = "silence"
_IDLE_SECONDS: Final = 1.5
"""Well below the time after which a server closes an idle connection: a request must not cross that on its way."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Answer:
    """``status`` 0 is no answer, and ``why`` says what happened. ``is_cut`` means that the body broke off."""

    status: int = 0
    why: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False


class LeanCaller:
    """Keep-alive connections to one server, one request at a time on each."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._address = (host, port)
        self._head = f"Host: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._idle: deque[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def post(self, path: str, body: bytes, *, accept: str = "application/json", seconds: float = 60.0) -> Answer:
        """The answer, whole, cut, or none. Never raises for what the network does."""
        answer = Answer()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._connection()
                head = f"POST {path} HTTP/1.1\r\n{self._head}Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await self._read(reader, answer)
                if answer.headers.get("connection") != "close":
                    self._idle.append((time.monotonic(), reader, writer))
                    writer = None
        except (OSError, EOFError, ValueError) as error:
            # A timeout is an OSError too.
            answer.why = _SILENCE if isinstance(error, TimeoutError) else type(error).__name__
            answer.is_cut = answer.status != 0
        finally:
            if writer is not None:
                writer.close()
        return answer

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop()[2].close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since, reader, writer = self._idle.pop()
            is_young = time.monotonic() - since < _IDLE_SECONDS
            if is_young and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address, limit=1 << 20)

    async def _read(self, reader: asyncio.StreamReader, answer: Answer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        answer.headers = {name.lower(): value.strip() for name, _, value in pairs}
        answer.status = int(head[0].split(" ", 2)[1])
        if answer.headers.get("transfer-encoding") == "chunked":
            await self._read_chunks(reader, answer)
        else:
            answer.body = await reader.readexactly(int(answer.headers.get("content-length", "0")))

    async def _read_chunks(self, reader: asyncio.StreamReader, answer: Answer) -> None:
        chunks: list[bytes] = []
        try:
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                chunks.append((await reader.readexactly(size + 2))[:-2])
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
        finally:
            answer.body = b"".join(chunks)
