"""Callers without a key that send as much as they are let and read nothing: `python -m lensway.testing.hostile_callers`.

A process of its own, so that its work does not delay the honest caller whose answers a test measures.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_BYTES_EACH: Final = 280_000
_END: Final = b"Host: a\r\n\r\n"

PAYLOADS: Final[Mapping[str, bytes]] = {
    "bare requests": b"GET /x HTTP/1.1\r\n\r\n",
    "requests": b"GET /x HTTP/1.1\r\n" + _END,
    "events": b"GET /v1/events HTTP/1.1\r\n" + _END,
    "pages": b"GET /console/login HTTP/1.1\r\n" + _END,
    "files": b"GET /console/static/console.css HTTP/1.1\r\n" + _END,
    "the document": b"GET /openapi.json HTTP/1.1\r\n" + _END,
    "bodies": b"POST /v1/query/orders HTTP/1.1\r\nContent-Length: 500\r\n" + _END + b"x" * 500,
    "sign-ins": b"POST /console/login HTTP/1.1\r\nContent-Length: 10\r\n" + _END + b"key=ak_bad",
    "single bytes": b"POST /v1/keys HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    + _END
    + b"1\r\nx\r\n" * 2000
    + b"0\r\n\r\n",
    "trailers": b"POST /v1/keys HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    + _END
    + b"0\r\n"
    + b"a:b\r\n" * 100
    + b"\r\n",
    "large headers": b"GET /x HTTP/1.1\r\nX-Large: " + b"x" * 30_000 + b"\r\n" + _END,
    "many headers": b"GET /x HTTP/1.1\r\n" + b"a:b\r\n" * 120 + _END,
    "too many headers": b"GET /x HTTP/1.1\r\n" + b"a:b\r\n" * 3000 + _END,
    "expectations": b"POST /v1/keys HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n" + _END + b"{ }",
    "upgrades": b"GET /x HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" + _END,
    "queries": b"QUERY /v1/query/orders HTTP/1.1\r\nContent-Length: 2\r\n" + _END + b"{}",
    "blank lines": b"\r\n" * 1000,
    "rubbish": b"GET /x HTTP/1.1\r\n\r\nrubbish\r\n\r\n",
}
"""What one sends again and again, by its name."""


def _attack(port: int, connections: int, payloads: Sequence[bytes]) -> None:
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, memoryview] = {}
    all_data = [payload * (_BYTES_EACH // len(payload) + 1) for payload in payloads]
    for number in range(connections):
        caller = socket.create_connection(("127.0.0.1", port), timeout=20)
        caller.setblocking(False)
        left[caller] = memoryview(all_data[number % len(all_data)])
        selector.register(caller, selectors.EVENT_WRITE)
        _send(selector, left)
    print("connected", flush=True)
    ends = time.monotonic() + 3600
    while time.monotonic() < ends:
        _send(selector, left)
        time.sleep(0.001)


def _send(selector: selectors.BaseSelector, left: dict[socket.socket, memoryview]) -> None:
    for key, _ in selector.select(0):
        caller: socket.socket = key.fileobj  # type: ignore[assignment]
        with contextlib.suppress(BlockingIOError, ConnectionError):
            left[caller] = left[caller][caller.send(left[caller][:65536]) :]
        if not left[caller]:
            selector.unregister(caller)


@contextlib.contextmanager
def attacked(port: int, connections: int, kinds: Sequence[str]) -> Iterator[None]:
    """So many hostile connections, all of which have begun to send, for the length of the block. They take turns in kind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lensway.testing.hostile_callers", str(port), str(connections), *kinds],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        yield
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    _attack(int(sys.argv[1]), int(sys.argv[2]), [PAYLOADS[kind] for kind in sys.argv[3:]])
