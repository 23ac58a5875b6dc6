"""What the command line prints: tables on a terminal, JSON when piped, one helpful line per failure."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from cyclopts import CycloptsError
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lensway.api import numbers
from lensway.api.repeated_keys import require_single_keys
from lensway.errors import CODES, ErrorCode, LenswayError
from lensway.observe.lines import Lines

USAGE_EXIT = 2
FAILURE_EXIT = 1


def wants_json(json: bool) -> bool:
    """True when the output is for a program: asked for, or standard output is not a terminal."""
    return json or not sys.stdout.isatty()


def write_json(value: object) -> None:
    """The value as indented JSON on standard output."""
    sys.stdout.write(json_text(value))


def json_text(value: object) -> str:
    """The value as indented JSON with a line end."""
    return msgspec.json.format(numbers.encode(value), indent=2).decode() + "\n"


def read_json(text: bytes, what: str, decode: Callable[[bytes], object] = msgspec.json.decode) -> object:
    """The decoded JSON. Raises LenswayError INVALID_REQUEST saying what was not JSON."""
    try:
        decoded = decode(text)
    except msgspec.DecodeError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{what} is not JSON: {error}") from None
    require_single_keys(text, decoded)
    return decoded


def read_stdin_json(what: str) -> object:
    """The decoded JSON of standard input. Raises LenswayError INVALID_REQUEST saying what was not JSON."""
    if sys.stdin.isatty():
        write_note(f"lensway: reading {what} as JSON from standard input; end it with Ctrl-D")
    return read_json(sys.stdin.buffer.read(), f"{what} on standard input")


def write_line(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def write_text(text: str) -> None:
    """Text as it is on standard output."""
    sys.stdout.write(text)


def write_note(text: str) -> None:
    """One line on standard error: for people, never part of the output. It never fails."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")


def announcer() -> Callable[[str], None]:
    """What a server or runner says of itself, as lines on standard output; a stream that cannot be written harms nothing."""
    lines = Lines(sys.stdout)

    def announce(line: str) -> None:
        # Names in it come from others: shown literally, so that they forge no line and drive no terminal.
        lines.write(text_of(line) + "\n")

    return announce


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str, whole: int = 1) -> None:
    """A table for a terminal; ``empty`` instead when there are no rows. Values are shown literally, never as markup.

    The first ``whole`` columns name their row and are never folded: half an id could not be copied.
    """
    if not rows:
        write_line(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number < whole)
    for row in rows:
        table.add_row(*(Text(text_of(value)) for value in row))
    Console(soft_wrap=False).print(table)


def write_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows of data: a table where it fits the terminal's width, otherwise one line for each value, with a rule between rows."""
    texts = [[text_of(value) for value in row] for row in rows]
    widths = [max(cell_len(text) for text in column) for column in zip(columns, *texts, strict=True)]
    console = Console(soft_wrap=False)
    if sum(widths) + 2 * len(widths) - 2 <= console.width:
        write_table(columns, rows, empty="")
        return
    margin = max(map(cell_len, columns))
    for number, row in enumerate(texts):
        if number:
            write_line("-" * min(console.width, margin + 2))
        for column, text in zip(columns, row, strict=True):
            write_line(f"{column}{' ' * (margin - cell_len(column))}  {text}")


def write_warnings(warnings: Sequence[Mapping[str, Any]]) -> None:
    """The server's warnings on standard error."""
    for warning in warnings:
        write_note(f"warning {warning['code']}: {warning['message']}")


def text_of(value: object) -> str:
    """A value as a cell: control characters made visible, so that data cannot drive the terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, dict):
        value = numbers.encode(value).decode()
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(value))


def moment_of(text: str | None) -> str | None:
    """An RFC 3339 moment as a column shows it, in UTC to the second."""
    if text is None:
        return None
    moment = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def age_of(moment: str | None) -> str | None:
    """How long ago an RFC 3339 moment was: ``12 s``, ``3 min``, ``2 h``, ``4 days``."""
    if moment is None:
        return None
    seconds = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(moment)).total_seconds()
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def size_of(count: float) -> str:
    """Bytes as people say them: ``900 B``, ``12.3 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"


def refuse_binary_on_terminal(format: str) -> None:
    """Raises LenswayError INVALID_REQUEST when bytes that are not text would go to a terminal."""
    if format in ("arrow", "parquet") and sys.stdout.isatty():
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{format} cannot be shown on a terminal",
            hint=f"Pipe the output, or export into a file: lensway export LENS -o rows.{format}",
        )


def usage_error(error: CycloptsError) -> str:
    """A usage error as one line."""
    return f"lensway: {error}"


@contextlib.contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn typed failures into a line on standard error and the exit code of their row in the table."""
    try:
        yield
    except CycloptsError:
        sys.exit(USAGE_EXIT)  # cyclopts has printed it
    except LenswayError as error:
        failure = error.failure
        code = f"{failure.code.value}: " if error.is_answer else ""
        write_note(f"lensway: {code}{text_of(failure.message)}")
        for stage in _stages(failure.details):
            write_note(f"  {stage}")
        if failure.hint:
            write_note(f"  {text_of(failure.hint)}")
        if failure.details.get("requestId"):
            write_note(f"  request {failure.details['requestId']}")
        sys.exit(CODES[failure.code].exit_code)
    except ImportError as error:
        missing = _missing_library(error)
        if missing is None:
            raise
        write_note(f"lensway: this command needs {missing}, which is not installed")
        extra = _EXTRAS.get(next(iter(sys.argv[1:]), ""), "cli")
        write_note(f"  pip install 'lensway[{extra}]'")
        sys.exit(USAGE_EXIT)
    except BrokenPipeError:
        # The reader of our pipe left (head, less): not a failure worth a traceback. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE_EXIT)
    except KeyboardInterrupt:
        sys.exit(130)


_EXTRAS: Final = {"serve": "server", "runner": "runner"}
"""The extras of the commands that need more than the extra `cli`."""


def _missing_library(error: ImportError) -> str | None:
    """The library of somebody else that an import lacks. cyclopts imports commands when they are called, and wraps the error."""
    cause = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    name = cause.name if isinstance(cause, ModuleNotFoundError) else None
    return None if name is None or name.startswith("lensway") else name.partition(".")[0]


def _stages(details: Mapping[str, object]) -> Iterator[str]:
    results = details.get("results")
    for result in results if isinstance(results, list) else ():
        yield from stage_lines(result)


def stage_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The stages of one connection test as lines. Part of it comes from a runner: shown literally, like every value."""
    place = result.get("runner") or "the service (inline)"
    instance = f" [{result['instance']}]" if result.get("instance") else ""
    yield text_of(f"{place}{instance}: {'ok' if result.get('ok') else 'FAILED'}")
    for stage in result.get("stages", ()):
        mark = {True: "ok", False: "FAILED", None: "skipped"}[stage.get("ok")]
        time = "" if stage.get("ok") is None else f"{stage.get('ms', 0):8.1f} ms"
        error = f" {stage['error']}" if stage.get("error") else ""
        hint = f": {stage['hint']}" if stage.get("hint") else ""
        yield text_of(f"  {stage['stage']:<10} {mark:<8} {time}{error}{hint}".rstrip())
    for warning in result.get("warnings", ()):
        yield text_of(f"  warning {warning.get('code', '')}: {warning.get('message', '')}")
