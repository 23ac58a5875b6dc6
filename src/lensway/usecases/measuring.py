"""What the metrics of a node are made of: the records of jobs, the fleet and the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import lensway
from lensway.catalog.ports import SnapshotSource
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.records import EndKind, JobRecord
from lensway.dispatch.shell import Dispatcher
from lensway.errors import LenswayError
from lensway.fleet.sessions import Session
from lensway.ids import SourceId
from lensway.observe.metrics import JobTimes, Metrics
from lensway.query.result import decode_end
from lensway.usecases.requests import RequestRing


def watch(
    metrics: Metrics, snapshots: SnapshotSource, dispatcher: Dispatcher, inline_connections: Callable[[], int]
) -> None:
    """Let the metrics read the present state of this node whenever they are scraped."""
    metrics.watch_build(lensway.__version__)
    metrics.watch_sources(lambda: _source_states(snapshots.current(), dispatcher))
    metrics.watch_gauge("lensway_queue_jobs", "Jobs that wait for a place on a runner.", lambda: dispatcher.jobs_queued)
    metrics.watch_gauge(
        "lensway_pool_connections",
        "Open connections of this server to the databases of inline sources.",
        inline_connections,
    )
    metrics.watch_runners(lambda: _runner_states(snapshots.current(), dispatcher))
    metrics.watch_gauge("lensway_jobs_in_flight", "Jobs without an outcome.", lambda: dispatcher.jobs_in_flight)
    metrics.watch_events(lambda: dispatcher.core.counters)
    metrics.watch_gauge("lensway_sessions", "Connected runner processes.", lambda: len(dispatcher.fleet.sessions))


def recorder(metrics: Metrics, ring: RequestRing) -> Callable[[JobRecord, bytes], None]:
    """A function that notes every job when it has its outcome: among the requests, and in the metrics."""

    def record(done: JobRecord, result: bytes) -> None:
        ring.over(done)
        metrics.job(_job_times(done, result))

    return record


def _job_times(done: JobRecord, result: bytes) -> JobTimes:
    placed = done.placed_at()
    start, total = done.submitted_at, (done.ended_at or done.submitted_at) - done.submitted_at
    cancels: Sequence[str] = ()
    if done.outcome != "completed" or len(done.attempts) > 1:
        causes = (attempt.cause for attempt in done.attempts)
        cancels = [cause.detail for cause in causes if cause is not None and cause.kind is EndKind.STOPPED]
    if placed is None or placed.accepted_at is None:
        return JobTimes("inline", done.outcome, total, cancels=cancels)
    return JobTimes(
        via="inline" if placed.runner is None else "runner",
        outcome=done.outcome,
        total=total,
        dispatch=placed.offered_at - start,
        accept=placed.accepted_at - placed.offered_at,
        first_row=None if placed.first_row_at is None else placed.first_row_at - start,
        rows=_rows_of(result),
        bytes=done.bytes,
        cancels=cancels,
    )


def _rows_of(result: bytes) -> int:
    """The rows that an end mark counts; none where it cannot be read, which the caller of the job is told."""
    try:
        return decode_end(result).rows if result else 0
    except LenswayError:
        return 0


def _runner_states(snapshot: Snapshot, dispatcher: Dispatcher) -> Iterator[tuple[str, str, bool]]:
    for environment in snapshot.environments():
        for runner in snapshot.runners(environment.id):
            live = any(not session.is_suspect for session in dispatcher.fleet.sessions_of(runner.id))
            yield environment.name, runner.name, live


def _source_states(snapshot: Snapshot, dispatcher: Dispatcher) -> Iterator[tuple[str, str, bool]]:
    """Sources that have runners: can a live one of these reach it? The state of inline sources is not known between queries."""
    for environment in snapshot.environments():
        for source in snapshot.sources(environment.id):
            runners = snapshot.runners_of(environment.id, source.id)
            if runners:
                sessions = (session for runner in runners for session in dispatcher.fleet.sessions_of(runner))
                yield environment.name, source.name, any(_serves(session, source.id) for session in sessions)


def _serves(session: Session, source: SourceId) -> bool:
    state, _ = session.source_states.get(source, ("", ""))
    return not session.is_suspect and not session.is_draining and state in ("", "ready")
