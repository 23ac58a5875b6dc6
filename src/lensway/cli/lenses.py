"""`lensway lenses`: declared views of tables."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.text import Text

from lensway.api.bodies import body_of
from lensway.api.shapes import FieldAnswer, LensDrift, LensSummary, ScaffoldRequest
from lensway.catalog.names import counted
from lensway.cli import names, output, report, screen, states, tables, target, toml
from lensway.cli.tables import Column
from lensway.client import Client, segment
from lensway.client.saving import PartialFile
from lensway.errors import ErrorCode, LenswayError

lenses = App(name="lenses", help="Lenses: declared views of tables.")

_To = target.Target
_OF_ONE_SOURCE: Final = frozenset(
    {
        ErrorCode.SOURCE_UNREACHABLE,
        ErrorCode.SOURCE_QUERY_FAILED,
        ErrorCode.SOURCE_REQUIRES_RUNNER,
        ErrorCode.NO_RUNNERS_ONLINE,
        ErrorCode.REFUSED_BY_RUNNER,
        ErrorCode.RUNNER_FAILED,
        ErrorCode.QUERY_TIMEOUT,
    }
)
"""Failures of one lens's source or runner, which say nothing of the other lenses."""
_COLUMNS: Final = (
    Column("LENS", "name", rank=0),
    Column("PRIMARY KEY", lambda lens: lens["primaryKey"] or None),
    Column("FIELDS", lambda lens: [field["name"] for field in lens["fields"]], is_text=True),
)
_FIELD_COLUMNS: Final = (
    Column("FIELD", "name", rank=0),
    Column("TYPE", lambda field: f"{field['type']}[]" if field.get("list") else field["type"], rank=0),
    Column("NULLABLE", "nullable", rank=2),
    Column("KEY", "primaryKey", rank=1),
    Column("OPERATORS", "operators", rank=3, is_text=True),
)


@lenses.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the lenses that this key may query."""
    with to.client() as client:
        found = client.call("GET", "/v1/lenses")["lenses"]
    output.write_list(
        to.form, found, _COLUMNS, empty="no lenses yet: lensway push lensway.toml", fields=output.fields_of(LensSummary)
    )


@lenses.command
def show(lens: names.Lens, *, to: _To = target.DEFAULT) -> None:
    """Show one lens with its field types."""
    with to.client() as client:
        found = client.call("GET", f"/v1/lenses/{segment(lens)}")
    if to.form in ("csv", "ndjson"):
        output.write_data(to.form, found["fields"], fields=output.fields_of(FieldAnswer))
        return
    output.write_one(to.form, found, lambda: _write_lens(found))


def _write_lens(lens: Mapping[str, Any]) -> None:
    operators = lens.get("operators", {})
    tables.write_facts(Text(screen.text_of(lens["name"])), [("primary key", lens["primaryKey"] or "none")])
    report.write_line("")
    rows = [field | {"operators": operators.get(field["name"])} for field in lens["fields"]]
    output.write_list("table", rows, _FIELD_COLUMNS, empty="no fields")


@lenses.command
def put(lens: names.Lens, *, to: _To = target.DEFAULT) -> None:
    """Create or replace a lens from JSON on standard input."""
    body = report.read_stdin_json("the lens")
    with to.client() as client:
        put_ = client.call("PUT", f"/v1/lenses/{segment(lens)}", body)
    output.write_one(to.form, put_, lambda: report.write_line(f"lens {lens} saved"))


@lenses.command
def delete(lens: names.Lens, *, to: _To = target.DEFAULT) -> None:
    """Delete a lens."""
    with to.client() as client:
        client.call("DELETE", f"/v1/lenses/{segment(lens)}")
    output.write_done(to.asked, {"name": lens, "deleted": True}, f"lens {lens} deleted")


@lenses.command
def scaffold(
    source: names.Source,
    *tables_: Annotated[str, Parameter(name="TABLE", completer=names.tables)],
    prefix: Annotated[str | None, Parameter(help="Prefix for the names of new lenses.")] = None,
    output_: Annotated[
        pathlib.Path | None, Parameter(name=("--output", "-o"), help="The output file; default: standard output.")
    ] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Write declarations of lenses for a source's tables as TOML: all that its login can read, or only the named ones.

    Changes nothing; review the file, then push it. Comments name what was left out, and why.
    """
    request = ScaffoldRequest(tables=list(tables_) or None, prefix=prefix or "")
    with to.client() as client:
        answer = client.call("POST", f"/v1/sources/{segment(source)}/scaffold", body_of(request))
    if to.asked in (None, "table"):
        text = "\n".join(_scaffold_lines(answer)) + "\n"
    elif to.asked == "json":
        text = report.json_text(answer)
    else:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"scaffold of source {source!r} has no form {to.asked}",
            hint="It writes TOML, or the answer of the API with --json.",
        )
    if output_ is None:
        report.write_text(text)
        return
    try:
        with PartialFile(output_) as file:
            file.open()
            file.write(text.encode())
            file.commit()
    except OSError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"cannot write {output_}: {error.strerror}") from None
    report.write_note(
        f"{output_}: {counted(len(answer['declaration']['lenses']), 'lens')}; lensway push {output_} --dry-run"
    )


