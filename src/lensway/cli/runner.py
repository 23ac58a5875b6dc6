"""`lensway runner`: run one in a private network, and look at it."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from lensway import limits
from lensway.cli import forms, output, report, screen, states
from lensway.cli.starting import StartOptions, serve_runner
from lensway.compose.kinds import installed_kinds
from lensway.compose.process import scrub_environment
from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import Kind, Kinds
from lensway.observe import log
from lensway.runner.settings import RunnerSettings, policy_file, read_settings

if TYPE_CHECKING:
    from lensway.runner.policy import LocalPolicy
    from lensway.runner.verdicts import Verdict

runner = App(name="runner", help="A runner: an agent in a private network that dials out and never listens.")

policy = App(name="policy", help="The local policy: what the owner of a runner's network lets it do.")
runner.command(policy)

_Insecure = Annotated[
    bool, Parameter(negative=(), help="Allow ws:// to another machine: token and rows are sent in clear text.")
]


@runner.command
def start(
    *,
    insecure: _Insecure = False,
    drain_seconds: Annotated[
        float, Parameter(help="Time for running jobs to finish after SIGTERM.")
    ] = limits.DRAIN_SECONDS,
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Serve until SIGTERM: dial the gateway, execute its jobs, and reconnect after a lost connection."""
    serve_runner(report.announcer(), StartOptions(insecure=insecure, drain_seconds=drain_seconds, log_level=log_level))


@runner.command
def status(*, out: forms.Output = forms.OUTPUT) -> None:
    """Show the state of the running process; exits 0 only when it is connected."""
    from lensway.runner.status import ask  # noqa: PLC0415

    form = out.form
    answers = asyncio.run(ask(_settings()))
    if form != "table":
        output.write_data(form, answers)
    elif not answers:
        report.write_line("not running on this machine")
    for answer in answers if form == "table" else ():
        report.write_line(
            f"{answer.get('runner', '?')} [{answer.get('instance', '?')}] {answer['state']} for {answer.get('seconds', 0)} s, "
            f"{answer.get('jobs', 0)} jobs, revision {answer.get('revision', 0)} {answer.get('cause', '')}".rstrip()
        )
        if answer.get("policy"):
            report.write_line(f"  policy: {answer['policy']}")
        if answer.get("hint"):
            report.write_line(f"  {answer['hint']}")
        for source in answer["sources"]:
            report.write_line(f"  {source['name']}: {source['state']} {source['cause']}".rstrip())
    sys.exit(0 if any(answer["state"] == "connected" for answer in answers) else report.FAILURE_EXIT)


@runner.command
def doctor(*, insecure: _Insecure = False, out: forms.Output = forms.OUTPUT) -> None:
    """Check everything from the settings to each assigned source; name each obstacle and what to do.

    Exits 0 when nothing is wrong, 1 when something is, 2 when it is a setting.
    """
    from lensway.bridges.library import ExecutionLibrary  # noqa: PLC0415
    from lensway.compose.websocket import WebSocketTransport  # noqa: PLC0415
    from lensway.runner.dial import Dialer  # noqa: PLC0415
    from lensway.runner.doctor import Finding, examine  # noqa: PLC0415
    from lensway.runner.policy import PolicyInForce, read_policy  # noqa: PLC0415

    form = out.form
    log.configure(level="error")
    environment, found = dict(os.environ), []

    form = out.form

    def show(finding: Finding) -> None:
        found.append(finding)
        if form == "table":
            mark = {True: "ok", False: "FAILED", None: "note"}[finding.ok]
            state = {True: "ok", False: "failed", None: "skipped"}[finding.ok]
            cause = f" ({finding.cause})" if finding.cause else ""
            line = screen.text_of(f"{mark:<7} {finding.check:<13} {finding.detail}{cause}")
            screen.write_styled(states.marked(state, line))
            if finding.hint:
                report.write_line(f"        {finding.hint}")

    async def run(settings: RunnerSettings, policy: LocalPolicy) -> None:
        kinds = installed_kinds()
        dialer = Dialer(settings, WebSocketTransport, environment=environment)
        scrub_environment(kinds)
        library = ExecutionLibrary(policy.address_policy(), kinds)
        async for finding in examine(
            settings, environment, dialer, library, PolicyInForce(policy, settings.policy_file)
        ):
            show(finding)

    code, check = 0, "configuration"
    try:
        settings = read_settings(environment, insecure=insecure)
        check = "policy"
        policy = read_policy(settings.policy_file)
        check = "configuration"
        asyncio.run(run(settings, policy))
    except LenswayError as error:
        cause = "policy_invalid" if check == "policy" else "setting"
        show(Finding(check=check, ok=False, detail=str(error), hint=error.failure.hint or "", cause=cause))
        code = report.USAGE_EXIT
    if form != "table":
        output.write_data(form, [msgspec.to_builtins(finding) for finding in found])
    sys.exit(code or (report.FAILURE_EXIT if any(finding.ok is False for finding in found) else 0))


