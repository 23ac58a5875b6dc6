"""`lensway sign-ins`: who is signed in to the Console, and ending that."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from lensway.catalog.names import counted
from lensway.cli import report, target
from lensway.client import segment
from lensway.errors import ErrorCode, LenswayError

sign_ins = App(name="sign-ins", help="Sign-ins to the Console.")

_To = target.Target


@sign_ins.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the open sign-ins, each with its key and address."""
    with to.client() as client:
        found = client.call("GET", "/v1/sign-ins")["signIns"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("ID", "KEY", "ROLE", "ADDRESS", "SINCE", "LAST USED"),
        [
            (
                each["id"],
                each["keyName"],
                each["role"],
                each["address"],
                *(report.moment_of(each[moment]) for moment in ("createdAt", "lastUsedAt")),
            )
            for each in found
        ],
        empty="no open sign-ins",
    )


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
            ended = client.call("DELETE", "/v1/sign-ins")["ended"]
            report.write_note(f"{counted(ended, 'sign-in')} ended")
        else:
            client.call("DELETE", f"/v1/sign-ins/{segment(id)}")
            report.write_note(f"sign-in {id} ended")
