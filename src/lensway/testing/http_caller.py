"""A caller on a bare socket: every byte of the answer, its trailers, and as slow as a test wants. h11 judges what is complete."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator, Mapping

import h11


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. ``is_complete`` False: it ended before its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    trailers: Mapping[str, str]
    is_complete: bool


class Caller:
    """One connection to an HTTP server on loopback."""

    def __init__(self, port: int, *, key: str = "", receive_buffer_bytes: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(60.0)
        self._socket.connect(("127.0.0.1", port))
        self._key = key

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    @property
    def local_port(self) -> int:
        """This end's port, by which the server's end can be told."""
        port: int = self._socket.getsockname()[1]
        return port

    def post(
        self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, version: str = "1.1"
    ) -> None:
        """Send a request, and read nothing."""
        data = json.dumps(body or {}).encode()
        lines = {
            "Host": "lensway",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Authorization": f"Bearer {self._key}",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._socket.sendall(f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + data)

    def read(self, size: int = 65536) -> bytes:
        """Some bytes of the answer, b"" at its end. Raises OSError."""
        return self._socket.recv(size)

    def rest(self) -> bytes:
        """Every byte up to the end of the connection, however that came."""
        parts = []
        try:
            while part := self.read():
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)

    def answer(self) -> Answer:
        """The whole answer, up to its end or the end of the connection."""
        judge = _Judge()
        try:
            while not judge.is_over and (part := self.read()):
                judge.feed(part)
        except ConnectionError:
            pass
        return judge.verdict()


def can_connect(port: int) -> bool:
    """True when something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def judged(data: bytes) -> Answer:
    """What these bytes are to a client that strictly keeps to HTTP/1.1, when the connection ends behind them."""
    judge = _Judge()
    if data:
        judge.feed(data)
    return judge.verdict()


class _Judge:
    def __init__(self) -> None:
        self._client = h11.Connection(h11.CLIENT)
        self._client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        self._client.send(h11.EndOfMessage())
        self._status = 0
        self._headers: dict[str, str] = {}
        self._trailers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.is_over = False

    def feed(self, data: bytes) -> None:
        self._client.receive_data(data)
        self._take()

    def verdict(self) -> Answer:
        if not self.is_over:
            try:
                self._client.receive_data(b"")
                self._take()
            except h11.RemoteProtocolError:
                self.is_over = False
        return Answer(
            status=self._status,
            headers=self._headers,
            body=b"".join(self._body),
            trailers=self._trailers,
            is_complete=self.is_over,
        )

    def _take(self) -> None:
        for event in self._events():
            match event:
                case h11.Response():
                    self._status = event.status_code
                    self._headers = _plain(event.headers)
                case h11.Data():
                    self._body.append(bytes(event.data))
                case h11.EndOfMessage():
                    self._trailers = _plain(event.headers)
                    self.is_over = True

    def _events(self) -> Iterator[object]:
        while not self.is_over:
            event = self._client.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return
            yield event


def _plain(headers: object) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}  # type: ignore[attr-defined]
