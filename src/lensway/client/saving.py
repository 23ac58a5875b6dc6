"""A stream into a file: under a temporary name beside it, renamed when it is complete, so that a file is never half."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Callable
from typing import BinaryIO

from lensway.client import core_stream
from lensway.client.core import Do, Work
from lensway.client.core_stream import Incoming


class PartialFile:
    """A file that appears under its name only when it is complete. A context manager: leaving without `commit` leaves nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(os.path.realpath(path))  # a link stays one
        self._partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.partial")
        self._file: BinaryIO | None = None

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def open(self) -> None:
        """Create the temporary file. Raises OSError."""
        self._file = self._partial.open("xb")

    def write(self, data: bytes) -> None:
        """More of the content. Raises OSError."""
        assert self._file is not None
        self._file.write(data)

    def commit(self) -> None:
        """Complete: on disk, and under its name. Raises OSError."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)


def save(
    incoming: Incoming, target: str | os.PathLike[str] | BinaryIO, *, progress: Callable[[int], object] | None = None
) -> Work[int]:
    """Write the rows to a path or into an open binary file; the bytes written.

    A path gets a temporary file beside it that is renamed when the stream is complete, so there is never half a file. An open
    file is only written to. ``progress`` is called with the bytes so far after each part.

    Raises:
        IncompleteStreamError: when the stream broke.
        OSError: when it cannot be written.
    """
    yield from core_stream.opened(incoming)
    if not isinstance(target, (str, os.PathLike)):
        return (yield from _copied(incoming, target.write, progress))
    if _is_special(target):
        # A pipe or a device is written to; a file that took its place would be a nasty surprise.
        with pathlib.Path(target).open("wb") as special:
            return (yield from _copied(incoming, special.write, progress))
    with PartialFile(target) as file:
        yield Do(file.open)
        written = yield from _copied(incoming, file.write, progress)
        yield Do(file.commit)
    return written


def _is_special(target: str | os.PathLike[str]) -> bool:
    try:
        return not stat.S_ISREG(pathlib.Path(target).stat().st_mode)
    except FileNotFoundError:
        return False


def _copied(
    incoming: Incoming, write: Callable[[bytes], object], progress: Callable[[int], object] | None
) -> Work[int]:
    incoming.claim()
    written = 0
    while part := (yield from core_stream.next_part(incoming)):
        yield Do(lambda part=part: write(part))  # type: ignore[misc]  # a default binds the part of this turn
        written += len(part)
        if progress is not None:
            progress(written)
    return written
