"""The four forms that every command prints: a table, JSON, NDJSON and CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from lensway.api import numbers
from lensway.cli import report, screen, tables
from lensway.cli.tables import Column

Form: TypeAlias = Literal["table", "json", "ndjson", "csv"]


def write_list(
    form: Form,
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    empty: str,
    fields: Sequence[str] = (),
) -> None:
    """Records of one kind. ``fields`` are the columns of CSV that stand there even without a record."""
    if form != "table":
        write_data(form, records, fields=fields)
        return
    left_out = tables.write(columns, records, empty=empty)
    if left_out:
        report.write_note(f"not shown at this width: {', '.join(left_out)} (--json shows everything)")


def write_one(form: Form, record: Mapping[str, Any], write: Callable[[], None], *, fields: Sequence[str] = ()) -> None:
    """One record; ``write`` prints it for people."""
    if form == "table":
        write()
    elif form == "json":
        report.write_json(record)
    else:
        write_data(form, [record], fields=fields)


def write_done(form: Form | None, record: Mapping[str, Any] | None, done: str) -> None:
    """What an action answered, where a form was asked for; otherwise ``done``, on standard error."""
    if form is None or form == "table":
        report.write_note(done)
    else:
        write_one(form, record or {}, lambda: None)


def write_data(form: Form, records: Sequence[Mapping[str, Any]], *, fields: Sequence[str] = ()) -> None:
    """Records for a program."""
    if form == "json":
        report.write_json(records)
    elif form == "ndjson":
        for record in records:
            write_record(record)
    else:
        names = list(dict.fromkeys([*fields, *(name for record in records for name in record)]))
        write_csv([names, *([record.get(name) for name in names] for record in records)])


def write_record(record: Mapping[str, Any]) -> None:
    """One record as a line of NDJSON, at once."""
    report.write_data_text(numbers.encode(record).decode() + "\n")
    sys.stdout.flush()


def write_csv(rows: Iterable[Sequence[object]]) -> None:
    """Rows of CSV, as the API writes it: lists and objects as JSON, null as nothing."""
    buffer = io.StringIO()
    # Only a terminal would act on what stands in it.
    shown = (lambda value: screen.visible(str(value))) if screen.is_terminal() else (lambda value: value)
    csv.writer(buffer, lineterminator="\n").writerows([shown(_csv_value(value)) for value in row] for row in rows)
    screen.write(buffer.getvalue())


def fields_of(shape: type[msgspec.Struct]) -> tuple[str, ...]:
    """The members of an answer of the API, which are the columns of its CSV."""
    return tuple(shape.__struct_encode_fields__)


def _csv_value(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return numbers.encode(value).decode() if isinstance(value, (list, tuple, dict)) else value
