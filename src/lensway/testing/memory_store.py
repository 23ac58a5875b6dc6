"""A catalog store that keeps everything in memory: for tests of the rooms above the catalog's ports.

It passes the same conformance suite as the real store. Nothing survives it, nothing is encrypted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from lensway.catalog.ports import AuditEntry, AuditRow, Decide, SignIn
from lensway.catalog.records import AnyRecord, Change, Environment, Key, Put, Source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, KeyId, SourceId, new_environment_id

Listener = Callable[[Snapshot, Sequence[Change]], None]


class MemoryStore:
    """Implements `lensway.catalog.ports.CatalogStore`. Without ``records`` it holds the environment ``default`` alone."""

    def __init__(self, records: Iterable[AnyRecord] | None = None, *, revision: int = 1) -> None:
        if records is None:
            records = [Environment(id=new_environment_id(), name="default", created_at="2026-01-01T00:00:00Z")]
        self._snapshot = Snapshot.of(records, revision=revision)
        self._configs: dict[tuple[EnvironmentId, SourceId], bytes] = {}
        self._audit: list[AuditEntry] = []
        self._pruned = 0
        self._key_uses: dict[KeyId, str] = {}
        self._sign_ins: dict[bytes, SignIn] = {}
        self._listeners: dict[object, Listener] = {}
        self._writing = asyncio.Lock()

    def current(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshot

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` after each commit that changed something; gives back the function that ends it."""
        token = object()
        self._listeners[token] = listener
        return lambda: self._forget(token)

    async def commit(self, decide: Decide) -> Snapshot:
        """Decide on the newest snapshot, apply the changes, publish, tell the subscribers. Raises what ``decide`` raises."""
        async with self._writing:
            # A real store gives up the loop here; so do callers of the fake see the same interleavings.
            await asyncio.sleep(0)
            changes, entry = decide(self._snapshot)
            assert entry is not None or not changes, "every change is audited"
            if entry is not None:
                self._audit.append(entry)
            if not changes:
                return self._snapshot
            self._snapshot = self._snapshot.after(changes, revision=self._snapshot.revision + 1)
            for change in changes:
                self._keep_config(change)
                if isinstance(change.record, Key) and not isinstance(change, Put):
                    self._key_uses.pop(change.record.id, None)
            for listener in list(self._listeners.values()):
                listener(self._snapshot, changes)
            return self._snapshot

    def source_config(self, environment: EnvironmentId, source: SourceId) -> bytes | None:
        """The config of a managed source as it was committed, or None."""
        return self._configs.get((environment, source))

    async def audit(
        self,
        environment: EnvironmentId | None,
        *,
        limit: int,
        before: int | None = None,
        with_instance_wide: bool = False,
    ) -> Sequence[tuple[int, AuditEntry]]:
        """The newest entries first, with their sequence numbers."""
        wanted = (environment, None) if with_instance_wide else (environment,)
        numbered = [
            (number, entry)
            for number, entry in enumerate(self._audit, start=1)
            if (environment is None or entry.environment in wanted)
            and (before is None or number < before)
            and number > self._pruned
        ]
        return numbered[::-1][:limit]

    async def record_audit(self, entry: AuditEntry) -> None:
        """Keep an entry of its own."""
        self._audit.append(entry)

    async def record_audits(self, entries: Sequence[AuditEntry]) -> None:
        """Keep entries of their own, in this order."""
        self._audit.extend(entries)

    async def audit_rows(self, *, after: int, limit: int) -> Sequence[AuditRow]:
        """Entries behind ``after``, the oldest first; nothing is chained here."""
        numbered = [AuditRow(sequence=number, chain="", entry=each) for number, each in enumerate(self._audit, start=1)]
        return [row for row in numbered if row.sequence > max(after, self._pruned)][:limit]

    async def prune_audit(self, before: str) -> tuple[int, int]:
        """Forget the oldest entries if they are older than this moment."""
        first = self._pruned
        while self._pruned < len(self._audit) and self._audit[self._pruned].at < before:
            self._pruned += 1
        return self._pruned - first, self._pruned if self._pruned > first else 0

    def key_uses(self) -> Mapping[KeyId, str]:
        """When each key was last used, as far as it was noted."""
        return self._key_uses

    async def note_key_uses(self, uses: Mapping[KeyId, str]) -> None:
        """Keep when keys were last used; keys that are gone meanwhile are left out."""
        async with self._writing:
            await asyncio.sleep(0)
            self._key_uses.update({key: at for key, at in uses.items() if self._snapshot.key(key) is not None})

    def sign_ins(self) -> Mapping[bytes, SignIn]:
        """Every sign-in that was not ended, by the hash of its cookie."""
        return self._sign_ins

    async def write_sign_ins(self, *, put: Sequence[SignIn] = (), ended: Sequence[SignIn] = ()) -> None:
        """Keep new sign-ins and forget ended ones."""
        for each in ended:
            self._sign_ins.pop(each.hash, None)
        async with self._writing:
            await asyncio.sleep(0)
            self._sign_ins.update({each.hash: each for each in put})

    async def note_sign_in(self, sign_in: SignIn, used_at: str) -> None:
        """Keep when it was last used, unless it was ended meanwhile."""
        async with self._writing:
            await asyncio.sleep(0)
            if sign_in.hash in self._sign_ins:
                self._sign_ins[sign_in.hash] = msgspec.structs.replace(sign_in, used_at=used_at)

    def _keep_config(self, change: Change) -> None:
        record = change.record
        if not isinstance(record, Source):
            return
        if not isinstance(change, Put) or record.config_version == 0:
            self._configs.pop((record.environment, record.id), None)
        elif change.config is not None:
            self._configs[record.environment, record.id] = change.config

    def _forget(self, token: object) -> None:
        self._listeners.pop(token, None)
