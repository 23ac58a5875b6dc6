"""The HTTP connection below the responses, for what ASGI has no word for: trailers, a cut that the caller sees, callers that
do not read.

uvicorn parses and writes; this adds to it and replaces nothing. What waits here and in the kernel for a caller that does not
read is bounded, so that "taken by the caller" means what flow control needs it to mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lensway import limits
from lensway.api.envelope import error_body
from lensway.auth.address import Network
from lensway.auth.shares import Shares
from lensway.errors import CODES, ErrorCode, Failure
from lensway.ids import new_request_id
from lensway.service.reading import Flow, Reading, Turns
from lensway.service.wire import WIRE

Door = Callable[[asyncio.BaseProtocol, object, Shares], asyncio.BaseProtocol]
"""What stands before a connection until its handshake is done, and shares its place meanwhile."""
_TCP_ESTABLISHED: Final = 1
"""The first byte of Linux's `struct tcp_info` is the state; this one means that neither side has closed the connection."""
_RESET_AT_ONCE: Final = struct.pack("ii", 1, 0)
_END_OF_HEAD: Final = b"\r\n\r\n"
"""Every head ends with it, so that bytes with so many of these begin at most one request more than that."""


_ONCE: Final = (b"host", b"authorization", b"x-environment", b"content-type", b"content-encoding")
"""Headers of which a proxy may read another one than we do, where there are several."""


class _TooManyHeadersError(Exception):
    pass


class _AmbiguousHeadersError(Exception):
    """Others may read the request in another way; the text says why."""


