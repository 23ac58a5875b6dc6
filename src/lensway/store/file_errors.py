"""Why the store's file cannot be used, in one line: by SQLite's result code, never by its text."""

from __future__ import annotations

import pathlib
import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError

from lensway.errors import ErrorCode, LenswayError

_PRIMARY: Final = 0xFF
_REASONS: Final = {
    sqlite3.SQLITE_BUSY: (
        "another program has locked it",
        "Close the program that has it open, such as a sqlite3 shell.",
    ),
    sqlite3.SQLITE_LOCKED: ("another program has locked it", "Close the program that has it open."),
    sqlite3.SQLITE_NOTADB: ("it is not a Lensway database", "Restore it from a backup, or name another --data-dir."),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "Restore it from a backup."),
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space; nothing was lost."),
    sqlite3.SQLITE_READONLY: ("it cannot be written", "Check its owner, its permissions and the file system's."),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "Check its owner, its permissions and the file system's."),
    sqlite3.SQLITE_PERM: ("it cannot be opened", "Check its owner, its permissions and the file system's."),
    sqlite3.SQLITE_IOERR: ("the disk fails to read or write it", "Check the free space and the disk."),
}
_OTHER: Final = (
    "its tables are not those of a Lensway database",
    "Restore it from a backup, or name another --data-dir.",
)


def unusable_file(path: pathlib.Path, error: Exception) -> LenswayError:
    """The error for a file that cannot be used as the store."""
    if isinstance(error, OSError):
        reason, hint = (error.strerror or type(error).__name__).lower(), _REASONS[sqlite3.SQLITE_CANTOPEN][1]
    else:
        origin = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(origin, "sqlite_errorcode", None)
        reason, hint = _OTHER if code is None else _REASONS.get(code & _PRIMARY, _OTHER)
    return LenswayError(ErrorCode.INVALID_REQUEST, f"The store {path} cannot be used: {reason}", hint=hint)
