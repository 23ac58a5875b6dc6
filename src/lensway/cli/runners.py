"""`lensway runners`: create, look at, assign, rotate, drain, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.text import Text

from lensway.api.blocks import BlockForm, environment_block, read_block
from lensway.api.bodies import body_of
from lensway.api.shapes import AssignmentPair, RunnerAnswer, RunnerRequest
from lensway.cli import names, output, report, screen, states, tables, target, watch
from lensway.cli.tables import Column
from lensway.client import Client, segment
from lensway.errors import ErrorCode, LenswayError

runners = App(name="runners", help="Runners: agents in private networks, and what they cover.")

_To = target.Target
_FIELDS: Final = output.fields_of(RunnerAnswer)
_SOUND: Final = frozenset({"healthy", "connecting"})
_ADVICE: Final = frozenset({"single_runner", "replicas_differ", "goes_inline"})
"""Warnings about what may go wrong, as against what is wrong."""
_AWAY: Final = frozenset({"never_connected", "offline", "revoked", "draining"})


def _sources_cell(runner: Mapping[str, Any]) -> object:
    return [source["name"] for source in runner.get("sources", ())] or None


def _cause_cell(runner: Mapping[str, Any]) -> object:
    """Why it is in its state, where the state does not say it all."""
    cause, status = str(runner.get("cause") or ""), str(runner["status"])
    is_said = cause.replace("_", " ") == status.replace("_", " ") or (status, cause) == ("healthy", "connected")
    return "" if is_said else cause


def _revision_cell(instance: Mapping[str, Any]) -> object:
    """The revision in force, and the one that is wanted where it is another."""
    revision, wanted = instance.get("revision"), instance.get("wantedRevision")
    return revision if revision == wanted else f"{screen.text_of(revision)} → {screen.text_of(wanted)}"


_COLUMNS: Final = (
    Column("RUNNER", "name", rank=0),
    Column("STATUS", lambda runner: states.shown(runner["status"]), rank=0),
    Column("FOR", lambda runner: report.age_of(runner.get("since")), rank=1),
    Column("NETWORK", "network", rank=4),
    Column("INSTANCES", lambda runner: len(runner.get("instances", ())), rank=5),
    Column("SOURCES", _sources_cell, rank=3, is_text=True),
    Column("CAUSE", _cause_cell, rank=2, is_text=True),
)
_INSTANCES: Final = (
    Column("INSTANCE", "id", rank=0),
    Column("STATE", lambda instance: states.shown(instance["state"]), rank=0),
    Column("FOR", lambda instance: report.age_of(instance.get("since"))),
    Column("JOBS", lambda instance: f"{instance.get('outstanding', 0)}/{instance.get('capacity', 0)}", rank=2),
    Column("REVISION", _revision_cell, rank=2),
    Column("ADDRESS", "address", rank=3),
    Column("HOST", "hostname", rank=4),
    Column("VERSION", "version", rank=5, is_text=True),
    Column("BRIDGES", lambda instance: sorted(instance.get("bridges", ())), rank=6, is_text=True),
)
_ASSIGNMENTS: Final = (
    Column("RUNNER", "runner", rank=0),
    Column("SOURCE", "source", rank=0),
    Column("SINCE", lambda pair: report.moment_of(pair.get("createdAt")), rank=1),
)
_COVERED: Final = (
    Column("SOURCE", "name", rank=0),
    Column("HEALTH", lambda source: states.shown(source["health"]), rank=0),
    Column("BRIDGE", "bridge", rank=2),
    Column("CAUSE", lambda source: source.get("cause") or "", is_text=True),
)
_FormatBlock = Annotated[
    BlockForm, Parameter(help="Form of the environment block: variables, systemd's files, a compose file, a Secret.")
]


@runners.command
def create(
    name: str,
    *,
    like: Annotated[
        str | None,
        Parameter(
            completer=names.runners, help="Copy network and assignments from this runner, to make a redundant pair."
        ),
    ] = None,
    network: Annotated[
        str | None, Parameter(help="Label of the private network; runners with the same label are replicas.")
    ] = None,
    format_block: _FormatBlock = "shell",
    to: _To = target.DEFAULT,
) -> None:
    """Register a runner and print its environment block. The token is shown once."""
    with to.client() as client:
        request = RunnerRequest(name=name, network=network, like=like)
        created = client.call("POST", "/v1/runners", body_of(request))
    report.write_warnings(created.get("warnings", ()))
    if to.asked not in (None, "table"):
        output.write_one(to.form, created, lambda: None)
        return
    # Piped too: `lensway runners create alpha > alpha.env` is what the block is for.
    report.write_text(environment_block(format_block, name, read_block(created["env"])))
    report.write_note(f"runner {name} created ({created['id']}). The token above is shown once.")


@runners.command(name="list")
def list_(
    *,
    problems: Annotated[bool, Parameter(negative=(), help="Only runners that have a problem.")] = False,
    watch_: Annotated[bool, Parameter(name="--watch", negative=(), help="Follow changes until Ctrl-C.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """List every runner with its state, since when, why and what to do."""

    def read(client: Client) -> list[dict[str, Any]]:
        found = client.call("GET", "/v1/runners")["runners"]
        return [runner for runner in found if not problems or _is_problem(runner)]

    empty = "no runner has a problem" if problems else "no runners yet: lensway runners create NAME"
    if watch_:
        watch.follow(to, read, _COLUMNS, empty=empty)
        return
    with to.client() as client:
        found = read(client)
    output.write_list(to.form, found, _COLUMNS, empty=empty, fields=_FIELDS)
    if to.form == "table":
        for runner in found:
            if runner.get("hint"):
                report.write_note(f"{runner['name']}: {runner['hint']}")


@runners.command
def show(runner: names.Runner, *, to: _To = target.DEFAULT) -> None:
    """Show one runner with its instances, revisions and the health of each source."""
    with to.client() as client:
        found = client.call("GET", f"/v1/runners/{segment(runner)}")
    output.write_one(to.form, found, lambda: _write_runner(found), fields=_FIELDS)


def _write_runner(runner: Mapping[str, Any]) -> None:
    since = report.age_of(runner.get("since"))
    title = Text(f"{screen.text_of(runner['name'])}  ") + states.shown(runner["status"])
    tables.write_facts(
        title.append(f" for {since}" if since else ""),
        [
            ("cause", _cause_cell(runner)),
            ("next", runner.get("hint")),
            ("network", runner.get("network")),
            ("id", runner["id"]),
            ("revision", runner.get("revision")),
            ("created", report.moment_of(runner.get("createdAt"))),
        ],
    )
    for columns, rows in ((_INSTANCES, runner.get("instances", ())), (_COVERED, runner.get("sources", ()))):
        if rows:
            report.write_line("")
            output.write_list("table", rows, columns, empty="")
    report.write_warnings(runner.get("warnings", ()))


def _is_problem(runner: Mapping[str, Any]) -> bool:
    """As the Console has it: one that never connected is one only if sources wait for it."""
    if runner["status"] == "never_connected":
        return bool(runner.get("sources"))
    return runner["status"] not in _SOUND or any(
        warning["code"] not in _ADVICE for warning in runner.get("warnings", ())
    )


@runners.command
def assign(
    runner: names.Runner,
    sources: Annotated[list[str], Parameter(negative=(), completer=names.sources, help="One or more sources.")],
    /,
    *,
    verify: Annotated[
        bool, Parameter(negative=(), help="Test from that runner first; change nothing when it fails.")
    ] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Assign sources to a runner."""
    with to.client() as client:
        answers = [_assign(client, runner, source, verify=verify) for source in sources]
        found = client.call("GET", f"/v1/runners/{segment(runner)}") if answers else {}
    serves = "will serve" if found.get("status") in _AWAY else "serves"
    _write_assignment(f"{runner} {serves} {', '.join(sources)}", answers, to)
    if found.get("status") in _AWAY:
        # In every form: who assigned it must learn that nothing has changed for queries yet.
        report.write_note(_away_note(runner, found))