def _check_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises _AmbiguousHeadersError."""
    names = [name for name, _ in headers]
    if len(set(names)) != len(names):
        for once in _ONCE:
            if names.count(once) > 1:
                raise _AmbiguousHeadersError(f"The request has several {once.decode().title()} headers; send one")
    if b"transfer-encoding" in names and dict(headers)[b"transfer-encoding"].lower() != b"chunked":
        raise _AmbiguousHeadersError("The body may have only the transfer encoding chunked")


class _Wire:
    """Implements `lensway.service.wire.Wire`.

    A response has it in its scope, so it must not hold the response: what refers to itself stays in memory until the collector
    looks, with the request's body and answer, and that look stops all work.
    """

    __slots__ = ("_connection", "_response")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._response = weakref.ref(cycle)

    @property
    def memory(self) -> object:
        """What is remembered until the next request of this connection."""
        return self._connection.memory

    @memory.setter
    def memory(self, value: object) -> None:
        self._connection.memory = value
        self._connection.know()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once, as soon as the caller is gone."""
        self._connection.when_gone(call)

    @property
    def is_gone(self) -> bool:
        """True when nothing that is written reaches the caller any more."""
        cycle = self._response()
        return cycle is None or cycle.disconnected or cycle.transport.is_closing()

    @property
    def is_blocked(self) -> bool:
        """True while the caller does not take what was written."""
        cycle = self._response()
        return cycle is not None and cycle.flow.write_paused

    def take_body(self) -> bytes | None:
        """The body of the request, once, when all of it is there already."""
        cycle = self._response()
        if cycle is None or cycle.more_body or cycle.disconnected or not cycle.message_event.is_set():
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | memoryview) -> None:
        """Write a whole answer at once. Its length is among the headers; names and values are our own."""
        cycle = self._response()
        if cycle is None:
            return
        if cycle.flow.write_paused:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        assert not cycle.response_started, "a response is sent once"
        cycle.response_started = True
        _expect_no_body(cycle)
        head = [b"%s: %s\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        cycle.transport.writelines((b"".join((STATUS_LINE[status], *head, b"\r\n")), body))
        _end(cycle)

    async def drained(self) -> None:
        """Return when the caller has taken all but a little of what was written, or is gone."""
        cycle = self._response()
        if cycle is not None:
            await cycle.flow.drain()

    def finish(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End a chunked response well: its last chunk, and behind it the trailers. Names and values are our own."""
        cycle = self._response()
        if cycle is None or self.is_gone:
            return
        assert cycle.chunked_encoding, "trailers follow chunks"
        cycle.transport.write(b"0\r\n%s\r\n" % b"".join(b"%s: %s\r\n" % trailer for trailer in trailers))
        _end(cycle)

    def cut(self) -> None:
        """End the response without its last chunk. What was written still goes out, if the caller takes it."""
        cycle = self._response()
        if cycle is None:
            return
        cycle.disconnected = True
        if self.is_blocked:
            self._connection.abort()
        else:
            self._connection.close_soon()

    def abort(self) -> None:
        """Drop the connection, with everything written to it that has not arrived yet."""
        cycle = self._response()
        if cycle is not None:
            cycle.disconnected = True
            self._connection.abort()


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the caller has closed or reset the connection, as far as this system tells while reading is paused."""
    sock, info = transport.get_extra_info("socket"), getattr(socket, "TCP_INFO", None)
    if sock is None or info is None or sys.platform != "linux":
        return False
    try:
        state: int = sock.getsockopt(socket.IPPROTO_TCP, info, 1)[0]
    except OSError:
        return True
    return state != _TCP_ESTABLISHED


def _expect_no_body(cycle: RequestResponseCycle) -> None:
    """A caller that asked whether to send its body, and gets an answer instead, may send it or not. Then it is unclear where its
    next request begins, so the answer closes the connection."""
    if cycle.waiting_for_100_continue and cycle.more_body:
        cycle.keep_alive = False


async def _answering_before_body(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Call the app for a request with `Expect: 100-continue`."""
    cycle = send.__self__

    async def send_on(message: Any) -> None:
        _expect_no_body(cycle)
        await send(message)

    await app(scope, receive, send_on)


def _end(cycle: RequestResponseCycle) -> None:
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def http_shares(trusted: Sequence[Network] = (), note: Callable[[str], None] = lambda _what: None) -> Shares:
    """The room for connections of callers."""
    return Shares(
        in_all_max=limits.HTTP_CONNECTIONS_MAX,
        strangers_max=limits.HTTP_STRANGERS_MAX,
        per_address_max=limits.HTTP_STRANGERS_PER_ADDRESS_MAX,
        patience_seconds=limits.HTTP_PATIENCE_SECONDS,
        trusted=trusted,
        note=note,
    )


class Connection(HttpToolsProtocol):
    """uvicorn's connection with bounded buffers, a wire for each response, and an end for callers that do not read."""

    def __init__(
        self,
        *args: Any,
        stall_seconds: float = limits.STALL_TIMEOUT_SECONDS,
        turns: Turns | None = None,
        shares: Shares | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._stall_seconds = stall_seconds
        self._turns = turns or Turns()
        self._shares = shares or http_shares()
        self._watching: asyncio.TimerHandle | None = None
        self._waiting_for_request: asyncio.TimerHandle | None = None
        self._asking_since: float | None = None
        self._is_in_head = False
        self._is_receiving = False
        self._head_bytes = 0
        self._idle_since = 0.0
        self._is_lost = False
        self._when_gone: Callable[[], None] | None = None
        self._looking_if_gone: asyncio.TimerHandle | None = None
        self._at_work: RequestResponseCycle | None = None
        self._ahead = b""
        self._has_turn = False
        self._refusal: tuple[ErrorCode, str] | None = None
        self.flow: Flow
        self.memory: object = None

    @classmethod
    def stalling_after(
        cls, seconds: float, *, shares: Shares | None = None, door: Door | None = None
    ) -> Callable[..., asyncio.BaseProtocol]:
        """A maker of connections that share turns and room, read in small pieces and are dropped when the caller takes nothing
        for so long. ``door`` shakes hands for them."""
        turns, room = Turns(), shares or http_shares()

        def make(*args: Any, **options: Any) -> asyncio.BaseProtocol:
            connection = cls(*args, stall_seconds=seconds, turns=turns, shares=room, **options)
            reading = Reading(connection)
            return reading if door is None else door(reading, connection, room)

        return make

    def know(self) -> None:
        """The caller has shown a good key: its connection is dropped for no stranger's."""
        self._shares.know(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound what waits for a caller that does not read, here and in the kernel; refuse one caller too many."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        transport.set_write_buffer_limits(high=limits.HTTP_WRITE_PAUSE_BYTES)
        self._set_option("TCP_NOTSENT_LOWAT", limits.HTTP_UNSENT_BYTES_MAX)
        self._asking_since = self.loop.time()
        self._look_at_caller()
        if not self._shares.enter(self, self.client[0] if self.client else "", self._asking_since, self.abort):
            self._refuse(ErrorCode.OVERLOADED, "This server has reached its connection limit")

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._stop_watching()
        self._stop_looking()
        if self._waiting_for_request is not None:
            self._waiting_for_request.cancel()
        if self._at_work is not None and not self._at_work.response_complete:
            # uvicorn tells only the one that came last.
            self._at_work.disconnected = True
            self._at_work.message_event.set()
        super().connection_lost(exc)
        self._shares.leave(self)
        self._is_lost = True
        self._ahead = b""
        self.pipeline.clear()
        self._tell_gone()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once, as soon as the caller is gone; there is one request at a time."""
        if call is not None:
            if self._is_lost:
                call()
                return
            # Reading goes on while its request is worked on; otherwise a disconnect would go unnoticed.
            self.flow.resume_reading()
            if self.flow.read_paused:
                self._stop_looking()
                self._when_gone = call
                self._read_no_more()
        self._when_gone = call

    def _tell_gone(self) -> None:
        call, self._when_gone = self._when_gone, None
        if call is not None:
            call()

    def _look_if_gone(self) -> None:
        """Ask the kernel, while the caller is not read because it sent its next request already."""
        self._looking_if_gone = None
        if not self.flow.read_paused or self._is_lost:
            return
        if _has_hung_up(self.transport):
            self.abort()
        else:
            self._read_no_more()

    def _stop_looking(self) -> None:
        if self._looking_if_gone is not None:
            self._looking_if_gone.cancel()
            self._looking_if_gone = None

    def _read_no_more(self) -> None:
        if self._looking_if_gone is None:
            pause = limits.CALLER_IDLE_LOOK_SECONDS if self._when_gone is None else limits.CALLER_LOOK_SECONDS
            self._looking_if_gone = self.loop.call_later(pause, self._look_if_gone)

    # --- what the caller sends ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; the head of one is bounded, its body by its reader. Pipelined requests wait unparsed."""
        if self._ahead or not self._may_parse() or data.count(_END_OF_HEAD) > 1:
            self._ahead += data
            self.flow.hold()
            self._ask_for_turn()
        else:
            self._parse(data)
        if self.flow.read_paused:
            self._read_no_more()

    def take_turn(self) -> None:
        """Parse the next request that was sent ahead, which starts it."""
        self._has_turn = False
        pieces = 0
        while self._ahead and self._may_parse() and not self.transport.is_closing():
            if (pieces := pieces + 1) > limits.HTTP_PIECES_PER_TURN_MAX:
                self._ask_for_turn()
                return
            end = self._ahead.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            if end < len(_END_OF_HEAD):
                end = len(self._ahead)
            piece, self._ahead = self._ahead[:end], self._ahead[end:]
            self._parse(piece)
        if not self._ahead and self._refusal is None and not self._is_lost:
            self.flow.is_held = False
            if not self.pipeline:
                self.flow.resume_reading()

    def _ask_for_turn(self) -> None:
        """The connection goes on with what was sent ahead, if it may."""
        if self._ahead and not self._has_turn and self._may_parse():
            self._has_turn = True
            self._turns.wait(self, self.loop)

    def _may_parse(self) -> bool:
        """True while bytes belong to the request at work, or nothing waits: neither an answer nor the caller's reading it."""
        if self.pipeline or self._refusal is not None:
            return False
        if self._is_receiving:
            return True
        return not self.flow.write_paused and (self.cycle is None or self.cycle.response_complete)

    def _parse(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # It gets an answer in HTTP/1.1, and so does what it sent behind.
            self._ahead = data[upgrade.args[0] :] + self._ahead
            if self._ahead:
                self.flow.hold()
                self._ask_for_turn()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooManyHeadersError):
                self._fail(ErrorCode.PAYLOAD_TOO_LARGE, "The request has too many headers")
            elif isinstance(error.__context__, _AmbiguousHeadersError):
                self._fail(ErrorCode.INVALID_REQUEST, str(error.__context__))
            else:
                self._fail(ErrorCode.INVALID_REQUEST, "Invalid HTTP request received.")
            return
        if self._is_in_head:
            self._head_bytes += len(data) if was_in_head else 0
            if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX or len(self.headers) > limits.HTTP_HEADERS_MAX:
                self._fail(ErrorCode.PAYLOAD_TOO_LARGE, "The headers of the request are too large")
        elif self.headers:
            # Trailers, which mean nothing here.
            self.headers.clear()
            self._head_bytes += len(data)
            if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX:
                self.abort()

    def _fail(self, code: ErrorCode, message: str) -> None:
        """What is sent cannot be served: say so, behind the answers that the caller waits for."""
        at_work = self._at_work
        if at_work is None or at_work.response_complete:
            self._refuse(code, message)
        elif self._is_in_head or self.cycle is not at_work:
            if not self._is_in_head:
                self.pipeline.clear()
            self._refusal = (code, message)
            self._ahead = b""
            self.flow.hold()
            self._read_no_more()
        else:
            # It is the request at work whose body is broken.
            has_begun, at_work.disconnected = at_work.response_started, True
            at_work.message_event.set()
            if has_begun:
                self.abort()
            else:
                self._refuse(code, message)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._asking_since = self.loop.time()
        self._is_in_head = self._is_receiving = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Its head is there."""
        if len(self.headers) > limits.HTTP_HEADERS_MAX:
            raise _TooManyHeadersError
        _check_headers(self.headers)
        self._is_in_head = False
        super().on_headers_complete()
        # Trailers would be appended to the headers that the request has been given, and be believed.
        self.headers = []

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        self._asking_since = None
        self._is_receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Its answer is written: the next one that it has sent already, or its turn to ask.

        As uvicorn has it, but for the timer of idle connections: they are looked at from time to time, as those are that do not
        finish what they ask, which costs less than a timer for each request.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._forget_answered()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._refuse(*self._refusal)
        else:
            self._idle_since = self.loop.time()
        self._ask_for_turn()

    def _forget_answered(self) -> None:
        """What an answered request leaves behind is not kept until the next one, which may never come."""
        answered = self._at_work
        if answered is not None and answered.response_complete:
            if self.scope is answered.scope:
                self.scope = None  # type: ignore[assignment]
            answered.scope = None  # type: ignore[assignment]
            if answered.body:
                answered.body = bytearray()

    def pause_writing(self) -> None:
        """The caller does not take what was written; from now on it is watched."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The caller has taken it."""
        self._stop_watching()
        super().resume_writing()
        self._ask_for_turn()

    def close_soon(self) -> None:
        """Close when what was written has been taken, or when the caller takes nothing."""
        self.transport.close()
        self.loop.call_later(self._stall_seconds, self.transport.abort)

    def abort(self) -> None:
        """Reset the connection: neither this process nor the kernel keeps anything for it."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        cycle.scope[WIRE] = _Wire(self, cycle)  # type: ignore[typeddict-unknown-key]
        if cycle.waiting_for_100_continue:
            app = functools.partial(_answering_before_body, app)
        super()._start_asgi_task(cycle, app)

    def _look_at_caller(self) -> None:
        """A caller that does not finish its request in time is dropped, one that asks nothing any more is closed, also when it
        never takes its last answer; one look costs less than a timer for each request."""
        now = self.loop.time()
        if self.flow.read_paused:
            # It is not the caller who keeps us waiting.
            self._asking_since = None if self._asking_since is None else now
            left = limits.HTTP_REQUEST_SECONDS_MAX
        elif self._asking_since is not None:
            left = self._asking_since + limits.HTTP_REQUEST_SECONDS_MAX - now
            if left <= 0:
                self.abort()
                return
        elif self.cycle is None or self.cycle.response_complete:
            left = self._idle_since + self.timeout_keep_alive - now
            if left <= 0:
                if not self.transport.is_closing():
                    self.close_soon()
                return
        else:
            left = self.timeout_keep_alive
        pause = min(left, limits.HTTP_REQUEST_SECONDS_MAX, self.timeout_keep_alive)
        self._waiting_for_request = self.loop.call_later(pause, self._look_at_caller)

    def _refuse(self, code: ErrorCode, message: str) -> None:
        request_id, facts = new_request_id(), CODES[code]
        body = msgspec.json.encode(error_body(Failure(code=code, message=message), request_id))
        head = (
            f"HTTP/1.1 {facts.status} {http.HTTPStatus(facts.status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        )
        own = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        self.transport.write(head.encode() + own + b"\r\n" + body)
        self.close_soon()

    def _watch(self, waiting_bytes: int) -> None:
        self._watching = self.loop.call_later(self._stall_seconds, self._look, waiting_bytes)

    def _look(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._watch(waiting)
        else:
            self.abort()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _set_option(self, name: str, value: int) -> None:
        sock, option = self.transport.get_extra_info("socket"), getattr(socket, name, None)
        if sock is not None and option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
