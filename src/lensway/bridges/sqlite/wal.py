"""Files in WAL mode: SQLite reads them only where it can write the files beside them, and says so in words of other failures."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import threading
from typing import Final

_HEADER_BYTES: Final = 20
_WAL_VERSIONS: Final = b"\x02\x02"
"""The header's format numbers at offset 18: https://www.sqlite.org/fileformat2.html#file_format_version_numbers"""
_LOOKING: Final = threading.Lock()
_LOOKED_AT: Final[dict[tuple[int, int], int]] = {}
"""Descriptors of files that were looked at, by device and inode. They stay open: when a process closes any descriptor of a file,
it loses its locks on that file, and so those of SQLite's connections that read it now (POSIX, `fcntl`)."""
_LOOKED_AT_MAX: Final = 64
_CAUSES: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}
)


def needs_writing(path: pathlib.Path, error: sqlite3.Error) -> bool:
    """True when the file could be read were it not in WAL mode."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CAUSES and _is_wal(path)


def has_log(path: pathlib.Path) -> bool:
    """True when the log beside the file holds anything."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except OSError:
        return False


def _is_wal(path: pathlib.Path) -> bool:
    try:
        status = path.stat()
        with _LOOKING:
            known = _LOOKED_AT.get((status.st_dev, status.st_ino))
            if known is None:
                if len(_LOOKED_AT) >= _LOOKED_AT_MAX:
                    return False
                known = _LOOKED_AT[status.st_dev, status.st_ino] = os.open(path, os.O_RDONLY)
        return os.pread(known, _HEADER_BYTES, 0)[-2:] == _WAL_VERSIONS
    except OSError:
        return False
