"""What waits to be sent on one link: a control lane and a data lane, control first, packed into messages. No I/O.

Frames keep their order within a lane. What ends an attempt (`End`, `Fail`) travels in the data lane, behind its rows. So an
attempt is *held* until its last frame was taken: a heartbeat overtakes rows, and must not seem to say that they are lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lensway.limits import ASSIGNMENT_PART_BYTES_MAX, CONTROL_QUEUE_BYTES_MAX, DATA_FRAME_BYTES_MAX, MESSAGE_BYTES_MAX
from lensway.protocol.codec import write_frame
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import AssignmentSet, CloseReason, Data, End, Fail, Frame, Offer


class Outbox:
    """The two lanes of one link."""

    def __init__(self) -> None:
        self._control: deque[Frame] = deque()
        self._data: deque[Data | End | Fail] = deque()
        self._control_bytes = 0
        self._data_bytes = 0
        self._held: set[tuple[int, int]] = set()

    def __bool__(self) -> bool:
        """True when something waits."""
        return bool(self._control or self._data)

    @property
    def data_bytes(self) -> int:
        """Bytes of rows that wait."""
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
        """Queue rows, or what ends an attempt, behind the rows that wait."""
        self._data.append(frame)
        self._data_bytes += _size(frame)
        if type(frame) is not Data:
            self._held.add((frame.job, frame.attempt))

    def drop(self, job: int, attempt: int) -> None:
        """Forget what waits of an attempt that was cancelled."""
        kept = [frame for frame in self._data if (frame.job, frame.attempt) != (job, attempt)]
        self._data = deque(kept)
        self._data_bytes = sum(map(_size, kept))
        self._held.discard((job, attempt))

    def take(self, data_bytes_max: int = DATA_FRAME_BYTES_MAX) -> bytearray | None:
        """The next message, or None when nothing waits: all control frames that fit, then rows up to ``data_bytes_max`` (a
        short message on a slow link keeps control frames from waiting behind it; with 0 rows stay)."""
        message = bytearray()
        while self._control:
            start = len(message)
            write_frame(message, self._control[0])
            if start and len(message) > MESSAGE_BYTES_MAX:
                del message[start:]
                return message
            self._control_bytes -= _control_size(self._control.popleft())
        room = min(data_bytes_max, MESSAGE_BYTES_MAX - len(message))
        while self._data and data_bytes_max and (room > 0 or not message):
            size = _size(self._data[0])
            if message and size > room:
                break
            frame = self._data.popleft()
            self._data_bytes -= size
            room -= size
            write_frame(message, frame)
            if type(frame) is not Data:
                self._held.discard((frame.job, frame.attempt))
        return message or None


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
