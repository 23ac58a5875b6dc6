"""What a proof found: figures beside their bars, printed as they come and appended to docs/proofs.md."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import platform
from collections.abc import Sequence

PAGE = pathlib.Path("docs/proofs.md")


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing; without a ``bar`` it is told, not judged."""

    what: str
    measured: str
    bar: str = ""
    is_met: bool = True

    def line(self) -> str:
        """As it is printed."""
        mark = "   " if not self.bar else "ok " if self.is_met else "NOT"
        return f"  {mark} {self.what}: {self.measured}" + (f"   (bar: {self.bar})" if self.bar else "")


class Report:
    """Collects the figures of one command, printing each."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._lines: list[str] = []
        self.missed: list[str] = []

    def title(self, name: str, what: str) -> None:
        """A proof begins."""
        self._say(f"{name}: {what}")

    def note(self, text: str) -> None:
        """Something to be read, not judged; not kept."""
        print(f"      {text}", flush=True)

    def add(self, what: str, measured: str, bar: str = "", is_met: bool = True) -> None:
        """One figure."""
        figure = Figure(what, measured, bar, is_met)
        self._say(figure.line())
        if not is_met:
            self.missed.append(what)

    def at_most(self, what: str, value: float, bar: float, unit: str, more: str = "") -> None:
        """A figure that must not be larger than its bar."""
        self.add(what, f"{_number(value)} {unit}{more}", f"≤ {_number(bar)} {unit}", value <= bar)

    def none(self, what: str, count: int, of: int | None = None) -> None:
        """Something that must not have happened."""
        self.add(what, f"{count:,}" + ("" if of is None else f" of {of:,}"), "0", count == 0)

    def details(self, lines: Sequence[str], most: int = 5) -> None:
        """Examples of what went wrong."""
        for line in lines[:most]:
            self._say(f"        {line}")

    def append(self) -> None:
        """Add an entry to the page of proofs."""
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
        head = "# Proofs\n\nWhat the long proofs found, newest last. `NOT` marks a bar that was missed.\n"
        entry = f"\n## {when}, {machine}\n\n`{self._command}`\n\n```\n" + "\n".join(self._lines) + "\n```\n"
        PAGE.write_text((PAGE.read_text() if PAGE.exists() else head) + entry)

    def _say(self, line: str) -> None:
        print(line, flush=True)
        self._lines.append(line)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 20 or value == int(value) else f"{value:.2f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
