"""The fleet of this node in the words of the API: runners with their state, instances and health per source."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from lensway.bridges.contract import CONNECTION_LIMIT
from lensway.catalog.records import Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import InstanceView
from lensway.clock import Clock
from lensway.dispatch.shell import Dispatcher
from lensway.fleet import RunnerFlags, RunnerStatus, Session, runner_status
from lensway.ids import RunnerId, SourceId
from lensway.protocol.frames import OVERRIDES

CONDITION_HINTS: Final[Mapping[str, str]] = {
    CONNECTION_LIMIT: "The database grants the source's login fewer connections than the source may open, so queries wait for "
    "each other. Raise the login's CONNECTION LIMIT or the server's max_connections, or lower `pool_size` in the source's "
    "config. `lensway sources test` shows the number."
}
"""What to do about each condition of a source that answers."""


class _StatesOf(Mapping[SourceId, str]):
    """What a session says of its sources, without a copy: warnings ask about one source at a time."""

    def __init__(self, session: Session) -> None:
        self._said = session.source_states

    def __getitem__(self, source: SourceId) -> str:
        """The state of one source."""
        return self._said[source][0]

    def __iter__(self) -> Iterator[SourceId]:
        """The sources of which something was said."""
        return iter(self._said)

    def __len__(self) -> int:
        """How many these are."""
        return len(self._said)


class FleetOfNode:
    """Implements `lensway.catalog.warnings.FleetView`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def instances(self, runner: RunnerId) -> Sequence[InstanceView]:
        """The connected instances of a runner."""
        return [
            InstanceView(
                is_live=not session.is_suspect and not session.is_draining,
                bridges=session.facts.bridges.keys(),
                source_states=_StatesOf(session),
                encodings=session.facts.encodings,
            )
            for session in self._dispatcher.fleet.sessions_of(runner)
        ]


def status_of(snapshot: Snapshot, runner: Runner, dispatcher: Dispatcher, now: float) -> RunnerStatus:
    """State, since when (monotonic), why, and what to do."""
    sources = tuple(source.id for source in snapshot.sources_of(runner.environment, runner.id))
    flags = RunnerFlags(
        is_revoked=runner.is_revoked,
        is_draining=runner.is_draining,
        wanted_revision=runner.set_revision,
        sources=sources,
    )
    fleet = dispatcher.fleet
    return runner_status(flags, list(fleet.sessions_of(runner.id)), fleet.last_loss(runner.id), now)


def since_text(status: RunnerStatus, clock: Clock) -> str | None:
    """Since when a runner is in its state, for records; None when that is not known."""
    return _moment(status.since, clock.monotonic(), clock.wall())


def _moment(at: float | None, now: float, wall: datetime.datetime) -> str | None:
    return None if at is None else (wall - datetime.timedelta(seconds=now - at)).isoformat(timespec="milliseconds")


def runner_document(
    snapshot: Snapshot, runner: Runner, dispatcher: Dispatcher, clock: Clock, *, only: SourceId | None = None
) -> dict[str, Any]:
    """A runner as the API shows it; with ``only``, of its sources just this one."""
    now = clock.monotonic()
    wall = clock.wall()

    def moment(at: float | None) -> str | None:
        return _moment(at, now, wall)

    status = status_of(snapshot, runner, dispatcher, now)
    sessions = list(dispatcher.fleet.sessions_of(runner.id))
    return {
        "id": runner.id,
        "name": runner.name,
        "network": runner.network,
        "status": status.state.value,
        "since": moment(status.since),
        "cause": status.cause,
        "hint": status.hint,
        "revision": runner.set_revision,
        "instances": [
            {
                "id": session.facts.instance,
                "state": session.shown_state,
                "since": moment(session.since),
                "cause": session.cause,
                "version": session.facts.software,
                "hostname": session.facts.hostname,
                "address": session.facts.address,
                "bridges": dict(session.facts.bridges),
                "encodings": sorted(session.facts.encodings),
                "capacity": session.load.capacity,
                "outstanding": session.load.outstanding,
                "revision": session.revision,
                "wantedRevision": runner.set_revision,
            }
            for session in sessions
        ],
        "sources": [
            {"name": source.name, "bridge": source.bridge, **_health(source.id, sessions, moment)}
            for source in snapshot.sources_of(runner.environment, runner.id)
            if only in (None, source.id)
        ],
        "createdAt": runner.created_at,
    }


def overrides_of(snapshot: Snapshot, source: Source, dispatcher: Dispatcher) -> dict[str, list[str]]:
    """The keys of a source's managed settings that its runners override, by the name of the runner."""
    found: dict[str, list[str]] = {}
    for id in snapshot.runners_of(source.environment, source.id):
        runner = snapshot.runner_by_id(id)
        for session in dispatcher.fleet.sessions_of(id) if runner is not None else ():
            keys = overridden_keys(session.source_states.get(source.id, ("", ""))[1])
            if keys and runner is not None:
                found[runner.name] = keys
    return found


def overridden_keys(cause: str) -> list[str]:
    """The keys that a runner's report names."""
    return cause.removeprefix(OVERRIDES).split(", ") if cause.startswith(OVERRIDES) else []


def _health(
    source: SourceId, sessions: Sequence[Session], moment: Callable[[float | None], str | None]
) -> dict[str, Any]:
    """The worst of what the instances report, and since when; ``pending`` while none has, ``offline`` without one."""
    if not sessions:
        return {"health": "offline"}
    reports = [(*session.source_states[source], session) for session in sessions if source in session.source_states]
    bad = next((report for report in reports if report[0] not in ("", "ready")), None)
    shown = bad or next((report for report in reports if report[1] in CONDITION_HINTS), None)
    if shown is None:
        keys = sorted({key for _, cause, _ in reports for key in overridden_keys(cause)})
        return {"health": "ready" if reports else "pending"} | ({"overrides": keys} if keys else {})
    state, cause, session = shown
    found = {"health": state, "since": moment(session.source_since.get(source))}
    if cause:
        found["cause"] = cause
    if hint := CONDITION_HINTS.get(cause):
        found["hint"] = hint
    return found


def conditions_of(snapshot: Snapshot, source: Source, dispatcher: Dispatcher) -> list[dict[str, Any]]:
    """What holds a source back although it answers, by runner, as their live instances report it."""
    found: list[dict[str, Any]] = []
    for runner in snapshot.runners_of(source.environment, source.id):
        said = {session.source_states.get(source.id, ("", ""))[1] for session in dispatcher.fleet.sessions_of(runner)}
        record = snapshot.runner_by_id(runner)
        name = None if record is None else record.name
        found += [condition_document(code, name) for code in sorted(said & CONDITION_HINTS.keys())]
    return found


def condition_document(code: str, runner: str | None) -> dict[str, Any]:
    """A condition as the API shows it; ``runner`` None is the service itself."""
    return {"code": code, "runner": runner, "hint": CONDITION_HINTS[code]}
