"""Callers of a chaos run: they ask, judge what they get against what the database holds, and write it down.

The rows of every lens name the database process that read them, so that rows of two attempts in one answer would show.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lensway.testing.chaos.history import Call
from lensway.testing.chaos.http import Answer, LeanCaller

ROWS: Final = 5_000
EXPORT_ROWS: Final = 40_000
PAGE_ROWS: Final = 100
TRICKLE_ROWS: Final = 4_500
"""Read for more than a second."""
TABLES: Final = (
    "CREATE TABLE ledger (id bigint PRIMARY KEY, total numeric(12,2) NOT NULL)",
    f"INSERT INTO ledger SELECT i, i * 1.25 FROM generate_series(1, {EXPORT_ROWS}) i",
    "CREATE VIEW orders AS SELECT id, total, pg_backend_pid()::bigint AS backend FROM ledger",
    "CREATE VIEW slow AS SELECT o.* FROM orders o, (SELECT pg_sleep(2)) s",
    "CREATE VIEW trickle AS SELECT o.* FROM orders o, LATERAL (SELECT pg_sleep(CASE WHEN o.id % 4 = 0 THEN 0.001 ELSE 0 END)) s",
    "CREATE VIEW wide AS SELECT t.*, repeat('x', 700) AS note FROM trickle t",
    "GRANT SELECT ON ledger, orders, slow, trickle, wide TO PUBLIC",
    "ANALYZE",
)
FIELDS: Final = {
    "id": {"type": "integer", "primaryKey": True},
    "total": {"type": "decimal"},
    "backend": {"type": "integer"},
}
LENSES: Final[Mapping[str, Mapping[str, Any]]] = {
    "orders": {"table": "public.orders"},
    "slow": {"table": "public.slow"},
    "trickle": {"table": "public.trickle"},
    "wide": {"table": "public.wide", "fields": FIELDS | {"note": {"type": "text"}}},
    "orders_once": {"table": "public.orders", "retry": "never"},
    "slow_once": {"table": "public.slow", "retry": "never"},
}
_CALLER_PATIENCE_SECONDS: Final = 5.0
"""Longer than any promise: a caller that waits so long in vain has been lost."""
_EXPORT: Final = "application/x-ndjson; end=record"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request. ``rows`` of None is drawn for each; an export wants all rows of the table."""

    name: str
    lens: str
    rows: int = 1
    may_retry: bool = True
    is_export: bool = False
    pause_seconds: float = 0.0

    def body(self, first: int) -> bytes:
        """The request for ``rows`` rows from this id on."""
        if self.is_export:
            return b"{}"
        if self.rows == 1:
            return b'{"where":{"id":%d}}' % first
        return b'{"where":{"id":{"$gte":%d}},"limit":%d}' % (first, self.rows)


KINDS: Final = (
    Kind(name="point", lens="orders", pause_seconds=0.02),
    Kind(name="page", lens="orders", rows=PAGE_ROWS, pause_seconds=0.05),
    Kind(name="slow", lens="slow"),
    Kind(name="export", lens="orders", rows=EXPORT_ROWS, is_export=True, pause_seconds=2.0),
    Kind(name="never", lens="orders_once", may_retry=False, pause_seconds=0.05),
    Kind(name="slow never", lens="slow_once", may_retry=False),
    Kind(name="trickle", lens="trickle", rows=TRICKLE_ROWS),
)


def total_of(id: int) -> str:
    """What the database holds for this id, as JSON shows it."""
    return f"{id * 5 // 4}.{id * 5 % 4 * 25:02d}"


def judge(kind: Kind, first: int, answer: Answer, sent_at: float) -> Call:
    """What the caller got, against what it should have got."""
    call = Call(
        id=answer.headers.get("x-request-id", ""),
        kind=kind.name,
        may_retry=kind.may_retry,
        timeout_seconds=3600.0 if kind.is_export else 30.0,
        sent_at=sent_at,
        ended_at=time.time(),
        status=answer.status,
        code=answer.why,
        is_cut=answer.is_cut,
        rows_wanted=kind.rows,
    )
    if answer.status != 200:
        return call if answer.status == 0 else dataclasses.replace(call, code=_code(answer.body))
    if answer.is_cut:
        return dataclasses.replace(call, code="", rows=answer.body.count(b"\n"))
    try:
        rows, has_end = _rows(kind, answer.body)
        is_right = [(row["id"], row["total"]) for row in rows] == _truth(first, kind.rows)
        backends = tuple({row["backend"] for row in rows})
    except (msgspec.DecodeError, KeyError, TypeError):
        return dataclasses.replace(call, is_right=False)
    return dataclasses.replace(
        call, has_end=has_end, rows=len(rows), is_right=is_right, backends=backends, code=answer.why
    )


def _rows(kind: Kind, body: bytes) -> tuple[list[dict[str, Any]], bool]:
    if not kind.is_export:
        return list(msgspec.json.decode(body)["rows"]), True
    lines = msgspec.json.Decoder().decode_lines(body)
    has_end = bool(lines) and lines[-1] == {"$end": {"rows": len(lines) - 1}}
    return (lines[:-1] if has_end else lines), has_end


_TRUTHS: Final[dict[tuple[int, int], list[tuple[int, str]]]] = {}


def _truth(first: int, count: int) -> list[tuple[int, str]]:
    if count < EXPORT_ROWS:
        return [(id, total_of(id)) for id in range(first, first + count)]
    if (first, count) not in _TRUTHS:
        _TRUTHS[first, count] = [(id, total_of(id)) for id in range(1, count + 1)]
    return _TRUTHS[first, count]


def _code(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "no error document"


class Callers:
    """So many callers of each kind, each asking one thing after the other until told to stop."""

    def __init__(self, port: int, key: str, note: Callable[[Call], None], *, seed: int = 0) -> None:
        self._http = LeanCaller("127.0.0.1", port, key)
        self._note = note
        self._random = random.Random(seed)
        self._is_over = False
        self.asked: Counter[str] = Counter()

    def stop(self) -> None:
        """Ask nothing more; what was asked is waited for. From any thread."""
        self._is_over = True

    async def run(self, shares: Sequence[tuple[Kind, int]]) -> None:
        """Ask until `stop`."""
        async with asyncio.TaskGroup() as group:
            for kind, count in shares:
                for _ in range(count):
                    group.create_task(self._ask_for_ever(kind))
        self._http.close()

    async def ask(self, kind: Kind) -> Call:
        """Ask once, and once more for each connection that was cut before an answer: a reader repeats that."""
        first = 1 if kind.is_export else self._random.randrange(1, ROWS)
        patience = 120.0 if kind.is_export else 31.0 + _CALLER_PATIENCE_SECONDS
        sent_at = time.time()
        answer = await self._http.post(
            f"/v1/query/{kind.lens}{'/export' if kind.is_export else ''}",
            kind.body(first),
            accept=_EXPORT if kind.is_export else "application/json",
            seconds=patience,
        )
        call = judge(kind, first, answer, sent_at)
        self.asked[kind.name] += 1
        self._note(call)
        return call

    async def _ask_for_ever(self, kind: Kind) -> None:
        while not self._is_over:
            call = await self.ask(kind)
            pause = kind.pause_seconds if call.status else 0.1
            if pause:
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
