"""`lensway audit`: who did what, whether that is still as it was written, and all of it as NDJSON."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from lensway.api.shapes import AuditVerdict
from lensway.catalog.names import counted
from lensway.cli import output, report, screen, states, target
from lensway.cli.tables import Column
from lensway.errors import ErrorCode, LenswayError

audit = App(name="audit", help="Who did what; verified and exported by instance-wide admin keys.")

_To = target.Target
_FIELDS: Final = ("sequence", "at", "environment", "actor", "action", "object", "address", "outcome")
_COLUMNS: Final = (
    # Of repeated entries the last moment: the list is in its order.
    Column("AT", lambda entry: report.moment_of(entry.get("until") or entry.get("at")), rank=0),
    Column("ACTION", "action", rank=0),
    Column("OUTCOME", lambda entry: states.shown(entry.get("outcome")), rank=1),
    # The id of the key stands behind its name; --json has both.
    Column("BY", lambda entry: str(entry.get("actor")).rpartition(" (")[0] or entry.get("actor"), rank=2, is_text=True),
    Column("OBJECT", lambda entry: entry.get("object") or None, rank=3),
    Column("TIMES", lambda entry: entry.get("count") or 1, rank=3),
    Column("FROM", lambda entry: entry.get("address") or None, rank=4),
)


@audit.default
def list_(
    *,
    limit: int = 50,
    before: Annotated[int | None, Parameter(help="Only rows older than this sequence number.")] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Show who did what to which object, from where, with what outcome; newest first."""
    params = {"limit": str(limit)} | ({} if before is None else {"before": str(before)})
    with to.client() as client:
        entries = client.call("GET", "/v1/audit", params=params)["entries"]
    output.write_list(to.form, entries, _COLUMNS, empty="nothing yet", fields=_FIELDS)


@audit.command
def verify(
    *,
    head: Annotated[str | None, Parameter(help="SEQUENCE:CHAIN of a head that is stored elsewhere.")] = None,
    head_file: Annotated[
        pathlib.Path | None,
        Parameter(help="Verify against the head in this file, if it exists, and write the new head to it."),
    ] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Check whether any row was altered, inserted or removed; exits 1 if so. Rows cut off at the end and a restored older copy
    show only against a head stored where the server's administrators cannot write."""
    if head is None and head_file is not None and head_file.exists():
        head = _read(head_file)
    with to.client() as client:
        found = client.call("GET", "/v1/audit/verify", params={"head": head} if head else {})
    now = f"{found['head']['sequence']}:{found['head']['chain']}"
    if to.form != "table":
        output.write_one(to.form, found, lambda: None, fields=output.fields_of(AuditVerdict))
    elif found["ok"]:
        verb = "is" if found["rows"] == 1 else "are"
        report.write_line(f"{counted(found['rows'], 'row')} {verb} unaltered. Head {now}")
    if not found["ok"]:
        report.write_note(f"lensway: the audit is broken at row {found['broken']}: {found['reason']}")
        sys.exit(report.FAILURE_EXIT)
    if head_file is not None:
        _replace(head_file, f"{now}\n".encode())


@audit.command
def export(
    *,
    output_: Annotated[
        pathlib.Path | None, Parameter(name=("--output", "-o"), help="The output file; default: standard output.")
    ] = None,
    after: Annotated[int, Parameter(help="Only rows after this sequence number.")] = 0,
    to: target.Server = target.SERVER,
) -> None:
    """Write the audit of every environment as NDJSON, oldest row first, each with its chain value. The last line holds `$end`
    with the number of rows and the head; an export without it is incomplete."""
    params = {"after": str(after)} if after else {}
    with (
        to.client() as client,
        client.stream("GET", "/v1/audit/export", params=params, accept="application/x-ndjson") as stream,
    ):
        if output_ is None:
            tail = _copied(stream, screen.BinaryOut(is_json=True))
        else:
            unfinished = output_.with_name(f"{output_.name}.part")
            try:
                with unfinished.open("wb") as file:
                    tail = _copied(stream, file)
                _check_end(tail)
                unfinished.replace(output_)
            except OSError as error:
                raise LenswayError(
                    ErrorCode.INVALID_REQUEST, f"cannot write {output_} ({(error.strerror or 'file').lower()})"
                ) from None
            finally:
                unfinished.unlink(missing_ok=True)
    _check_end(tail)


def _copied(stream: Any, file: Any) -> bytes:
    tail = b""
    for chunk in stream:
        file.write(chunk)
        tail = (tail + chunk)[-4096:]
    file.flush()
    return tail


def _check_end(tail: bytes) -> None:
    try:
        is_whole = "$end" in msgspec.json.decode(tail.rstrip(b"\n").rpartition(b"\n")[2])
    except (msgspec.DecodeError, TypeError):
        is_whole = False
    if not is_whole:
        raise LenswayError(
            ErrorCode.INTERNAL, "the export of the audit was cut: its last line is missing", hint="Repeat it."
        )


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"cannot read a head from {path}", hint="Name a file that `--head-file` made."
        ) from None


def _replace(path: pathlib.Path, data: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"cannot write {path} ({(error.strerror or 'file').lower()})"
        ) from None
