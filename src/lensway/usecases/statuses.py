"""What watchers hear of sessions and of the health of their sources, and when each runner was last seen."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from lensway import limits
from lensway.auth import events
from lensway.catalog.ports import Sighting, SightingKeeper
from lensway.catalog.records import Runner
from lensway.clock import Clock
from lensway.dispatch.core.events import StatusChanged
from lensway.errors import LenswayError
from lensway.fleet import Fleet, Standing
from lensway.ids import InstanceId, RunnerId, SessionId, SourceId
from lensway.protocol.allowance import Allowance
from lensway.usecases.events import EventHub
from lensway.usecases.tally import Note

_log = structlog.get_logger("lensway.server")
CONNECTED: Final = "connected"
"""The cause in the sighting of a runner that has not been lost since; behind it, as JSON, how its instances stood."""
_STANDINGS: Final = msgspec.json.Decoder(dict[InstanceId, Standing])


class _Watched:
    """The news of one session: published, and still to be published. A flapping runner must not flood watchers."""

    __slots__ = ("allowance", "dirty", "kept", "late", "runner", "said", "told")

    def __init__(self, runner: Runner, now: float) -> None:
        self.runner = runner
        self.allowance = Allowance(now, per_second=limits.SESSION_EVENTS_PER_SECOND, burst=limits.SESSION_EVENTS_BURST)
        self.late: StatusChanged | None = None
        self.said: tuple[str, str, int | None] | None = None
        """State, cause and revision in force, as they were told last: the same again is no news."""
        self.dirty: dict[SourceId, None] = {}
        self.told: dict[SourceId, tuple[str, str]] = {}
        self.kept: dict[InstanceId, Standing] | None = None


class Statuses:
    """Turns changes of sessions into events, and remembers sightings."""

    def __init__(self, store: SightingKeeper, hub: EventHub, clock: Clock, note: Note) -> None:
        self._store = store
        self._note = note
        self._hub = hub
        self._clock = clock
        self._fleet: Fleet | None = None
        self._watched: dict[SessionId, _Watched] = {}
        self._late: dict[SessionId, _Watched] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._unwritten: dict[RunnerId, Sighting] = {}
        self._writer: asyncio.Task[None] | None = None
        self._is_stopping = False

    def look_at(self, fleet: Fleet) -> None:
        """Where the sessions are; before the first of them opens."""
        self._fleet = fleet

    def changed(self, status: StatusChanged) -> None:
        """A session's state changed."""
        runner = self._store.current().runner_by_id(status.runner)
        if status.state == "lost":
            self._watched.pop(status.session, None)
        if runner is None:
            return
        if status.state == "lost":
            self._publish(runner, status)
            # What ends with this server goes on with the next one.
            if not self._is_stopping:
                left = {} if self._fleet is None else self._fleet.standings_of(runner.id)
                self._remember(runner, self._connected(left) if left else status.cause)
            self._note_session(runner, events.RUNNER_DISCONNECT, status)
            return
        watched = self._watched.get(status.session)
        if watched is None:
            watched = self._watched[status.session] = _Watched(runner, self._clock.monotonic())
            self._note_session(runner, events.RUNNER_CONNECT, status)
        watched.runner = runner
        watched.late = status
        watched.dirty.update(dict.fromkeys(status.sources))
        if not self._tell_of(status.session, watched):
            self._late[status.session] = watched
            self._come_back()

    def _come_back(self) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(limits.SESSION_EVENTS_LATE_SECONDS, self._tell_late)

    def _tell_late(self) -> None:
        self._telling = None
        for session, watched in list(self._late.items()):
            if session not in self._watched or self._tell_of(session, watched):
                del self._late[session]
        if self._late:
            self._come_back()

    def _tell_of(self, id: SessionId, watched: _Watched) -> bool:
        """Tell what the session's allowance lets through; True when that was all."""
        now = self._clock.monotonic()
        session = None if self._fleet is None else self._fleet.sessions.get(id)
        if watched.late is not None:
            revision = None if session is None else session.revision
            news = (watched.late.state, watched.late.cause, revision)
            if news != watched.said:
                if not watched.allowance.take(now):
                    return False
                self._publish(watched.runner, watched.late, revision=revision)
                watched.said = news
            watched.late = None
        while watched.dirty:
            source = next(iter(watched.dirty))
            said = None if session is None else session.source_states.get(source)
            found = self._store.current().source(watched.runner.environment, source)
            if session is not None and said is not None and found is not None and watched.told.get(source) != said:
                if not watched.allowance.take(now):
                    return False
                watched.told[source] = said
                data = {"runner": watched.runner.name, "source": found.name, "health": said[0], "cause": said[1]}
                self._hub.publish(watched.runner.environment, "health", data | {"instance": session.facts.instance})
            del watched.dirty[source]
        standings = {} if self._fleet is None else self._fleet.standings_of(watched.runner.id)
        if watched.kept != standings:
            watched.kept = standings
            self._remember(watched.runner, self._connected(standings))
        return True

    def _connected(self, standings: Mapping[InstanceId, Standing]) -> str:
        """The cause that says how the instances stand, with moments of the wall clock."""
        ahead = self._clock.wall().timestamp() - self._clock.monotonic()
        stored = {instance: standing.moved(ahead) for instance, standing in standings.items()}
        return f"{CONNECTED} {msgspec.json.encode(stored).decode()}"

    def _publish(self, runner: Runner, status: StatusChanged, *, revision: int | None = None) -> None:
        data: dict[str, object] = {
            "runner": runner.name,
            "session": status.session,
            "state": status.state,
            "cause": status.cause,
        }
        # Once its assignments are in force, which one they are.
        data |= {} if revision is None else {"revision": revision}
        self._hub.publish(runner.environment, "session", data)

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

    def stop(self) -> None:
        """The server is about to let go of every session: from now on no loss is news."""
        self._is_stopping = True

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
        if self._telling is not None:
            self._telling.cancel()
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)


async def recall_sightings(store: SightingKeeper, fleet: Fleet, clock: Clock) -> None:
    """Tell the fleet when each runner was seen last, for people to read.

    The stored moment is wall time, and the clock may have been set since. It is shown as it is, though never in the future, and
    decides nothing: no runner counts as lost just now. Queries wait for runners after a restart because of the restart.
    """
    for runner, (at, cause) in (await store.sightings()).items():
        now = clock.monotonic()
        ago = (clock.wall() - datetime.datetime.fromisoformat(at)).total_seconds()
        then = now - max(ago, 0.0)
        if cause.startswith(CONNECTED):
            stored = _standings(cause.removeprefix(CONNECTED))
            ahead = now - clock.wall().timestamp()
            fleet.recall_connected(runner, {each: stored[each].moved(ahead, latest=now) for each in stored}, now)
        else:
            fleet.recall(runner, then, cause)


def _standings(text: str) -> Mapping[InstanceId, Standing]:
    """What is stored behind the cause; nothing where another release wrote it in another form."""
    try:
        return _STANDINGS.decode(text)
    except msgspec.MsgspecError:
        return {}
