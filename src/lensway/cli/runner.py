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
from lensway.cli.starting import StartOptions, serve_runner
from lensway.compose.kinds import installed_kinds
from lensway.compose.process import scrub_environment
from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import Kind, Kinds
from lensway.observe import log
from lensway.runner.settings import RunnerSettings, read_settings

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
    serve_runner(report.announcer(), StartOptions(insecure=insecure, drain_seconds=drain_seconds, log_level=log_level))


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
        for source in answer["sources"]:
            report.write_line(f"  {source['name']}: {source['state']} {source['cause']}".rstrip())
    sys.exit(0 if any(answer["state"] == "connected" for answer in answers) else report.FAILURE_EXIT)


@runner.command
def doctor(*, insecure: _Insecure = False, json: bool = False) -> None:
    """Check everything from the settings to the gateway; name each obstacle and what to do."""
    from lensway.bridges.library import encodings, installed  # noqa: PLC0415
    from lensway.compose.websocket import WebSocketTransport  # noqa: PLC0415
    from lensway.runner.dial import Dialer  # noqa: PLC0415
    from lensway.runner.doctor import examine  # noqa: PLC0415
    from lensway.runner.policy import read_policy  # noqa: PLC0415

    log.configure(level="error")
    settings = read_settings(os.environ, insecure=insecure)
    read_policy(settings.policy_file)

    async def run() -> list[Any]:
        found = []
        async for finding in examine(
            settings,
            os.environ,
            Dialer(settings, WebSocketTransport),
            installed(installed_kinds()),
            encodings(installed_kinds()),
        ):
            found.append(finding)
            if not report.wants_json(json):
                mark = {True: "ok", False: "FAILED", None: "note"}[finding.ok]
                report.write_line(f"{mark:<7} {finding.check:<12} {finding.detail}")
                if finding.hint:
                    report.write_line(f"        {finding.hint}")
        return found

    found = asyncio.run(run())
    if report.wants_json(json):
        report.write_json(found)
    sys.exit(report.FAILURE_EXIT if any(finding.ok is False for finding in found) else 0)


@runner.command(name="test-source")
def test_source(name: str, *, json: bool = False) -> None:
    """Test a source with local credentials from this machine, under the local policy, without the server."""
    from lensway.bridges.contract import Execution  # noqa: PLC0415
    from lensway.bridges.library import ExecutionLibrary, encode_probes  # noqa: PLC0415
    from lensway.query.result import ResultLimits, RowFormat  # noqa: PLC0415
    from lensway.runner.credentials import LocalCredentials, variable_of  # noqa: PLC0415
    from lensway.runner.policy import read_policy  # noqa: PLC0415

    log.configure(level="error")
    settings = _settings()
    policy = read_policy(settings.policy_file)
    config = LocalCredentials(os.environ).settings_of(name, [name])
    if not config:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"no local credentials for source '{name}'",
            hint=f"Set LENSWAY_SOURCE_{variable_of(name)}_URL. A managed source is tested by the server: "
            f"`lensway sources test {name} --runner {settings.runner}`.",
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
