"""A runner with a good token that sends every kind of frame with hostile sizes, values, rates and bytes.

A program of its own, so that its work takes no time from what is measured: `python -m lensway.testing.hostile_frames PORT RUNNER
SECONDS SEED [ACT…]` with the token in LENSWAY_TEST_TOKEN. It plays its acts in turns, each on a connection of its own, and prints
one JSON line for each: the act, the bytes sent and how it ended.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from lensway.protocol import codec, frames
from lensway.protocol.codec import Decoder
from lensway.protocol.errors import ProtocolError
from lensway.protocol.version import SUBPROTOCOL
from lensway.query.plan import FEATURES
from lensway.query.result import ResultEnd, encode_end
from lensway.testing.hostile_runner import NO_POINT, SOME_POINT

TOKEN_VARIABLE: Final = "LENSWAY_TEST_TOKEN"
ACT_SECONDS: Final = 0.7
"""Length of one act, unless the other end ends it."""
_BINARY, _TEXT, _PING, _PONG = 2, 1, 9, 10
_MOST: Final = 2**53 - 1
_STATES: Final = ("ready", "unreachable", "no_bridge", "hypnotised", "")


class Played(msgspec.Struct):
    """One act that is over. ``ended`` is ``done``, ``blocked`` (the other end read no more) or ``closed``."""

    act: str
    bytes: int
    ended: str


class Ended(Exception):  # noqa: N818 - an end is no error here
    """The connection is over, or nothing of it is read any more."""


def ws(payload: bytes, opcode: int = _BINARY, *, fin: bool = True) -> bytes:
    """A WebSocket frame of a client; its mask is zero, which changes nothing and is allowed."""
    head = bytes([opcode | (0x80 if fin else 0)])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


def say(*spoken: frames.AnyFrame) -> bytes:
    """One message with these frames."""
    return ws(codec.encode(spoken))


def control(kind: int, payload: bytes) -> bytes:
    """A frame of any kind with any payload."""
    return codec.HEADER.pack(kind, len(payload)) + payload


class RawLink:
    """A socket that has been upgraded, and what the gateway says on it."""

    def __init__(self, port: int, runner: str, token: str, rng: random.Random) -> None:
        self.runner = runner
        self.sent = 0
        self.rng = rng
        self.revision = 0
        self.sources: tuple[str, ...] = ()
        self.acked = 0
        self.answers: Callable[[frames.Offer], Sequence[bytes]] = lambda _offer: ()
        self.is_polite = True
        self.is_reading = True
        self._lock = threading.Lock()
        self._decoder = Decoder()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(rng.randbytes(16)).decode()
        self._socket.sendall(
            f"GET /connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = self._socket.recv(4096)
            if not chunk:
                raise Ended
            head += chunk
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise Ended
        self._buffer = bytearray(head.partition(b"\r\n\r\n")[2])
        self.is_closed = False
        self.welcomed = threading.Event()
        self._socket.settimeout(0.3)
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, data: bytes) -> None:
        """Send these bytes. Raises Ended when the other end does not take them in time."""
        if self.is_closed:
            raise Ended("closed")
        try:
            with self._lock:
                self._socket.sendall(data)
        except TimeoutError:
            raise Ended("blocked") from None
        except OSError:
            raise Ended("closed") from None
        self.sent += len(data)

    def open(self, **hello: object) -> None:
        """Say hello and wait for the welcome and the first set."""
        self.send(say(hello_of(self.runner, **hello)))
        self.welcomed.wait(2)

    def close(self) -> None:
        """Cut the connection."""
        self.is_closed = True
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError, ProtocolError, Ended):
            while not self.is_closed:
                if not self.is_reading:
                    time.sleep(0.02)
                    continue
                try:
                    chunk = self._socket.recv(65536)
                except TimeoutError:
                    continue
                if not chunk:
                    break
                self._buffer += chunk
                for payload in self._messages():
                    for frame in self._decoder.feed(payload):
                        self._on(frame)
        self.is_closed = True

    def _messages(self) -> Iterator[bytes]:
        while len(self._buffer) >= 2:
            length, start = self._buffer[1] & 0x7F, 2
            if length == 126:
                length, start = int.from_bytes(self._buffer[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self._buffer[2:10], "big"), 10
            if len(self._buffer) < start + length:
                return
            opcode, payload = self._buffer[0] & 0x0F, bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            if opcode == _BINARY:
                yield payload
            elif opcode == 8:
                raise Ended

    def _on(self, frame: frames.AnyFrame) -> None:
        match frame:
            case frames.AssignmentSet():
                self.revision = frame.revision
                self.sources = tuple(each.source for each in frame.sources)
                self.welcomed.set()
                if self.is_polite:
                    states = tuple(frames.SourceState(source=each, state="ready") for each in self.sources)
                    self.send(say(frames.AssignmentInForce(revision=frame.revision, source_states=states[:1000])))
            case frames.Heartbeat():
                self.acked = frame.sequence
                if self.is_polite:
                    beat = frames.Heartbeat(sequence=frame.sequence, ack=frame.sequence, revision=self.revision)
                    self.send(say(beat))
            case frames.Offer():
                for answer in self.answers(frame):
                    self.send(answer)


def hello_of(runner: str, /, **more: object) -> frames.Hello:
    """The hello of an instance that is not ours."""
    fields: dict[str, object] = {
        "runner": runner,
        "instance": "ins_hostile",
        "versions": (1,),
        "software": "hostile",
        "public_key": SOME_POINT,
        "bridges": {"sqlite": "x", "postgres": "x"},
        "capacity": 64,
        "features": tuple(FEATURES),
    }
    return frames.Hello(**{**fields, **more})  # type: ignore[arg-type]  # hostile on purpose


# --- acts -------------------------------------------------------------------------------------------------------------------


def _repeat(data: bytes) -> Iterator[bytes]:
    while True:
        yield data


def _odd(rng: random.Random, size: int) -> str:
    return "".join(rng.choice("a\x00\x1b\n\u202e😀<'\"") for _ in range(size))


def _invented_states(link: RawLink) -> Iterator[bytes]:
    link.open()
    while True:
        salt = link.rng.random()
        states = tuple(frames.SourceState(source=f"src_{salt}_{n}", state="ready") for n in range(1_000))
        yield say(frames.AssignmentInForce(revision=link.rng.randrange(3), source_states=states))


def _too_many_states(link: RawLink) -> Iterator[bytes]:
    link.open()
    states = tuple(frames.SourceState(source=f"src_{n:020}", state="ready") for n in range(6_000))
    yield say(frames.AssignmentInForce(revision=1, source_states=states))
    yield from _repeat(say(frames.Heartbeat(sequence=_MOST, ack=0, revision=0)))


def _flapping(link: RawLink) -> Iterator[bytes]:
    link.open()
    while True:
        state = link.rng.choice(_STATES)
        states = tuple(frames.SourceState(source=each, state=state, cause=_odd(link.rng, 255)) for each in link.sources)
        yield say(frames.AssignmentInForce(revision=link.rng.randrange(_MOST), source_states=states[:1000]))


def _heartbeats(link: RawLink) -> Iterator[bytes]:
    link.is_polite = False
    link.open()
    jobs = tuple((link.rng.randrange(_MOST), 1) for _ in range(4_096))
    sequence = 0
    while True:
        sequence += 1
        few = jobs if sequence % 8 == 0 else jobs[:3]
        yield say(frames.Heartbeat(sequence=sequence, ack=link.acked, revision=sequence, jobs=few, loop_lag_ms=_MOST))


def _hellos(link: RawLink) -> Iterator[bytes]:
    rng = link.rng
    names = {f"bridge{n}" + _odd(rng, 200): _odd(rng, 255) for n in range(64)}
    choice: list[dict[str, object]] = [
        {"bridges": names, "hostname": _odd(rng, 255), "software": _odd(rng, 255), "instance": _odd(rng, 40)},
        {"features": tuple(_odd(rng, 255) for _ in range(64)), "versions": (1, *range(2, 65)), "capacity": 10_000},
        {"versions": (), "started_at": _odd(rng, 255)},
        {"public_key": NO_POINT},
        {"runner": "run_of_another"},
    ]
    link.open(**rng.choice(choice))
    yield from _repeat(say(hello_of(link.runner)))


def _wild_hellos(link: RawLink) -> Iterator[bytes]:
    rng = link.rng
    fields: list[object] = [1, link.runner, "ins", [1], "x", bytes(32), {}, 4, [], "", ""]
    fields[rng.randrange(1, len(fields))] = rng.choice(
        [_MOST, 2**64 - 1, -1, None, "x" * 200_000, [1] * 50_000, {f"{n}": "" for n in range(9_000)}, b"x" * 1000]
    )
    yield ws(control(1, msgspec.msgpack.encode(fields)))


def _invented_jobs(link: RawLink) -> Iterator[bytes]:
    link.open()
    job = link.rng.choice([0, 1, 7, _MOST])
    answers: list[frames.AnyFrame] = [
        frames.Accept(job=job, attempt=1),
        frames.Refuse(job=job, attempt=1, reason=frames.RefuseReason.BUSY, revision=0, message="x" * 200_000),
        frames.Data(job=job, attempt=1, payload=b"x" * 65_536),
        frames.End(job=job, attempt=1, result=b"x" * 200_000, sent_bytes=0),
        frames.Fail(job=job, attempt=1, failure=b"{" * 200_000),
    ]
    yield say(link.rng.choice(answers))


def _packed(link: RawLink) -> Iterator[bytes]:
    link.open()
    small = codec.encode([link.rng.choice([frames.Drain(reason=""), frames.AssignmentInForce(revision=1)])])
    yield from _repeat(ws(small * (500_000 // len(small))))


def _optional_kinds(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield from _repeat(ws(control(0x80 + link.rng.randrange(0x80), b"") * 100_000))


def _wrong_kinds(link: RawLink) -> Iterator[bytes]:
    if link.rng.random() < 0.5:
        link.open()
    welcome = frames.Welcome(
        version=1, session=1, runner_name="x", environment="x", heartbeat_ms=1, fence_ms=2, nonce=b""
    )
    yield link.rng.choice(
        [
            ws(control(link.rng.randrange(17, 0x80), b"x")),
            say(welcome),
            say(frames.Credit(job=1, attempt=1, bytes=_MOST)),
            say(frames.Cancel(job=1, attempt=1, reason="x" * 200_000)),
            say(frames.Resume()),
        ]
    )


def _garbage(link: RawLink) -> Iterator[bytes]:
    if link.rng.random() < 0.7:
        link.open()
    kind = link.rng.randrange(1, 17)
    yield ws(
        link.rng.choice(
            [
                link.rng.randbytes(link.rng.randrange(1, 100_000)),
                control(kind, link.rng.randbytes(200)),
                control(kind, b"\x91" * 200_000),
                control(kind, b"\x9f" * 1_000 + b"\xff" * 100),
                control(kind, b"\xdd\xff\xff\xff\xff"),
                codec.HEADER.pack(kind, 2**32 - 1) + b"x" * 1000,
                control(kind, msgspec.msgpack.encode([kind, *([[]] * 80_000)])),
            ]
        )
    )


def _garbage_below(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield link.rng.randbytes(link.rng.randrange(2, 200_000))


def _pings(link: RawLink) -> Iterator[bytes]:
    link.open()
    link.is_reading = link.rng.random() < 0.5
    frame = ws(b"x" * link.rng.choice([0, 125]), link.rng.choice([_PING, _PONG]))
    yield from _repeat(frame * (200_000 // len(frame)))


def _fragments(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield ws(b"", fin=False)
    yield from _repeat(ws(link.rng.choice([b"", b"x"]), 0, fin=False) * 20_000)


def _empty_messages(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield from _repeat(ws(b"", link.rng.choice([_BINARY, _TEXT])) * 20_000)


def _byte_by_byte(link: RawLink) -> Iterator[bytes]:
    link.open()
    plain = codec.encode([frames.AssignmentInForce(revision=1)]) * 500
    yield from _repeat(b"".join(ws(plain[at : at + 1]) for at in range(len(plain))))


def _too_large(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield ws(bytes(2_000_000))


def _silent(link: RawLink) -> Iterator[bytes]:
    link.is_polite = link.is_reading = False
    link.open()
    yield b""


def _closes(link: RawLink) -> Iterator[bytes]:
    link.open()
    yield say(frames.Close(reason=frames.CloseReason.GOING_AWAY, message="x" * 200_000, after_ms=_MOST))


def _early(link: RawLink) -> Iterator[bytes]:
    yield from _repeat(say(frames.Accept(job=1, attempt=1)) * 100)


def _answering(link: RawLink) -> Iterator[bytes]:
    link.answers = lambda offer: _answer(offer, link.rng)
    link.open()
    for _ in range(40):
        time.sleep(0.05)
        yield b""


def _answer(offer: frames.Offer, rng: random.Random) -> Sequence[bytes]:
    key: dict[str, Any] = {"job": offer.job, "attempt": offer.attempt}
    accept = say(frames.Accept(**key))
    good = encode_end(ResultEnd(rows=1, bytes=8))
    tail = b'{"id":1}'
    sentence = {
        "code": "SOURCE_QUERY_FAILED",
        "message": "m" * 60_000,
        "hint": "h" * 60_000,
        "details": {"x": [[]] * 9_000},
    }
    reason = rng.choice(list(frames.RefuseReason))
    document = b"[" + b",".join([b'{"name":"t","kind":"table"}'] * 9_000) + b"]"
    pieces = [
        say(frames.Data(**key, payload=document[at : at + 65_536], offset=at)) for at in range(0, len(document), 65_536)
    ]
    plays: list[list[bytes]] = [
        [say(frames.Refuse(**key, reason=reason, revision=0, message="r" * 200_000))],
        [accept, say(frames.Fail(**key, failure=msgspec.json.encode(sentence), retryable=rng.random() < 0.5))],
        [accept, say(frames.Fail(**key, failure=b'{"code":"internal","message":"' + b"[" * 200_000))],
        [accept, say(frames.End(**key, result=good, sent_bytes=8, tail=tail))],
        [accept, say(frames.End(**key, result=good, sent_bytes=9, tail=b'{"id":1]}'))],
        [accept, say(frames.End(**key, result=msgspec.msgpack.encode(list(range(40_000))), sent_bytes=0))],
        [accept, say(frames.End(**key, result=b"x" * 200_000, sent_bytes=0))],
        [accept, *pieces, say(frames.End(**key, result=good, sent_bytes=len(document)))],
        [accept, *(_bytes(key, at) for at in range(0, 20_000, 500))],
        [accept],
        [],
    ]
    return rng.choice(plays)


def _bytes(key: dict[str, Any], start: int) -> bytes:
    return ws(
        b"".join(codec.encode([frames.Data(**key, payload=b"\n", offset=at)]) for at in range(start, start + 500))
    )


ACTS: Final[dict[str, Callable[[RawLink], Iterator[bytes]]]] = {
    "answers": _answering,
    "states of invented sources": _invented_states,
    "more states than a report holds": _too_many_states,
    "flapping states": _flapping,
    "heartbeats": _heartbeats,
    "hellos": _hellos,
    "malformed hellos": _wild_hellos,
    "answers for invented jobs": _invented_jobs,
    "messages packed with frames": _packed,
    "optional kinds": _optional_kinds,
    "kinds of the other side": _wrong_kinds,
    "garbage in messages": _garbage,
    "garbage below messages": _garbage_below,
    "pings and pongs": _pings,
    "fragments": _fragments,
    "empty messages": _empty_messages,
    "one byte a message": _byte_by_byte,
    "too large messages": _too_large,
    "silence": _silent,
    "last words": _closes,
    "frames before hello": _early,
}


def play(name: str, port: int, runner: str, token: str, rng: random.Random) -> Played:
    """One act on a connection of its own."""
    ended, sent = "done", 0
    try:
        link = RawLink(port, runner, token, rng)
    except (Ended, OSError):
        return Played(name, 0, "refused")
    try:
        until = time.monotonic() + (3 * ACT_SECONDS if name == "answers" else ACT_SECONDS)
        for data in ACTS[name](link):
            link.send(data)
            if time.monotonic() > until:
                break
    except Ended as end:
        ended = str(end) or "closed"
    finally:
        sent = link.sent
        link.close()
    return Played(name, sent, ended)


def main(arguments: Sequence[str]) -> int:
    """Play in turns for so long."""
    port, runner, seconds, seed, *names = arguments
    token = os.environ[TOKEN_VARIABLE]
    rng = random.Random(seed)
    until = time.monotonic() + float(seconds)
    acts: list[str] = []
    while time.monotonic() < until:
        if not acts:
            acts = list(names or ACTS)
            rng.shuffle(acts)
        played = play(acts.pop(), int(port), runner, token, rng)
        sys.stdout.write(msgspec.json.encode(played).decode() + "\n")
        sys.stdout.flush()
        if played.ended == "refused":
            time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
