"""Lines on a standard stream that never fail and never hold up the program that writes them.

The reader of a pipe goes away or stands still, the disk is full, the stream was closed: such lines are lost and counted, and
the count is written once lines get through again.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
from typing import Final, TextIO

_PIECE_BYTES: Final = select.PIPE_BUF
"""A pipe that is ready takes so much at once without waiting."""


class Lines:
    """Writes whole lines. Looks like a text file to the logging library."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._lost = 0
        self._is_torn = False
        """The last line that was written has no end."""

    def write(self, text: str) -> int:
        """Write it, or count it as lost. Raises nothing."""
        lost = "1 line was" if self._lost == 1 else f"{self._lost:,} lines were"
        note = f"[{lost} lost: this stream could not be written]\n" if self._lost else ""
        start = "\n" if self._is_torn else ""
        if self._written((start + note + text).encode("utf-8", "backslashreplace")):
            self._lost = 0
        else:
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        """True for a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def _written(self, data: bytes) -> bool:
        if self._descriptor is None:
            return self._stream_took(data)
        for at in range(0, len(data), _PIECE_BYTES):
            if not self._descriptor_took(data[at : at + _PIECE_BYTES]):
                self._is_torn = self._is_torn or at > 0
                return False
        self._is_torn = False
        return True

    def _descriptor_took(self, piece: bytes) -> bool:
        assert self._descriptor is not None
        try:
            while piece:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                if not poll.poll(0):
                    return False
                piece = piece[os.write(self._descriptor, piece) :]
        except OSError:
            return False
        return True

    def _stream_took(self, data: bytes) -> bool:
        if self._stream is None:
            return False
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except (OSError, ValueError):
            return False
        return True


def _descriptor_of(stream: TextIO | None) -> int | None:
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        return None
