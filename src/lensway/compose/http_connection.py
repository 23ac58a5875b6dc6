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
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lensway import limits
from lensway.api.envelope import error_body
from lensway.errors import CODES, ErrorCode, Failure
from lensway.ids import new_request_id
from lensway.service.wire import WIRE

_TCP_ESTABLISHED: Final = 1
"""The first byte of Linux's `struct tcp_info` is the state; this one is of a connection that nobody has closed."""
_RESET_AT_ONCE: Final = struct.pack("ii", 1, 0)


class _Wire:
    """Implements `lensway.service.wire.Wire`.

    A response has it in its scope, so it must not hold the response: what refers to itself stays in memory until the collector
    looks, with the request's body and answer, and that look stops everybody.
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
        """Drop the connection, and whatever was written to it and has not arrived yet."""
        cycle = self._response()
        if cycle is not None:
            cycle.disconnected = True
            self._connection.abort()


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the caller has closed or reset the connection, as far as this system tells while nobody reads it."""
    sock, info = transport.get_extra_info("socket"), getattr(socket, "TCP_INFO", None)
    if sock is None or info is None or sys.platform != "linux":
        return False
    try:
        state: int = sock.getsockopt(socket.IPPROTO_TCP, info, 1)[0]
    except OSError:
        return True
    return state != _TCP_ESTABLISHED


def _end(cycle: RequestResponseCycle) -> None:
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


class Connection(HttpToolsProtocol):
    """uvicorn's connection with bounded buffers, a wire for each response, and an end for callers that do not read."""

    def __init__(self, *args: Any, stall_seconds: float = limits.STALL_TIMEOUT_SECONDS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stall_seconds = stall_seconds
        self._watching: asyncio.TimerHandle | None = None
        self._waiting_for_request: asyncio.TimerHandle | None = None
        self._asking_since: float | None = None
        self._is_in_head = False
        self._head_bytes = 0
        self._idle_since = 0.0
        self._is_lost = False
        self._when_gone: Callable[[], None] | None = None
        self._looking_if_gone: asyncio.TimerHandle | None = None
        self._at_work: RequestResponseCycle | None = None
        self.memory: object = None

    @classmethod
    def stalling_after(cls, seconds: float) -> Callable[..., Connection]:
        """What makes connections that are dropped when the caller takes nothing for so long."""
        return functools.partial(cls, stall_seconds=seconds)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound what waits for a caller that does not read, here and in the kernel; refuse one caller too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=limits.HTTP_UNWRITTEN_BYTES_MAX)
        self._set_option("TCP_NOTSENT_LOWAT", limits.HTTP_UNSENT_BYTES_MAX)
        self._asking_since = self.loop.time()
        self._look_at_caller()
        if len(self.connections) > limits.HTTP_CONNECTIONS_MAX:
            self._refuse(ErrorCode.OVERLOADED, "This server has as many connections as it takes")

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._stop_watching()
        for timer in (self._waiting_for_request, self._looking_if_gone):
            if timer is not None:
                timer.cancel()
        if self._at_work is not None and not self._at_work.response_complete:
            # uvicorn tells only the one that came last.
            self._at_work.disconnected = True
            self._at_work.message_event.set()
        super().connection_lost(exc)
        self._is_lost = True
        self._tell_gone()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once, as soon as the caller is gone; there is one request at a time."""
        if call is not None:
            if self._is_lost:
                call()
                return
            # It is read on while its request is worked on, or nobody would hear that it is gone.
            self.flow.resume_reading()
        self._when_gone = call

    def _tell_gone(self) -> None:
        call, self._when_gone = self._when_gone, None
        if call is not None:
            call()

    def _look_if_gone(self) -> None:
        """Ask the kernel, while the caller is not read because it sent its next request already."""
        self._looking_if_gone = None
        if self._when_gone is None or not self.flow.read_paused:
            return
        if _has_hung_up(self.transport):
            self._tell_gone()
            self.abort()
        else:
            self._looking_if_gone = self.loop.call_later(limits.CALLER_LOOK_SECONDS, self._look_if_gone)

    def _read_no_more(self) -> None:
        if self._when_gone is not None and self._looking_if_gone is None:
            self._looking_if_gone = self.loop.call_later(limits.CALLER_LOOK_SECONDS, self._look_if_gone)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; the head of one is bounded, its body by whoever reads it."""
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse(ErrorCode.PAYLOAD_TOO_LARGE, "The headers of the request are too large")
        elif self.headers and not self._is_in_head:
            # Trailers, which mean nothing here.
            self.headers.clear()
            self._head_bytes += len(data)
            if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX:
                self.abort()
        if self.flow.read_paused:
            self._read_no_more()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._asking_since = self.loop.time()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._is_in_head = False
        super().on_headers_complete()
        # Trailers would be appended to the headers that the request has been given, and be believed.
        self.headers = []

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        self._asking_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Its answer is written: the next one that it has sent already, or its turn to ask.

        As uvicorn has it, but for the timer of idle connections: they are looked at from time to time, as those are that do not
        finish what they ask, which costs less than a timer for each request.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._idle_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """What was sent is not HTTP."""
        self._refuse(ErrorCode.INVALID_REQUEST, msg)

    def pause_writing(self) -> None:
        """The caller does not take what was written; from now on it is watched."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The caller has taken it."""
        self._stop_watching()
        super().resume_writing()

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
            f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
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
