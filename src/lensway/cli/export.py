"""`lensway export`: every matching row, into a file that is complete or not there, or into a pipe."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, BinaryIO, Final, cast, get_args

from cyclopts import Parameter

from lensway.catalog.names import counted
from lensway.cli import names, query, report, screen, target
from lensway.client import Format, Stream
from lensway.errors import ErrorCode, LenswayError

_PROGRESS_SECONDS: Final = 0.25
_BY_ENDING: Final[Mapping[str, Format]] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".parquet": "parquet",
}
_ERASE: Final = "\r\x1b[K"


def export(
    lens: names.Lens,
    /,
    *,
    output: Annotated[
        str | None,
        Parameter(
            name=["--output", "-o"], allow_leading_hyphen=True, help="The output file. Default: -, standard output."
        ),
    ] = None,
    where: query.Where = None,
    order_by: query.OrderBy = None,
    unordered: Annotated[
        bool,
        Parameter(
            negative=(), help="Send rows in the order the database finds them, without a sort before the first one."
        ),
    ] = False,
    select: query.Select = None,
    format: Annotated[
        Format | None, Parameter(help="Default: by the file's extension; ndjson on standard output.")
    ] = None,
    json: Annotated[bool, Parameter(negative=(), show=False)] = False,
    timeout_ms: query.TimeoutMs = None,
    to: target.Server = target.SERVER,
) -> None:
    """Stream every matching row into a file. The file has a temporary name until it is complete."""
    is_piped = output is None or output == "-"
    if output is not None and output.startswith("-") and not is_piped:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"--output needs a file, not {output}", hint="Use - for standard output."
        )
    if json and format not in (None, "ndjson"):
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"--json and --format {format} exclude each other")
    if unordered and order_by is not None:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "--unordered and --order-by exclude each other")
    chosen = format or ("ndjson" if json or output is None or is_piped else _format_of(output))
    if output is None or is_piped:
        report.refuse_binary_on_terminal(chosen)
    else:
        _check_place_of(output)
    with to.client() as client, _interruptible(is_piped=is_piped):
        options = query.options(where=where, order_by=order_by, select=select)
        if unordered:
            options["order_by"] = []
        with client.export(lens, format=chosen, timeout_ms=timeout_ms, **options) as rows, Progress(rows) as progress:
            if output is None or is_piped:
                out = screen.BinaryOut(is_json=chosen == "ndjson")
                rows.save(cast("BinaryIO", out), progress=progress.show)
                out.flush()
                return
            try:
                rows.save(output, progress=progress.show)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise _cannot_write(output, error.strerror) from None
        report.write_note(f"{output}: {progress.summary()}")


class Progress:
    """How far a stream has come, in one line on a terminal's standard error; nothing elsewhere."""

    def __init__(self, rows: Stream) -> None:
        self._rows = rows
        self._started = self._shown = time.monotonic()
        self._is_shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._is_shown and self._shown != self._started:
            sys.stderr.write(_ERASE)

    def show(self, written: int) -> None:
        """Bring the line up to date, now and then."""
        now = time.monotonic()
        if self._is_shown and now - self._shown >= _PROGRESS_SECONDS:
            self._shown = now
            rate = written / (now - self._started)
            sys.stderr.write(f"{_ERASE}{self._facts()}, {report.size_of(rate)}/s")
            sys.stderr.flush()

    def summary(self) -> str:
        """What has come, and in what time."""
        return f"{self._facts()} in {report.duration_of(time.monotonic() - self._started)}"

    def _facts(self) -> str:
        size = report.size_of(self._rows.bytes_received)
        rows = self._rows.rows_received
        return size if rows is None else f"{counted(rows, 'row')}, {size}"


def _check_place_of(output: str) -> None:
    """Raises LenswayError INVALID_REQUEST when no file can be made there: before the database is asked for every row."""
    path = pathlib.Path(output)
    if not path.parent.is_dir():
        raise _cannot_write(output, f"there is no directory {path.parent}")
    if path.is_dir():
        raise _cannot_write(output, "it is a directory")
    is_device = path.exists() and not path.is_file()
    if not is_device and not os.access(path.parent, os.W_OK):
        raise _cannot_write(output, f"the directory {path.parent} may not be written to")


def _cannot_write(output: str, why: str | None) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"cannot write {output}: {why}")


def _format_of(output: str) -> Format:
    ending = pathlib.Path(output).suffix.lower()
    if ending not in _BY_ENDING:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the extension of {output} names no format; known extensions: {', '.join(_BY_ENDING)}",
            hint=f"Set the format: --format {'|'.join(get_args(Format))}",
        )
    return _BY_ENDING[ending]


@contextmanager
def _interruptible(*, is_piped: bool) -> Iterator[None]:
    """SIGTERM and SIGHUP end the export as Ctrl-C does, so that nothing is left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        report.write_note(
            "lensway: interrupted; the rows are not complete" + ("" if is_piped else ", no file was written")
        )
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
