"""`lensway runners`: create, look at, assign, rotate, drain, delete."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from lensway.api.blocks import BlockForm, environment_block, read_block
from lensway.cli import report, target
from lensway.client import Client, segment
from lensway.errors import ErrorCode, LenswayError

runners = App(name="runners", help="Runners: agents in private networks, and what they cover.")

_To = target.Target
_FormatBlock = Annotated[
    BlockForm, Parameter(help="Form of the environment block: variables, systemd's files, a compose file, a Secret.")
]


@runners.command
def create(
    name: str,
    *,
    like: Annotated[
        str | None, Parameter(help="Copy network and assignments from this runner, to make a redundant pair.")
    ] = None,
    network: Annotated[
        str | None, Parameter(help="Label of the private network; runners with the same label are replicas.")
    ] = None,
    format_block: _FormatBlock = "shell",
    to: _To = target.DEFAULT,
) -> None:
    """Register a runner and print its environment block. The token is shown once."""
    with to.client() as client:
        body = {
            key: value for key, value in (("name", name), ("network", network), ("like", like)) if value is not None
        }
        created = client.call("POST", "/v1/runners", body)
    report.write_warnings(created.get("warnings", ()))
    if to.json:
        report.write_json(created)
        return
    # Piped too: `lensway runners create alpha > alpha.env` is what the block is for.
    report.write_text(environment_block(format_block, name, read_block(created["env"])))
    report.write_note(f"runner {name} created ({created['id']}). The token above is shown once.")


@runners.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List every runner with its state, since when, why and what to do."""
    with to.client() as client:
        found = client.call("GET", "/v1/runners")["runners"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("RUNNER", "STATUS", "FOR", "INSTANCES", "SOURCES", "CAUSE"),
        [
            (
                runner["name"],
                runner["status"],
                report.age_of(runner.get("since")),
                len(runner.get("instances", ())),
                [source["name"] for source in runner.get("sources", ())] or None,
                runner.get("cause"),
            )
            for runner in found
        ],
        empty="no runners yet: lensway runners create NAME",
    )
    for runner in found:
        if runner.get("hint"):
            report.write_note(f"{runner['name']}: {runner['hint']}")


@runners.command
def show(runner: str, *, to: _To = target.DEFAULT) -> None:
    """Show one runner with its instances, revisions and the health of each source."""
    with to.client() as client:
        found = client.call("GET", f"/v1/runners/{segment(runner)}")
    report.write_json(found)


@runners.command
def assign(
    runner: str,
    sources: Annotated[list[str], Parameter(negative=(), help="One or more sources.")],
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
    _write_assignment(f"{runner} serves {', '.join(sources)}", answers, to)


@runners.command
def unassign(runner: str, sources: list[str], /, *, to: _To = target.DEFAULT) -> None:
    """Unassign sources from a runner. The service executes a source without any runner inline, unless it requires one."""
    with to.client() as client:
        answers = [
            client.call("DELETE", f"/v1/runners/{segment(runner)}/sources/{segment(source)}") for source in sources
        ]
    _write_assignment(f"{runner} no longer serves {', '.join(sources)}", answers, to)


@runners.command
def rotate(runner: str, *, format_block: _FormatBlock = "shell", to: _To = target.DEFAULT) -> None:
    """Create a new token, shown once; the old one stays valid until the overlap ends."""
    with to.client() as client:
        rotated = client.call("POST", f"/v1/runners/{segment(runner)}/rotate")
    if to.json:
        report.write_json(rotated)
    else:
        report.write_text(environment_block(format_block, rotated["name"], read_block(rotated["env"])))


@runners.command
def revoke(runner: str, *, to: _To = target.DEFAULT) -> None:
    """End the runner's tokens and sessions at once. Its assignments stay, so its sources do not go inline."""
    _act(runner, "revoke", "revoked; its assignments are kept", to)


@runners.command
def drain(runner: str, *, to: _To = target.DEFAULT) -> None:
    """Stop giving a runner new work; its running jobs finish. Its assignments stay."""
    _act(runner, "drain", "draining", to)


@runners.command
def resume(runner: str, *, to: _To = target.DEFAULT) -> None:
    """End a drain."""
    _act(runner, "resume", "serving again", to)


@runners.command
def delete(runner: str, *, force: Annotated[bool, Parameter(negative=())] = False, to: _To = target.DEFAULT) -> None:
    """Delete a runner. A runner with assignments needs --force, because its sources could go inline."""
    with to.client() as client:
        params = {"force": "true"} if force else None
        answer = client.call("DELETE", f"/v1/runners/{segment(runner)}", params=params)
    report.write_warnings((answer or {}).get("warnings", ()))
    report.write_note(f"runner {runner} deleted")


def _assign(client: Client, runner: str, source: str, *, verify: bool = False) -> Any:
    params = {"verify": "true"} if verify else None
    return client.call("PUT", f"/v1/runners/{segment(runner)}/sources/{segment(source)}", params=params)


def _act(runner: str, action: str, done: str, to: target.Target) -> None:
    with to.client() as client:
        answer = client.call("POST", f"/v1/runners/{segment(runner)}/{action}")
    report.write_warnings((answer or {}).get("warnings", ()))
    if to.json:
        report.write_json(answer)
    else:
        report.write_note(f"runner {runner}: {done}")


def _write_assignment(done: str, answers: list[Any], to: target.Target) -> None:
    if not answers:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "name at least one source")
    warnings = answers[-1].get("warnings", ())
    if report.wants_json(to.json):
        report.write_json({"revision": answers[-1]["revision"], "warnings": warnings})
        return
    report.write_line(f"{done} (revision {answers[-1]['revision']})")
    report.write_warnings(warnings)
