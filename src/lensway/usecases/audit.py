"""Use cases of the audit: read, verified, exported, and shortened when it is old."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from lensway.auth.caller import Caller
from lensway.auth.chain import Head, Verdict
from lensway.auth.decisions import require_instance_wide
from lensway.catalog.moments import moment_text
from lensway.catalog.names import invalid
from lensway.catalog.ports import AuditEntry
from lensway.errors import LenswayError
from lensway.usecases.desk import Desk

_log = structlog.get_logger("lensway.audit")
_HEAD: Final = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})")
_EXPORT_ROWS: Final = 500
_DAY_SECONDS: Final = 86_400.0

Verify = Callable[[Head | None], Awaitable[Verdict]]


class Audit:
    """Who did what to which object, from where, with what outcome."""

    def __init__(self, desk: Desk, verify: Verify) -> None:
        self._desk = desk
        self._verify = verify

    async def list(self, caller: Caller, *, limit: int = 100, before: int | None = None) -> dict[str, Any]:
        """The newest entries of the environment first; an instance-wide key sees those of the whole deployment among them.

        Entries are stored as they are written, and repeated ones are written up to a minute later, as one with a count. A page
        shows them by the moment of their last occurrence; ``before`` of the answer is where the next page begins.
        """
        await self._desk.tally.flush(everything=True)
        entries = await self._desk.store.audit(
            caller.environment.id,
            limit=limit,
            before=before,
            with_instance_wide=caller.identity.environment is None,
        )
        newest = sorted(entries, key=lambda each: (each[1].until or each[1].at, each[0]), reverse=True)
        return {
            "entries": [{"sequence": number, **msgspec.to_builtins(entry)} for number, entry in newest],
            "before": min((number for number, _ in entries), default=None) if len(entries) == limit else None,
        }

    async def verify(self, caller: Caller, head: str | None) -> Verdict:
        """Whether every row is as it was written, and whether the audit is the one that a head was taken from.

        Raises:
            LenswayError: FORBIDDEN, INVALID_REQUEST for a malformed head.
        """
        require_instance_wide(caller.identity)
        known = None
        if head is not None:
            found = _HEAD.fullmatch(head)
            if found is None:
                raise invalid("head", "must be SEQUENCE:CHAIN", hint="Take it from a verification or an export.")
            known = Head(sequence=int(found[1]), chain=found[2])
        await self._desk.tally.flush(everything=True)
        return await self._verify(known)

    async def export(self, caller: Caller, *, after: int = 0) -> AsyncIterator[bytes]:
        """Every row of every environment behind ``after`` as a line of JSON, the oldest first, and a last line that says how many
        and where the chain is. Raises LenswayError FORBIDDEN."""
        require_instance_wide(caller.identity)
        await self._desk.tally.flush(everything=True)
        return self._lines(after)

    async def _lines(self, after: int) -> AsyncIterator[bytes]:
        count, head = 0, None
        while rows := await self._desk.store.audit_rows(after=after, limit=_EXPORT_ROWS):
            yield b"".join(
                msgspec.json.encode({"sequence": row.sequence, "chain": row.chain, **msgspec.to_builtins(row.entry)})
                + b"\n"
                for row in rows
            )
            count, after, head = count + len(rows), rows[-1].sequence, rows[-1]
        end = {"rows": count} | ({} if head is None else {"sequence": head.sequence, "chain": head.chain})
        yield msgspec.json.encode({"$end": end}) + b"\n"


class AuditRetention:
    """Deletes rows that are older than a number of days: at the start, and once a day."""

    def __init__(self, desk: Desk, days: int) -> None:
        self._desk = desk
        self._days = days
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; does nothing when rows are kept for ever."""
        if self._days:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audit retention")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def prune(self) -> int:
        """Delete what is too old; how many rows went. It is in the audit itself. Raises LenswayError INTERNAL."""
        clock, went, last = self._desk.clock, 0, 0
        before = moment_text(clock.wall() - datetime.timedelta(days=self._days))
        while (step := await self._desk.store.prune_audit(before))[0]:
            went, last = went + step[0], step[1]
        if went:
            entry = AuditEntry(
                at=moment_text(clock.wall()),
                environment=None,
                actor="server",
                action="audit.prune",
                object="",
                address="",
                outcome="ok",
                request_id="",
                details={"rows": went, "through": last, "before": before},
            )
            await self._desk.store.record_audit(entry)
        return went

    async def _run(self) -> None:
        while True:
            try:
                await self.prune()
            except LenswayError as error:
                _log.error("old audit rows were not deleted", code=error.code.value)
            await asyncio.sleep(_DAY_SECONDS)
