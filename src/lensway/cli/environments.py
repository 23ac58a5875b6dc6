"""`lensway environments`: isolated namespaces."""

from __future__ import annotations

from typing import Final

from cyclopts import App

from lensway.api.bodies import body_of
from lensway.api.shapes import EnvironmentAnswer, EnvironmentRequest
from lensway.cli import names, output, report, target
from lensway.cli.tables import Column
from lensway.client import segment

environments = App(name="environments", help="Environments: isolated namespaces.")

_To = target.Target
_FIELDS: Final = output.fields_of(EnvironmentAnswer)
_COLUMNS: Final = (
    Column("ENVIRONMENT", "name", rank=0),
    Column("ID", "id", rank=1),
    Column("CREATED", lambda environment: report.moment_of(environment.get("createdAt")), rank=2),
)


@environments.command
def create(name: str, *, to: _To = target.DEFAULT) -> None:
    """Create an environment."""
    with to.client() as client:
        created = client.call("POST", "/v1/environments", body_of(EnvironmentRequest(name=name)))
    output.write_one(
        to.form, created, lambda: report.write_line(f"environment {name} created ({created['id']})"), fields=_FIELDS
    )


@environments.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the environments that this key may see."""
    with to.client() as client:
        found = client.call("GET", "/v1/environments")["environments"]
    output.write_list(to.form, found, _COLUMNS, empty="no environments", fields=_FIELDS)


@environments.command
def delete(environment: names.Environment, *, to: _To = target.DEFAULT) -> None:
    """Delete an empty environment."""
    with to.client() as client:
        client.call("DELETE", f"/v1/environments/{segment(environment)}")
    output.write_done(to.asked, {"name": environment, "deleted": True}, f"environment {environment} deleted")
