"""`lensway lenses`: declared views of tables."""

from __future__ import annotations

from cyclopts import App

from lensway.cli import report, target
from lensway.client import segment

lenses = App(name="lenses", help="Lenses: declared views of tables.")

_To = target.Target


@lenses.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """Every lens that this key may ask."""
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
    """One lens with its field types."""
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
