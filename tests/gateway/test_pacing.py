"""What one link may take of the loop: frames are counted however they are split, floods wait, and are cut off in the end."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from lensway import limits
from lensway.gateway.orders import clipped, known_bridges, states_of
from lensway.gateway.pacing import FrameCounter, PacedConnection
from lensway.protocol.frames import SourceState
from lensway.testing.hostile_frames import ws

payloads = st.one_of(st.binary(max_size=300), st.integers(0, 3).map(lambda n: bytes(65_530 + 4 * n)))
wire_frames = st.lists(st.tuples(payloads, st.sampled_from([0, 1, 2, 9, 10]), st.booleans()), min_size=1, max_size=12)


@given(wire_frames, st.integers(1, 5), st.data())
def test_frames_are_counted_however_they_are_split(frames, frames_max: int, data) -> None:
    encoded = [ws(payload, opcode, fin=fin) for payload, opcode, fin in frames]
    small = sum(each[0] != 0x82 for each in encoded)
    ends = {sum(map(len, encoded[:number])) for number in range(len(encoded) + 1)}
    stream = b"".join(encoded)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    counter = FrameCounter()
    found = used = 0
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        chunk = stream[start:stop]
        while chunk:
            end, count = counter.count(chunk, frames_max)
            assert count <= frames_max
            found += count
            used += end
            assert end == len(chunk) or used in ends, "it stops between frames"
            chunk = chunk[end:]
    assert (found, used) == (small, len(stream))


async def _flood(flood: bytes, seconds: float) -> tuple[float, int, BaseException | None]:
    """The longest thread time between two looks at the loop, messages read, and how the connection ended."""
    ended: BaseException | None = None
    read = 0

    async def reader(connection) -> None:
        nonlocal ended, read
        try:
            while True:
                await connection.recv(decode=False)
                read += 1
        except ConnectionClosed as error:
            ended = error

    longest, before = 0.0, time.thread_time()
    async with serve(
        reader, "127.0.0.1", 0, create_connection=PacedConnection, max_queue=8, ping_interval=None, close_timeout=0.2
    ) as server:
        port = server.sockets[0].getsockname()[1]
        inside, outside = await asyncio.open_connection("127.0.0.1", port)
        outside.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await inside.readuntil(b"\r\n\r\n")
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        outside.transport.set_write_buffer_limits(high=1_000_000)
        while loop.time() < until and not outside.transport.is_closing():
            if outside.transport.get_write_buffer_size() < 500_000:
                outside.write(flood)
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
        outside.transport.abort()
    return longest * 1000, read, ended


@pytest.mark.parametrize(
    "flood",
    [ws(b"x" * 125, 9) * 3_000, ws(b"", 10) * 30_000, ws(b"x", 0, fin=False) * 30_000, ws(b"") * 30_000],
    ids=["pings", "pongs", "fragments", "empty messages"],
)
def test_a_flood_never_holds_the_loop(flood: bytes) -> None:
    start = ws(b"", fin=False) if flood[0] == 0 else b""
    longest, _, _ = asyncio.run(_flood(start + flood, 0.4))
    assert longest <= 25


def test_a_flood_of_pings_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLOOD_SECONDS_MAX", 0.5)
    _, _, ended = asyncio.run(_flood(ws(b"", 9) * 10_000, 2.0))
    assert isinstance(ended, ConnectionClosed)
    assert ended.sent is not None
    assert ended.sent.code == 1008


def test_messages_that_are_no_flood_are_all_read() -> None:
    _, read, _ = asyncio.run(_flood(ws(bytes(100)) * 40 + ws(bytes(60_000)), 0.4))
    assert read >= 41


def test_what_a_hello_and_a_report_say_is_cut() -> None:
    assert known_bridges({"sqlite": "v" * 255, "other": "1"}) == {"sqlite": clipped("v" * 255), "other": "1"}
    assert len(clipped("x" * 255)) == limits.RUNNER_TEXT_CHARACTERS_MAX
    said = states_of((SourceState(source="src_a", state="s" * 255, cause="c" * 255),))
    assert [len(text) for text in said["src_a"]] == [limits.RUNNER_TEXT_CHARACTERS_MAX] * 2
