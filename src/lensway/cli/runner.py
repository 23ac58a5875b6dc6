"""`lensway runner`: run one in a private network, and look at it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from lensway import limits
from lensway.cli import report
from lensway.compose.kinds import installed_kinds
from lensway.compose.process import forbid_dumps, scrub_environment, share_arenas
from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import Kind, Kinds
from lensway.observe import log
from lensway.runner.settings import RunnerSettings, policy_file, read_settings

runner = App(name="runner", help="A runner: an agent in a private network that dials out and never listens.")

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
    from lensway.compose.runner import run_runner  # noqa: PLC0415

    log.configure(level=log_level)
    environment = dict(os.environ)
    settings = read_settings(environment, insecure=insecure)
    kinds = installed_kinds()
    scrub_environment(kinds)
    forbid_dumps()
    share_arenas()
    main = run_runner(settings, environment, report.announcer(), drain_seconds=drain_seconds, kinds=kinds)
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


@runner.command
def status(*, json: bool = False) -> None:
    """Show the state of the running process; exits 0 only when it is connected."""
    from lensway.runner.status import ask  # noqa: PLC0415

    answers = asyncio.run(ask(_settings()))
    if report.wants_json(json):
        report.write_json(answers)
    elif not answers:
        report.write_line("not running on this machine")
    for answer in answers if not report.wants_json(json) else ():
        report.write_line(
            f"{answer.get('runner', '?')} [{answer.get('instance', '?')}] {answer['state']} for {answer.get('seconds', 0)} s, "
            f"{answer.get('jobs', 0)} jobs, revision {answer.get('revision', 0)} {answer.get('cause', '')}".rstrip()
        )
        if answer.get("hint"):
            report.write_line(f"  {answer['hint']}")
        for source in answer["sources"]:
            report.write_line(f"  {source['name']}: {source['state']} {source['cause']}".rstrip())
    sys.exit(0 if any(answer["state"] == "connected" for answer in answers) else report.FAILURE_EXIT)


@runner.command
def doctor(*, insecure: _Insecure = False, json: bool = False) -> None:
    """Check everything from the settings to each assigned source; name each obstacle and what to do.

    Exits 0 when nothing is wrong, 1 when something is, 2 when it is a setting.
    """
    from lensway.bridges.library import ExecutionLibrary  # noqa: PLC0415
    from lensway.compose.websocket import WebSocketTransport  # noqa: PLC0415
    from lensway.runner.dial import Dialer  # noqa: PLC0415
    from lensway.runner.doctor import Finding, examine  # noqa: PLC0415
    from lensway.runner.policy import LocalPolicy, read_policy  # noqa: PLC0415

    log.configure(level="error")
    environment, found = dict(os.environ), []

    def show(finding: Finding) -> None:
        found.append(finding)
        if not report.wants_json(json):
            mark = {True: "ok", False: "FAILED", None: "note"}[finding.ok]
            cause = f" ({finding.cause})" if finding.cause else ""
            report.write_line(f"{mark:<7} {finding.check:<13} {finding.detail}{cause}")
            if finding.hint:
                report.write_line(f"        {finding.hint}")

    async def run(settings: RunnerSettings, policy: LocalPolicy) -> None:
        kinds = installed_kinds()
        dialer = Dialer(settings, WebSocketTransport, environment=environment)
        scrub_environment(kinds)
        library = ExecutionLibrary(policy.address_policy(), kinds)
        async for finding in examine(settings, environment, dialer, library, policy):
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
    if report.wants_json(json):
        report.write_json(found)
    sys.exit(code or (report.FAILURE_EXIT if any(finding.ok is False for finding in found) else 0))


@runner.command(name="test-source")
def test_source(name: str, *, json: bool = False) -> None:
    """Test a source with local credentials from this machine, under the local policy, without the server."""
    from lensway.bridges.contract import Execution  # noqa: PLC0415
    from lensway.bridges.library import ExecutionLibrary, encode_probes  # noqa: PLC0415
    from lensway.query.result import ResultLimits, RowFormat  # noqa: PLC0415
    from lensway.runner.credentials import INVALID, LocalCredentials, variable_of  # noqa: PLC0415
    from lensway.runner.policy import read_policy  # noqa: PLC0415

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
    if report.wants_json(json):
        report.write_json(result)
    else:
        for line in report.stage_lines(result):
            report.write_line(line)
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