@policy.command
def check(
    file: Annotated[pathlib.Path, Parameter(help="The policy file.")],
    *,
    source: Annotated[str | None, Parameter(help="Would a source of this name be served?")] = None,
    host: Annotated[str | None, Parameter(help="Would a source at this host, or HOST:PORT, be contacted?")] = None,
    path: Annotated[str | None, Parameter(help="Would a file-backed source at this path be read?")] = None,
    table: Annotated[str | None, Parameter(help="Would plans be allowed to read this table?")] = None,
    column: Annotated[str | None, Parameter(help="Would plans be allowed to use this column of --table?")] = None,
    out: forms.Output = forms.OUTPUT,
) -> None:
    """Say what a policy file permits and what it would refuse; exits 1 when it refuses something that was asked.

    Where this machine runs the runner that the environment names, its assigned sources are judged too.
    """
    from lensway.runner.policy import read_policy  # noqa: PLC0415
    from lensway.runner.verdicts import Question, verdicts_of  # noqa: PLC0415

    found = read_policy(file)
    question = Question(source=source, host=host, path=path, table=table, column=column)
    verdicts = list(verdicts_of(found, question, _assigned_here()))
    answer = {"rules": list(found.rules()), "verdicts": [msgspec.to_builtins(verdict) for verdict in verdicts]}
    output.write_one(out.form, answer, lambda: _write_verdicts(file, found, verdicts))
    sys.exit(0 if all(verdict.is_allowed for verdict in verdicts) else report.FAILURE_EXIT)


def _write_verdicts(file: pathlib.Path, found: LocalPolicy, verdicts: Sequence[Verdict]) -> None:
    report.write_line(f"{file} is valid.")
    for rule in found.rules():
        report.write_line(f"  {rule}")
    for verdict in verdicts:
        mark = "allowed" if verdict.is_allowed else "REFUSED"
        report.write_line(f"{mark}  {verdict.part}{f' ({verdict.rule})' if verdict.rule else ''}")


def _assigned_here() -> list[str]:
    """The sources that the running process serves or refuses; none where the environment names no runner that runs here."""
    from lensway.runner.status import ask  # noqa: PLC0415

    try:
        answers = asyncio.run(ask(_settings()))
    except (LenswayError, OSError):
        return []
    return sorted({source["name"] for answer in answers for source in answer["sources"]})


@runner.command(name="test-source")
def test_source(name: str, *, out: forms.Output = forms.OUTPUT) -> None:
    """Test a source with local credentials from this machine, under the local policy, without the server."""
    from lensway.bridges.contract import Execution  # noqa: PLC0415
    from lensway.bridges.library import ExecutionLibrary, encode_probes  # noqa: PLC0415
    from lensway.query.result import ResultLimits, RowFormat  # noqa: PLC0415
    from lensway.runner.credentials import INVALID, LocalCredentials, variable_of  # noqa: PLC0415
    from lensway.runner.policy import read_policy  # noqa: PLC0415

    form = out.form
    log.configure(level="error")
    policy = read_policy(policy_file(os.environ))
    config = LocalCredentials(os.environ).settings_of(name, [name])
    if INVALID in config:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, config[INVALID], hint="Correct the variable, or the file that it names."
        )
    if not config:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"no local credentials for source '{name}'",
            hint=f"Set LENSWAY_SOURCE_{variable_of(name)}_URL. A managed source is tested by the server: "
            f"`lensway sources test {name} --runner RUNNER`.",
        )
    if not policy.allows_source(name):
        raise LenswayError(ErrorCode.REFUSED_BY_RUNNER, f"the local policy does not allow the source '{name}'")
    kinds = installed_kinds()
    scrub_environment(kinds)
    bridge = _kind_of(name, config, kinds).name

    async def run() -> Any:
        chunks: list[bytes] = []

        class Sink:
            async def write(self, chunk: bytes) -> None:
                chunks.append(chunk)

        library = ExecutionLibrary(policy.address_policy(), kinds)
        library.check(bridge, config)
        execution = Execution(
            deadline=time.monotonic() + limits.TEST_TIMEOUT_SECONDS,
            format=RowFormat.DOCUMENT,
            limits=ResultLimits(rows_max=1, bytes_max=limits.MIB, row_bytes_max=limits.MIB),
            tag="test-source",
        )
        await library.perform(
            name, bridge, config, kind="test", payload=encode_probes([]), execution=execution, sink=Sink()
        )
        await library.close()
        return report.read_json(b"".join(chunks), "the report")

    result: Any = {"runner": "this machine", **asyncio.run(run())}
    output.write_one(form, result, lambda: report.write_stages(result))
    sys.exit(0 if result["ok"] else report.FAILURE_EXIT)


def _kind_of(name: str, config: Mapping[str, object], kinds: Kinds) -> Kind:
    kind = kinds.of_settings(config)
    if kind is None:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"The local settings of source '{name}' do not say which kind of database it is",
            hint="Set its URL with one of the schemes "
            + ", ".join(sorted(scheme for kind in kinds.served for scheme in kind.url_schemes)),
        )
    return kind


def _settings() -> RunnerSettings:
    return read_settings(os.environ, insecure=True)
