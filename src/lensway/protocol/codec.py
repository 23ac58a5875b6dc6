"""Frames ↔ bytes, without I/O.

A frame is a header (kind, one byte; length of the payload, four bytes, big-endian) and a payload. The kind of a control frame
is its tag and the payload its MessagePack array. The payload of `Data` is a fixed header (job, eight bytes; attempt, four;
offset, eight) and raw rows. A WebSocket message holds one or more whole frames; the decoder depends on no boundary and takes
any split.

A kind with its high bit set is optional: a peer that does not know it skips it. Any other unknown kind ends the session.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import Any, Final, cast, get_args

import msgspec

from lensway.limits import CONTROL_FRAME_BYTES_MAX, DATA_FRAME_BYTES_MAX
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import AnyFrame, Data, Frame

HEADER: Final = struct.Struct("!BI")
DATA_HEADER: Final = struct.Struct("!QIQ")
OPTIONAL_KINDS_FROM: Final = 0x80
FRAME_TYPES: Final = cast("tuple[type[AnyFrame], ...]", get_args(AnyFrame))
COUNT_MAX: Final = 2**53 - 1
"""Larger numbers are refused, as in every control frame."""


def kind_of(frame_type: type[AnyFrame]) -> int:
    """The number that stands for this type on the wire."""
    return cast(int, frame_type.__struct_config__.tag)


DATA_KIND: Final = kind_of(Data)
_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[Any]]] = {
    kind_of(frame_type): msgspec.msgpack.Decoder(frame_type) for frame_type in FRAME_TYPES if frame_type is not Data
}
_encoder: Final = msgspec.msgpack.Encoder()


def write_frame(buffer: bytearray, frame: Frame) -> None:
    """Append the frame to a message. Raises ProtocolError when it is larger than a frame may be (and appends nothing)."""
    start = len(buffer)
    if type(frame) is Data:
        if not 0 < len(frame.payload) <= DATA_FRAME_BYTES_MAX:
            raise ProtocolError("data_frame_size")
        buffer += HEADER.pack(DATA_KIND, DATA_HEADER.size + len(frame.payload))
        buffer += DATA_HEADER.pack(frame.job, frame.attempt, frame.offset)
        buffer += frame.payload
        return
    # encode_into with offset -1 appends; the length is known only afterwards and is written over the placeholder.
    buffer += bytes(HEADER.size)
    _encoder.encode_into(frame, buffer, -1)
    length = len(buffer) - start - HEADER.size
    if length > CONTROL_FRAME_BYTES_MAX:
        del buffer[start:]
        raise ProtocolError("control_frame_too_large")
    HEADER.pack_into(buffer, start, cast(int, frame.__struct_config__.tag), length)


def encode(frames: Iterable[Frame]) -> bytes:
    """One message that holds these frames. Raises ProtocolError when one of them is too large."""
    buffer = bytearray()
    for frame in frames:
        write_frame(buffer, frame)
    return bytes(buffer)


class Decoder:
    """Bytes of one direction of one link → frames. After an error it stays broken: nothing behind an error can be trusted."""

    def __init__(self) -> None:
        self.ignored = 0
        """Optional frames of unknown kinds that were skipped."""
        self.parsed = 0
        """Frames that the last `feed` completed, with those that were skipped."""
        self._tail = bytearray()
        self._error: ProtocolError | None = None
        self._has_more = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has not arrived completely."""
        return len(self._tail)

    @property
    def has_more(self) -> bool:
        """True when the last `feed` gave as many frames as were wanted: more may be complete."""
        return self._has_more

    def feed(self, chunk: bytes, frames_max: int = sys.maxsize) -> list[AnyFrame]:
        """The frames that these bytes complete, in order, at most ``frames_max`` of them; feed nothing to get the next ones.

        Raises:
            ProtocolError: for anything malformed; frames before it in the same chunk are lost with the session.
        """
        if self._error is not None:
            raise self._error
        try:
            if not self._tail:
                frames, used = self._parse(memoryview(chunk), frames_max)
                self._tail += memoryview(chunk)[used:]
                return frames
            self._tail += chunk
            with memoryview(self._tail) as view:
                frames, used = self._parse(view, frames_max)
            del self._tail[:used]
            return frames
        except ProtocolError as error:
            self._error = error
            self._tail.clear()
            raise

    def _parse(self, view: memoryview, frames_max: int) -> tuple[list[AnyFrame], int]:
        frames: list[AnyFrame] = []
        used = 0
        left = frames_max
        while left and len(view) - used >= HEADER.size:
            left -= 1
            kind, length = HEADER.unpack_from(view, used)
            _check_header(kind, length)
            start = used + HEADER.size
            if len(view) - start < length:
                break
            used = start + length
            # Released at once: the tail cannot shrink while a view of it is alive, not even one held by a traceback.
            with view[start:used] as payload:
                if kind == DATA_KIND:
                    frames.append(_data(payload))
                elif kind in _DECODERS:
                    frames.append(_control(kind, payload))
                else:
                    self.ignored += 1
        self._has_more = not left
        self.parsed = frames_max - left
        return frames, used


def _check_header(kind: int, length: int) -> None:
    # Checked before the payload arrives, so that a lie about the length costs no memory.
    if kind == DATA_KIND:
        if not DATA_HEADER.size < length <= DATA_HEADER.size + DATA_FRAME_BYTES_MAX:
            raise ProtocolError("data_frame_size")
        return
    if kind not in _DECODERS and kind < OPTIONAL_KINDS_FROM:
        raise ProtocolError("unknown_frame_kind")
    if length > CONTROL_FRAME_BYTES_MAX:
        raise ProtocolError("control_frame_too_large")


def _data(payload: memoryview) -> Data:
    job, attempt, offset = DATA_HEADER.unpack_from(payload)
    if job > COUNT_MAX or offset > COUNT_MAX or attempt == 0:
        raise ProtocolError("malformed_frame")
    return Data(job=job, attempt=attempt, payload=bytes(payload[DATA_HEADER.size :]), offset=offset)


def _control(kind: int, payload: memoryview) -> AnyFrame:
    try:
        return cast(AnyFrame, _DECODERS[kind].decode(payload))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        # msgspec lets UnicodeDecodeError (a ValueError) and RecursionError escape besides its own. `from None`: its text
        # quotes what the peer sent.
        raise ProtocolError("malformed_frame") from None
