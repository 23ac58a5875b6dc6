"""A whole deployment as separate processes: one server, any number of runners, talked to as a user would.

For acceptance tests, the demo and the benchmarks. Everything a process prints is kept, for the reader of a failure and for
the search for canary secrets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import httpx2

from lensway.testing.canaries import leaks

START_SECONDS: Final = 30.0
_PORTS: Final = range(10_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, of which the tests make thousands."""
_POLL_SECONDS: Final = 0.02
_PROGRAM: Final = (sys.executable, "-m", "lensway.cli.main")


class ProcessFailedError(AssertionError):
    """A process did not do what was waited for; the message holds the end of its output."""


class OutputWatch:
    """Reads a process's output to its end, in a thread, and lets others wait for a line."""

    def __init__(self, name: str, stream: Any, sink: Callable[[str], None] | None) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._sink = sink
        self._thread = threading.Thread(target=self._read, args=(stream,), name=f"output of {name}", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """All output so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, text: str, seconds: float, *, occurrences: int = 1) -> bool:
        """True once ``text`` stands in the output so many times; False when the output ended or the time is over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while "".join(self._lines).count(text) < occurrences:
                remaining = deadline - time.monotonic()
                if self._is_over or remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    def join(self) -> None:
        """Wait for the end of the output."""
        self._thread.join(timeout=5)

    def _read(self, stream: Any) -> None:
        for raw in stream:
            line = raw.decode(errors="replace")
            if self._sink is not None:
                self._sink(line)
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Process:
    """One running `lensway` process."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        directory: pathlib.Path,
        sink: Callable[[str], None] | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            [*prefix, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment() | dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        self.output = OutputWatch(name, self._popen.stdout, sink)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """False once the process has ended."""
        return self._popen.poll() is None

    def wait_line(self, text: str, *, seconds: float = START_SECONDS, occurrences: int = 1) -> None:
        """Return when the process has printed ``text``. Raises ProcessFailedError otherwise."""
        if not self.output.wait_for(text, seconds, occurrences=occurrences):
            raise ProcessFailedError(f"{self.name} did not print {text!r}:\n{self.output.text()[-4000:]}")

    def signal(self, number: int) -> None:
        """Send a signal to this process."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._popen.kill()
        self.wait()

    def stop(self, *, seconds: float = 40.0) -> int:
        """SIGTERM, and wait for the end; the exit code. A process that does not end is killed and raises."""
        if self.is_running:
            self._popen.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 40.0) -> int:
        """The exit code. Raises ProcessFailedError when it does not end in time (and kills it)."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise ProcessFailedError(f"{self.name} did not end:\n{self.output.text()[-4000:]}") from None
        self.output.join()
        return code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerIdentity:
    """What a runner process needs to be this runner."""

    name: str
    id: str
    token: str = dataclasses.field(repr=False)


class Deployment:
    """One server in a directory of its own, and its runners. A context manager: everything it started ends with it."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        serve_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        sink: Callable[[str], None] | None = None,
        server_program: Sequence[str] = _PROGRAM,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.http_port, self.gateway_port = free_ports(2)
        self.admin_key = "ak_" + secrets.token_urlsafe(32)
        self.server: Process | None = None
        self.runners: list[Process] = []
        self.secrets = {"admin key": self.admin_key}
        """What may stand in no output and no file of the server, by name; looked for at the end."""
        self._serve_options = tuple(serve_options)
        self._environment = dict(environment or {})
        self._sink = sink
        self._server_program = tuple(server_program)
        self._prefix = tuple(prefix)
        self._clients = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Base address of the HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def gateway_url(self) -> str:
        """The address that runners dial."""
        return f"ws://127.0.0.1:{self.gateway_port}/connect"

    def __enter__(self) -> Deployment:
        self.start_server()
        return self

    def __exit__(self, *exc: object) -> None:
        self._clients.close()
        for process in [*self.runners, *([self.server] if self.server else [])]:
            if process.is_running:
                process.kill()
            process.output.join()
        if not any(exc):
            found = leaks({"output": self.emitted().encode(), **self._files()}, self.secrets)
            assert not found, f"secrets slipped out: {found}"

    def start_server(self) -> Process:
        """Start (or start again) the server and wait until it is ready."""
        self.server = Process(
            "server",
            [
                "serve",
                "--data-dir", str(self.directory / "data"),
                "--http", f"127.0.0.1:{self.http_port}",
                "--gateway", f"127.0.0.1:{self.gateway_port}",
                *self._serve_options,
            ],
            {"LENSWAY_ADMIN_KEY": self.admin_key, **self._environment},
            directory=self.directory,
            prefix=self._prefix,
            sink=self._sink,
            program=self._server_program,
        )  # fmt: skip
        self.wait_ready()
        return self.server

    def wait_ready(self) -> None:
        """Return once the server answers `/readyz` with 200."""
        assert self.server is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.server.is_running:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    return
            time.sleep(_POLL_SECONDS)
        raise ProcessFailedError(f"the server did not become ready:\n{self.server.output.text()[-4000:]}")

    def client(self, key: str | None = None, *, environment: str | None = None) -> httpx2.Client:
        """An HTTP client with this key (default: the admin key), closed with the deployment."""
        headers = {"Authorization": f"Bearer {key or self.admin_key}"}
        if environment:
            headers["X-Environment"] = environment
        client = httpx2.Client(base_url=self.url, headers=headers, timeout=60.0, trust_env=False)
        return self._clients.enter_context(client)

    def create_runner(self, name: str, *, network: str | None = None) -> RunnerIdentity:
        """Register a runner."""
        body = {"name": name} | ({"network": network} if network else {})
        answer = self.client().post("/v1/runners", json=body)
        assert answer.status_code in (200, 201), answer.text
        created = answer.json()
        self.secrets[f"token of {name}"] = created["token"]
        return RunnerIdentity(name=name, id=created["id"], token=created["token"])

    def start_runner(
        self,
        identity: RunnerIdentity,
        *,
        environment: Mapping[str, str] | None = None,
        gateway_url: str | None = None,
        wait: bool = True,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> Process:
        """Start a process of this runner; waits until it serves unless told not to."""
        runner = Process(
            f"runner {identity.name}",
            ["runner", "start", *options],
            {
                "LENSWAY_RUNNER_ID": identity.id,
                "LENSWAY_RUNNER_TOKEN": identity.token,
                "LENSWAY_GATEWAY_URL": gateway_url or self.gateway_url,
                **(environment or {}),
            },
            directory=self.directory,
            sink=self._sink,
            prefix=prefix,
        )
        self.runners.append(runner)
        if wait:
            runner.wait_line("connected, awaiting jobs")
        return runner

    def assign(self, runner: str, source: str) -> dict[str, Any]:
        """Assign, and give back the answer."""
        answer = self.client().put(f"/v1/runners/{runner}/sources/{source}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def unassign(self, runner: str, source: str) -> dict[str, Any]:
        """Unassign, and give back the answer."""
        answer = self.client().delete(f"/v1/runners/{runner}/sources/{source}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def emitted(self) -> str:
        """Everything that every process has printed."""
        processes = [*([self.server] if self.server else []), *self.runners]
        return "\n".join(process.output.text() for process in processes)

    def _files(self) -> dict[str, bytes]:
        """The server's files; the master key among them does not count as a secret here."""
        paths = (self.directory / "data").glob("*")
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def cli(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a client command against this server, to its end."""
        return subprocess.run(
            [*_PROGRAM, *arguments],
            env=clean_environment()
            | {"LENSWAY_URL": self.url, "LENSWAY_API_KEY": self.admin_key}
            | dict(environment or {}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would configure Lensway or a driver by accident."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LENSWAY_", "PG"))}


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago on every address, all different, and that the system gives to no outgoing connection."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(_PORTS.stop - _PORTS.start) + _PORTS.start
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            with contextlib.suppress(OSError):
                probe.bind(("::", port))
                found += [port] if port not in found else []
    return found


@contextlib.contextmanager
def paused(process: Process) -> Iterator[None]:
    """The process stopped (SIGSTOP) for the length of the block."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


def wait_until(
    condition: Callable[[], bool], *, seconds: float, what: str, poll_seconds: float = _POLL_SECONDS
) -> float:
    """Poll until true; the seconds it took. Raises AssertionError naming what was waited for."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(poll_seconds)
    return time.monotonic() - started
