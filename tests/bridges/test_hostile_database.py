"""A database server that is not one: whatever it says, the outcome is typed, in time, and repeats nothing of it."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary, encode_probes
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_rows
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.deployment import clean_environment

SECONDS = 0.7
CANARY = "canary-pa55w0rd"
Script = Callable[["Peer"], Awaitable[None]]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def said(kind: bytes, text: str, state: str = "XX000") -> bytes:
    """An error or a notice with this text."""
    return message(kind, f"SERROR\0C{state}\0M{text}\0\0".encode())


LOGGED_IN = (
    message(b"R", struct.pack("!I", 0))
    + message(b"S", b"server_version\x0015.0\0")
    + message(b"S", b"client_encoding\0UTF8\0")
    + message(b"K", struct.pack("!II", 1, 1))
    + message(b"Z", b"I")
)


class Peer:
    """One connection of a driver to the hostile server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def start_up(self) -> None:
        """Read what a driver begins with, refusing TLS."""
        while True:
            size, code = struct.unpack("!II", await self.reader.readexactly(8))
            await self.reader.readexactly(size - 8)
            if code != 80877103:
                return
            await self.say(b"N")

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class HostileServer:
    """Listens, and does to each connection what the script says."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.heard = b""

    async def __aenter__(self) -> HostileServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(Peer(reader, writer))
            while chunk := await reader.read(65536):
                self.heard += chunk
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def silent(peer: Peer) -> None:
    await peer.start_up()


async def rubbish(peer: Peer) -> None:
    await peer.say(os.urandom(4096))


async def rubbish_after_login(peer: Peer) -> None:
    await peer.start_up()
    await peer.say(LOGGED_IN + os.urandom(65536))


async def long_error(peer: Peer) -> None:
    await peer.start_up()
    await peer.say(said(b"E", CANARY + "x" * 1_000_000))


async def error_to_every_question(peer: Peer) -> None:
    await peer.start_up()
    await peer.say(LOGGED_IN)
    while await peer.reader.read(65536):
        await peer.say(said(b"E", CANARY + "\n\x1b[2J") + message(b"Z", b"I"))


async def notices(peer: Peer) -> None:
    await peer.start_up()
    await peer.say(LOGGED_IN)
    await peer.reader.read(65536)
    flood = said(b"N", CANARY * 10) * 1000
    while True:
        await peer.say(flood)


async def drip(peer: Peer) -> None:
    await peer.start_up()
    for number in range(len(LOGGED_IN)):
        await peer.say(LOGGED_IN[number : number + 1])
        await asyncio.sleep(0.05)  # the fault itself


async def hang_up(peer: Peer) -> None:
    await peer.start_up()
    peer.writer.transport.abort()


SCRIPTS = (silent, rubbish, rubbish_after_login, long_error, error_to_every_question, notices, drip, hang_up)
FIELD = Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)
LENS = LensDefinition(name="t", table="t", fields={"id": FIELD})


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


@pytest.fixture
def library() -> ExecutionLibrary:
    return ExecutionLibrary(AddressPolicy())


async def perform(library: ExecutionLibrary, port: int, kind: str, payload: bytes) -> bytes:
    sink = Sink()
    await library.perform(
        "key",
        "postgres",
        {"host": "127.0.0.1", "port": str(port), "user": "reader", "password": CANARY},
        kind=kind,
        payload=payload,
        execution=Execution(
            deadline=time.monotonic() + SECONDS,
            format=RowFormat.JSON,
            limits=ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=10**6),
            tag="test/1",
        ),
        sink=sink,
    )
    return sink.data


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_query_has_a_typed_outcome_in_time(library: ExecutionLibrary, script: Script) -> None:
    plan = plan_rows(LENS, QueryRequest(), capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e").plan

    async def ask() -> tuple[LenswayError, float]:
        async with HostileServer(script) as server:
            started = time.monotonic()
            with pytest.raises(LenswayError) as failed:
                await perform(library, server.port, "rows", plan.encode())
            took = time.monotonic() - started
            await library.close()
            return failed.value, took

    error, took = asyncio.run(ask())
    assert error.code in (ErrorCode.SOURCE_UNREACHABLE, ErrorCode.QUERY_TIMEOUT, ErrorCode.SOURCE_QUERY_FAILED)
    assert took < SECONDS + 1.0
    assert CANARY not in repr(error.failure)
    assert error.__cause__ is None, "a log of it would have the driver's text"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_connection_test_fails_at_a_stage_in_time(library: ExecutionLibrary, script: Script) -> None:
    async def ask() -> tuple[bytes, float]:
        async with HostileServer(script) as server:
            started = time.monotonic()
            report = await perform(library, server.port, "test", encode_probes([]))
            return report, time.monotonic() - started

    report, took = asyncio.run(ask())
    assert b'"ok":false' in report
    assert took < SECONDS + 1.0
    assert CANARY.encode() not in report


KINDS = b"RSKZETDCINnst123AGHWVdc"


def malformed(dice: random.Random) -> bytes:
    """Some messages of the protocol's framing with bodies that are cut, too long or random."""
    found = b""
    for _ in range(dice.randint(1, 4)):
        body = dice.choice((b"", dice.randbytes(dice.randint(1, 40)), struct.pack("!I", dice.choice((0, 5, 10, 12)))))
        if dice.random() < 0.3:
            body += dice.randbytes(dice.randint(1, 8))
        found += (
            bytes((dice.choice(KINDS),))
            + struct.pack("!I", max(4, len(body) + 4 + dice.choice((0, 0, 0, -1, 1))))
            + body
        )
    return found


@pytest.mark.parametrize("is_in_login", [True, False])
def test_malformed_messages_are_an_unreachable_database_and_never_a_defect(is_in_login: bool) -> None:
    plan = plan_rows(LENS, QueryRequest(), capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e").plan

    async def ask(seed: int) -> LenswayError:
        async def script(peer: Peer) -> None:
            await peer.start_up()
            if not is_in_login:
                await peer.say(LOGGED_IN)
                await peer.reader.read(65536)
            await peer.say(malformed(random.Random(seed)))
            peer.writer.close()

        library = ExecutionLibrary(AddressPolicy())
        async with HostileServer(script) as server:
            with pytest.raises(LenswayError) as failed:
                await perform(library, server.port, "rows", plan.encode())
            await library.close()
        return failed.value

    for seed in range(300):
        error = asyncio.run(ask(seed))
        assert error.code in (ErrorCode.SOURCE_UNREACHABLE, ErrorCode.QUERY_TIMEOUT, ErrorCode.SOURCE_QUERY_FAILED), (
            seed
        )
        assert error.__cause__ is None, seed


def test_a_server_that_asks_for_a_clear_password_gets_none_from_the_environment() -> None:
    async def ask_for_it(peer: Peer) -> None:
        await peer.start_up()
        await peer.say(message(b"R", struct.pack("!I", 3)))

    async def run() -> tuple[str, bytes]:
        async with HostileServer(ask_for_it) as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lensway.cli.main",
                "runner",
                "test-source",
                "shop",
                env=clean_environment()
                | {
                    "LENSWAY_RUNNER_ID": "run_x",
                    "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
                    "LENSWAY_GATEWAY_URL": "ws://127.0.0.1:1/connect",
                    "LENSWAY_SOURCE_SHOP_URL": f"postgresql://reader@127.0.0.1:{server.port}/shop",
                    "PGPASSWORD": CANARY,
                    "PGPASSFILE": "/dev/null",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return output.decode(), server.heard

    output, heard = asyncio.run(run())
    assert '"ok": false' in output, output
    assert CANARY not in output
    assert CANARY.encode() not in heard