@runners.command
def unassign(
    runner: names.Runner,
    sources: Annotated[list[str], Parameter(completer=names.sources)],
    /,
    *,
    to: _To = target.DEFAULT,
) -> None:
    """Unassign sources from a runner. The service executes a source without any runner inline, unless it requires one."""
    with to.client() as client:
        answers = [
            client.call("DELETE", f"/v1/runners/{segment(runner)}/sources/{segment(source)}") for source in sources
        ]
    _write_assignment(f"{runner} no longer serves {', '.join(sources)}", answers, to)


@runners.command
def assignments(*, to: _To = target.DEFAULT) -> None:
    """List every assignment: which runner serves which source, and since when."""
    with to.client() as client:
        found = client.call("GET", "/v1/assignments")["assignments"]
    output.write_list(
        to.form,
        found,
        _ASSIGNMENTS,
        empty="no assignments yet: lensway runners assign RUNNER SOURCE",
        fields=output.fields_of(AssignmentPair),
    )


@runners.command
def update(
    runner: names.Runner,
    *,
    network: Annotated[str | None, Parameter(help="Another label of the private network.")] = None,
    no_network: Annotated[bool, Parameter(negative=(), help="Remove the label.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Change the network label of a runner."""
    if no_network == (network is not None):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"update of runner {runner!r} takes --network LABEL or --no-network",
            hint="Runners with the same label are replicas.",
        )
    with to.client() as client:
        changed = client.call("PATCH", f"/v1/runners/{segment(runner)}", {"network": network})
    label = "has no network label" if network is None else f"is in network {network}"
    output.write_one(to.form, changed, lambda: report.write_line(f"runner {runner} {label}"), fields=_FIELDS)
    if to.form == "table":
        report.write_warnings((changed or {}).get("warnings", ()))


@runners.command
def rotate(runner: names.Runner, *, format_block: _FormatBlock = "shell", to: _To = target.DEFAULT) -> None:
    """Create a new token, shown once; the old one stays valid until the overlap ends."""
    with to.client() as client:
        rotated = client.call("POST", f"/v1/runners/{segment(runner)}/rotate")
    if to.asked not in (None, "table"):
        output.write_one(to.form, rotated, lambda: None)
        return
    report.write_text(environment_block(format_block, rotated["name"], read_block(rotated["env"])))


@runners.command
def revoke(runner: names.Runner, *, to: _To = target.DEFAULT) -> None:
    """End the runner's tokens and sessions at once. Its assignments stay, so its sources do not go inline."""
    _act(runner, "revoke", "revoked; its assignments are kept", to)


@runners.command
def drain(runner: names.Runner, *, to: _To = target.DEFAULT) -> None:
    """Stop giving a runner new work; its running jobs finish. Its assignments stay."""
    _act(runner, "drain", "draining", to)


@runners.command
def resume(runner: names.Runner, *, to: _To = target.DEFAULT) -> None:
    """End a drain."""
    _act(runner, "resume", "serving again", to)


@runners.command
def delete(
    runner: names.Runner, *, force: Annotated[bool, Parameter(negative=())] = False, to: _To = target.DEFAULT
) -> None:
    """Delete a runner. A runner with assignments needs --force, because its sources could go inline."""
    with to.client() as client:
        params = {"force": "true"} if force else None
        answer = client.call("DELETE", f"/v1/runners/{segment(runner)}", params=params)
    report.write_warnings((answer or {}).get("warnings", ()))
    output.write_done(to.asked, answer, f"runner {runner} deleted")


def _away_note(runner: str, found: Mapping[str, Any]) -> str:
    if found["status"] == "never_connected":
        return (
            f"runner {runner} has never connected: start it with `lensway runner start` and the environment block that "
            "was printed when it was created"
        )
    return f"runner {runner} is {found['status']}: {found.get('hint') or 'it serves once it is back'}"


def _assign(client: Client, runner: str, source: str, *, verify: bool = False) -> Any:
    params = {"verify": "true"} if verify else None
    return client.call("PUT", f"/v1/runners/{segment(runner)}/sources/{segment(source)}", params=params)


def _act(runner: str, action: str, done: str, to: target.Target) -> None:
    with to.client() as client:
        answer = client.call("POST", f"/v1/runners/{segment(runner)}/{action}")
    report.write_warnings((answer or {}).get("warnings", ()))
    output.write_done(to.asked, answer, f"runner {runner}: {done}")


def _write_assignment(done: str, answers: list[Any], to: target.Target) -> None:
    if not answers:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "name at least one source")
    warnings = answers[-1].get("warnings", ())
    answer = {"revision": answers[-1]["revision"], "warnings": warnings}
    output.write_one(to.form, answer, lambda: report.write_line(f"{done} (revision {answers[-1]['revision']})"))
    if to.form == "table":
        report.write_warnings(warnings)
