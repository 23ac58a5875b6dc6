"""The runner, wired: settings, policy, library, agent; and the private socket that `status` asks."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import random
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from lensway.bridges.library import ExecutionLibrary
from lensway.clock import SystemClock
from lensway.compose.notify import READY, STOPPING, notify
from lensway.compose.process import calm_collector
from lensway.compose.websocket import WebSocketTransport
from lensway.errors import LenswayError
from lensway.ids import new_instance_id
from lensway.kinds import BUILT_IN, Kinds
from lensway.observe.trace import Tracer
from lensway.observe.tracing import tracer_of
from lensway.runner.agent import Agent
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import Dialer
from lensway.runner.health import Health, JobTotals
from lensway.runner.journal import JobNote, log_job
from lensway.runner.policy import PolicyInForce
from lensway.runner.settings import RunnerSettings
from lensway.runner.status import StatusSocket

if TYPE_CHECKING:
    from lensway.compose.health import HealthListener
    from lensway.runner.job_file import JobFile


def build_agent(
    settings: RunnerSettings,
    environment: Mapping[str, str],
    announce: Callable[[str], None],
    *,
    drain_seconds: float,
    kinds: Kinds = BUILT_IN,
    tracer: Tracer | None = None,
    note: Callable[[JobNote], None] | None = None,
) -> Agent:
    """An instance of this runner. Raises LenswayError INVALID_REQUEST for a policy or CA file that cannot be used."""
    policy = PolicyInForce.from_file(settings.policy_file)
    return Agent(
        runner=settings.runner,
        instance=new_instance_id(),
        capacity=settings.capacity,
        dial=Dialer(settings, WebSocketTransport),
        library=ExecutionLibrary(policy.now.address_policy(), kinds),
        local=LocalCredentials(environment, kinds),
        policy=policy,
        clock=SystemClock(),
        chance=random.random,
        announce=announce,
        drain_seconds=drain_seconds,
        tracer=tracer,
        token_mark=settings.token_mark,
        note=note,
    )


async def run_runner(
    settings: RunnerSettings,
    environment: Mapping[str, str],
    announce: Callable[[str], None],
    *,
    drain_seconds: float,
    kinds: Kinds = BUILT_IN,
) -> None:
    """Serve until SIGTERM or SIGINT, drain, return; a second signal ends the process at once.

    Raises:
        LenswayError: for settings that cannot be used, and when dialling again cannot help.
    """
    tracer = tracer_of("lensway-runner", environment, SystemClock())
    notes = _Notes(settings)
    agent = build_agent(
        settings, environment, announce, drain_seconds=drain_seconds, kinds=kinds, tracer=tracer, note=notes.note
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: os._exit(1))
        agent.stop()
        notify(STOPPING)
        announce("draining: finishing what runs")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, agent.read_files_soon)
    status = await _status_socket(settings, agent, announce)
    listener = None if settings.health is None else _health_listener(Health(agent, notes.totals), settings.health)
    calm_collector()
    try:
        if listener is not None:
            await listener.start()
        # Before the first connection: a gateway that is away is no reason for a service manager to give up.
        notify(READY)
        await agent.run()
    finally:
        await status.close()
        if listener is not None:
            await listener.close()
        notes.close()
        if tracer is not None:
            tracer.close()
    announce("stopped")


def _health_listener(health: Health, address: tuple[str, int]) -> HealthListener:
    # Imported here: a runner without the listener must not carry the library of a server.
    from lensway.compose.health import HealthListener  # noqa: PLC0415

    return HealthListener(health, address)


def _job_file(path: pathlib.Path) -> JobFile:
    from lensway.runner.job_file import JobFile  # noqa: PLC0415 - as above

    return JobFile(path, SystemClock())


class _Notes:
    """Where this process notes its jobs: its log, the file of jobs, the totals of its metrics. Costs nothing where none is on."""

    def __init__(self, settings: RunnerSettings) -> None:
        self.totals = JobTotals()
        self._file = None if settings.job_log is None else _job_file(settings.job_log)
        takers: list[Callable[[JobNote], None]] = []
        if structlog.get_logger("lensway.runner").is_enabled_for(logging.INFO):
            takers.append(log_job)
        if self._file is not None:
            takers.append(self._file.note)
        if settings.health is not None:
            takers.append(self.totals.note)
        self._takers = takers
        self.note: Callable[[JobNote], None] | None = self._take if takers else None

    def _take(self, job: JobNote) -> None:
        for take in self._takers:
            take(job)

    def close(self) -> None:
        """Write what waits."""
        if self._file is not None:
            self._file.close()


async def _status_socket(settings: RunnerSettings, agent: Agent, announce: Callable[[str], None]) -> StatusSocket:
    status = StatusSocket(settings, agent)
    try:
        await status.start()
    except OSError as error:
        # A full or read-only disk must not keep a runner from serving.
        announce(f"`lensway runner status` will not answer: {error.strerror or error}")
    except LenswayError as error:
        # A directory that others may enter, such as a volume of a container platform: others could pose as this runner there.
        announce(f"`lensway runner status` will not answer: {error}. {error.failure.hint}")
    return status
