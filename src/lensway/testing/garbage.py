"""Garbage for a listener, from a stranger: `python -m lensway.testing.garbage PORT SECONDS SEED`.

Good beginnings that are cut, altered, doubled or followed by random bytes, sent in pieces and often left open.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

ELSEWHERE: Final = "127.0.0.2"
"""Where strangers call from: honest callers have another address."""
_OPEN_MAX: Final = 200
_STARTS: Final[Sequence[bytes]] = (
    b"",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/query/good HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk_x\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /console/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nkey=a\r\n0\r\n\r\n",
    b"GET /connect HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: lensway.runner.v1\r\n"
    b"Authorization: Bearer rk_" + b"x" * 43 + b"\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n",
)


def altered(dice: random.Random, data: bytes) -> bytes:
    """The bytes with something wrong about them."""
    found = bytearray(data)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(found) + 1)
        match dice.randrange(5):
            case 0:
                del found[at:]
            case 1:
                found[at:at] = dice.randbytes(dice.choice((1, 16, 4_096)))
            case 2:
                found[at : at + 1] = dice.randbytes(1)
            case 3:
                found[at:at] = found[dice.randrange(len(found) + 1) :]
            case _:
                found += dice.choice(_STARTS)
    return bytes(found[: 256 * 1024])


def _send(port: int, seconds: float, seed: int) -> None:
    dice, left_open = random.Random(seed), deque[socket.socket]()
    ends, sent = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            caller = socket.create_connection(("127.0.0.1", port), timeout=1, source_address=(ELSEWHERE, 0))
            left_open.append(caller)
            data = altered(dice, dice.choice(_STARTS))
            cut = dice.randrange(len(data) + 1)
            for piece in (data[:cut], data[cut:]):
                caller.sendall(piece)
            sent += 1
        while len(left_open) > dice.randrange(_OPEN_MAX):
            left_open.popleft().close()
        time.sleep(0.001)
    for caller in left_open:
        caller.close()
    print(sent, flush=True)


@contextlib.contextmanager
def garbage(port: int, seconds: float, seed: int, sent: list[int]) -> Iterator[None]:
    """Send for so long beside the block; ``sent`` gets how many connections there were."""
    arguments = [str(port), str(seconds), str(seed)]
    process = subprocess.Popen([sys.executable, "-m", "lensway.testing.garbage", *arguments], stdout=subprocess.PIPE)
    try:
        yield
        output, _ = process.communicate(timeout=seconds + 30)
        assert process.returncode == 0, "the sender of garbage has a defect of its own"
        sent.append(int(output))
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    _send(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
