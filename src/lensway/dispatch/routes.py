"""`Routes` over the catalog's snapshot, remembered per snapshot: one dictionary look-up per query."""

from __future__ import annotations

from lensway.catalog.ports import SnapshotSource
from lensway.catalog.records import Credentials, ExecutionMode, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.ports import RunnerRoute, SourceRoute
from lensway.ids import EnvironmentId, RunnerId, SourceId


class SnapshotRoutes:
    """What routing reads. A new snapshot empties the memory."""

    def __init__(self, snapshots: SnapshotSource) -> None:
        self._snapshots = snapshots
        self._snapshot: Snapshot | None = None
        self._sources: dict[tuple[EnvironmentId, SourceId], SourceRoute | None] = {}

    def source(self, environment: EnvironmentId, source: SourceId) -> SourceRoute | None:
        """The source's route in the newest snapshot, or None when it is gone."""
        snapshot = self._snapshots.current()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._sources = {}
        key = (environment, source)
        if key not in self._sources:
            self._sources[key] = _source_route(snapshot, environment, source)
        return self._sources[key]

    def runner(self, environment: EnvironmentId, runner: RunnerId) -> RunnerRoute | None:
        """The runner in the newest snapshot, or None when it is gone or of another environment."""
        record = self._snapshots.current().runner_by_id(runner)
        if record is None or record.environment != environment:
            return None
        return RunnerRoute(runner=runner, name=record.name, wanted=record.set_revision, mark=_mark(record))


def _source_route(snapshot: Snapshot, environment: EnvironmentId, source: SourceId) -> SourceRoute | None:
    record = snapshot.source(environment, source)
    # `source` finds by name too; an id that is another source's name must not lead there.
    if record is None or record.id != source:
        return None
    assigned = (snapshot.runner_by_id(runner) for runner in snapshot.runners_of(environment, source))
    runners = [runner for runner in assigned if runner is not None]
    return SourceRoute(
        source=source,
        name=record.name,
        bridge=record.bridge,
        needs_runner=record.credentials is Credentials.RUNNER_LOCAL
        or record.execution is ExecutionMode.RUNNER_REQUIRED,
        runners=tuple(runner.id for runner in runners),
        runner_names=tuple(runner.name for runner in runners),
        wanted=tuple(runner.set_revision for runner in runners),
        marks=tuple(_mark(runner) for runner in runners),
        serving=tuple(not _mark(runner) for runner in runners),
    )


def _mark(runner: Runner) -> str:
    if runner.is_revoked:
        return "revoked"
    return "draining" if runner.is_draining else ""
