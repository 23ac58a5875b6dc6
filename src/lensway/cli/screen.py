"""The terminal: how wide it is, what it can show, and text that cannot drive it."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Sequence
from typing import Final, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lensway.api import numbers

_WIDTH_MIN: Final = 20
_WIDTH_OF_PIPES: Final = 10_000
_UNPRINTABLE_JSON: Final = re.compile(r"[^\x20-\x7e\n]")


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
    return visible(str(value))


def visible(text: str, *, keeps: str = "") -> str:
    """The text with each character that a terminal would act on as its escape; those in ``keeps`` stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keeps else repr(each)[1:-1] for each in text)


def visible_json(text: str) -> str:
    r"""JSON with each unprintable character as ``\uXXXX``: the same document, which no terminal acts on."""
    return _UNPRINTABLE_JSON.sub(_as_escape, text)


def _as_escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def is_terminal() -> bool:
    """True when standard output is a terminal."""
    return sys.stdout.isatty()


def has_colours() -> bool:
    """True when standard output takes colours: a terminal that is not dumb, without NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return is_terminal() and os.environ.get("TERM") != "dumb"


def has_cursor() -> bool:
    """True when standard output is a terminal whose cursor can be moved."""
    return is_terminal() and os.environ.get("TERM", "dumb") != "dumb"


def has_icons() -> bool:
    """True when standard output can encode the icons."""
    try:
        "✓✗‖⊘○…".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def console() -> Console:
    """Rich's console on standard output, as wide as the terminal; what is piped is never cut."""
    colours: Literal["auto"] | None = "auto" if has_colours() else None
    made = Console(
        soft_wrap=False, color_system=colours, highlight=False, emoji=False, markup=False, force_terminal=is_terminal()
    )
    if not is_terminal() and not os.environ.get("COLUMNS", "").isdecimal():
        made.width = _WIDTH_OF_PIPES
    made.width = max(_WIDTH_MIN, made.width)
    return made


def write(text: str) -> None:
    """Text on standard output. What it cannot encode is shown as an escape."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


class _CsvText:
    """CSV for a terminal: only the ends of its rows are line ends."""

    def __init__(self) -> None:
        self._is_quoted = False

    def visible(self, text: str) -> str:
        """More of the text."""
        shown = []
        for at, part in enumerate(text.split('"')):
            if at:
                self._is_quoted = not self._is_quoted
                shown.append('"')
            shown.append(visible(part) if self._is_quoted else visible(part.replace("\r", ""), keeps="\n"))
        return "".join(shown)


class BinaryOut:
    """Standard output for encoded rows. On a terminal their characters are shown, and never acted on."""

    def __init__(self, *, is_json: bool) -> None:
        self._show = visible_json if is_json else _CsvText().visible
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace") if is_terminal() else None

    def write(self, data: bytes) -> int:
        """Write all of it."""
        if self._decoder is None:
            return sys.stdout.buffer.write(data)
        write(self._show(self._decoder.decode(data)))
        return len(data)

    def flush(self) -> None:
        """Let go of what is held back."""
        sys.stdout.flush()


def write_styled(text: Text) -> None:
    """One line with its colours, if there are any."""
    made = console()
    with made.capture() as captured:
        made.print(text, soft_wrap=True)
    write(captured.get())


def widest(texts: Sequence[str]) -> int:
    """How many cells the widest one takes."""
    return max(map(cell_len, texts), default=0)
