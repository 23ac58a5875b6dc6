"""`lensway environments`: isolated namespaces."""

from __future__ import annotations

from cyclopts import App

from lensway.api.bodies import body_of
from lensway.api.shapes import EnvironmentRequest
from lensway.cli import report, target
from lensway.client import segment

environments = App(name="environments", help="Environments: isolated namespaces.")

_To = target.Target


@environments.command
def create(name: str, *, to: _To = target.DEFAULT) -> None:
    """Create an environment."""
    with to.client() as client:
        report.write_json(client.call("POST", "/v1/environments", body_of(EnvironmentRequest(name=name))))


@environments.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List the environments that this key may see."""
    with to.client() as client:
        found = client.call("GET", "/v1/environments")["environments"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(("ENVIRONMENT", "ID"), [(item["name"], item["id"]) for item in found], empty="none")


@environments.command
def delete(environment: str, *, to: _To = target.DEFAULT) -> None:
    """Delete an empty environment."""
    with to.client() as client:
        client.call("DELETE", f"/v1/environments/{segment(environment)}")
    report.write_note(f"environment {environment} deleted")
