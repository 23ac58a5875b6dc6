"""A WebSocket connection that parses no more in one turn of the loop than the loop can spare.

The library parses all that the socket gave it at once, answers pings on the spot and has no bound on either: 256 KiB are 40,000
pings. Here the frames of what arrived are counted first, without looking into them. A few are passed on in each turn, and the
socket is not read meanwhile, nor while the peer leaves its answers unread.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode
from websockets.protocol import State

from lensway import limits
from lensway.protocol.allowance import Allowance

_FINAL_BINARY: Final = 0x82
_MASK_BYTES: Final = 4
_END_OF_HEAD: Final = b"\r\n\r\n"
_LARGE_BYTES: Final = 16 * limits.KIB
_FULL_SECONDS: Final = 0.01
"""Pause between two looks at whether the reader has taken large messages."""
_BLOCKED_SECONDS: Final = 0.05
"""Pause between two looks at whether a peer has read what was answered."""


class FrameCounter:
    """Finds where the frames of a stream of bytes begin. Takes any split; looks at headers only."""

    __slots__ = ("_begun", "_skip")

    def __init__(self) -> None:
        self._skip = 0
        self._begun = b""

    def is_one_message(self, data: bytes) -> bool:
        """True for exactly one whole, small message between two frames."""
        size = len(data)
        if self._skip or self._begun or size < 8 or data[0] != _FINAL_BINARY:
            return False
        length = data[1] - 0x80  # a client's frame is masked
        return size == 6 + length if length < 126 else length == 126 and size == 8 + (data[2] << 8 | data[3])

    def count(self, data: bytes, frames_max: int) -> tuple[int, int]:
        """The bytes that complete up to ``frames_max`` more headers with their payloads, as far as they are here; and how many
        of these frames are pings, pongs and fragments."""
        at, size, small = 0, len(data), 0
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            if not frames_max:
                break
            head = self._begun + data[at : at + 14 - len(self._begun)]
            need = _header_bytes(head)
            if len(head) < need:
                self._begun = head
                return size, small
            at += need - len(self._begun)
            self._begun = b""
            self._skip = _payload_bytes(head)
            frames_max -= 1
            small += head[0] != _FINAL_BINARY
        return at, small


def _header_bytes(head: bytes) -> int:
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    extended = 8 if length == 127 else 2 if length == 126 else 0
    return 2 + extended + (_MASK_BYTES if head[1] & 0x80 else 0)


def _payload_bytes(head: bytes) -> int:
    length = head[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(head[2:4] if length == 126 else head[2:10], "big")


class PacedConnection(ServerConnection):
    """A server's connection that reads no faster than is good for the others."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._counter = FrameCounter()
        self._held: bytes | None = None
        self._going_on: asyncio.Handle | None = None
        self._head = b""
        self._flood_from = self._flood_until = 0.0
        self._small = Allowance(
            self.loop.time(), per_second=limits.LINK_CONTROLS_PER_SECOND, burst=limits.LINK_CONTROLS_BURST
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over when reading goes on."""
        super().connection_made(transport)
        self.recv_messages.resume = self._resume

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was held."""
        self._held = None
        if self._going_on is not None:
            self._going_on.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on what one turn of the loop may take; the rest follows in later turns."""
        if self._held is not None:
            self._held += data  # had been read already when reading was paused
        elif self.protocol.state is State.CONNECTING:
            self._shake_hands(data)
        elif self._counter.is_one_message(data):
            super().data_received(data)  # as nearly always
        else:
            self._pass_on(data)

    def _shake_hands(self, data: bytes) -> None:
        # A runner says nothing behind its request before it is answered. Frames that do not wait would be parsed all at once.
        self._head = (self._head + data)[-limits.HTTP_HEAD_BYTES_MAX :]
        end = self._head.find(_END_OF_HEAD)
        if 0 <= end < len(self._head) - len(_END_OF_HEAD):
            self.transport.abort()
            return
        if end >= 0:
            self._head = _END_OF_HEAD
        super().data_received(data)

    def _pass_on(self, data: bytes) -> None:
        end, small = self._counter.count(data, limits.LINK_FRAMES_AT_ONCE_MAX)
        size = len(data)
        pause = 0.0
        if small:
            pause = self._small.spend(small - end / limits.FRAME_FREE_BYTES, self.loop.time())
        else:
            self._small.earn(end / limits.FRAME_FREE_BYTES)
        super().data_received(data if end == size else data[:end])
        if pause and self._is_flood():
            self.protocol.fail(CloseCode.POLICY_VIOLATION, "too many pings, pongs or fragments")
            self.send_data()
            return
        if end < size or pause or (small and self.paused) or (size >= _LARGE_BYTES and self._is_full()):
            self._hold(data[end:], pause)

    def _is_flood(self) -> bool:
        now = self.loop.time()
        if now > self._flood_until:
            self._flood_from = now
        self._flood_until = now + 2 * limits.PAUSE_SECONDS_MAX
        return now - self._flood_from > limits.FLOOD_SECONDS_MAX

    def _is_full(self) -> bool:
        """True while messages of more bytes wait for their reader than one link may hold."""
        waiting = self.recv_messages.frames.queue
        return len(waiting) > 1 and sum(len(frame.data) for frame in waiting) > limits.LINK_WAITING_BYTES_MAX

    def _hold(self, rest: bytes, pause: float) -> None:
        self._held = rest
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self._go_on_after(pause)

    def _go_on_after(self, pause: float) -> None:
        self._going_on = self.loop.call_later(pause, self._go_on) if pause else self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = None
        held = self._held
        if held is None or self.transport.is_closing():
            return
        if self.paused:
            self._go_on_after(_BLOCKED_SECONDS)
            return
        if held and self.recv_messages.paused:
            return  # its reader calls `_resume`
        if self._is_full():
            self._go_on_after(_FULL_SECONDS)
            return
        self._held = None
        if held:
            self._pass_on(held)
        if self._held is None and not self.recv_messages.paused:
            self.transport.resume_reading()

    def _resume(self) -> None:
        if self._held is None:
            self.transport.resume_reading()
        elif self._going_on is None:
            self._go_on_after(0.0)
