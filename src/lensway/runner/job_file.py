"""The file of jobs: one JSON object a line, rotated by size.

Writing never holds up a job and never fails the runner: a thread writes the file, and lines that it cannot write are counted and
lost. A module of its own, because a runner without such a file must not carry the libraries for it.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import logging
import logging.handlers
import os
import pathlib
import queue
import threading
from typing import Any

import msgspec
import structlog

from lensway import limits
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.observe.log import redact
from lensway.runner.journal import JobNote

_log = structlog.get_logger("lensway.runner")


class JobFile:
    """The file of one runner process. Close it to write what waits."""

    def __init__(self, path: pathlib.Path, clock: Clock) -> None:
        """Open the file. Raises LenswayError INVALID_REQUEST when it cannot be written."""
        self._clock = clock
        self._waiting: queue.Queue[Any] = queue.Queue(limits.JOURNAL_LINES_WAITING_MAX)
        self._lost = 0
        try:
            self._file = _File(path)
        except OSError as error:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"LENSWAY_RUNNER_JOB_LOG names {path}, which cannot be written ({error.strerror})",
                hint="Name a file in a directory that the user of this runner may write to.",
            ) from None
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def note(self, note: JobNote) -> None:
        """Write the line of a job, later. Never waits; a line that finds no room is lost and counted."""
        at = self._clock.wall().astimezone(datetime.UTC).isoformat(timespec="milliseconds")
        fields = dict(redact(None, "", {"at": at, **note.fields()}))
        if self._lost:
            fields["lost_before"] = self._lost
        text = msgspec.json.encode(fields).decode()
        record = logging.LogRecord("lensway.jobs", logging.INFO, "", 0, text, None, None)
        try:
            self._waiting.put_nowait(record)
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits and close the file; give up on a disk that does not answer."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._writer.join(limits.JOURNAL_CLOSE_SECONDS)

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._file.emit(record)
        self._file.close()


class _File(logging.handlers.RotatingFileHandler):
    """A rotating file that survives a full or vanished disk: what it cannot write is lost, and the log says so once."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(
            path, maxBytes=limits.JOURNAL_FILE_BYTES, backupCount=limits.JOURNAL_FILES_KEPT, encoding="utf-8"
        )
        self._is_failing = self._has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line and begin another file when this one is full."""
        self._has_failed = False
        super().emit(record)
        self._is_failing = self._has_failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Lose the line."""
        if not self._is_failing:
            _log.error("the file of jobs cannot be written; its lines are lost", path=self.baseFilename)
        self._has_failed = True

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")
