"""Audit entries of what callers can repeat at will: sign-ins, refusals, runner sessions. Repetitions become one row with a count.

The first occurrence is written within a second. Repetitions (the same actor, action, object, address and outcome) are counted and
written as one row a minute, or when the audit is read. The number of different entries at a time is bounded too: more of them are
counted together, so that a caller with many addresses does not fill the disk. Every event is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from lensway import limits
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.clock import Clock
from lensway.errors import LenswayError

_log = structlog.get_logger("lensway.audit")

Note = Callable[[AuditEntry], None]
"""Where entries go that need not be written in the transaction of a change."""

UNKNOWN: Final = "unknown"
"""The actor before authentication."""
OTHERS: Final = "others"
_OK: Final = frozenset({"ok", "unchanged"})


class _Repeated:
    __slots__ = ("count", "first_at", "last")

    def __init__(self, entry: AuditEntry) -> None:
        self.last = entry
        self.first_at = entry.at
        self.count = 0

    def add(self, entry: AuditEntry) -> None:
        if not self.count:
            self.first_at = entry.at
        self.last = entry
        self.count += entry.count


class AuditTally:
    """Collects entries, merges repetitions, and writes them in batches. One per node."""

    def __init__(self, store: CatalogStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[tuple[object, ...], _Repeated] = {}
        self._unwritten: list[AuditEntry] = []
        self._window_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, entry: AuditEntry) -> None:
        """Take an entry; it is written within a second, or counted and written within a minute. Never waits."""
        key = _key(entry)
        seen = self._seen.get(key)
        if seen is None and len(self._seen) >= _different_max(entry):
            entry = msgspec.structs.replace(entry, actor=OTHERS, object="", address="", request_id="", details={})
            key = _key(entry)
            seen = self._seen.get(key)
        if seen is not None:
            seen.add(entry)
        else:
            if not self._seen:
                self._window_ends = self._clock.monotonic() + limits.AUDIT_MERGE_SECONDS
            self._seen[key] = _Repeated(entry)
            self._unwritten.append(entry)
        if self._timer is None:
            pause = limits.AUDIT_WRITE_SECONDS if self._unwritten else self._window_left()
            self._timer = asyncio.get_running_loop().call_later(pause, self._due)

    async def flush(self, *, everything: bool = False) -> None:
        """Write what waits; with ``everything`` what has only been counted so far too."""
        async with self._writing:
            rows = self._taken(everything=everything)
            if not rows:
                return
            for row in rows:
                if row.outcome not in _OK:
                    _log.warning("refused", **_facts(row))
            try:
                await self._store.record_audits(rows)
            except LenswayError as error:
                self._unwritten = _shortened([*rows, *self._unwritten])
                _log.error("audit entries wait to be written", code=error.code.value, entries=len(rows))

    async def close(self) -> None:
        """Write all there is."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.flush(everything=True)

    def _taken(self, *, everything: bool) -> list[AuditEntry]:
        rows, self._unwritten = self._unwritten, []
        if everything or self._window_left() <= 0:
            for key, seen in list(self._seen.items()):
                if not seen.count:
                    del self._seen[key]
                    continue
                rows.append(msgspec.structs.replace(seen.last, at=seen.first_at, until=seen.last.at, count=seen.count))
                # It stays known: what goes on for hours is one row a minute.
                seen.count = 0
            self._window_ends = self._clock.monotonic() + limits.AUDIT_MERGE_SECONDS
        return rows

    def _window_left(self) -> float:
        return self._window_ends - self._clock.monotonic()

    def _due(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._write(), name="write audit entries")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self) -> None:
        await self.flush()
        if self._seen and self._timer is None:
            pause = limits.AUDIT_WRITE_SECONDS if self._unwritten else max(0.01, self._window_left())
            self._timer = asyncio.get_running_loop().call_later(pause, self._due)


def _key(entry: AuditEntry) -> tuple[object, ...]:
    return entry.environment, entry.actor, entry.action, entry.object, entry.address, entry.outcome


def _different_max(entry: AuditEntry) -> int:
    """How many different entries may be under way before this one is counted with others: those that strangers can invent
    leave room for those of keys and runners that exist."""
    is_known = entry.actor not in (UNKNOWN, OTHERS) and entry.outcome in _OK
    return limits.AUDIT_DIFFERENT_KNOWN_MAX if is_known else limits.AUDIT_DIFFERENT_MAX


def _shortened(rows: list[AuditEntry]) -> list[AuditEntry]:
    """The rows that a store that cannot be written leaves behind: of too many, the newest are counted as one."""
    kept, more = rows[: limits.AUDIT_DIFFERENT_KNOWN_MAX], rows[limits.AUDIT_DIFFERENT_KNOWN_MAX :]
    if not more:
        return kept
    last = kept.pop()
    merged = msgspec.structs.replace(
        last,
        environment=None,
        actor=OTHERS,
        action="audit.backlog",
        object="",
        address="",
        details={},
        count=sum(row.count for row in (last, *more)),
        until=more[-1].until or more[-1].at,
    )
    return [*kept, merged]


def _facts(entry: AuditEntry) -> dict[str, object]:
    return {
        "action": entry.action,
        "outcome": entry.outcome,
        "actor": entry.actor,
        "object": entry.object,
        "address": entry.address,
        "count": entry.count,
        "request": entry.request_id,
    }
