"""`lensway sources`: databases, and testing their connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter
from rich.text import Text

from lensway.api.bodies import body_of
from lensway.api.shapes import SourceAnswer, SourceRequest, TestResult
from lensway.cli import health, names, output, report, screen, states, target, watch
from lensway.cli import tables as tables_
from lensway.cli.tables import Column
from lensway.client import Client, segment
from lensway.errors import ErrorCode, LenswayError

sources = App(name="sources", help="Sources: databases, and testing their connections.")

_To = target.Target
_FIELDS: Final = (*output.fields_of(SourceAnswer), "health", "places")
_COLUMNS: Final = (
    Column("SOURCE", "name", rank=0),
    Column("HEALTH", lambda source: states.shown(source["health"]), rank=0),
    Column("EXECUTED BY", health.places_cell, rank=1, is_text=True),
    Column("BRIDGE", "bridge", rank=2),
    Column("CREDENTIALS", "credentials", rank=4),
    Column("LENSES", lambda source: len(source.get("lenses", ())), rank=3),
)
_PLACES: Final = (
    Column("RUNNER", "runner", rank=0),
    Column("HEALTH", lambda place: states.shown(place["health"]), rank=0),
    Column("CAUSE", lambda place: place.get("cause") or "", is_text=True),
)
_TABLES: Final = (Column("TABLE", "name", rank=0), Column("KIND", "kind"))
_TABLE_COLUMNS: Final = (
    Column("COLUMN", "name", rank=0),
    Column("DATABASE TYPE", "databaseType", rank=1, is_text=True),
    Column("LENS TYPE", "type", rank=1),
    Column("LIST", "list", rank=3),
    Column("NULLABLE", "nullable", rank=2),
    Column("KEY", "primaryKey", rank=2),
)


@sources.command(name="list")
def list_(
    *,
    watch_: Annotated[bool, Parameter(name="--watch", negative=(), help="Follow changes until Ctrl-C.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """List every source with its health and where it is executed."""
    empty = "no sources yet: lensway push lensway.toml"
    if watch_:
        watch.follow(to, _with_health, _COLUMNS, empty=empty)
        return
    with to.client() as client:
        found = _with_health(client)
    output.write_list(to.form, found, _COLUMNS, empty=empty, fields=_FIELDS)


@sources.command
def show(source: names.Source, *, to: _To = target.DEFAULT) -> None:
    """Show one source with its health on each runner and the settings that runners override, without its config."""
    with to.client() as client:
        found = client.call("GET", f"/v1/sources/{segment(source)}")
        found |= health.of_source(found, client.call("GET", "/v1/runners")["runners"])
    output.write_one(to.form, found, lambda: _write_source(found), fields=_FIELDS)


def _with_health(client: Client) -> list[dict[str, Any]]:
    found = client.call("GET", "/v1/sources")["sources"]
    runners = client.call("GET", "/v1/runners")["runners"] if found else []
    return [source | health.of_source(source, runners) for source in found]


def _write_source(source: Mapping[str, Any]) -> None:
    tables_.write_facts(
        Text(f"{screen.text_of(source['name'])}  ") + states.shown(source["health"]),
        [
            ("bridge", source["bridge"]),
            ("credentials", source["credentials"]),
            ("execution", source["execution"]),
            ("config", "stored" if source.get("hasConfig") else "none stored"),
            ("lenses", source.get("lenses")),
            ("id", source["id"]),
            ("created", report.moment_of(source.get("createdAt"))),
        ],
    )
    if source["places"]:
        report.write_line("")
        output.write_list("table", source["places"], _PLACES, empty="")
    for runner, keys in source.get("overrides", {}).items():
        report.write_note(f"{runner} overrides: {', '.join(keys)}")
    report.write_warnings(source.get("warnings", ()))


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
    config: Any = report.read_stdin_json("the config") if config_stdin else None
    request = SourceRequest(name=name, bridge=bridge, credentials=credentials, execution=execution, config=config)
    if not config_stdin and credentials == "managed" and report.has_piped_object():
        raise _unread_config(name)
    with to.client() as client:
        created = client.call("POST", "/v1/sources", body_of(request))
    output.write_one(to.form, created, lambda: _write_created(created), fields=output.fields_of(SourceAnswer))


def _unread_config(source: str) -> LenswayError:
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"standard input holds a JSON object, and the config of source {source!r} is not read from it",
        hint="Add --config-stdin to read the config as JSON from standard input, or redirect it: </dev/null.",
    )


def _write_created(source: Mapping[str, Any]) -> None:
    report.write_line(
        f"source {source['name']} created ({source['id']}); test it: lensway sources test {source['name']}"
    )
    report.write_warnings(source.get("warnings", ()))


@sources.command
def update(
    source: names.Source,
    *,
    name: Annotated[str | None, Parameter(help="Another name.")] = None,
    bridge: Annotated[str | None, Parameter(help="Another kind of database.")] = None,
    credentials: Literal["managed", "runner-local"] | None = None,
    execution: Literal["auto", "runner_required"] | None = None,
    config_stdin: Annotated[
        bool, Parameter(negative=(), help="Replace the config by the JSON on standard input.")
    ] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Change parts of a source; the others stay."""
    parts = {"name": name, "bridge": bridge, "credentials": credentials, "execution": execution}
    body: dict[str, object] = {part: value for part, value in parts.items() if value is not None}
    if config_stdin:
        body["config"] = report.read_stdin_json("the config")
    elif report.has_piped_object():
        raise _unread_config(source)
    if not body:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"nothing to change of source {source!r}", hint="Give at least one option."
        )
    with to.client() as client:
        changed = client.call("PATCH", f"/v1/sources/{segment(source)}", body)
    done = f"source {changed['name']} changed: {', '.join(body)}"
    output.write_one(to.form, changed, lambda: report.write_line(done), fields=output.fields_of(SourceAnswer))


