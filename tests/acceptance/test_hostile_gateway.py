"""A gateway that floods, lies and sends garbage: the runner's process stays small and alive, and serves whoever it dials next."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from lensway.protocol import codec
from lensway.protocol.frames import (
    AssignedSource,
    AssignmentInForce,
    AssignmentSet,
    Cancel,
    Close,
    CloseReason,
    Credit,
    Drain,
    Heartbeat,
    JobKind,
    Offer,
    Refuse,
    Resume,
)
from lensway.testing.deployment import Process
from lensway.testing.hostile_gateway import Conversation, HostileGateway

pytestmark = pytest.mark.acceptance

GROWN_MIB_MAX = 64
MOST = 2**53 - 1
NAME = "n\x1b]0;owned\x07" + "x" * 200
SOURCE = AssignedSource(source="src_a", name="main", bridge="sqlite", config_version=0)
ONE = AssignmentSet(revision=1, part=0, parts=1, sources=(SOURCE,))


def offer(job: int, **more: object) -> Offer:
    fields: dict[str, object] = {
        "job": job, "attempt": 1, "kind": JobKind.ROWS, "source": "src_b", "revision": 1, "payload": b"x", "format": "json",
        "deadline_ms": 5_000, "credit": 1_000, "rows_max": 1, "bytes_max": 1, "row_bytes_max": 1,
    }  # fmt: skip
    return Offer(**{**fields, **more})  # type: ignore[arg-type]


async def too_many_sources(gateway: Conversation) -> None:
    for part in range(100):
        sources = tuple(
            AssignedSource(source=f"src_{part}_{n}", name=f"s{part}x{n}", bridge="sqlite", config_version=0)
            for n in range(1_000)
        )
        await gateway.say(AssignmentSet(revision=2, part=part, parts=100, sources=sources))


async def a_large_set_and_again(gateway: Conversation) -> None:
    for revision in range(2, 5):
        for part in range(5):
            sources = tuple(
                AssignedSource(
                    source=f"src_{part}_{n}", name=f"{NAME}{part}x{n}", bridge="sqlite", config_version=revision
                )
                for n in range(500)
            )
            await gateway.say(AssignmentSet(revision=revision, part=part, parts=5, sources=sources))
        reported = 0
        while reported < 2_500:
            reported += len((await gateway.next(AssignmentInForce)).source_states)
    await gateway.say(Close(reason=CloseReason.GOING_AWAY))


async def many_sets(gateway: Conversation) -> None:
    await gateway.say(*[ONE] * 3_000)
    for _ in range(3_000):
        await gateway.next(AssignmentInForce)
    await gateway.say(Close(reason=CloseReason.GOING_AWAY))


async def many_offers(gateway: Conversation) -> None:
    for start in range(0, 20_000, 1_000):
        await gateway.say(*(offer(start + n + 1) for n in range(1_000)))
    for _ in range(20_000):
        await gateway.next(Refuse)
    await gateway.say(Close(reason=CloseReason.GOING_AWAY))


async def orders_for_invented_jobs(gateway: Conversation) -> None:
    await gateway.say(*(Cancel(job=n, attempt=1, reason="x") for n in range(20_000)))
    await gateway.say(*(Credit(job=n, attempt=1, bytes=MOST) for n in range(20_000)))
    await gateway.say(*[Resume(), Drain(reason=NAME * 100, after_ms=0)] * 1_000)
    await gateway.say(offer(1, source="src_z"))
    assert (await gateway.next(Refuse)).job == 1
    await gateway.say(Close(reason=CloseReason.GOING_AWAY, message=NAME * 500))


async def garbage(gateway: Conversation) -> None:
    await gateway.say_bytes(codec.HEADER.pack(0x99, 0) * 90_000)
    await gateway.say_bytes(codec.HEADER.pack(6, 200_000) + b"\x91" * 200_000)


async def beats(gateway: Conversation) -> None:
    await gateway.say(*(Heartbeat(sequence=n, ack=0, revision=1, jobs=((n, 1),)) for n in range(2, 20_000)))
    await gateway.say(Heartbeat(sequence=1, ack=0, revision=1))


HOSTILE: dict[str, Callable] = {
    "100,000 sources": too_many_sources,
    "a large set, again and again": a_large_set_and_again,
    "thousands of sets": many_sets,
    "thousands of offers": many_offers,
    "orders for invented jobs": orders_for_invented_jobs,
    "garbage": garbage,
    "thousands of heartbeats": beats,
}


@pytest.fixture
def runner_of(tmp_path: pathlib.Path) -> Iterator:
    started: list[Process] = []

    def start(gateway: HostileGateway) -> Process:
        settings = {
            "LENSWAY_RUNNER_ID": "run_x",
            "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
            "LENSWAY_GATEWAY_URL": gateway.url,
            "LENSWAY_RUNNER_STATE_DIR": str(tmp_path / "state"),
        }
        started.append(Process("runner", ["runner", "start"], settings, directory=tmp_path))
        return started[-1]

    yield start
    for process in started:
        if process.is_running:
            process.kill()


def test_a_hostile_gateway_neither_ends_a_runner_nor_fills_its_memory(runner_of) -> None:
    memory: list[float] = []
    process: list[psutil.Process] = []

    def then_closed(script: Callable) -> Callable:
        async def both(gateway: Conversation) -> None:
            memory.append(process[0].memory_info().rss / 2**20)
            with contextlib.suppress(ConnectionClosed):
                await gateway.say(ONE)
                await script(gateway)
            await gateway.closed()
            memory.append(process[0].memory_info().rss / 2**20)

        return both

    async def honest(gateway: Conversation) -> None:
        await gateway.say(ONE)
        assert (await gateway.next(AssignmentInForce)).revision == 1
        await gateway.say(offer(1))
        assert (await gateway.next(Refuse)).job == 1

    with HostileGateway(*map(then_closed, HOSTILE.values()), honest) as gateway:
        runner = runner_of(gateway)
        process.append(psutil.Process(runner.pid))
        gateway.wait(90)
        assert runner.is_running
    output = runner.output.text()
    assert "Traceback" not in output
    assert '"defect"' not in output, output[-3000:]
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) < 30_000
    assert max(memory) - memory[0] <= GROWN_MIB_MAX, memory
