"""The ports of the catalog's readers and writers. The store implements them, and the fakes too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lensway.catalog.records import AnyRecord, Change, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, KeyId, RunnerId, SignInId, SourceId


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which object, from where, with what outcome. ``count`` above 1: repetitions from ``at`` to ``until``."""

    at: str
    environment: EnvironmentId | None
    actor: str
    action: str
    object: str
    address: str
    outcome: str
    request_id: str
    details: Mapping[str, Any] = {}
    count: int = 1
    until: str = ""


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with its number, and the value of the chain up to it in hexadecimal digits."""

    sequence: int
    chain: str
    entry: AuditEntry


class Sighting(msgspec.Struct, frozen=True):
    """When (RFC 3339) and how a runner was last seen."""

    runner: Runner
    at: str
    cause: str


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in to the Console. ``hash`` is that of its cookie; ``environment`` None: by an instance-wide key."""

    id: SignInId
    key: KeyId
    environment: EnvironmentId | None
    hash: bytes
    role: str
    address: str
    created_at: str
    used_at: str
    expires_at: str


class SnapshotSource(Protocol):
    """The present state for readers: in memory, immutable, never a call to a store."""

    def current(self) -> Snapshot:
        """The newest snapshot of this node."""


class ChangeFeed(Protocol):
    """Told after every change is durable and the snapshot has it."""

    def subscribe(self, listener: Callable[[Snapshot, Sequence[Change]], None]) -> Callable[[], None]:
        """Call ``listener`` synchronously after each commit; gives back the function that ends it. A listener must not raise
        and must not block."""


Decide = Callable[[Snapshot], tuple[Sequence[Change], AuditEntry | None]]
"""A pure decision on the snapshot that will be changed; may raise LenswayError to change nothing. Every change has its entry."""


class CatalogStore(SnapshotSource, ChangeFeed, Protocol):
    """Durable keeper of the catalog. One writer at a time; a decision always sees the state it changes."""

    def commit(self, decide: Decide) -> Awaitable[Snapshot]:
        """Decide on the newest snapshot, write changes, revision and audit row in one transaction, publish the new snapshot,
        tell the subscribers, return it. A decision without changes writes its audit entry, if it has one, and bumps nothing."""

    def source_config(self, environment: EnvironmentId, source: SourceId) -> bytes | None:
        """The decrypted config (JSON) of a managed source, or None. Kept in memory; cheap."""

    def audit(
        self,
        environment: EnvironmentId | None,
        *,
        limit: int,
        before: int | None = None,
        with_instance_wide: bool = False,
    ) -> Awaitable[Sequence[tuple[int, AuditEntry]]]:
        """The newest audit entries first, with their sequence numbers; ``environment`` None is every environment. Those of the
        whole deployment come with one environment's only when ``with_instance_wide`` is set."""

    def record_audit(self, entry: AuditEntry) -> Awaitable[None]:
        """Write an audit entry of its own."""

    def record_audits(self, entries: Sequence[AuditEntry]) -> Awaitable[None]:
        """Write audit entries of their own, in this order, in one transaction."""

    def audit_rows(self, *, after: int, limit: int) -> Awaitable[Sequence[AuditRow]]:
        """Entries of every environment behind ``after``, the oldest first, with their chain."""

    def prune_audit(self, before: str) -> Awaitable[tuple[int, int]]:
        """Delete the oldest rows if they are older than this moment, a thousand at most. How many went, and the last of them."""

    def key_uses(self) -> Mapping[KeyId, str]:
        """When each key was last used (RFC 3339), as far as it was noted. Kept in memory; cheap."""

    def note_key_uses(self, uses: Mapping[KeyId, str]) -> Awaitable[None]:
        """Keep when keys were last used, in one transaction; keys that are gone meanwhile are left out."""


class SignInStore(Protocol):
    """Keeps sign-ins to the Console, over restarts."""

    def sign_ins(self) -> Mapping[bytes, SignIn]:
        """Every sign-in that was not ended, by the hash of its cookie. Kept in memory; cheap."""

    def write_sign_ins(self, *, put: Sequence[SignIn] = (), ended: Sequence[SignIn] = ()) -> Awaitable[None]:
        """Write new ones and forget ended ones, in one transaction."""

    def note_sign_in(self, sign_in: SignIn, used_at: str) -> Awaitable[None]:
        """Keep when it was last used, unless it was ended meanwhile."""


class SightingKeeper(SnapshotSource, Protocol):
    """Remembers when runners were last seen, over restarts."""

    def note_sightings(self, sightings: Sequence[Sighting]) -> Awaitable[None]:
        """Remember these; a newer sighting of a runner replaces the older one."""

    def sightings(self) -> Awaitable[Mapping[RunnerId, tuple[str, str]]]:
        """When each runner was seen last (RFC 3339), and why it was lost then."""


__all__ = [
    "AnyRecord",
    "AuditEntry",
    "AuditRow",
    "CatalogStore",
    "ChangeFeed",
    "Decide",
    "Sighting",
    "SightingKeeper",
    "SignIn",
    "SignInStore",
    "SnapshotSource",
]
