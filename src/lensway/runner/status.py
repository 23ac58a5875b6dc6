"""`lensway runner status`: a private local socket of the running process says how it is. It never listens on a network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import stat
import tempfile
from typing import Any

import msgspec

from lensway.errors import ErrorCode, LenswayError
from lensway.runner.agent import Agent
from lensway.runner.settings import RunnerSettings

_ASK_SECONDS = 2.0


def state_directory(settings: RunnerSettings) -> pathlib.Path:
    """Where the sockets of this user's runners lie, mode 0700.

    Raises:
        LenswayError: CONFLICT when the directory belongs to another user or is open to others.
    """
    base = settings.state_dir
    if base is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        base = (
            pathlib.Path(runtime) / "lensway"
            if runtime
            else pathlib.Path(tempfile.gettempdir()) / f"lensway-{os.getuid()}"
        )
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LenswayError(
            ErrorCode.CONFLICT,
            f"{base} is not a private directory of this user",
            hint="Set LENSWAY_RUNNER_STATE_DIR to one.",
        )
    return base


def _socket_of(settings: RunnerSettings, pid: int) -> pathlib.Path:
    return state_directory(settings) / f"{settings.runner}.{pid}.sock"


class StatusSocket:
    """Answers every connection with one JSON document."""

    def __init__(self, settings: RunnerSettings, agent: Agent) -> None:
        self._settings = settings
        self._path: pathlib.Path | None = None
        self._agent = agent
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where the disk does not let us, LenswayError for a directory that is not private."""
        self._path = _socket_of(self._settings, os.getpid())
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, path=str(self._path))

    async def close(self) -> None:
        """Stop, and take the socket away."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent = self._agent
        document = {
            "pid": os.getpid(),
            "runner": agent.runner_name or agent.runner_id,
            "instance": agent.instance,
            "state": agent.state,
            "cause": agent.cause,
            "hint": agent.hint,
            "seconds": round(agent.seconds_in_state(), 1),
            "revision": agent.revision,
            "jobs": agent.jobs_count,
            "policy": agent.policy_problem,
            "sources": [
                {"name": source.name, "bridge": source.bridge, "state": source.state, "cause": source.shown_cause}
                for source in agent.sources.served()
            ],
        }
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(document))
            await writer.drain()
            writer.close()


async def ask(settings: RunnerSettings) -> list[dict[str, Any]]:
    """What every running process of this runner on this machine says; sockets without a process are taken away."""
    answers = []
    for path in sorted(state_directory(settings).glob(f"{settings.runner}.*.sock")):
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(path))
                answers.append(msgspec.json.decode(await reader.read(), type=dict[str, Any]))
                writer.close()
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except (TimeoutError, OSError, msgspec.DecodeError):
            answers.append({"socket": path.name, "state": "not answering", "sources": []})
    return answers
