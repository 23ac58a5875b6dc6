"""Copies of the store: taken while the server runs, before each migration, and put back with a revision that was never used."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from lensway.errors import ErrorCode, LenswayError
from lensway.store.file_errors import unusable_file

_PAGES_AT_ONCE: Final = 256
"""Pages of one step: 1 MiB, so that the server's writes wait for milliseconds only."""
_REVISIONS_SKIPPED: Final = 1_000_000
"""How far a restore moves the revision: beyond every one that was used after the backup. Runners tell settings apart by it."""
_BEFORE_MIGRATION_KEPT: Final = 3


def back_up(database: pathlib.Path, file: pathlib.Path) -> int:
    """Copy the store into a new file of mode 0600, whole or not at all; the size in bytes. The server may run.

    Raises:
        LenswayError: CONFLICT when the file exists, INVALID_REQUEST when the store or the file cannot be used.
    """
    if file.exists():
        raise LenswayError(
            ErrorCode.CONFLICT, f"{file} exists, so no backup was written", hint="Name a file that does not exist yet."
        )
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    except OSError as error:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the backup {file} cannot be written ({(error.strerror or type(error).__name__).lower()})",
            hint="Name a file in a directory that exists and that this user may write to.",
        ) from None
    try:
        with _opened(database, "ro") as source, _opened(unfinished, "rw") as target:
            source.backup(target, pages=_PAGES_AT_ONCE)
            # A backup is one file, without a journal beside it.
            target.execute("PRAGMA journal_mode = DELETE")
            _check(target, unfinished)
        _sync(unfinished)
        unfinished.rename(file)
        _sync(file.parent)
    except sqlite3.Error as error:
        raise unusable_file(database, error) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return file.stat().st_size


def before_migration(database: pathlib.Path, revision: str) -> pathlib.Path:
    """Keep a copy of the store beside it before a migration, and only the newest of such copies. Raises as `back_up`."""
    file = database.with_name(f"{database.name}.before-{revision}")
    file.unlink(missing_ok=True)
    back_up(database, file)
    copies = sorted(database.parent.glob(f"{database.name}.before-*"), key=lambda each: each.stat().st_mtime_ns)
    for old in copies[:-_BEFORE_MIGRATION_KEPT]:
        old.unlink(missing_ok=True)
    return file


def restore(file: pathlib.Path, database: pathlib.Path) -> pathlib.Path | None:
    """Put a backup in the place of the store of a server that is stopped; where the store before is now, if there was one.

    Its revision moves beyond every one that was used after the backup: a runner that has seen those never takes new settings for
    old ones.

    Raises:
        LenswayError: INVALID_REQUEST for a file that is no backup of a store, or when the store cannot be written; then nothing
            has changed.
    """
    prepared = database.with_name(f"{database.name}.restored")
    prepared.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        back_up(file, prepared)
    if not prepared.exists():
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{file} does not exist", hint="Name a file of `lensway backup`.")
    try:
        with _opened(prepared, "rw") as target:
            target.execute("UPDATE deployment SET revision = revision + ?", (_REVISIONS_SKIPPED,))
            target.commit()
        _sync(prepared)
        kept = _set_aside(database)
        prepared.rename(database)
        _sync(database.parent)
    except sqlite3.Error as error:
        raise unusable_file(file, error) from None
    except OSError as error:
        raise unusable_file(database, error) from None
    finally:
        prepared.unlink(missing_ok=True)
    return kept


def _set_aside(database: pathlib.Path) -> pathlib.Path | None:
    if not database.exists():
        return None
    number = 1
    while (kept := database.with_name(f"{database.name}.before-restore-{number}")).exists():
        number += 1
    with _opened(database, "rw") as present:
        # What its journal holds belongs to it, and must not meet the restored file.
        present.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.rename(kept)
    for suffix in ("-wal", "-shm"):
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)
    return kept


@contextlib.contextmanager
def _opened(path: pathlib.Path, mode: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=5.0)
    try:
        yield connection
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: pathlib.Path) -> None:
    """Refuse a copy that is damaged or that is not a store. Raises sqlite3.Error or LenswayError."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the store is damaged, so {path.name.removesuffix('.unfinished')} was not written",
            hint="Restore an earlier backup.",
        )
    connection.execute("SELECT revision FROM deployment").fetchone()


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
