"""What watchers hear of sessions and of the health of their sources, and when each runner was last seen."""

from __future__ import annotations

import asyncio

import structlog

from lensway import limits
from lensway.auth import events
from lensway.catalog.records import Runner
from lensway.clock import SystemClock
from lensway.dispatch.events import StatusChanged
from lensway.errors import LenswayError
from lensway.fleet import Fleet
from lensway.ids import RunnerId, SessionId, SourceId
from lensway.service.hub import EventHub
from lensway.service.tally import Note
from lensway.store.sqlite import Sighting, SqliteStore

_log = structlog.get_logger("lensway.server")


class Statuses:
    """Turns changes of sessions into events, and remembers sightings."""

    def __init__(self, store: SqliteStore, hub: EventHub, clock: SystemClock, note: Note) -> None:
        self._store = store
        self._note = note
        self._hub = hub
        self._clock = clock
        self._fleet: Fleet | None = None
        self._known: dict[SessionId, str] = {}
        self._health: dict[SessionId, dict[SourceId, tuple[str, str]]] = {}
        self._unwritten: dict[RunnerId, Sighting] = {}
        self._writer: asyncio.Task[None] | None = None

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
            self._remember(runner, status.cause)
            self._note_session(runner, events.RUNNER_DISCONNECT, status)
        elif status.session not in self._known:
            self._known[status.session] = status.state
            self._remember(runner, "connected")
            self._note_session(runner, events.RUNNER_CONNECT, status)

    def _note_session(self, runner: Runner, action: str, status: StatusChanged) -> None:
        session = None if self._fleet is None else self._fleet.sessions.get(status.session)
        entry = events.access_entry(
            self._clock,
            action,
            outcome="ok",
            address="" if session is None else session.facts.address,
            actor=f"{runner.name} ({runner.id})",
            environment=runner.environment,
            object=runner.id,
            details={"session": status.session} | ({"cause": status.cause} if status.cause else {}),
        )
        self._note(entry)

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

    def _remember(self, runner: Runner, cause: str) -> None:
        # Thousands of runners that come back within seconds are a few writes, and none that a change has to wait behind.
        at = self._clock.wall().isoformat(timespec="milliseconds")
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
