"""Tables of any width: what names a row stays whole, lines fit, and nothing in a cell drives the terminal."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from lensway.cli import screen, states, tables
from lensway.cli.tables import Column
from lensway.console import views

WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12), max_size=6)
COLUMNS = st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=6)


def shown(columns: list[Column], records: list[dict[str, object]], width: int) -> list[str]:
    table, _ = tables.lines(columns, records, width=width)
    output = io.StringIO()
    # Wide enough that only the layout decides.
    Console(file=output, width=10_000, color_system=None, highlight=False, emoji=False, markup=False).print(table)
    return [line.rstrip() for line in output.getvalue().splitlines()]


@given(
    ids=st.lists(st.text("abcdefghij0123456789_", min_size=1, max_size=24), min_size=1, max_size=4),
    shape=COLUMNS,
    words=WORDS,
    width=st.integers(20, 200),
)
def test_a_table_of_any_width_fits_and_keeps_what_names_its_rows(ids, shape, words, width: int) -> None:
    columns = [Column("ID", "id", rank=0)]
    columns += [Column(f"C{at}", f"c{at}", rank=rank, is_text=is_text) for at, (rank, is_text) in enumerate(shape)]
    value = " ".join(words)
    records = [{"id": each} | {f"c{at}": value for at in range(len(shape))} for each in ids]
    lines = shown(columns, records, width)
    least = max(2, *map(cell_len, ids))
    assert max(map(cell_len, lines)) <= max(width, least)
    for each in ids:
        assert any(line.startswith(each) for line in lines[1:]), lines


def test_the_least_important_column_goes_first_and_what_fits_comes_back() -> None:
    columns = [
        Column("NAME", "name", rank=0),
        Column("WIDE", "wide", rank=2),
        Column("KEPT", "kept", rank=1),
        Column("S", "s", rank=3),
    ]
    record = {"name": "alpha", "wide": "w" * 30, "kept": "k" * 10, "s": "x"}
    assert shown(columns, [record], 60)[0].split() == ["NAME", "WIDE", "KEPT", "S"]
    assert shown(columns, [record], 51)[0].split() == ["NAME", "WIDE", "KEPT"]
    assert shown(columns, [record], 40)[0].split() == ["NAME", "KEPT", "S"]
    assert shown(columns, [record], 20)[0].split() == ["NAME", "KEPT", "S"]


@given(text=st.text(st.characters(codec="utf-8")))
def test_nothing_in_a_value_drives_a_terminal(text: str) -> None:
    assert screen.text_of(text).isprintable()
    written = screen.visible_json(json.dumps({"v": text}, ensure_ascii=False))
    assert written.isprintable()
    assert json.loads(written) == {"v": text}, "and as JSON it is the same value"


@given(rows=st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=2, max_size=2), max_size=4))
def test_rows_of_csv_are_lines_of_a_terminal_however_they_arrive(rows) -> None:
    import csv

    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    text = buffer.getvalue()
    for size in (1, 3, len(text) or 1):
        shower = screen._CsvText()
        written = "".join(shower.visible(text[at : at + size]) for at in range(0, len(text), size))
        assert written.count("\n") == len(rows)
        assert all(character.isprintable() or character == "\n" for character in written)


def test_states_look_as_they_do_in_the_console() -> None:
    assert {state: states.LOOKS[state][0] for state in views.ICONS} == views.ICONS
