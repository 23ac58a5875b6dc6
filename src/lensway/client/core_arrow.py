"""As much of Arrow's stream format as it takes to count rows while they pass: messages are walked through, bodies skipped.

A stream is messages, each of a continuation mark, the size of its metadata, the metadata (a flatbuffer) and a body whose size the
metadata tells. The metadata of a record batch tells its rows. Nothing here is needed to read rows, so what is not understood only
ends the counting.
"""

from __future__ import annotations

import struct
from typing import Final

_CONTINUATION: Final = b"\xff\xff\xff\xff"
_PREFIX_BYTES: Final = 8
_METADATA_BYTES_MAX: Final = 16 * 1024 * 1024
"""Far above any schema's metadata; a larger size is no size."""
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_BATCH, _BATCH_LENGTH = 3, 0


class BatchCount:
    """Counts the rows of an Arrow stream's batches, however it is cut into pieces."""

    def __init__(self) -> None:
        self.rows: int | None = 0
        self._held = bytearray()
        self._skip_bytes = 0

    def take(self, data: bytes) -> None:
        """The next bytes."""
        if self.rows is None:
            return
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        self._held += memoryview(data)[skipped:]
        try:
            while self._has_message():
                self._pass_message()
        except (struct.error, ValueError):
            self.rows = None
            self._held.clear()

    def _has_message(self) -> bool:
        """True when the first message's metadata is all there. The end mark is a message without metadata."""
        if len(self._held) < _PREFIX_BYTES:
            return False
        if not self._held.startswith(_CONTINUATION) or self._metadata_bytes() > _METADATA_BYTES_MAX:
            raise ValueError("not a message")
        return 0 < self._metadata_bytes() <= len(self._held) - _PREFIX_BYTES

    def _metadata_bytes(self) -> int:
        return int.from_bytes(self._held[4:_PREFIX_BYTES], "little")

    def _pass_message(self) -> None:
        metadata = bytes(self._held[_PREFIX_BYTES : _PREFIX_BYTES + self._metadata_bytes()])
        message = _target(metadata, 0)
        if _number(metadata, message, _HEADER_TYPE, "<B") == _BATCH:
            batch = _target(metadata, _field(metadata, message, _HEADER))
            self.rows = (self.rows or 0) + _length(metadata, batch, _BATCH_LENGTH)
        whole = _PREFIX_BYTES + len(metadata) + _length(metadata, message, _BODY_LENGTH)
        self._skip_bytes = max(0, whole - len(self._held))
        del self._held[:whole]


def _target(metadata: bytes, at: int) -> int:
    """Where the offset at this place points."""
    return at + int(struct.unpack_from("<I", metadata, at)[0])


def _field(metadata: bytes, table: int, index: int) -> int:
    """Where a table's field is; 0 when it is absent. Raises struct.error for what is no table."""
    fields = table - int(struct.unpack_from("<i", metadata, table)[0])
    if fields < 0:
        raise ValueError("no table")
    size, slot = struct.unpack_from("<H", metadata, fields)[0], 4 + 2 * index
    offset = struct.unpack_from("<H", metadata, fields + slot)[0] if slot < size else 0
    return table + int(offset) if offset else 0


def _length(metadata: bytes, table: int, index: int) -> int:
    """The length in a table's field. Raises ValueError for a negative one."""
    length = _number(metadata, table, index, "<q")
    if length < 0:
        raise ValueError("no length")
    return length


def _number(metadata: bytes, table: int, index: int, format: str) -> int:
    """The number in a table's field; 0 when it is absent."""
    at = _field(metadata, table, index)
    return int(struct.unpack_from(format, metadata, at)[0]) if at else 0
