"""`lensway backup` and `lensway restore`: copies of the server's store, on its own machine."""

from __future__ import annotations

import asyncio
import getpass
import os
import pathlib
from typing import Annotated

from cyclopts import Parameter

from lensway.cli import report
from lensway.cli.given import secret_given
from lensway.errors import ErrorCode, LenswayError

_DataDir = Annotated[pathlib.Path, Parameter(help="The server's data directory.")]
_DEFAULT = pathlib.Path("lensway-data")


def backup(
    file: Annotated[pathlib.Path, Parameter(help="The file to write; it must not exist.")],
    *,
    data_dir: _DataDir = _DEFAULT,
) -> None:
    """Copy the store into a file, while the server runs. The copy holds everything but the master key."""
    # Imported here: the other commands must not pay for the store.
    from lensway.store.backup import back_up  # noqa: PLC0415
    from lensway.store.bootstrap import database_in  # noqa: PLC0415

    size = back_up(database_in(data_dir), file)
    report.write_note(
        f"{file}: {size:,} bytes. Its credentials are encrypted with the master key, which is not in it: keep that elsewhere."
    )


def restore(
    file: Annotated[pathlib.Path, Parameter(help="A file of `lensway backup`.")], *, data_dir: _DataDir = _DEFAULT
) -> None:
    """Put a backup in the place of the store. Stop the server first; LENSWAY_MASTER_KEY must be set as it is for the server.

    Keys, tokens and grants are then as they were when the backup was taken: delete or rotate again what has ended since.
    """
    from lensway.clock import SystemClock  # noqa: PLC0415
    from lensway.store.backup import restore as put_back  # noqa: PLC0415
    from lensway.store.bootstrap import DataDirectory, note_restore  # noqa: PLC0415
    from lensway.store.sqlite import SqliteStore  # noqa: PLC0415

    try:
        directory = DataDirectory.open(data_dir)
    except LenswayError as error:
        if error.code is not ErrorCode.CONFLICT:
            raise
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"a server uses the data directory {data_dir}, so nothing was restored",
            hint="Stop the server, run this again, then start it.",
        ) from None
    clock = SystemClock()
    try:
        master = directory.master_key(secret_given(os.environ, "LENSWAY_MASTER_KEY"), may_create=False)
        previous = directory.previous_keys(secret_given(os.environ, "LENSWAY_MASTER_KEY_PREVIOUS"))
        # Tried on a copy: a backup that this master key does not open, or of a newer release, leaves the store as it is.
        trial = directory.database.with_name("lensway.db.trial")
        try:
            put_back(file, trial)
            SqliteStore.open(trial, master_key=master, clock=clock, previous_keys=previous).close()
        finally:
            for each in data_dir.glob("lensway.db.trial*"):
                each.unlink(missing_ok=True)
        kept = put_back(file, directory.database)
        store = SqliteStore.open(directory.database, master_key=master, clock=clock, previous_keys=previous)
        try:
            asyncio.run(note_restore(store, clock, by=getpass.getuser()))
        finally:
            store.close()
    finally:
        directory.close()
    report.write_note(f"{data_dir} holds the store of {file}" + (f"; the one before is {kept.name}" if kept else ""))
