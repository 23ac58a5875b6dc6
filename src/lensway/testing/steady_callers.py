"""Honest callers at a fixed rate, measured from when each request was due: `python -m lensway.testing.steady_callers`.

A process of its own that sends prepared bytes and reads little. It costs a tenth of a client library, so that it is on time
beside others and measures the server. It works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import uvloop

from lensway.testing.deployment import clean_environment

SPEC_VARIABLE: Final = "LENSWAY_TEST_CALLERS"
_IN_FLIGHT_MAX: Final = 200
_GIVE_UP_SECONDS: Final = 35.0
"""Longer than the server takes for a query by default: its own outcome says more."""


class Asked(msgspec.Struct):
    """One kind of request: how often a second, its bytes, and how many rows its answer has (-1 where it has none)."""

    name: str
    port: int
    rate: float
    request: bytes
    rows: int = -1


class Answer(msgspec.Struct, array_like=True):
    """When it was due (monotonic), the milliseconds from then to its end, and what was wrong with it."""

    due: float
    took: float
    wrong: str = ""


class Callers:
    """What a running process of callers has measured. Read ``answers`` once the block is over."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}

    def between(self, name: str, start: float, end: float) -> list[float]:
        """The times of what was due in between."""
        return [each.took for each in self.answers[name] if start <= each.due < end]

    def wrong(self) -> list[str]:
        """Every answer that was not good."""
        return [each.wrong for answers in self.answers.values() for each in answers if each.wrong]


@contextlib.contextmanager
def calling(kinds: Sequence[Asked]) -> Iterator[Callers]:
    """Ask for the length of the block."""
    callers = Callers()
    process = subprocess.Popen(
        [sys.executable, "-m", "lensway.testing.steady_callers"],
        env=clean_environment() | {SPEC_VARIABLE: msgspec.json.encode(kinds).decode()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield callers
        output, _ = process.communicate(timeout=_GIVE_UP_SECONDS + 30)
        assert process.returncode == 0, "the honest callers have a defect of their own"
        callers.answers = msgspec.json.decode(output, type=dict[str, list[Answer]])
    finally:
        process.kill()
        process.communicate()


def request_bytes(method: str, path: str, key: str | None = None, body: bytes = b"") -> bytes:
    """A request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: lensway\r\n"
    if key is not None:
        head += f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Kind:
    def __init__(self, asked: Asked) -> None:
        self.answers: list[Answer] = []
        self._asked = asked
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self, over: asyncio.Event) -> None:
        due = time.monotonic()
        while not over.is_set():
            due += 1 / self._asked.rate
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), max(0.0, due - time.monotonic()))
            while len(self._in_flight) >= _IN_FLIGHT_MAX:
                await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._ask(due))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    async def _ask(self, due: float) -> None:
        try:
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                wrong = await self._answer()
        except (OSError, EOFError, ValueError) as error:
            wrong = type(error).__name__
        self.answers.append(Answer(due, (time.monotonic() - due) * 1000, wrong))

    async def _answer(self) -> str:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (writer.is_closing() or reader.at_eof()):
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    # The server may have just closed it for idleness.
                    return await self._answer_on(reader, writer)
        return await self._answer_on(*await asyncio.open_connection("127.0.0.1", self._asked.port))

    async def _answer_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            writer.write(self._asked.request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(size)
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        is_good = b" 200 " in head[:16]
        if is_good and self._asked.rows >= 0:
            is_good = len(msgspec.json.decode(body)["rows"]) == self._asked.rows
        return "" if is_good else f"{head[9:12].decode()} {body[:300].decode(errors='replace')}"


async def _call(kinds: Sequence[Asked]) -> dict[str, list[Answer]]:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = loop.run_in_executor(None, sys.stdin.buffer.read)
    waiting.add_done_callback(lambda _: over.set())
    running = {asked.name: _Kind(asked) for asked in kinds}
    await asyncio.gather(*(kind.run(over) for kind in running.values()))
    return {name: kind.answers for name, kind in running.items()}


def main() -> None:
    """Call until standard input ends, and print what was measured."""
    kinds = msgspec.json.decode(os.environ[SPEC_VARIABLE], type=list[Asked])
    answers = uvloop.run(_call(kinds))
    sys.stdout.buffer.write(msgspec.json.encode(answers))


if __name__ == "__main__":
    main()
