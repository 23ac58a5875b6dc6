"""`lensway lenses`: declared views of tables."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lensway.api.bodies import body_of
from lensway.api.shapes import ScaffoldRequest
from lensway.cli import report, target, toml
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


@lenses.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the lenses that this key may query."""
    with to.client() as client:
        found = client.call("GET", "/v1/lenses")["lenses"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("LENS", "PRIMARY KEY", "FIELDS"),
        [(lens["name"], lens["primaryKey"] or None, [field["name"] for field in lens["fields"]]) for lens in found],
        empty="no lenses yet: lensway push lensway.toml",
    )


@lenses.command
def show(lens: str, *, to: _To = target.DEFAULT) -> None:
    """Show one lens with its field types."""
    with to.client() as client:
        report.write_json(client.call("GET", f"/v1/lenses/{segment(lens)}"))


@lenses.command
def put(lens: str, *, to: _To = target.DEFAULT) -> None:
    """Create or replace a lens from JSON on standard input."""
    body = report.read_stdin_json("the lens")
    with to.client() as client:
        report.write_json(client.call("PUT", f"/v1/lenses/{segment(lens)}", body))


@lenses.command
def delete(lens: str, *, to: _To = target.DEFAULT) -> None:
    """Delete a lens."""
    with to.client() as client:
        client.call("DELETE", f"/v1/lenses/{segment(lens)}")
    report.write_note(f"lens {lens} deleted")


@lenses.command
def scaffold(
    source: str,
    *tables: Annotated[str, Parameter(name="TABLE")],
    prefix: Annotated[str | None, Parameter(help="Prefix for the names of new lenses.")] = None,
    output: Annotated[
        pathlib.Path | None, Parameter(name=("--output", "-o"), help="The output file; default: standard output.")
    ] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Write declarations of lenses for a source's tables as TOML: all that its login can read, or only the named ones.

    Changes nothing; review the file, then push it. Comments name what was left out, and why.
    """
    request = ScaffoldRequest(tables=list(tables) or None, prefix=prefix or "")
    with to.client() as client:
        answer = client.call("POST", f"/v1/sources/{segment(source)}/scaffold", body_of(request))
    if to.json:
        text = report.json_text(answer)
    else:
        text = "\n".join(_scaffold_lines(answer)) + "\n"
    if output is None:
        report.write_text(text)
        return
    try:
        with PartialFile(output) as file:
            file.open()
            file.write(text.encode())
            file.commit()
    except OSError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"cannot write {output}: {error.strerror}") from None
    report.write_note(f"{output}: {len(answer['declaration']['lenses'])} lenses; lensway push {output} --dry-run")


def _scaffold_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    declared, notes = answer["declaration"]["lenses"], list(answer["notes"])
    tables = {lens["table"] for lens in declared.values()}
    yield toml.comment(f"Lenses for the tables of source {answer['source']}. Review, then push this file.")
    for note in notes:
        if note["table"] not in tables:
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
def check(*names: Annotated[str, Parameter(name="LENS")], to: _To = target.DEFAULT) -> int:
    """Compare lenses with their tables, all of them or only the named ones: columns, types, keys.

    Exits 1 when something is wrong. New columns are notes.
    """
    with to.client() as client:
        chosen = names or [lens["name"] for lens in client.call("GET", "/v1/lenses")["lenses"]]
        results = [_checked(client, name) for name in chosen]
    if report.wants_json(to.json):
        report.write_json(results)
    else:
        for result in results:
            for line in _check_lines(result):
                report.write_line(line)
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


def _check_lines(result: Mapping[str, Any]) -> Iterator[str]:
    place = f" ({result['table']} in {result['source']})" if "table" in result else ""
    yield report.text_of(f"{result['lens']}{place}: {'ok' if result['ok'] else 'DIFFERS'}")
    for finding in result["findings"]:
        yield report.text_of(f"  {finding['level']:<5} {finding['code']}: {finding['message']}")