@sources.command
def delete(source: names.Source, *, to: _To = target.DEFAULT) -> None:
    """Delete a source that no lens and no assignment needs."""
    with to.client() as client:
        client.call("DELETE", f"/v1/sources/{segment(source)}")
    output.write_done(to.asked, {"name": source, "deleted": True}, f"source {source} deleted")


@sources.command
def test(
    source: names.Source,
    *,
    runner: Annotated[
        str | None, Parameter(completer=names.runners, help="Test from this runner, assigned or not.")
    ] = None,
    to: _To = target.DEFAULT,
) -> int:
    """Test from every assigned runner (or the service) that the database is reachable and its lenses are readable.

    Exits 0 only when every test is ok.
    """
    with to.client() as client:
        params = {"runner": runner} if runner else None
        answer = client.call("POST", f"/v1/sources/{segment(source)}/test", params=params)
    is_ok = bool(answer["results"]) and all(result["ok"] for result in answer["results"])
    if to.form in ("csv", "ndjson"):
        output.write_data(to.form, answer["results"], fields=output.fields_of(TestResult))
    elif to.form == "json":
        report.write_json(answer)
    else:
        for result in answer["results"]:
            report.write_stages(result)
    return 0 if is_ok else report.FAILURE_EXIT


@sources.command
def tables(
    source: names.Source,
    table: Annotated[str | None, Parameter(completer=names.tables)] = None,
    *,
    to: _To = target.DEFAULT,
) -> None:
    """List the tables that the source's login can read, or the columns of one table."""
    with to.client() as client:
        suffix = "" if table is None else f"/{segment(table)}"
        found = client.call("GET", f"/v1/sources/{segment(source)}/tables{suffix}")
    if to.form == "json":
        report.write_json(found)
    elif table is None:
        output.write_list(
            to.form, found["tables"], _TABLES, empty="no tables that the login can read", fields=("name", "kind")
        )
    else:
        output.write_list(to.form, found["columns"], _TABLE_COLUMNS, empty="no columns that the login can read")
        for column in found["columns"]:
            if column.get("reason"):
                report.write_note(f"{column['name']}: {column['reason']}")
