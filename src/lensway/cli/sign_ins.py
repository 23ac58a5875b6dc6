"""`lensway sign-ins`: who is signed in to the Console, and ending that."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from lensway.api.shapes import SignInAnswer
from lensway.catalog.names import counted
from lensway.cli import output, report, target
from lensway.cli.tables import Column
from lensway.client import segment
from lensway.errors import ErrorCode, LenswayError

sign_ins = App(name="sign-ins", help="Sign-ins to the Console.")

_To = target.Target
_COLUMNS: Final = (
    Column("ID", "id", rank=0),
    Column("KEY", "keyName", rank=1, is_text=True),
    Column("ROLE", "role", rank=3),
    Column("ADDRESS", "address", rank=2),
    Column("LAST USED", lambda each: report.ago_of(each.get("lastUsedAt")), rank=4),
    Column("SINCE", lambda each: report.moment_of(each.get("createdAt")), rank=5),
    Column("EXPIRES", lambda each: report.moment_of(each.get("expiresAt")), rank=6),
)


@sign_ins.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the open sign-ins, each with its key and address."""
    with to.client() as client:
        found = client.call("GET", "/v1/sign-ins")["signIns"]
    output.write_list(to.form, found, _COLUMNS, empty="no open sign-ins", fields=output.fields_of(SignInAnswer))


@sign_ins.command
def end(
    id: str | None = None,
    *,
    all: Annotated[bool, Parameter(negative=(), help="End every sign-in of the environment.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """End one sign-in by its id, or all of them. Its pages show the sign-in page within seconds."""
    if all == (id is not None):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, "end takes the id of one sign-in, or --all", hint="See `lensway sign-ins list`."
        )
    with to.client() as client:
        if id is None:
            answer = client.call("DELETE", "/v1/sign-ins")
            output.write_done(to.asked, answer, f"{counted(answer['ended'], 'sign-in')} ended")
        else:
            client.call("DELETE", f"/v1/sign-ins/{segment(id)}")
            output.write_done(to.asked, {"id": id, "ended": 1}, f"sign-in {id} ended")
