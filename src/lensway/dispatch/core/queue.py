"""Jobs that wait for a busy place, first come first served per line. A line holds jobs that can go to the same places.

A line is patient while it is young. One that never empties is overload, not a burst: jobs that join it wait less, or the wait
would outlive the excess by far.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from lensway import limits
from lensway.dispatch.core.jobs import Job, JobState
from lensway.ids import RunnerId, SessionId, SourceId

Line: TypeAlias = tuple[SourceId, bool, RunnerId | None, SessionId | None]


class Queue:
    """The lines, served in turns. Jobs that left by another way (deadline, caller) are dropped when they surface."""

    __slots__ = ("_lines", "_since", "count")

    def __init__(self) -> None:
        self._lines: dict[Line, deque[Job]] = {}
        self._since: dict[Line, float] = {}
        self.count = 0

    @staticmethod
    def line_of(job: Job) -> Line:
        """The line that a job stands in."""
        request = job.request
        return (request.source, request.is_export, request.runner, request.session)

    def has_line(self, job: Job) -> bool:
        """True when others stand in the job's line: it must not overtake them."""
        return bool(self._lines) and self.line_of(job) in self._lines

    def push(self, job: Job, now: float) -> None:
        """Stand at the end of the line."""
        line = self.line_of(job)
        self._lines.setdefault(line, deque()).append(job)
        self._since.setdefault(line, now)
        self.count += 1

    def patience(self, job: Job, now: float) -> float:
        """Seconds that a job which joins its line now may wait there."""
        is_standing = now - self._since.get(self.line_of(job), now) >= limits.QUEUE_STANDING_SECONDS
        return limits.QUEUE_WAIT_STANDING_SECONDS if is_standing else limits.QUEUE_WAIT_SECONDS_MAX

    def serve(self, place: Callable[[Job], bool]) -> None:
        """Offer a place to the first of each line until one cannot be placed; ``place`` says whether the job left the queue.

        A job that may not go to some places (it failed there) does not hold up the ones behind it.
        """
        for line in list(self._lines):
            waiting = self._lines.pop(line)
            passed: list[Job] = []
            while waiting:
                job = waiting.popleft()
                if job.state is not JobState.QUEUED:
                    continue
                if place(job):
                    continue
                passed.append(job)
                if not job.excluded:
                    break
            waiting.extendleft(reversed(passed))
            if waiting:
                # Behind the other lines: the next free place is offered to another line first.
                self._lines[line] = waiting
            elif line not in self._lines:
                del self._since[line]

    def left(self) -> None:
        """One queued job has another state now."""
        self.count -= 1
        assert self.count >= 0, "a job left the queue twice"