def _scaffold_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    declared, notes = answer["declaration"]["lenses"], list(answer["notes"])
    declared_tables = {lens["table"] for lens in declared.values()}
    yield toml.comment(f"Lenses for the tables of source {answer['source']}. Review, then push this file.")
    for note in notes:
        if note["table"] not in declared_tables:
            yield toml.comment(_note_text(note, with_table=True))
    for name, lens in declared.items():
        yield ""
        yield from (toml.comment(_note_text(note)) for note in notes if note["table"] == lens["table"])
        yield from toml.lens_lines(name, lens)
        for line in toml.member_lines(answer["relations"].get(name, {})):
            yield toml.comment(f"relation {line}")


def _note_text(note: Mapping[str, Any], *, with_table: bool = False) -> str:
    place = f"table {note['table']}: " if with_table else ""
    column = f"column {note['column']}: " if note.get("column") else ""
    return f"{place}{column}{note['reason']}"


@lenses.command
def check(*lenses_: Annotated[str, Parameter(name="LENS", completer=names.lenses)], to: _To = target.DEFAULT) -> int:
    """Compare lenses with their tables, all of them or only the named ones: columns, types, keys.

    Exits 1 when something is wrong. New columns are notes.
    """
    with to.client() as client:
        chosen = lenses_ or [lens["name"] for lens in client.call("GET", "/v1/lenses")["lenses"]]
        results = [_checked(client, name) for name in chosen]
    if to.form != "table":
        output.write_data(to.form, results, fields=output.fields_of(LensDrift))
    else:
        for result in results:
            _write_check(result)
        if not results:
            report.write_line("no lenses yet: lensway lenses scaffold SOURCE")
    return 0 if all(result["ok"] for result in results) else report.FAILURE_EXIT


def _checked(client: Client, name: str) -> dict[str, Any]:
    """What the server found; for one lens of several whose source cannot be asked, that."""
    try:
        found: dict[str, Any] = client.call("POST", f"/v1/lenses/{segment(name)}/check")
    except LenswayError as error:
        if error.code not in _OF_ONE_SOURCE:
            raise
        finding = {"level": "error", "code": error.code.value, "message": error.failure.message}
        return {"lens": name, "ok": False, "findings": [finding]}
    return found


def _write_check(result: Mapping[str, Any]) -> None:
    place = f" ({result['table']} in {result['source']})" if "table" in result else ""
    state = states.shown("ok") if result["ok"] else states.shown("differs", "DIFFERS")
    screen.write_styled(Text(screen.text_of(f"{result['lens']}{place}: ")).append_text(state))
    for finding in result["findings"]:
        report.write_line(f"  {finding['level']:<5} {finding['code']}: {finding['message']}")
