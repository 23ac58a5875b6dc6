"""What happened, a page at a time: events from memory, audit rows from the store, each filtered, with a fixed end on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import msgspec

from lensway import limits
from lensway.auth.caller import Caller
from lensway.auth.chain import Verdict
from lensway.catalog.names import not_found
from lensway.catalog.ports import AuditEntry
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.audit import Audit
from lensway.usecases.desk import Desk
from lensway.usecases.events import HubEvent
from lensway.usecases.fleet_pages import Pace, has_text

_BATCH_ROWS = 500
_GOOD = ("ok", "unchanged")
FAILED = "failed"
"""Filters audit rows: every outcome that is a refusal."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Records of a kind, with this text, older than ``before``. ``through`` is the newest one to show: the list stands still."""

    kind: str = ""
    text: str = ""
    outcome: str = ""
    before: int | None = None
    through: int | None = None
    size: int = limits.CONSOLE_ROWS_MAX

    @property
    def below(self) -> int | None:
        """The number that every record on the page is below."""
        ends = [each for each in (self.before, None if self.through is None else self.through + 1) if each is not None]
        return min(ends, default=None)


class EventPages:
    """Recent events of one environment. They are in memory only: a restart forgets them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def mark(self) -> Hashable:
        """A value that differs as soon as something happened."""
        return self._desk.hub.sequence

    async def page(self, caller: Caller, query: RecordQuery) -> dict[str, Any]:
        """One page of events, newest first, and the kinds that there are."""
        pace = Pace(self._desk.clock)
        shown: list[dict[str, Any]] = []
        kinds: dict[str, int] = {}
        backlog = list(self._desk.hub.recent(caller.environment.id))
        older: int | None = None
        for event in backlog:
            await pace.give_way()
            if query.through is not None and event.sequence > query.through:
                continue
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            if query.before is not None and event.sequence >= query.before:
                continue
            if query.kind not in ("", event.kind) or not _event_has_text(query.text, event):
                continue
            if len(shown) < query.size:
                shown.append(event_document(event))
            elif older is None:
                older = shown[-1]["sequence"]
        return {
            "events": shown,
            "kinds": kinds,
            "older": older,
            "newest": backlog[0].sequence if backlog else 0,
            "total": len(backlog),
        }

    def show(self, caller: Caller, sequence: int, at: str) -> dict[str, Any]:
        """One event; ``at`` is its moment, because numbers begin anew after a restart. Raises LenswayError NOT_FOUND."""
        for event in self._desk.hub.recent(caller.environment.id):
            document = event_document(event)
            if event.sequence == sequence and document["at"] == at:
                return document
        raise LenswayError(
            ErrorCode.NOT_FOUND,
            f"No event {sequence} of that moment in this environment",
            hint=f"The newest {limits.EVENT_BACKLOG_MAX:,} events are in memory, and a restart discards them.",
        )


class AuditPages:
    """The audit as one environment sees it."""

    def __init__(self, desk: Desk, audit: Audit) -> None:
        self._desk = desk
        self._audit = audit
        self._verified: tuple[str, str, Verdict] | None = None

    def mark(self) -> Hashable:
        """A value that differs after every change of the catalog and every verification."""
        verified = None if self._verified is None else self._verified[0]
        return self._desk.snapshot().revision, self._desk.hub.sequence, verified

    @property
    def verified(self) -> dict[str, Any] | None:
        """The last verification since this node started: when, by whom, and what it found."""
        if self._verified is None:
            return None
        at, actor, verdict = self._verified
        return {"at": at, "actor": actor, **msgspec.to_builtins(verdict)}

    async def verify(self, caller: Caller) -> dict[str, Any]:
        """Verify every row, and remember the verdict. Raises LenswayError FORBIDDEN."""
        verdict = await self._audit.verify(caller, None)
        self._verified = self._desk.now_text(), caller.identity.actor, verdict
        return self.verified or {}

    async def page(self, caller: Caller, query: RecordQuery) -> dict[str, Any]:
        """One page of rows, newest first. A filter reads a bounded number of rows; ``older`` says where to go on."""
        pace = Pace(self._desk.clock)
        # Counted repetitions stay counted: an open page must not turn each of them into a row of its own.
        await self._desk.tally.flush()
        shown: list[dict[str, Any]] = []
        below, older, newest, searched = query.below, None, 0, 0
        while searched < limits.CONSOLE_SEARCH_ROWS_MAX and len(shown) <= query.size:
            rows = await self._rows(caller, below)
            for number, entry in rows:
                await pace.give_way()
                newest = max(newest, number)
                if len(shown) <= query.size and _audit_matches(query, entry):
                    shown.append({"sequence": number, **msgspec.to_builtins(entry)})
            searched += len(rows)
            older = below = rows[-1][0] if rows else None
            if len(rows) < _BATCH_ROWS:
                older = None
                break
        if len(shown) > query.size:
            shown.pop()
            older = shown[-1]["sequence"]
        return {"entries": shown, "older": older, "newest": newest, "searched": searched, "verified": self.verified}

    async def newest(self, caller: Caller, limit: int) -> list[dict[str, Any]]:
        """The newest rows, for a page that shows those about one object."""
        await self._desk.tally.flush()
        return [
            {"sequence": number, **msgspec.to_builtins(entry)}
            for number, entry in await self._rows(caller, None, limit=limit)
        ]

    async def show(self, caller: Caller, sequence: int) -> dict[str, Any]:
        """One row. Raises LenswayError NOT_FOUND, also for another environment's."""
        await self._desk.tally.flush()
        for number, entry in await self._rows(caller, sequence + 1, limit=1):
            if number == sequence:
                return {"sequence": number, **msgspec.to_builtins(entry)}
        raise not_found("audit row", str(sequence))

    async def _rows(
        self, caller: Caller, below: int | None, *, limit: int = _BATCH_ROWS
    ) -> list[tuple[int, AuditEntry]]:
        wide = caller.identity.environment is None
        return list(
            await self._desk.store.audit(caller.environment.id, limit=limit, before=below, with_instance_wide=wide)
        )


def event_document(event: HubEvent) -> dict[str, Any]:
    """An event as pages show it."""
    return {
        "sequence": event.sequence,
        "at": event.at.isoformat(timespec="milliseconds"),
        "kind": event.kind,
        "data": dict(event.data),
    }


def _event_has_text(text: str, event: HubEvent) -> bool:
    return not text or has_text(text, _texts(event.data))


def _texts(data: Mapping[str, Any]) -> list[str]:
    """The words of an event: a test's whole results are not searched."""
    return [str(value) for value in data.values() if isinstance(value, str | int | float)]


def _audit_matches(query: RecordQuery, entry: AuditEntry) -> bool:
    if query.outcome == FAILED and entry.outcome in _GOOD:
        return False
    if query.outcome not in ("", FAILED, entry.outcome):
        return False
    if query.kind and query.kind != entry.action.partition(".")[0]:
        return False
    return has_text(query.text, (entry.actor, entry.action, entry.object, entry.address, entry.request_id))
