"""Tables for a terminal. One that is too wide first folds text at spaces, then leaves out its least important columns: a value
that can be copied is never broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lensway.cli import screen

_GAP: Final = 2
_FOLDED_MIN: Final = 18
"""How narrow a column of text may become before another column is left out instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, where its cells come from, and how much they matter.

    Args:
        title: The heading.
        of: The member of the record, or what makes a cell of the record.
        rank: Columns with the highest rank are left out first; those of rank 0 never.
        is_text: Words that may be folded at spaces. Other values stay whole.
    """

    title: str
    of: str | Callable[[Mapping[str, Any]], object]
    rank: int = 1
    is_text: bool = False

    def cell(self, record: Mapping[str, Any]) -> Text:
        """What the record has in this column."""
        value = record.get(self.of) if isinstance(self.of, str) else self.of(record)
        return value if isinstance(value, Text) else Text(screen.text_of(value))


def lines(columns: Sequence[Column], records: Iterable[Mapping[str, Any]], *, width: int) -> tuple[Table, list[str]]:
    """The records as a table of at most this width, and the titles that were left out."""
    cells = [[column.cell(record) for column in columns] for record in records]
    widths = [max([cell_len(column.title), *(row[at].cell_len for row in cells)]) for at, column in enumerate(columns)]
    leasts = [
        min(wide, max(_FOLDED_MIN, cell_len(column.title))) if column.is_text else wide
        for column, wide in zip(columns, widths, strict=True)
    ]
    kept = _kept(columns, leasts, width)
    spare = width - _total(leasts, kept)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for at in kept:
        given = min(widths[at] - leasts[at], max(0, spare))
        spare -= given
        # An ellipsis marks the one case left: a single word that is longer than a column of text.
        overflow: Literal["ellipsis", "ignore"] = "ellipsis" if columns[at].is_text else "ignore"
        table.add_column(
            columns[at].title, width=leasts[at] + given, no_wrap=not columns[at].is_text, overflow=overflow
        )
    for row in cells:
        table.add_row(*(row[at] for at in kept))
    return table, [column.title for at, column in enumerate(columns) if at not in kept]


def write(columns: Sequence[Column], records: Sequence[Mapping[str, Any]], *, empty: str) -> list[str]:
    """Print the table, or ``empty`` without records. Returns the titles that were left out."""
    if not records:
        screen.write(empty + "\n")
        return []
    console = screen.console()
    table, left_out = lines(columns, records, width=console.width)
    # A table whose columns of rank 0 alone are wider than the terminal is the terminal's to wrap: nothing of it is lost.
    console.width = max(console.width, sum(column.width or 0 for column in table.columns) + _GAP * len(table.columns))
    with console.capture() as captured:
        console.print(table)
    screen.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    return left_out


def write_facts(title: Text, facts: Iterable[tuple[str, object]]) -> None:
    """One object: a line that names it, and a line for each fact that is known."""
    known = [(name, value) for name, value in facts if value not in (None, "", [], {})]
    margin = screen.widest([name for name, _ in known])
    screen.write_styled(title)
    for name, value in known:
        text = value if isinstance(value, Text) else Text(screen.text_of(value))
        screen.write_styled(Text(f"  {name}{' ' * (margin - cell_len(name))}  ", style="dim").append_text(text))


def _kept(columns: Sequence[Column], leasts: Sequence[int], width: int) -> list[int]:
    kept = list(range(len(columns)))
    while _total(leasts, kept) > width:
        # The last one of those that matter least: tables begin with what names their rows.
        last = max(kept, key=lambda at: (columns[at].rank, at))
        if columns[last].rank == 0:
            return kept
        kept.remove(last)
    # What was left out for one wide column may fit now that it is gone.
    for at in sorted(set(range(len(columns))) - set(kept), key=lambda at: columns[at].rank):
        if _total(leasts, [*kept, at]) <= width:
            kept = sorted([*kept, at])
    return kept


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + _GAP * max(0, len(kept) - 1)
