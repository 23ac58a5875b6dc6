"""PostgreSQL's own log of statements, read for the tags that Lensway leaves in them."""

from __future__ import annotations

import datetime
import pathlib
import re
from collections.abc import Iterator
from typing import Final

from lensway.testing.chaos.history import Statement

LOG_SETTINGS: Final = {"log_statement": "all", "log_line_prefix": "%m [%p] %q%u@%d "}
"""Settings of the cluster that make its log a witness."""
_ENTRY: Final = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(\d+)\] (?:(\S*)@\S* )?([A-Z]+):  (.*)")
_TAG: Final = re.compile(r"/\* lensway (\S+)/(\d+) \*/")
_CANCELLED: Final = "canceling statement due to user request"


class StatementLog:
    """Reads a growing log; each call of `read` gives what is new."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._offset = 0
        self._cancelled_backend = 0
        self.cancelled: list[str] = []
        """Requests whose statement the database says it cancelled on request, in the order of the log."""
        self._entry: tuple[str, int, str, str] | None = None

    def read(self) -> Iterator[Statement]:
        """The tagged statements that began since the last call."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            match = _ENTRY.match(line)
            if match is not None:
                self._entry = (match[1], int(match[2]), match[3] or "", match[4])
                text = match[5]
            else:
                text = line
            if self._entry is not None:
                yield from self._of(self._entry, text)

    def _of(self, entry: tuple[str, int, str, str], text: str) -> Iterator[Statement]:
        moment, backend, user, level = entry
        if level == "ERROR":
            self._cancelled_backend = backend if text.startswith(_CANCELLED) else 0
            return
        tag = _TAG.search(text)
        if tag is None:
            return
        if level == "STATEMENT" and backend == self._cancelled_backend:
            self.cancelled.append(tag[1])
        if level == "LOG" and not text.startswith("execute fetch from"):
            at = datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC).timestamp()
            yield Statement(request=tag[1], attempt=int(tag[2]), user=user, backend=backend, at=at)
