"""Recent requests a page at a time: filtered, counted by outcome, and failures grouped by cause."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import AsyncIterator, Hashable, Mapping
from typing import Any

from lensway import limits
from lensway.auth.caller import Caller
from lensway.dispatch.core.records import JobRecord
from lensway.ids import RequestId
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_pages import Pace
from lensway.usecases.requests import RequestEntry, RequestRing, request_document, unpacked

_SLICE_REQUESTS = 32
"""Requests between two looks at the clock."""
COMPLETED = "completed"
RUNNING = "running"
FAILED = "failed"
"""A filter for every outcome that is neither of the two."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery:
    """What a page of requests shows. ``outcome`` is empty for all, ``running``, ``completed``, ``failed`` or an error code."""

    outcome: str = ""
    lens: str = ""
    source: str = ""
    runner: str = ""
    begin: datetime.datetime | None = None
    end: datetime.datetime | None = None
    page: int = 1
    size: int = limits.CONSOLE_ROWS_MAX


@dataclasses.dataclass(slots=True)
class _Group:
    """Failures with one cause."""

    code: str
    facts: Mapping[str, Any]
    source: str
    last_id: str
    last_at: datetime.datetime
    count: int = 0
    lenses: set[str] = dataclasses.field(default_factory=set)
    runners: set[str] = dataclasses.field(default_factory=set)

    def document(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "facts": dict(self.facts),
            "source": self.source,
            "count": self.count,
            "lenses": sorted(self.lenses),
            "runners": sorted(self.runners),
            "lastId": self.last_id,
            "lastAt": self.last_at.isoformat(timespec="milliseconds"),
        }


class RequestPages:
    """Pages of the recent requests of one environment."""

    def __init__(self, desk: Desk, ring: RequestRing) -> None:
        self._desk = desk
        self._ring = ring

    def mark(self) -> Hashable:
        """A value that differs as soon as a request began or ended."""
        return self._ring.mark()

    async def page(self, caller: Caller, query: RequestQuery) -> dict[str, Any]:
        """One page of requests, the counts by outcome of all that match the other filters, and failures by cause."""
        counts: dict[str, int] = {}
        groups: dict[tuple[str, ...], _Group] = {}
        shown: list[dict[str, Any]] = []
        matching, first = 0, (query.page - 1) * query.size
        running = self._desk.dispatcher.running()
        async for entry, record in self._entries(caller, query, running):
            outcome = RUNNING if record is None or not record.outcome else record.outcome
            counts[outcome] = counts.get(outcome, 0) + 1
            if record is not None and outcome not in (RUNNING, COMPLETED):
                _count(groups, entry, record, outcome)
            if not _is_wanted(query.outcome, outcome):
                continue
            if first <= matching < first + query.size:
                shown.append(request_document(entry, running))
            matching += 1
        found = sorted(groups.values(), key=lambda group: (-group.count, group.code, group.source))
        return {
            "requests": shown,
            "matching": matching,
            "total": sum(counts.values()),
            "outcomes": counts,
            "causes": [group.document() for group in found[: limits.CONSOLE_ROWS_MAX]],
            "moreCauses": max(0, len(found) - limits.CONSOLE_ROWS_MAX),
        }

    async def _entries(
        self, caller: Caller, query: RequestQuery, jobs: Mapping[RequestId, JobRecord]
    ) -> AsyncIterator[tuple[RequestEntry, JobRecord | None]]:
        """The requests that match everything but the outcome, newest first."""
        pace, environment = Pace(self._desk.clock), caller.environment.id
        for entry in self._ring.running(environment):
            record = entry.record or jobs.get(RequestId(entry.id))
            if _matches(query, entry, record):
                yield entry, record
        # A request whose bytes lack one of these need not be unpacked.
        needed = [each.encode() for each in (environment, query.lens, query.source, query.runner) if each]
        for number, packed in enumerate(self._ring.over_packed()):
            if number % _SLICE_REQUESTS == 0:
                await pace.give_way()
            if not all(each in packed for each in needed):
                continue
            entry = unpacked(packed)
            if entry.environment == environment and _matches(query, entry, entry.record):
                yield entry, entry.record


def _is_wanted(wanted: str, outcome: str) -> bool:
    if wanted == FAILED:
        return outcome not in (RUNNING, COMPLETED)
    return wanted in ("", outcome)


def _matches(query: RequestQuery, entry: RequestEntry, record: JobRecord | None) -> bool:
    return (
        query.lens in ("", entry.lens)
        and query.source in ("", entry.source)
        and (query.begin is None or entry.at >= query.begin)
        and (query.end is None or entry.at <= query.end)
        and (not query.runner or query.runner in _runners_of(record))
    )


def _runners_of(record: JobRecord | None) -> set[str]:
    """The runners that the request was offered to."""
    return set() if record is None else {each.runner_name for each in record.attempts if each.runner_name is not None}


def _count(groups: dict[tuple[str, ...], _Group], entry: RequestEntry, record: JobRecord, outcome: str) -> None:
    facts = {} if record.failure is None else record.failure.details
    key = (outcome, entry.source, *(f"{name}={value}" for name, value in facts.items()))
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Group(outcome, facts, entry.source, entry.id, entry.at)
    group.count += 1
    if len(group.lenses) < limits.CONSOLE_CHOICES_MAX:
        group.lenses.add(entry.lens)
    if len(group.runners) < limits.CONSOLE_CHOICES_MAX:
        group.runners |= _runners_of(record)
