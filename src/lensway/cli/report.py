"""What the command line prints: tables on a terminal, JSON when piped, one helpful line per failure."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, Final, cast

import msgspec
from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError
from rich.cells import cell_len

from lensway.api import numbers
from lensway.api.repeated_keys import require_single_keys
from lensway.cli import screen, states, tables
from lensway.cli.screen import text_of
from lensway.errors import CODES, ErrorCode, LenswayError
from lensway.observe.lines import Lines

USAGE_EXIT = 2
_KEY = re.compile(r"[aprs]k_")
FAILURE_EXIT = 1
_PIPE_SECONDS = 0.2
"""How long to wait for the program in front of our pipe."""
_PEEKED_BYTES = 256
_ROWS_WIDTH = 80
"""How wide a table of rows may be in a pipe; wider ones have a line for each value."""


def write_json(value: object) -> None:
    """The value as indented JSON on standard output."""
    write_data_text(json_text(value))


def write_data_text(text: str) -> None:
    """JSON on standard output; on a terminal with every character that would drive it as an escape of JSON."""
    screen.write(screen.visible_json(text) if screen.is_terminal() else text)


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


def has_piped_object() -> bool:
    """True when a JSON object was piped or redirected into standard input and not read yet.

    Anything else there may be meant for another command: the list that a shell's loop reads.
    """
    try:
        mode = os.fstat(0).st_mode
        if stat.S_ISREG(mode):
            start = os.pread(0, _PEEKED_BYTES, os.lseek(0, 0, os.SEEK_CUR))
        elif (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and select.select([0], [], [], _PIPE_SECONDS)[0]:
            start = cast(BufferedReader, sys.stdin.buffer).peek(1)
        else:
            # A pipe that stays silent may be what a job scheduler leaves open: it holds nothing.
            return False
    except (OSError, ValueError, AttributeError):
        return False
    return start.lstrip().startswith(b"{")


def write_line(text: str) -> None:
    """One line on standard output. Names in it come from others: shown literally, so that they drive no terminal."""
    screen.write(screen.visible(text) + "\n")


def write_text(text: str) -> None:
    """Lines on standard output."""
    screen.write(screen.visible(text, keeps="\n\t") if screen.is_terminal() else text)


def write_note(text: str) -> None:
    """One line on standard error: for people, never part of the output. It never fails."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(screen.visible(text) + "\n")


def announcer() -> Callable[[str], None]:
    """What a server or runner says of itself, as lines on standard output; a stream that cannot be written harms nothing."""
    lines = Lines(sys.stdout)

    def announce(line: str) -> None:
        # Names in it come from others: shown literally, so that they forge no line and drive no terminal.
        lines.write(text_of(line) + "\n")

    return announce


def write_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows of data: a table where it fits the terminal's width, otherwise one line for each value, with a rule between rows."""
    texts = [[text_of(value) for value in row] for row in rows]
    widths = [max(cell_len(text_of(text)) for text in column) for column in zip(columns, *texts, strict=True)]
    width = screen.console().width if screen.is_terminal() else _ROWS_WIDTH
    names = [text_of(column) for column in columns]
    if sum(widths) + 2 * len(widths) - 2 <= width:
        shown = [tables.Column(name, str(at), rank=0) for at, name in enumerate(names)]
        tables.write(shown, [{str(at): text for at, text in enumerate(row)} for row in texts], empty="")
        return
    margin = max(map(cell_len, names))
    for number, row in enumerate(texts):
        if number:
            write_line("-" * min(width, margin + 2))
        for name, text in zip(names, row, strict=True):
            write_line(f"{name}{' ' * (margin - cell_len(name))}  {text}")


def write_warnings(warnings: Sequence[Mapping[str, Any]]) -> None:
    """The server's warnings on standard error."""
    for warning in warnings:
        write_note(f"warning {warning['code']}: {warning['message']}")


def moment_of(text: str | None) -> str | None:
    """An RFC 3339 moment as a column shows it, in UTC to the second."""
    if text is None:
        return None
    moment = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def time_of(text: str | None) -> str | None:
    """A moment without its date when that is today's, so that a narrow table has room for it."""
    shown = moment_of(text)
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} "
    return None if shown is None else shown.removeprefix(today)


def age_of(moment: str | None) -> str | None:
    """How long ago an RFC 3339 moment was: ``12 s``, ``3 min``, ``2 h``, ``4 days``."""
    if moment is None:
        return None
    seconds = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(moment)).total_seconds()
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def ago_of(moment: str | None) -> str | None:
    """The age of a moment as a column shows it: ``3 min ago``."""
    age = age_of(moment)
    return None if age is None else f"{age} ago"


def duration_of(seconds: float) -> str:
    """A duration as people say it: ``40 ms``, ``1.5 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


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
    """A usage error as one line. Part of a key that stands where no argument belongs is not repeated."""
    command = f"`{' '.join(error.command_chain or ('lensway',))}`"
    argument = error.argument
    order = " Write --order-by FIELD, or FIELD:desc for the other direction."
    hint = order if argument is not None and argument.name == "--order-by" else ""
    if isinstance(error, MissingArgumentError) and argument is not None:
        given = error.keyword or next((token.keyword for token in argument.tokens if token.keyword), None)
        if given is not None:
            return f"lensway: {given} of {command} needs a value.{hint}"
        is_positional = argument.field_info.kind.name != "KEYWORD_ONLY"
        name = argument.names[0].removeprefix("--").upper() if is_positional else argument.names[0]
        return f"lensway: {command} needs {name}"
    if isinstance(error, UnusedCliTokensError):
        tokens = ["a key" if _KEY.match(token) else repr(token) for token in error.unused_tokens or ()]
        return f"lensway: {command} takes no further argument; got {', '.join(tokens)}"
    error.verbose = False
    return f"lensway: {' '.join(str(error).split())}{hint}"


@contextlib.contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn typed failures into a line on standard error and the exit code of their row in the table."""
    try:
        yield
    except CycloptsError as error:
        write_note(usage_error(error))
        write_note(f"  See {' '.join(('lensway', *(error.command_chain or ()), '--help'))}")
        sys.exit(USAGE_EXIT)
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
    """The third-party library that an import lacks. cyclopts imports commands when they are called, and wraps the error."""
    cause = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    name = cause.name if isinstance(cause, ModuleNotFoundError) else None
    return None if name is None or name.startswith("lensway") else name.partition(".")[0]


def _stages(details: Mapping[str, object]) -> Iterator[str]:
    results = details.get("results")
    for result in results if isinstance(results, list) else ():
        yield from stage_lines(result)


def write_stages(result: Mapping[str, Any]) -> None:
    """The stages of one connection test, each with the look of its state."""
    looks = [result.get("ok"), *(stage.get("ok") for stage in result.get("stages", ()))]
    for at, line in enumerate(stage_lines(result)):
        is_ok = looks[at] if at < len(looks) else False
        name = {True: "ok", False: "failed", None: "skipped"}[is_ok] if at < len(looks) else "degraded"
        screen.write_styled(states.marked(name, line))


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
