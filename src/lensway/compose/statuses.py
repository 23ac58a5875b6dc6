"""What watchers hear of sessions and of the health of their sources, and when each runner was last seen."""

from __future__ import annotations

import asyncio
import datetime
from typing import Final

import structlog

from lensway import limits
from lensway.catalog.records import Runner
from lensway.clock import SystemClock
from lensway.dispatch.events import StatusChanged
from lensway.errors import LenswayError
from lensway.fleet import Fleet
from lensway.ids import RunnerId, SessionId, SourceId
from lensway.service.hub import EventHub
from lensway.store.sqlite import Sighting, SqliteStore

_log = structlog.get_logger("lensway.server")
CONNECTED: Final = "connected"
"""The cause in the sighting of a runner that has not been lost since."""


class Statuses:
    """Turns changes of sessions into events, and remembers sightings."""

    def __init__(self, store: SqliteStore, hub: EventHub, clock: SystemClock) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._fleet: Fleet | None = None
        self._known: dict[SessionId, str] = {}
        self._health: dict[SessionId, dict[SourceId, tuple[str, str]]] = {}
        self._unwritten: dict[RunnerId, Sighting] = {}
        self._writer: asyncio.Task[None] | None = None
        self._is_stopping = False

    def look_at(self, fleet: Fleet) -> None:
        """Where the sessions are; before the first of them opens."""
        self._fleet = fleet

    def changed(self, status: StatusChanged) -> None:
        """A session's state changed."""
        runner = self._store.current().runner_by_id(status.runner)
        if runner is None:
            return
        data = {"runner": runner.name, "session": status.session, "state": status.state, "cause": status.cause}
        self._hub.publish(runner.environment, "session", data)
        self._compare_health(status.session, runner)
        if status.state == "lost":
            self._known.pop(status.session, None)
            self._health.pop(status.session, None)
            # What ends with this server goes on with the next one.
            if not self._is_stopping:
                self._remember(runner, status.cause)
        elif status.session not in self._known:
            self._known[status.session] = status.state
            session = None if self._fleet is None else self._fleet.sessions.get(status.session)
            ago = 0.0 if session is None else self._clock.monotonic() - session.since
            self._remember(runner, CONNECTED, seconds_ago=ago)

    def _compare_health(self, id: SessionId, runner: Runner) -> None:
        session = None if self._fleet is None else self._fleet.sessions.get(id)
        if session is None:
            return
        before, now = self._health.get(id, {}), dict(session.source_states)
        self._health[id] = now
        for source, (health, cause) in now.items():
            found = self._store.current().source(runner.environment, source)
            if found is not None and before.get(source) != (health, cause):
                data = {"runner": runner.name, "source": found.name, "health": health, "cause": cause}
                self._hub.publish(runner.environment, "health", data | {"instance": session.facts.instance})

    def stop(self) -> None:
        """The server is about to let go of every session: from now on no loss is news."""
        self._is_stopping = True

    def _remember(self, runner: Runner, cause: str, *, seconds_ago: float = 0.0) -> None:
        # Thousands of runners that come back within seconds are a few writes, and none that a change has to wait behind.
        moment = self._clock.wall() - datetime.timedelta(seconds=seconds_ago)
        at = moment.isoformat(timespec="milliseconds")
        self._unwritten[runner.id] = Sighting(runner, at, cause)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="note sightings")

    async def _write(self) -> None:
        try:
            while self._unwritten:
                taken = list(self._unwritten)[: limits.SIGHTINGS_PER_WRITE_MAX]
                await self._store.note_sightings([self._unwritten.pop(runner) for runner in taken])
        except LenswayError as error:
            self._unwritten.clear()
            _log.warning("sightings were not written", code=error.code.value)
        finally:
            self._writer = None

    async def close(self) -> None:
        """Finish what is being written."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
