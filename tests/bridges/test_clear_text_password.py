"""A server that asks for the password itself gets it under TLS or on this machine only, on pages and on the bulk path."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat

CANARY = secrets.token_urlsafe(24)
CLEAR = b"R" + struct.pack("!II", 8, 3)
NOTICE_FIRST = b"N" + struct.pack("!I", 5) + b"\0" + CLEAR
SCRAM_FIRST = b"R" + struct.pack("!II", 23, 10) + b"SCRAM-SHA-256\0\0"
CREDULOUS = LensDefinition(
    name="t", table="t", fields={"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
)


def own_address() -> str:
    """An address of this machine that is not loopback. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
    assert not address.startswith("127.")
    return address


@contextlib.asynccontextmanager
async def asking(host: str, *steps: bytes) -> AsyncIterator[tuple[int, bytearray]]:
    """A server without TLS that answers a login with these messages, one for each message of the client, in single bytes."""
    heard = bytearray()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                size, code = struct.unpack("!II", await reader.readexactly(8))
                await reader.readexactly(size - 8)
                if code != 80877103:
                    break
                writer.write(b"N")
            for step in steps:
                for at in range(len(step)):
                    writer.write(step[at : at + 1])
                    await writer.drain()
                heard.extend(await reader.read(65536))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


async def refusal(host: str, port: int, *, bulk: bool, sslmode: str) -> str:
    library = ExecutionLibrary(AddressPolicy())
    capabilities = capabilities_of("postgres")
    if bulk:
        plan = plan_export(CREDULOUS, ExportRequest(), capabilities)
    else:
        plan = plan_rows(CREDULOUS, QueryRequest(), capabilities, cursor_key=b"k" * 32, environment="e").plan
    config = {"host": host, "port": str(port), "user": "reader", "password": CANARY, "sslmode": sslmode}
    execution = Execution(
        deadline=time.monotonic() + 10,
        format=RowFormat.ARROW if bulk else RowFormat.JSON,
        limits=ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=10**6),
        tag="test/1",
        is_export=bulk,
    )
    try:
        with pytest.raises(LenswayError) as caught:
            await library.perform(
                "key",
                "postgres",
                config,
                kind="export" if bulk else "rows",
                payload=plan.encode(),
                execution=execution,
                sink=None,  # type: ignore[arg-type]  # no row comes
            )
    finally:
        await library.close()
    return str(caught.value.failure.details.get("class"))


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
@pytest.mark.parametrize(
    "steps", [(CLEAR,), (NOTICE_FIRST,), (SCRAM_FIRST, CLEAR)], ids=["at once", "behind a notice", "behind scram"]
)
def test_a_password_in_clear_text_is_refused_beyond_this_machine(
    sslmode: str, bulk: bool, steps: tuple[bytes, ...]
) -> None:
    async def run() -> None:
        host = own_address()
        async with asking(host, *steps) as (port, heard):
            found = await refusal(host, port, bulk=bulk, sslmode=sslmode)
        assert CANARY.encode() not in heard
        assert found == "clear_text_password"

    asyncio.run(run())


def test_on_this_machine_it_is_sent() -> None:
    async def run() -> None:
        async with asking("127.0.0.1", CLEAR) as (port, heard):
            await refusal("127.0.0.1", port, bulk=False, sslmode="disable")
        assert CANARY.encode() in heard

    asyncio.run(run())
