"""When time alone must move something: a heap with at most a few entries per job, checked against the job when they fall due.

A job whose time moved on leaves its entry behind, which is renewed when it surfaces. The entry of a job that is over is dropped
as soon as it is the first one: a short query costs one push and one pop, without a wake-up and without a leftover.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from lensway.dispatch.core.jobs import Job
from lensway.ids import JobId


class Timers:
    """The due times of all jobs. ``alive`` are those that are not over."""

    __slots__ = ("_alive", "_heap")

    def __init__(self, alive: Collection[JobId]) -> None:
        self._alive = alive
        self._heap: list[tuple[float, JobId]] = []

    def schedule(self, job: Job) -> None:
        """Make sure that the job surfaces when it is due, or earlier."""
        due = job.due
        if due is not None and (job.scheduled is None or due < job.scheduled):
            job.scheduled = due
            heapq.heappush(self._heap, (due, job.id))

    def due(self, now: float) -> Iterator[JobId]:
        """Take out what has surfaced by now, earliest first."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            yield heapq.heappop(heap)[1]

    def next_due(self) -> float | None:
        """When the next entry of a job that is not over surfaces."""
        heap, alive = self._heap, self._alive
        while heap and heap[0][1] not in alive:
            heapq.heappop(heap)
        return heap[0][0] if heap else None
