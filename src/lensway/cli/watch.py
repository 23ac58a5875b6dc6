"""`--watch`: a list that follows what happens, as one table on a terminal and as a line for each changed record elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from lensway.cli import output, report, screen, tables, target
from lensway.cli.tables import Column
from lensway.client import Client, UnreachableError
from lensway.errors import ErrorCode, LenswayError

Records: TypeAlias = Sequence[Mapping[str, Any]]

_POLL_SECONDS: Final = 2.0
"""How often a list is read again although no event came: ages count on, and a proxy may hold events back. It is also how long an
answer may take, with the client's slack: what is shown is known to be stale after three times as long."""
_GATHER_SECONDS: Final = 0.3
"""Events come in groups: the list is read once for all of them."""
_RETRY_SECONDS: Final = 2.0
_ENTER, _LEAVE, _REDRAW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H\x1b[J"
_PASSING: Final = frozenset({ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.QUERY_TIMEOUT})
"""Failures that end by themselves; so does a server that is away."""


def follow(to: target.Target, read: Callable[[Client], Records], columns: Sequence[Column], *, empty: str) -> None:
    """Show what ``read`` gives again after every event, until Ctrl-C."""
    form = to.form
    with to.client(timeout=_POLL_SECONDS) as client:
        changed = threading.Event()
        threading.Thread(target=_listen, args=(client, changed), name="events", daemon=True).start()
        snapshots = _snapshots(lambda: read(client), changed)
        if form != "table":
            _write_changes(form, snapshots)
        elif screen.has_cursor():
            _redraw(snapshots, columns, empty)
        else:
            _append(snapshots, columns, empty)


def _append(snapshots: Iterator[tuple[Records, str]], columns: Sequence[Column], empty: str) -> None:
    """The table again whenever it is another one."""
    before: tuple[Records, bool] | None = None
    for records, problem in snapshots:
        now = (records, bool(problem))
        if now != before:
            report.write_line(f"{_now()}{f'  {problem}' if problem else ''}")
            tables.write(columns, records, empty=empty)
            sys.stdout.flush()
        before = now


def _redraw(snapshots: Iterator[tuple[Records, str]], columns: Sequence[Column], empty: str) -> None:
    """The table at the top of a screen of its own. The last one stays behind on the ordinary screen."""
    last: Records = ()
    screen.write(_ENTER)
    try:
        for records, problem in snapshots:
            last = records
            size = shutil.get_terminal_size()
            room = max(1, size.lines - 5)
            screen.write(f"{_REDRAW}{_now()}  {problem or 'Ctrl-C ends'}\n\n")
            tables.write(columns, records[:room], empty=empty)
            if len(records) > room:
                report.write_line(f"… {len(records) - room} more")
            sys.stdout.flush()
    finally:
        screen.write(_LEAVE)
        tables.write(columns, last, empty=empty)
        sys.stdout.flush()


def _write_changes(form: output.Form, snapshots: Iterator[tuple[Records, str]]) -> None:
    """A line for each record that is new or different, and one for each that is gone."""
    before: dict[str, Mapping[str, Any]] = {}
    was_stale, fields = False, [""]
    for records, problem in snapshots:
        if bool(problem) != was_stale:
            report.write_note(f"lensway: {problem or 'the server answers again'}")
        was_stale = bool(problem)
        now = {str(record["name"]): record for record in records}
        new: list[Mapping[str, Any]] = [record for name, record in now.items() if before.get(name) != record]
        new += [{"name": name, "removed": True} for name in before if name not in now]
        before = now
        if form == "csv":
            if new and len(fields) == 1:
                fields = [*dict.fromkeys(name for record in records for name in record), "removed"]
                output.write_csv([fields])
            output.write_csv([[record.get(name) for name in fields] for record in new])
            sys.stdout.flush()
        else:
            for record in new:
                output.write_record(record)


def _snapshots(read: Callable[[], Records], changed: threading.Event) -> Iterator[tuple[Records, str]]:
    """What was read, and what is wrong with it; the old records when the server is away."""
    records: Records = ()
    answered = time.monotonic()
    while True:
        changed.clear()
        problem, pause = "", _POLL_SECONDS
        try:
            records, answered = read(), time.monotonic()
        except LenswayError as error:
            if not isinstance(error, UnreachableError) and error.code not in _PASSING:
                raise
            pause = _RETRY_SECONDS
            problem = f"STALE for {time.monotonic() - answered:.0f} s: {screen.text_of(error.failure.message)}"
        yield records, problem
        if changed.wait(pause):
            time.sleep(_GATHER_SECONDS)


def _listen(client: Client, changed: threading.Event) -> None:
    """Set the event whenever something happens on the server. Without a stream the list is polled."""
    while True:
        with contextlib.suppress(LenswayError):
            with client.stream("GET", "/v1/events", accept="text/event-stream") as stream:
                for chunk in stream:
                    if b"event:" in chunk:
                        changed.set()
        time.sleep(_RETRY_SECONDS)


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}Z"
