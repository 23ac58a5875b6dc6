"""Credit: how many bytes of one attempt may be under way. One object per attempt and side, no I/O.

The sender never sends more than it was granted; the receiver treats more as a broken peer. The bytes of the tail inside `End`
count like those of any data frame.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lensway.limits import DATA_FRAME_BYTES_MAX
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import Data, End


class SendStream:
    """The executing side of one attempt: rows wait here until there is credit for them."""

    def __init__(self, *, job: int, attempt: int, credit: int) -> None:
        self.job: Final = job
        self.attempt: Final = attempt
        self.sent_bytes = 0
        self._granted = credit
        self._chunks: deque[memoryview] = deque()
        self._pending_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes put and not yet taken."""
        return self._pending_bytes

    @property
    def credit_left(self) -> int:
        """Bytes that may be sent now."""
        return self._granted - self.sent_bytes

    def grant(self, count: int) -> None:
        """The caller took so many bytes more."""
        self._granted += count

    def put(self, chunk: bytes) -> None:
        """Queue rows behind those that wait."""
        if chunk:
            self._chunks.append(memoryview(chunk))
            self._pending_bytes += len(chunk)

    def take(self, frame_bytes_max: int = DATA_FRAME_BYTES_MAX) -> Data | None:
        """The next frame that the credit allows, as large as it may be; None when nothing waits or there is no credit."""
        size = min(self._pending_bytes, self.credit_left, frame_bytes_max)
        if size <= 0:
            return None
        offset = self.sent_bytes
        return Data(job=self.job, attempt=self.attempt, payload=self._cut(size), offset=offset)

    def end(self, result: bytes, tail_bytes_max: int = DATA_FRAME_BYTES_MAX) -> End | None:
        """The last frame with what still waits as its tail; None as long as that does not fit the credit or the tail."""
        if self._pending_bytes > min(self.credit_left, tail_bytes_max):
            return None
        tail = self._cut(self._pending_bytes)
        return End(job=self.job, attempt=self.attempt, result=result, sent_bytes=self.sent_bytes, tail=tail)

    def _cut(self, size: int) -> bytes:
        self.sent_bytes += size
        self._pending_bytes -= size
        parts: list[memoryview] = []
        while size:
            first = self._chunks.popleft()
            if len(first) > size:
                self._chunks.appendleft(first[size:])
                first = first[:size]
            parts.append(first)
            size -= len(first)
        return b"".join(parts)


class ReceiveStream:
    """The delivering side of one attempt: counts what arrives against what was granted."""

    def __init__(self, *, credit: int) -> None:
        self.received_bytes = 0
        self._granted = credit

    def grant(self, count: int) -> None:
        """The caller took so many bytes more."""
        self._granted += count

    def data(self, frame: Data) -> None:
        """Count a data frame. Raises ProtocolError when it is not the next one or more than was granted (and counts nothing)."""
        if frame.offset != self.received_bytes:
            raise ProtocolError("data_out_of_order")
        self._count(len(frame.payload))

    def end(self, frame: End) -> None:
        """Count the tail and compare the sum. Raises ProtocolError when either is wrong."""
        if frame.sent_bytes != self.received_bytes + len(frame.tail):
            raise ProtocolError("byte_count_differs")
        if len(frame.tail) > DATA_FRAME_BYTES_MAX:
            raise ProtocolError("data_frame_size")
        self._count(len(frame.tail))

    def _count(self, size: int) -> None:
        if self.received_bytes + size > self._granted:
            raise ProtocolError("credit_overrun")
        self.received_bytes += size
