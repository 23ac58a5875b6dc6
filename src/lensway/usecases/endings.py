"""What ends with a key: its queries, streams, tests and watches, within a second of its deletion or expiry.

Requests are checked once for each connection, and again when `KeyEndings.epoch` has moved: when a key expires, and once a minute
while keys are used, which is also how the last use of each is noted without work for every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Callable, Coroutine, Iterator, Sequence

import structlog

from lensway import limits
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.catalog.records import Change, Environment, Key, Put
from lensway.catalog.snapshot import Snapshot
from lensway.clock import Clock
from lensway.dispatch.core.failures import key_ended
from lensway.dispatch.shell import Dispatcher
from lensway.errors import LenswayError
from lensway.ids import KeyId
from lensway.usecases.tally import Note

_log = structlog.get_logger("lensway.keys")


class KeyEndings:
    """Ends the work of keys that are deleted or expire, and of environments that are deleted. One per node."""

    def __init__(self, store: CatalogStore, dispatcher: Dispatcher, clock: Clock, note: Note) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._note_entry = note
        self.epoch = 0
        """Moves when a key expired; caches of authenticated keys ask again then."""
        self._calls: dict[str, dict[object, Callable[[], None]]] = {}
        self._expired: set[KeyId] = set()
        self._used: dict[KeyId, str] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._noting: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._forget = store.subscribe(self._on_change)

    def start(self) -> None:
        """Watch over the keys that expire; from within the event loop."""
        at = self._now()
        # They expired before this start: their end is nothing new.
        self._expired = {key.id for key in self._store.current().all_keys() if rules.has_expired(key, at=at)}
        self._look()

    async def close(self) -> None:
        """Write what was noted; no timer outlives this."""
        self._forget()
        for timer in (self._expiry, self._noting):
            if timer is not None:
                timer.cancel()
        await self._write()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def watched(self, call: Callable[[], None], *owners: str) -> Iterator[None]:
        """Within the block, ``call`` is called as soon as one of these keys or environments ends. It must not raise."""
        token = object()
        for owner in owners:
            self._calls.setdefault(owner, {})[token] = call
        try:
            yield
        finally:
            for owner in owners:
                calls = self._calls.get(owner, {})
                calls.pop(token, None)
                if not calls:
                    self._calls.pop(owner, None)

    def is_good(self, key: KeyId) -> bool:
        """True while the key exists and has not expired."""
        found = self._store.current().key(key)
        return found is not None and not rules.has_expired(found, at=self._now())

    def require_good(self, caller: Caller) -> None:
        """Raises LenswayError UNAUTHENTICATED when the caller's key has ended since it was authenticated."""
        if not self.is_good(caller.identity.key):
            raise LenswayError.of(key_ended())

    def used(self, key: KeyId) -> None:
        """Note that a key was used. Called once for each connection, and again after `epoch` has moved."""
        self._used[key] = self._now()
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(limits.KEY_USE_SECONDS, self._note)

    def last_use(self, key: KeyId) -> str | None:
        """When the key was last used, to a minute or so."""
        return self._used.get(key) or self._store.key_uses().get(key)

    # --- endings ------------------------------------------------------------------------------------------------------------

    def _on_change(self, _snapshot: Snapshot, changes: Sequence[Change]) -> None:
        keys = [change for change in changes if isinstance(change.record, (Key, Environment))]
        removed = frozenset(
            str(change.record.id)
            for change in keys
            if isinstance(change.record, (Key, Environment)) and not isinstance(change, Put)
        )
        if removed:
            self._end(removed)
        if keys:
            self._look()

    def _end(self, owners: frozenset[str]) -> None:
        self._dispatcher.end_owners(owners)
        for owner in owners:
            for call in list(self._calls.get(owner, {}).values()):
                call()

    def _look(self) -> None:
        """End what has expired, and come back at the next expiry. The wall clock may be set meanwhile, so that no timer waits for
        it longer than a while."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        at = self._now()
        keys = [key for key in self._store.current().all_keys() if key.expires_at is not None]
        self._expired &= {key.id for key in keys}
        ended = [key for key in keys if key.id not in self._expired and rules.has_expired(key, at=at)]
        if ended:
            self._expired.update(key.id for key in ended)
            self.epoch += 1
            self._end(frozenset(key.id for key in ended))
            self._audit(ended, at)
        due = min((key.expires_at for key in keys if key.id not in self._expired and key.expires_at), default=None)
        if due is not None:
            left = (datetime.datetime.fromisoformat(due) - self._clock.wall()).total_seconds()
            pause = min(max(left, 0.0) + limits.KEY_EXPIRY_SLACK_SECONDS, limits.KEY_EXPIRY_LOOK_SECONDS)
            self._expiry = asyncio.get_running_loop().call_later(pause, self._look)

    def _audit(self, keys: Sequence[Key], at: str) -> None:
        for key in keys:
            entry = AuditEntry(
                at=at,
                environment=key.environment,
                actor="server",
                action="key.expire",
                object=key.id,
                address="",
                outcome="ok",
                request_id="",
                details={"name": key.name, "expiresAt": key.expires_at},
            )
            self._note_entry(entry)

    # --- uses ---------------------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        self._noting = None
        self.epoch += 1
        self._begin(self._write(), "note uses of keys")

    async def _write(self) -> None:
        while self._used:
            batch = dict(list(self._used.items())[: limits.SIGHTINGS_PER_WRITE_MAX])
            try:
                await self._store.note_key_uses(batch)
            except LenswayError as error:
                _log.warning("uses of keys were not written", code=error.code.value)
                self._used.clear()
                return
            for key, at in batch.items():
                if self._used.get(key) == at:
                    del self._used[key]

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _now(self) -> str:
        return moment_text(self._clock.wall())
