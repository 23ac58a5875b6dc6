"""S1: a runner dials for ever, whatever DNS, TCP, TLS, a proxy or the peer does; only the gateway's own refusal ends it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import pathlib
import random
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import structlog
import uvloop
from websockets.exceptions import InvalidURI

from lensway import limits
from lensway.clock import SystemClock
from lensway.compose.websocket import WebSocketTransport
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import InstanceId
from lensway.protocol import codec, frames
from lensway.protocol.transport import Transport, TransportClosedError
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import Dialer, DialError
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.settings import RunnerSettings, read_settings
from lensway.testing.postgres import write_certificate
from lensway.testing.simulation.database import FakeLibrary
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess, run_virtual

DIALS_EACH = 4
TOKEN = "rk_" + "a" * 43


class Silent:
    """Somebody who watches the database of the simulation; nothing runs here."""

    def statement_begins(self, _place: str, _job: int, _attempt: int) -> None: ...

    def step(self, _place: str) -> None: ...


def agent_of(dial, clock, said: list[str] | None = None, **more) -> Agent:
    return Agent(
        runner="run",
        instance=InstanceId("one"),
        capacity=4,
        dial=dial,
        library=FakeLibrary("here", Silent(), {}),
        local=LocalCredentials({}),
        policy=PolicyInForce(LocalPolicy()),
        clock=clock,
        chance=lambda: 0.0,
        announce=(said if said is not None else []).append,
        hostname="here",
        **more,
    )


def settings_of(port: int, *, scheme: str = "ws", **environment: str) -> RunnerSettings:
    return read_settings(
        {
            "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
            "LENSWAY_RUNNER_TOKEN": TOKEN,
            "LENSWAY_GATEWAY_URL": f"{scheme}://localhost:{port}/connect",
        }
        | environment,
        insecure=True,
    )


WELCOME = frames.Welcome(
    version=1, session=1, runner_name="a", environment="env", heartbeat_ms=2000, fence_ms=8000, nonce=b""
)
EMPTY_SET = frames.AssignmentSet(revision=1, part=0, parts=1, sources=())


class OddTransport:
    """A link whose peer says what the script has, and then fails as the script says."""

    def __init__(self, messages: list[bytes], failure: Exception | None) -> None:
        self._messages = messages
        self._failure = failure
        self._gone = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        return False

    async def send(self, _message: bytes | bytearray) -> None:
        if self._failure is not None and not self._messages:
            raise self._failure

    def send_now(self, message: bytes | bytearray) -> None: ...

    async def recv(self) -> bytes:
        if self._messages:
            return self._messages.pop(0)
        if self._failure is None:
            await self._gone.wait()
            raise TransportClosedError("reset")
        raise self._failure

    async def prove(self, _arrived: Callable[[], None]) -> None: ...

    async def close(self) -> None:
        if self._failure is not None:
            raise self._failure

    def abort(self) -> None:
        self._gone.set()


FAILURES: tuple[Callable[[], Exception], ...] = (
    lambda: TransportClosedError("reset"),
    lambda: ConnectionResetError(104, "reset"),
    lambda: RuntimeError("unable to perform operation on <TCPTransport closed=True>"),
    lambda: EOFError("stream ended"),
    lambda: ssl.SSLError(1, "bad record mac"),
    lambda: socket.gaierror(socket.EAI_AGAIN, "no answer"),
    lambda: AssertionError("a defect"),
    lambda: InvalidURI("x", "y"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
)


def test_ten_thousand_dials_that_fail_in_every_way_end_no_runner_and_fill_no_log() -> None:
    loop = VirtualLoop()
    process = VirtualProcess(loop)
    chance = random.Random(7)
    dials = 0
    causes: list[str] = []

    async def dial() -> Transport:
        nonlocal dials
        dials += 1
        if dials > 10_000:
            return OddTransport([codec.encode((WELCOME, EMPTY_SET))], None)
        # The same kind of failure many times in a row, as a real fault has it.
        kind = dials // 100 % 3
        if kind == 0:
            causes.append(f"cause {dials // 300}")
            raise DialError(causes[-1], "a hint", is_brief=chance.random() < 0.5, retry_after=chance.random())
        if kind == 1:
            return OddTransport([], FAILURES[dials // 300 % len(FAILURES)]())
        return OddTransport([chance.randbytes(chance.randrange(60))], None if chance.random() < 0.1 else EOFError())

    async def story() -> str:
        agent = agent_of(dial, process)
        running = process.start(agent.run(), "agent")
        while agent.state != "connected":
            assert not running.done(), running.exception()
            await asyncio.sleep(5)
        agent.stop()
        await running
        return agent.state

    with structlog.testing.capture_logs() as logged:
        assert run_virtual(story(), loop) == "stopped"
    assert dials == 10_001
    counts = Counter(line["cause"] for line in logged if line["event"] == "cannot connect")
    assert all(counts[cause] == 1 for cause in set(causes)), "one line for each change of cause"
    repeated = [line for line in logged if line["event"] == "could not connect"]
    assert sum(line["dials"] for line in repeated if line["cause"] in causes) == len(causes)


# --- real sockets -------------------------------------------------------------------------------------------------------------

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def request_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def accept_of(request: bytes) -> bytes:
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request, re.IGNORECASE)
    assert key is not None
    return base64.b64encode(hashlib.sha1(key.group(1) + _GUID).digest())


def says(answer: bytes, *, times: int = 1) -> Act:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for _ in range(times):
            writer.write(answer)
            await writer.drain()
        writer.write_eof()
        await reader.read()

    return act


def status(line: str, *headers: str, body: str = "x") -> Act:
    head = "\r\n".join([f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers])
    return says(f"{head}\r\n\r\n{body}".encode())


def upgrades(
    *after: bytes, subprotocol: str | None = "lensway.runner.v1", accept: bytes | None = None, more: str = ""
) -> Act:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + (accept_of(request) if accept is None else accept)
            + f"\r\n{chosen}{more}\r\n".encode()
        )
        for piece in after:
            writer.write(piece)
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()

    return act


def frame(opcode: int, payload: bytes, *, first: int = 0x80, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    head = struct.pack("!BB", first | opcode, size) if size < 126 else struct.pack("!BBQ", first | opcode, 127, size)
    return head + payload


async def close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def reset_after_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    await reset(reader, writer)


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chance = random.Random(1)
    for _ in range(64):
        writer.write(chance.randbytes(4096))
        await writer.drain()


def closes(code: int | None) -> Act:
    return upgrades(frame(8, b"" if code is None else struct.pack("!H", code) + b"go away"))


ACTS: dict[str, Act] = {
    "closes at once": close_at_once,
    "resets": reset,
    "resets after the request": reset_after_request,
    "silence": silence,
    "binary garbage": babble,
    "endless status line": says(b"HTTP/1.1 200 " + b"x" * 65_536, times=16),
    "endless headers": says(b"HTTP/1.1 101 x\r\n" + b"X-Y: z\r\n" * 4096, times=16),
    "huge header": says(b"HTTP/1.1 101 x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"),
    "binary header": says(b"HTTP/1.1 101 x\r\n\xff\x00\xfe: \x01\x02\r\n\r\n"),
    "no HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "HTTP/0.9": says(b"<html></html>"),
    "odd status": says(b"HTTP/1.1 abc Bad\r\n\r\n"),
    "status 999": status("999 Odd"),
    "half a head": says(b"HTTP/1.1 101 Switching"),
    "100 for ever": says(b"HTTP/1.1 100 Continue\r\n\r\n", times=200),
    "103": says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", times=3),
    "200": status("200 OK"),
    "204": status("204 No Content", body=""),
    "endless body": says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 65_536, times=32),
    "odd length": says(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx"),
    "odd chunks": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "odd encoding": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: magic\r\n\r\nx"),
    "redirect away": status("302 Found", "Location: wss://login.example/"),
    "redirect here": status("307 Temporary Redirect", "Location: /connect"),
    "redirect to rubbish": status("308 Permanent Redirect", "Location: http://[::1"),
    "two redirects at once": status("301 Moved", "Location: /a", "Location: /b"),
    "redirect to nothing": status("302 Found"),
    "400": status("400 Bad Request"),
    "401 of a proxy": status("401 Unauthorized", 'WWW-Authenticate: Basic realm="proxy"'),
    "403 of a firewall": status("403 Forbidden"),
    "404": status("404 Not Found", "Lensway-Refusal: not_found"),
    "407": status("407 Proxy Authentication Required"),
    "426": status("426 Upgrade Required"),
    "429 with a wild wait": status("429 Too Many", "Retry-After: 0", "Retry-After: " + "9" * 400),
    "500": status("500 Internal"),
    "502": status("502 Bad Gateway"),
    "503 with odd waits": status("503 Busy", "Retry-After: -1", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"),
    "504": status("504 Gateway Timeout"),
    "wrong accept": upgrades(accept=b"bm8="),
    "accept of no base64": upgrades(accept=b"\xc3\xa9\xff"),
    "wrong subprotocol": upgrades(subprotocol="chat"),
    "two subprotocols": upgrades(subprotocol="chat, lensway.runner.v1"),
    "no subprotocol": upgrades(subprotocol=None),
    "unknown extension": upgrades(more="Sec-WebSocket-Extensions: rot13\r\n"),
    "garbage after the upgrade": upgrades(bytes(range(256)) * 16),
    "close after the upgrade": upgrades(),
    "masked frame": upgrades(b"\x82\x85abcdhello"),
    "reserved bits": upgrades(frame(2, b"hello", first=0xF0)),
    "unknown opcode": upgrades(frame(5, b"hello")),
    "long control frame": upgrades(frame(9, b"", length=2**16) + b"x" * 1000),
    "message without an end": upgrades(frame(2, b"", length=2**62) + b"x" * 1000),
    "negative length": upgrades(frame(2, b"", length=2**63 + 5)),
    "lone continuation": upgrades(frame(0, b"hello")),
    "text": upgrades(frame(1, b"hello")),
    "broken text": upgrades(frame(1, b"\xff\xfe")),
    "empty message": upgrades(frame(2, b"")),
    "rubbish as frames": upgrades(frame(2, random.Random(3).randbytes(100))),
    "frames before the welcome": upgrades(frame(2, codec.encode((EMPTY_SET,)))),
    "a welcome of another version": upgrades(
        frame(
            2,
            codec.encode(
                (frames.Welcome(**{f: getattr(WELCOME, f) for f in WELCOME.__struct_fields__} | {"version": 99}),)
            ),
        )
    ),
    "ping storm": upgrades(frame(9, b"x") * 2000),
    **{f"close {code}": closes(code) for code in (None, 1000, 1001, 1002, 1005, 1008, 1011, 1012, 1015, 3000, 4999, 9)},
}


class Peer:
    """A server that acts on each connection until it has done so often enough; then it is a gateway."""

    def __init__(self, act: Act, *, tls: ssl.SSLContext | None = None) -> None:
        self.dials = 0
        self._act = act
        self._tls = tls
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._good = upgrades(frame(2, codec.encode((WELCOME, EMPTY_SET))))

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self._tls)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        await self.settle()

    async def settle(self) -> None:
        """End every connection."""
        for task, writer in list(self._serving.items()):
            writer.transport.abort()
            task.cancel()
            await asyncio.wait([task], timeout=5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials += 1
        act = self._act if self.dials <= DIALS_EACH else self._good
        task = asyncio.current_task()
        self._serving[task] = writer
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await act(reader, writer)
        writer.transport.abort()
        del self._serving[task]


async def dials_until_good(name: str, peer: Peer, settings_for: Callable[[int], RunnerSettings]) -> int:
    """The runner reaches the good gateway behind the bad ones; raises what ends it otherwise."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async with peer as port:
        agent = agent_of(Dialer(settings_for(port), WebSocketTransport, resolve), SystemClock())
        running = asyncio.create_task(agent.run())
        try:
            async with asyncio.timeout(20):
                while agent.state != "connected":
                    assert not running.done(), f"{name}: {running.exception()!r}"
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{name}: {peer.dials} dials, {agent.cause}") from None
        agent.stop()
        await running
        assert agent.state == "stopped"
        return peer.dials


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is as silent after a third of a second."""
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(limits, "RECONNECT_REFUSED_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
def test_two_hundred_dials_of_peers_that_fail_at_every_step() -> None:
    async def run() -> int:
        gate = asyncio.Semaphore(16)

        async def one(name: str, act: Act) -> int:
            async with gate:
                return await dials_until_good(name, Peer(act), settings_of)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(name, act)) for name, act in ACTS.items()]
        return sum(task.result() for task in tasks)

    with structlog.testing.capture_logs() as logged:
        assert asyncio.run(run()) >= 200
    assert [line for line in logged if "defect" in line["event"]] == []


@pytest.mark.usefixtures("quick")
def test_a_peer_that_answers_before_it_is_asked_is_no_defect() -> None:
    """A balancer that has no server answers and closes at once, before the runner's request is written."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve() -> None:
        for number in itertools.count():
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.sendall((b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"\x15\x03\x01", bytes(range(64)))[number % 3])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    async def run() -> Counter[str]:
        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        dialer = Dialer(settings_of(listener.getsockname()[1]), WebSocketTransport, resolve)
        causes: Counter[str] = Counter()
        for _ in range(200):
            dialling = asyncio.create_task(dialer())
            while not dialling.done():
                await asyncio.sleep(0)
                threading.Event().wait(0.0005)  # the peer is faster than this loop
            error = dialling.exception()
            assert isinstance(error, DialError)
            causes[error.cause] += 1
        return causes

    with structlog.testing.capture_logs() as logged:
        causes = uvloop.run(run())  # this loop reads what has arrived before it goes on
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)
    assert [line for line in logged if "defect" in line["event"]] == []
    assert sum(causes.values()) == 200


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["closes at once", "resets", "silence", "binary garbage", "no TLS", "wrong name"])
def test_tls_that_fails_ends_no_runner(tmp_path: pathlib.Path, name: str) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    write_certificate(tmp_path)
    good = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    good.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)
    wrong = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    wrong.load_cert_chain(other / "server.crt", other / "server.key")

    async def run() -> None:
        acts = {**ACTS, "no TLS": http}
        peer = Peer(acts.get(name, silence))

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        environment = {"LENSWAY_CA_FILE": str(tmp_path / "server.crt")}
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=wrong if name == "wrong name" else None)
        port = server.sockets[0].getsockname()[1]
        agent = agent_of(
            Dialer(settings_of(port, scheme="wss", **environment), WebSocketTransport, resolve), SystemClock()
        )
        causes = set()
        running = asyncio.create_task(agent.run())
        async with asyncio.timeout(10):
            while len(causes - {""}) < 1:
                assert not running.done()
                causes.add(agent.cause)
                await asyncio.sleep(0.01)
        server.close()
        good_peer = Peer(silence)
        good_peer.dials = DIALS_EACH
        listening = await asyncio.start_server(good_peer.serve, "127.0.0.1", port, ssl=good)
        async with asyncio.timeout(10):
            while agent.state != "connected":
                assert not running.done()
                await asyncio.sleep(0.01)
        agent.stop()
        await running
        listening.close()
        await peer.settle()
        await good_peer.settle()
        expected = {"wrong name": "untrusted", "binary garbage": "clear_port", "no TLS": "clear_port"}
        expected["silence"] = "tls_silent"
        assert expected.get(name, "closed") in causes

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["closes at once", "resets", "silence", "binary garbage", "407", "502", "200"])
def test_a_proxy_that_fails_ends_no_runner(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def run() -> None:
        async with Peer(ACTS[name]) as port:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@localhost:{port}")
            monkeypatch.setenv("http_proxy", f"http://user:secret@localhost:{port}")
            settings = read_settings(
                {
                    "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
                    "LENSWAY_RUNNER_TOKEN": TOKEN,
                    "LENSWAY_GATEWAY_URL": "ws://gateway.example/connect",
                },
                insecure=True,
            )
            with pytest.raises(DialError) as caught:
                await Dialer(settings, WebSocketTransport)()
            assert not caught.value.is_final
            assert "secret" not in caught.value.hint
            # Spoken to and answered by rubbish, or not at all: the proxy is named where it is known to be the cause.
            expected = {"407": "proxy_login", "502": "proxy_away", "silence": "proxy_silent"}
            assert caught.value.cause == expected.get(name, caught.value.cause)

    asyncio.run(run())


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://", "http://[::1", "http://127.0.0.1:1"]
)
def test_a_proxy_setting_that_is_useless_ends_no_runner(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("all_proxy", proxy)
    settings = settings_of(1)
    with pytest.raises(DialError) as caught:
        asyncio.run(
            Dialer(
                read_settings(
                    {
                        "LENSWAY_RUNNER_ID": settings.runner,
                        "LENSWAY_RUNNER_TOKEN": TOKEN,
                        "LENSWAY_GATEWAY_URL": "ws://gateway.example/connect",
                    },
                    insecure=True,
                ),
                WebSocketTransport,
            )()
        )
    assert not caught.value.is_final
    assert caught.value.cause != "internal"


# --- refusals -----------------------------------------------------------------------------------------------------------------

REFUSED = status("401 Unauthorized", "Lensway-Refusal: unauthenticated")


def test_a_refusal_of_the_gateway_is_final_for_a_token_that_cannot_change() -> None:
    async def run() -> None:
        async with Peer(REFUSED) as port:
            agent = agent_of(Dialer(settings_of(port), WebSocketTransport), SystemClock())
            with pytest.raises(LenswayError) as caught:
                await agent.run()
            assert caught.value.code is ErrorCode.UNAUTHENTICATED
            assert "unauthenticated" in str(caught.value)

    asyncio.run(run())


def test_with_a_token_file_the_refusal_is_shown_and_a_new_token_is_tried_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOKEN_LOOK_SECONDS", 0.02)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    good = upgrades(frame(2, codec.encode((WELCOME, EMPTY_SET))))

    async def by_token(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        replay = asyncio.StreamReader()
        replay.feed_data(request)
        replay.feed_eof()
        act = good if b"rk_" + b"b" * 43 in request else REFUSED
        await act(replay, writer)

    async def run() -> None:
        peer = Peer(by_token)
        said: list[str] = []
        async with peer as port:
            settings = settings_of(port, LENSWAY_RUNNER_TOKEN_FILE=str(token))
            agent = agent_of(Dialer(settings, WebSocketTransport), SystemClock(), said, token_mark=settings.token_mark)
            running = asyncio.create_task(agent.run())
            async with asyncio.timeout(10):
                while agent.state != "refused":
                    await asyncio.sleep(0.01)
                assert agent.cause == "unauthenticated"
                await asyncio.sleep(0.2)
                assert peer.dials == 1, "the same token is not tried again at once"
                token.write_text("rk_" + "b" * 43)
                while agent.state != "connected":
                    assert not running.done()
                    await asyncio.sleep(0.01)
            agent.stop()
            await running
        assert [line for line in said if "refused" in line] == [
            "the gateway refused this runner (unauthenticated); dialling again when LENSWAY_RUNNER_TOKEN_FILE changes"
        ]

    asyncio.run(run())


@pytest.mark.parametrize("reason", [frames.CloseReason.REVOKED, frames.CloseReason.UNAUTHENTICATED])
@pytest.mark.parametrize("has_file", [True, False])
def test_a_refused_runner_dials_again_every_half_minute(reason: frames.CloseReason, has_file: bool) -> None:
    loop = VirtualLoop()
    process = VirtualProcess(loop)
    at: list[float] = []

    async def dial() -> Transport:
        at.append(process.monotonic())
        if len(at) == 1:
            close = frames.Close(reason=reason, message="")
            return OddTransport([codec.encode((WELCOME, EMPTY_SET, close))], None)
        if len(at) < 4:
            raise DialError("forbidden", "", is_final=True)
        return OddTransport([codec.encode((WELCOME, EMPTY_SET))], None)

    async def story() -> None:
        agent = agent_of(dial, process, token_mark=lambda: 1 if has_file else None)
        running = process.start(agent.run(), "agent")
        while len(at) < 4 and not running.done():
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        if has_file:
            assert agent.state == "connected"
            agent.stop()
        await running

    if has_file:
        run_virtual(story(), loop)
        assert [round(later - earlier) for earlier, later in itertools.pairwise(at)] == [30, 30, 30]
    else:
        with pytest.raises(LenswayError):
            run_virtual(story(), loop)
        assert len(at) == 1


def test_a_runner_is_stopped_while_it_waits_for_a_token() -> None:
    loop = VirtualLoop()
    process = VirtualProcess(loop)

    async def dial() -> Transport:
        raise DialError("forbidden", "", is_final=True)

    async def story() -> float:
        agent = agent_of(dial, process, token_mark=lambda: 1)
        running = process.start(agent.run(), "agent")
        await asyncio.sleep(5.5)
        asked = process.monotonic()
        process.start(stop(agent), "stop")
        await running
        return process.monotonic() - asked

    async def stop(agent: Agent) -> None:
        agent.stop()

    assert run_virtual(story(), loop) < 0.1
