"""What the demo stands on: a PostgreSQL with real data, one server, two runners, and a way to show commands and run them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from demo import data
from lensway.testing.deployment import Deployment, Process, RunnerIdentity, clean_environment, free_ports
from lensway.testing.postgres import PostgresCluster

REPOSITORY: Final = pathlib.Path(__file__).resolve().parent.parent
_IS_TERMINAL: Final = sys.stdout.isatty()


def heading(text: str) -> None:
    """A chapter of the story."""
    say("")
    say(f"\033[1m— {text}\033[0m" if _IS_TERMINAL else f"— {text}")


def say(text: str) -> None:
    """One line of the story."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class StoryBrokenError(Exception):
    """A step of the demo did not end as told; the message says which and how."""


@dataclasses.dataclass(slots=True)
class Stage:
    """The running parts, and the shell that a reader would have."""

    deployment: Deployment
    cluster: PostgresCluster
    database: str
    shell: dict[str, str]
    identities: dict[str, RunnerIdentity] = dataclasses.field(default_factory=dict)
    running: dict[str, Process] = dataclasses.field(default_factory=dict)

    def command(self, *arguments: str, fails_with: str | None = None, quiet: bool = False) -> str:
        """Show `lensway …` as a reader would type it, run it, show what it prints, give back standard output.

        Raises:
            StoryBrokenError: it failed, or did not fail with ``fails_with``.
        """
        say(f"$ lensway {shlex.join(arguments)}")
        is_read = quiet or "json" in arguments
        done = (_run_piped if is_read else _run_on_terminal)(arguments, clean_environment() | self.shell)
        if not quiet:
            for line in (done.stdout + done.stderr).rstrip().splitlines():
                say(f"  {line}")
        if fails_with is None and done.returncode != 0:
            raise StoryBrokenError(f"`lensway {shlex.join(arguments)}` exited {done.returncode}: {done.stderr.strip()}")
        if fails_with is not None and (done.returncode == 0 or fails_with not in done.stderr + done.stdout):
            raise StoryBrokenError(f"`lensway {shlex.join(arguments)}` was expected to fail with {fails_with}")
        return done.stdout

    def create_runner(self, name: str) -> None:
        """Register a runner with the command line and keep its environment block."""
        block = self.command("runners", "create", name, quiet=True)
        settings = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        say(
            "  "
            + "\n  ".join(
                f"{key}={'rk_… (shown once)' if 'TOKEN' in key else value}" for key, value in settings.items()
            )
        )
        self.identities[name] = RunnerIdentity(
            name=name, id=settings["LENSWAY_RUNNER_ID"], token=settings["LENSWAY_RUNNER_TOKEN"]
        )

    def start_runner(self, name: str, extra: Mapping[str, str] | None = None) -> None:
        """Start a process of the runner, as on a machine of the private network."""
        say(f"$ lensway runner start        # as {name}" + "".join(f", with {key} set" for key in extra or ()))
        self.running[name] = self.deployment.start_runner(self.identities[name], environment=extra)
        say("  connected, awaiting jobs")

    def warehouse_settings(self) -> dict[str, str]:
        """The runner-local credentials of `warehouse`, under the name that a runner reads."""
        return {"LENSWAY_SOURCE_WAREHOUSE_URL": self.shell["FLIGHTS_URL"]}


_PROGRAM: Final = str(pathlib.Path(sys.executable).parent / "lensway")
_COMMAND_SECONDS: Final = 60.0


def _run_piped(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_PROGRAM, *arguments],
        env=environment,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )


def _run_on_terminal(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody at a terminal sees it: tables, not JSON."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [_PROGRAM, *arguments],
            env={**environment, "TERM": "dumb", "COLUMNS": "118", "NO_COLOR": "1"},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        output = b""
        # A terminal whose last user has gone answers with an error, which is how its output ends.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                output += chunk
        code = process.wait(_COMMAND_SECONDS)
    finally:
        os.close(ours)
    return subprocess.CompletedProcess(arguments, code, output.decode(errors="replace").replace("\r\n", "\n"), "")


def start(directory: pathlib.Path) -> Stage:
    """A PostgreSQL with the flights of New York, and a server; the caller ends both with `stop`."""
    heading("A PostgreSQL with real data: every flight that left New York in 2013")
    started = time.monotonic()
    cluster = PostgresCluster(directory / "postgres")
    cluster.start()
    asyncio.run(cluster.create_role_and_database("flights_reader", "demo-only-password", "nycflights13"))
    asyncio.run(data.load_postgres(cluster.superuser_dsn("nycflights13"), lambda line: say(f"  {line}")))
    say(f"  ready in {time.monotonic() - started:.1f} s")
    deployment = Deployment(directory / "server")
    (directory / "server").mkdir()
    (unused,) = free_ports(1)
    shell = {
        "LENSWAY_URL": deployment.url,
        "LENSWAY_API_KEY": deployment.admin_key,
        "FLIGHTS_URL": cluster.url("flights_reader", "demo-only-password", "nycflights13"),
        "UNPLUGGED_URL": f"postgresql://nobody:nothing@127.0.0.1:{unused}/nowhere",
    }
    heading("The server: one process, nothing to install beside it")
    say(f"$ lensway serve --http 127.0.0.1:{deployment.http_port} --gateway 127.0.0.1:{deployment.gateway_port}")
    deployment.start_server()
    for name, value in shell.items():
        say(f"$ export {name}={shlex.quote(value)}")
    return Stage(deployment=deployment, cluster=cluster, database="nycflights13", shell=shell)


def stop(stage: Stage) -> None:
    """End everything that `start` and the story started, gently."""
    for process in stage.running.values():
        if process.is_running:
            process.stop()
    if stage.deployment.server is not None and stage.deployment.server.is_running:
        stage.deployment.server.stop()
    stage.deployment.__exit__()
    stage.cluster.stop()


def shell_line(arguments: Sequence[str]) -> str:
    """The words as a shell would need them."""
    return shlex.join(arguments)


def has_root() -> bool:
    """True for the superuser."""
    return os.geteuid() == 0
