"""What waits to be sent on one link: control frames, short results, and rows, in this order, packed into messages. No I/O.

Frames keep their order within a lane. What ends an attempt (`End`, `Fail`) travels behind its rows; a short result that has no
rows ahead of it does not wait for the rows of others. An attempt is *held* until its last frame was taken: a heartbeat
overtakes rows, and must not seem to say that they are lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lensway.limits import (
    ASSIGNMENT_PART_BYTES_MAX,
    CONTROL_QUEUE_BYTES_MAX,
    DATA_FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SHORT_RESULT_BYTES_MAX,
)
from lensway.protocol.codec import write_frame
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import AssignmentSet, CloseReason, Data, End, Fail, Frame, Offer


class Outbox:
    """The lanes of one link."""

    def __init__(self) -> None:
        self._control: deque[Frame] = deque()
        self._ends: deque[End | Fail] = deque()
        self._data: deque[Data | End | Fail] = deque()
        self._rows_waiting: dict[tuple[int, int], int] = {}
        self._control_bytes = 0
        self._data_bytes = 0
        self._held: set[tuple[int, int]] = set()

    def __bool__(self) -> bool:
        """True when something waits."""
        return bool(self._control or self._ends or self._data)

    @property
    def data_bytes(self) -> int:
        """Bytes of rows that wait, without the short results that go before them."""
        return self._data_bytes

    @property
    def held(self) -> frozenset[tuple[int, int]]:
        """The (job, attempt) pairs whose last frame still waits."""
        return frozenset(self._held)

    def put(self, frame: Frame) -> None:
        """Queue a control frame. Raises ProtocolError (overloaded) when the peer has left too many unread."""
        size = _control_size(frame)
        if self._control_bytes + size > CONTROL_QUEUE_BYTES_MAX:
            raise ProtocolError("control_queue_full", reason=CloseReason.OVERLOADED)
        self._control.append(frame)
        self._control_bytes += size

    def put_data(self, frame: Data | End | Fail) -> None:
        """Queue rows, or what ends an attempt, behind its rows that wait. A short result overtakes the rows of others."""
        key = (frame.job, frame.attempt)
        if isinstance(frame, Data):
            self._rows_waiting[key] = self._rows_waiting.get(key, 0) + 1
        else:
            self._held.add(key)
            if key not in self._rows_waiting and _size(frame) <= SHORT_RESULT_BYTES_MAX:
                self._ends.append(frame)
                return
        self._data.append(frame)
        self._data_bytes += _size(frame)

    def drop(self, job: int, attempt: int) -> None:
        """Forget what waits of an attempt that was cancelled."""
        key = (job, attempt)
        kept = [frame for frame in self._data if (frame.job, frame.attempt) != key]
        self._data = deque(kept)
        self._data_bytes = sum(map(_size, kept))
        self._ends = deque(frame for frame in self._ends if (frame.job, frame.attempt) != key)
        self._rows_waiting.pop(key, None)
        self._held.discard(key)

    def take(self, data_bytes_max: int = DATA_FRAME_BYTES_MAX) -> bytearray | None:
        """The next message, or None when nothing waits: all control frames that fit, short results, then rows up to
        ``data_bytes_max`` (a short message on a slow link keeps control frames from waiting behind it; with 0 rows stay)."""
        message = bytearray()
        while self._control:
            start = len(message)
            write_frame(message, self._control[0])
            if start and len(message) > MESSAGE_BYTES_MAX:
                del message[start:]
                return message
            self._control_bytes -= _control_size(self._control.popleft())
        while self._ends and (not message or len(message) + _size(self._ends[0]) <= MESSAGE_BYTES_MAX):
            self._write_last(message, self._ends.popleft())
        room = min(data_bytes_max, MESSAGE_BYTES_MAX - len(message))
        while self._data and data_bytes_max and (room > 0 or not message):
            size = _size(self._data[0])
            if message and size > room:
                break
            frame = self._data.popleft()
            self._data_bytes -= size
            room -= size
            if isinstance(frame, Data):
                write_frame(message, frame)
                self._took_rows((frame.job, frame.attempt))
            else:
                self._write_last(message, frame)
        return message or None

    def _write_last(self, message: bytearray, frame: End | Fail) -> None:
        write_frame(message, frame)
        self._held.discard((frame.job, frame.attempt))

    def _took_rows(self, key: tuple[int, int]) -> None:
        left = self._rows_waiting[key] - 1
        if left:
            self._rows_waiting[key] = left
        else:
            del self._rows_waiting[key]


_OVERHEAD_BYTES: Final = 256
"""Header and numbers of a frame in the data lane, generously."""


def _size(frame: Data | End | Fail) -> int:
    match frame:
        case End():
            return len(frame.tail) + len(frame.result) + _OVERHEAD_BYTES
        case Data():
            return len(frame.payload) + _OVERHEAD_BYTES
        case Fail():
            return len(frame.failure) + _OVERHEAD_BYTES


def _control_size(frame: Frame) -> int:
    # An estimate that costs nothing: only these two kinds are ever large.
    match frame:
        case Offer():
            return len(frame.payload) + _OVERHEAD_BYTES
        case AssignmentSet():
            return ASSIGNMENT_PART_BYTES_MAX
        case _:
            return _OVERHEAD_BYTES
