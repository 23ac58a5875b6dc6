"""The audit in SQL: rows with their chain, where it begins, and the rows that are old enough to go. For the store's worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from lensway.auth import chain
from lensway.catalog.ports import AuditEntry, AuditRow
from lensway.store import tables as t

_BATCH_ROWS: Final = 1_000


def found(connection: Connection, key: bytes) -> None:
    """Begin the keyed chain behind the rows that are there, once."""
    if connection.execute(select(t.deployment.c.audit_anchor)).scalar() is None:
        last = connection.execute(select(func.max(t.audit.c.sequence))).scalar() or 0
        _put_anchor(connection, chain.anchored(key, sequence=0, chain=chain.GENESIS, keyed_from=last + 1))


def append(connection: Connection, key: bytes, entry: AuditEntry) -> None:
    """Write the entry, chained to the one before."""
    last = connection.execute(
        select(t.audit.c.sequence, t.audit.c.chain).order_by(t.audit.c.sequence.desc()).limit(1)
    ).first()
    if last is None:
        anchor = _anchor(connection)
        sequence, before = (0, chain.GENESIS) if anchor is None else (anchor.sequence, bytes.fromhex(anchor.chain))
    else:
        sequence, before = last.sequence, last.chain
    text = msgspec.json.encode(entry, order="deterministic").decode()
    connection.execute(
        insert(t.audit).values(
            sequence=sequence + 1,
            environment=entry.environment or t.INSTANCE_WIDE,
            entry=text,
            chain=chain.link(key, before, text),
        )
    )


def newest(
    connection: Connection, environments: Sequence[str] | None, limit: int, before: int | None
) -> Sequence[tuple[int, AuditEntry]]:
    """The newest entries first, with their sequence numbers."""
    query = select(t.audit.c.sequence, t.audit.c.entry).order_by(t.audit.c.sequence.desc()).limit(limit)
    if environments is not None:
        query = query.where(t.audit.c.environment.in_(environments))
    if before is not None:
        query = query.where(t.audit.c.sequence < before)
    return [(row.sequence, _entry_of(row.entry)) for row in connection.execute(query)]


def rows(connection: Connection, after: int, limit: int) -> Sequence[AuditRow]:
    """Rows behind ``after``, the oldest first."""
    query = select(t.audit).where(t.audit.c.sequence > after).order_by(t.audit.c.sequence).limit(limit)
    return [
        AuditRow(sequence=row.sequence, chain=row.chain.hex(), entry=_entry_of(row.entry))
        for row in connection.execute(query)
    ]


def verifier(connection: Connection, key: bytes, known: chain.Head | None) -> chain.Verifier:
    """A verification that has seen no row yet."""
    return chain.Verifier(key, _anchor(connection), known)


def verify_more(connection: Connection, found: chain.Verifier) -> bool:
    """Feed the next rows; False after the last one. In steps, so that a long audit delays no write."""
    rows = connection.execute(
        select(t.audit).where(t.audit.c.sequence > found.after).order_by(t.audit.c.sequence).limit(_BATCH_ROWS)
    ).all()
    for row in rows:
        found.feed(row.sequence, row.entry, row.chain)
    return len(rows) == _BATCH_ROWS and not found.is_broken


def prune(connection: Connection, key: bytes, before: str) -> tuple[int, int]:
    """Delete the oldest rows if they are older than this moment, a thousand at most. How many went, and the last of them."""
    anchor = _anchor(connection)
    if anchor is None:
        return 0, 0
    went, last = 0, None
    for row in connection.execute(select(t.audit).order_by(t.audit.c.sequence).limit(_BATCH_ROWS)):
        if _entry_of(row.entry).at >= before:
            break
        went, last = went + 1, row
    if last is None:
        return 0, 0
    new = chain.anchored(key, sequence=last.sequence, chain=last.chain, keyed_from=anchor.keyed_from)
    connection.execute(delete(t.audit).where(t.audit.c.sequence <= last.sequence))
    _put_anchor(connection, new)
    return went, last.sequence


def _anchor(connection: Connection) -> chain.Anchor | None:
    text = connection.execute(select(t.deployment.c.audit_anchor)).scalar()
    try:
        return None if text is None else msgspec.json.decode(text, type=chain.Anchor)
    except msgspec.MsgspecError:
        return None


def _put_anchor(connection: Connection, anchor: chain.Anchor) -> None:
    connection.execute(update(t.deployment).values(audit_anchor=msgspec.json.encode(anchor).decode()))


def _entry_of(text: str) -> AuditEntry:
    return msgspec.json.decode(text, type=AuditEntry)
