"""A slow link in a process of its own: so many bits a second each way, a fixed delay, and a queue of a few packets.

    python -m benchmarks.slow_link TARGET-PORT BITS-PER-SECOND DELAY-SECONDS

The queue is what counts: one that takes megabytes, as a careless proxy does, is delay that no sender could avoid. Here the
receive buffer is small and is read at the rate of the link, so that the sender's own kernel sees how slow it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

_READ_BYTES = 4096
_BUFFER_BYTES = 32 * 1024
_BURST_SECONDS = 0.02
"""What a busy machine made late is caught up with, as a token bucket does."""


async def _carry(
    source: socket.socket, sink: socket.socket, bytes_per_second: float, delay: float, loop: asyncio.AbstractEventLoop
) -> None:
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await loop.sock_sendall(sink, data)

    task = loop.create_task(deliver())
    free_at = 0.0
    try:
        while data := await loop.sock_recv(source, _READ_BYTES):
            free_at = max(free_at, time.monotonic() - _BURST_SECONDS) + len(data) / bytes_per_second
            under_way.put_nowait((free_at + delay, data))
            await asyncio.sleep(max(0.0, free_at - time.monotonic()))
    finally:
        task.cancel()
        source.close()
        sink.close()


async def main(target: int, bits_per_second: float, delay: float) -> None:
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    tasks = set()
    while True:
        near, _ = await loop.sock_accept(listener)
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        far.setblocking(False)
        await loop.sock_connect(far, ("127.0.0.1", target))
        for source, sink in ((near, far), (far, near)):
            tasks.add(loop.create_task(_carry(source, sink, bits_per_second / 8, delay, loop)))


@contextlib.contextmanager
def slow_link(target: int, bits_per_second: int, delay_seconds: float) -> Iterator[int]:
    """The port that leads to ``target`` over such a link, while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_link", str(target), str(bits_per_second), str(delay_seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
