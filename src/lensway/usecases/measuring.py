"""What the metrics of a node are made of: the records of jobs, the fleet and the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lensway.catalog.ports import SnapshotSource
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.records import EndKind, JobRecord
from lensway.dispatch.shell import Dispatcher
from lensway.errors import LenswayError
from lensway.observe.metrics import JobTimes, Metrics
from lensway.query.result import decode_end
from lensway.usecases.requests import RequestRing


def watch(metrics: Metrics, snapshots: SnapshotSource, dispatcher: Dispatcher) -> None:
    """Let the metrics read the present state of this node whenever they are scraped."""
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
