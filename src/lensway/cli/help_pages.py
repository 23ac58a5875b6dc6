"""The help of each command, laid out as a manual page: names at the left, what they mean beside them."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_WIDTH_MAX: Final = 100
_INDENT: Final = 2
_NAMES_MAX: Final = 26
"""Names wider than this have a line of their own."""


class ManualFormatter:
    """What cyclopts prints its help with."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one group of commands or parameters."""
        entries = [(_names(entry), _meaning(entry, console)) for entry in panel.entries if entry.display_labels]
        if not entries:
            return
        _print(console, str(panel.title).upper(), is_heading=True)
        beside = [len(names) for names, _ in entries if len(names) <= _NAMES_MAX]
        margin = _INDENT + max(beside, default=0) + 2
        width = max(40, min(_WIDTH_MAX, console.width))
        for names, meaning in entries:
            lines = textwrap.wrap(meaning, max(20, width - margin), break_long_words=False) or [""]
            head = f"{' ' * _INDENT}{names}"
            if len(names) > _NAMES_MAX:
                _print(console, head)
                head = ""
            _print(console, f"{head:<{margin}}{lines[0]}".rstrip())
            for line in lines[1:]:
                _print(console, f"{' ' * margin}{line}")
        _print(console, "")

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line of usage."""
        if usage:
            _print(console, "USAGE", is_heading=True)
            _print(console, f"  {str(usage).strip().removeprefix('Usage: ')}")
            _print(console, "")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what the command does."""
        for paragraph in _plain(description, console).split("\n\n"):
            if paragraph.strip():
                width = max(40, min(_WIDTH_MAX, console.width))
                text = textwrap.fill(" ".join(paragraph.split()), width, break_long_words=False)
                _print(console, f"{text}\n")


def _names(entry: HelpEntry) -> str:
    return ", ".join(entry.display_labels_with_metavar)


def _meaning(entry: HelpEntry, console: Console) -> str:
    parts = [" ".join(_plain(entry.description, console).split())]
    if entry.choices:
        parts.append(f"One of {', '.join(entry.choices)}.")
    if entry.default is not None:
        parts.append(f"Default: {entry.default}.")
    if entry.env_var:
        parts.append(f"Variable: {', '.join(entry.env_var)}.")
    if entry.required and not entry.positional_label:
        parts.append("Required.")
    return " ".join(part for part in parts if part)


def _plain(value: Any, console: Console) -> str:
    if value is None:
        return ""
    if hasattr(value, "plain"):
        return str(value.plain)
    with console.capture() as captured:
        console.print(value, end="", highlight=False, markup=False, soft_wrap=True)
    return captured.get()


def _print(console: Console, text: str, *, is_heading: bool = False) -> None:
    is_bold = is_heading and console.is_terminal and not os.environ.get("NO_COLOR")
    console.print(text, style="bold" if is_bold else None, highlight=False, markup=False, emoji=False, soft_wrap=True)
