"""When time alone must move something: a heap with at most a few entries per job, checked against the job when they fall due.

A job that is done, or whose time moved on, leaves its entry behind; the entry is dropped or renewed when it surfaces. So a
short query costs one push, and its entry is gone within an offer timeout.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from lensway.dispatch.core_jobs import Job
from lensway.ids import JobId


class Timers:
    """The due times of all jobs."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
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
        """When the next entry surfaces."""
        return self._heap[0][0] if self._heap else None
