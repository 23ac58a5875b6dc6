"""`lensway sources`: databases, and testing their connections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from lensway.cli import report, target
from lensway.client import segment

sources = App(name="sources", help="Sources: databases, and testing their connections.")

_To = target.Target


@sources.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List every source and where it is executed."""
    with to.client() as client:
        found = client.call("GET", "/v1/sources")["sources"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("SOURCE", "BRIDGE", "CREDENTIALS", "EXECUTED BY"),
        [(s["name"], s["bridge"], s["credentials"], _place(s)) for s in found],
        empty="no sources yet: lensway push lensway.toml",
    )


@sources.command
def show(source: str, *, to: _To = target.DEFAULT) -> None:
    """Show one source, without its config, and which of its settings runners override."""
    with to.client() as client:
        found = client.call("GET", f"/v1/sources/{segment(source)}")
    report.write_json(found)
    for runner, keys in found.get("overrides", {}).items():
        report.write_note(f"{runner} overrides: {', '.join(keys)}")


@sources.command
def create(
    name: str,
    *,
    bridge: str,
    credentials: Literal["managed", "runner-local"] = "managed",
    execution: Literal["auto", "runner_required"] = "auto",
    config_stdin: Annotated[bool, Parameter(negative=(), help="Read the config as JSON from standard input.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Register a source. Pass its config on standard input, because `ps` would show an argument."""
    body: dict[str, object] = {"name": name, "bridge": bridge, "credentials": credentials, "execution": execution}
    if config_stdin:
        body["config"] = report.read_stdin_json("the config")
    with to.client() as client:
        report.write_json(client.call("POST", "/v1/sources", body))


@sources.command
def delete(source: str, *, to: _To = target.DEFAULT) -> None:
    """Delete a source that no lens and no assignment needs."""
    with to.client() as client:
        client.call("DELETE", f"/v1/sources/{segment(source)}")
    report.write_note(f"source {source} deleted")


@sources.command
def test(
    source: str,
    *,
    runner: Annotated[str | None, Parameter(help="Test from this runner, assigned or not.")] = None,
    to: _To = target.DEFAULT,
) -> int:
    """Test from every assigned runner (or the service) that the database is reachable and its lenses are readable.

    Exits 0 only when every test is ok.
    """
    with to.client() as client:
        params = {"runner": runner} if runner else None
        answer = client.call("POST", f"/v1/sources/{segment(source)}/test", params=params)
    is_ok = bool(answer["results"]) and all(result["ok"] for result in answer["results"])
    if report.wants_json(to.json):
        report.write_json(answer)
    else:
        for result in answer["results"]:
            for line in report.stage_lines(result):
                report.write_line(line)
    return 0 if is_ok else report.FAILURE_EXIT


@sources.command
def tables(source: str, table: str | None = None, *, to: _To = target.DEFAULT) -> None:
    """List the tables that the source's login can read, or the columns of one table."""
    with to.client() as client:
        suffix = f"/{segment(table)}" if table else ""
        found = client.call("GET", f"/v1/sources/{segment(source)}/tables{suffix}")
    if report.wants_json(to.json):
        report.write_json(found)
    elif table is None:
        report.write_table(
            ("TABLE", "KIND"),
            [(each["name"], each["kind"]) for each in found["tables"]],
            empty="no tables that the login can read",
        )
    else:
        report.write_table(
            ("COLUMN", "DATABASE TYPE", "LENS TYPE", "LIST", "NULLABLE", "KEY"),
            [
                (c["name"], c["databaseType"], c["type"], c.get("list"), c.get("nullable"), c.get("primaryKey"))
                for c in found["columns"]
            ],
            empty="no columns that the login can read",
        )


def _place(source: dict[str, Any]) -> str:
    runners = source.get("runners") or ()
    return report.text_of(runners) if runners else "inline"
