"""The catalog's store on SQLite: one file, one writer, every change with its revision and its audit row in one transaction.

Reads never come here: the snapshot and the decrypted settings are kept in memory. A change is told to its maker and to the
subscribers only when it is durable (WAL, synchronous=FULL); killed at any point, the file holds what was acknowledged.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from lensway.auth import chain, sealing
from lensway.auth.derive import derive
from lensway.catalog.ports import AuditEntry, AuditRow, Decide, Sighting, SignIn
from lensway.catalog.records import Change, Environment, Key, Put, Source
from lensway.catalog.rules.environments import DEFAULT
from lensway.catalog.snapshot import Snapshot
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId, KeyId, RunnerId, SourceId, new_environment_id
from lensway.store import audit, mapping, migrate
from lensway.store import tables as t
from lensway.store.file_errors import unusable_file

Listener = Callable[[Snapshot, Sequence[Change]], None]
Result = TypeVar("Result")

_KEY_CHECK: Final = b"lensway"
_BUSY_MS: Final = 5_000


class SqliteStore:
    """Implements `lensway.catalog.ports.CatalogStore`."""

    def __init__(
        self,
        engine: Engine,
        worker: concurrent.futures.ThreadPoolExecutor,
        snapshot: Snapshot,
        configs: dict[tuple[EnvironmentId, SourceId], bytes],
        key: bytes,
        audit_key: bytes,
        key_uses: dict[KeyId, str],
        sign_ins: dict[bytes, SignIn],
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._snapshot = snapshot
        self._configs = configs
        self._key = key
        self._audit_key = audit_key
        self._key_uses = key_uses
        self._sign_ins = sign_ins
        self._listeners: dict[object, Listener] = {}
        self._writing = asyncio.Lock()
        self._pruning = asyncio.Lock()

    @classmethod
    def open(
        cls, path: pathlib.Path, *, master_key: bytes, clock: Clock, previous_keys: Sequence[bytes] = ()
    ) -> SqliteStore:
        """The store in this file, made and migrated when needed.

        What was encrypted with one of the previous keys is encrypted anew with the master key, all of it or nothing.

        Raises:
            LenswayError: CONFLICT for a database of a newer release, INVALID_REQUEST for another master key than its own, or a
                file that is locked, damaged, not writable or not a database.
        """
        worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            return worker.submit(cls._open, path, (master_key, *previous_keys), clock, worker).result()
        except BaseException:
            worker.shutdown()
            raise

    @classmethod
    def _open(
        cls, path: pathlib.Path, ring: Sequence[bytes], clock: Clock, worker: concurrent.futures.ThreadPoolExecutor
    ) -> SqliteStore:
        try:
            if not path.exists():
                path.touch(mode=0o600)
        except OSError as error:
            raise unusable_file(path, error) from None
        engine = _engine(path)
        key = derive(ring[0], "at-rest")
        try:
            migrate.upgrade(engine, path)
            with engine.begin() as connection:
                revision = _founded(connection, key, clock)
                master = _fitting(connection, ring)
                written_with = derive(master, "at-rest")
                audit_key = _audit_key(connection, master)
                audit.found(connection, audit_key)
                snapshot = Snapshot.of(list(mapping.load(connection)), revision=revision)
                configs = dict(_load_configs(connection, written_with))
                if master != ring[0]:
                    _encrypt_anew(connection, key, configs, audit_key)
                key_uses = mapping.load_key_uses(connection)
                sign_ins = mapping.load_sign_ins(connection)
        except (DBAPIError, sqlite3.Error) as error:
            engine.dispose()
            raise unusable_file(path, error) from None
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, worker, snapshot, configs, key, audit_key, key_uses, sign_ins)

    def current(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshot

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` after each commit that changed something; gives back the function that ends it."""
        token = object()
        self._listeners[token] = listener

        def forget() -> None:
            self._listeners.pop(token, None)

        return forget

    async def commit(self, decide: Decide) -> Snapshot:
        """Decide, write, publish. Raises what ``decide`` raises; then nothing is written.

        A caller that is cancelled meanwhile does not stop it: durable changes are published.
        """
        return await asyncio.shield(asyncio.ensure_future(self._commit(decide)))

    async def _commit(self, decide: Decide) -> Snapshot:
        async with self._writing:
            before = self._snapshot
            changes, entry = decide(before)
            assert entry is not None or not changes, "every change is audited"
            if entry is None:
                return before
            after = before
            if changes:
                after = before.after(changes, revision=before.revision + 1)
            await self._in_worker(lambda: self._write(changes, [entry], after.revision))
            if not changes:
                return before
            self._snapshot = after
            for change in changes:
                self._keep_config(change)
                if isinstance(change.record, Key) and not isinstance(change, Put):
                    self._key_uses.pop(change.record.id, None)
            for listener in list(self._listeners.values()):
                listener(after, changes)
            return after

    def source_config(self, environment: EnvironmentId, source: SourceId) -> bytes | None:
        """The decrypted settings of a managed source, or None."""
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
        wanted = None if environment is None else [environment, *([t.INSTANCE_WIDE] if with_instance_wide else [])]
        return await self._in_worker(
            lambda: self._with_connection(lambda each: audit.newest(each, wanted, limit, before))
        )

    async def record_audit(self, entry: AuditEntry) -> None:
        """Write an entry of its own."""
        await self.record_audits([entry])

    async def record_audits(self, entries: Sequence[AuditEntry]) -> None:
        """Write entries of their own, in this order, in one transaction."""
        async with self._writing:
            await self._in_worker(lambda: self._write((), entries, self._snapshot.revision))

    async def audit_rows(self, *, after: int, limit: int) -> Sequence[AuditRow]:
        """Entries of every environment behind ``after``, the oldest first, with their chain."""
        return await self._in_worker(lambda: self._with_connection(lambda each: audit.rows(each, after, limit)))

    async def verify_audit(self, known: chain.Head | None = None) -> chain.Verdict:
        """Whether every row of the audit is as it was written, and the chain passes through a head that was kept elsewhere."""
        async with self._pruning:
            found = await self._in_worker(
                lambda: self._with_connection(lambda each: audit.verifier(each, self._audit_key, known))
            )
            while await self._in_worker(lambda: self._with_connection(lambda each: audit.verify_more(each, found))):
                pass
            return found.verdict()

    async def prune_audit(self, before: str) -> tuple[int, int]:
        """Delete the oldest rows if they are older than this moment, a thousand at most. How many went, and the last of them."""
        async with self._pruning, self._writing:
            return await self._in_worker(
                lambda: self._with_connection(lambda each: audit.prune(each, self._audit_key, before))
            )

    async def note_sightings(self, sightings: Iterable[Sighting]) -> None:
        """Remember when and how runners were last seen, in one transaction; those that are gone meanwhile are forgotten.

        Raises:
            LenswayError: INTERNAL when the store cannot be written.
        """
        async with self._writing:
            known = [each for each in sightings if self._snapshot.runner_by_id(each.runner.id) is not None]
            if known:
                await self._in_worker(lambda: self._write_sightings(known))

    def key_uses(self) -> Mapping[KeyId, str]:
        """When each key was last used (RFC 3339), as far as it was noted."""
        return self._key_uses

    async def note_key_uses(self, uses: Mapping[KeyId, str]) -> None:
        """Keep when keys were last used, in one transaction; keys that are gone meanwhile are left out.

        Raises:
            LenswayError: INTERNAL when the store cannot be written.
        """
        async with self._writing:
            found = {key: at for id, at in uses.items() if (key := self._snapshot.key(id)) is not None}
            if found:
                await self._in_worker(lambda: self._write_key_uses(found))
                self._key_uses.update({key.id: at for key, at in found.items()})

    def sign_ins(self) -> Mapping[bytes, SignIn]:
        """Every sign-in that was not ended, by the hash of its cookie."""
        return self._sign_ins

    async def write_sign_ins(self, *, put: Sequence[SignIn] = (), ended: Sequence[SignIn] = ()) -> None:
        """Write new sign-ins and forget ended ones, in one transaction. Ended ones open nothing from this call on.

        Raises:
            LenswayError: INTERNAL when the store cannot be written.
        """
        for each in ended:
            self._sign_ins.pop(each.hash, None)
        async with self._writing:
            await self._in_worker(lambda: self._with_connection(lambda to: mapping.write_sign_ins(to, put, ended)))
            self._sign_ins.update({each.hash: each for each in put})

    async def note_sign_in(self, sign_in: SignIn, used_at: str) -> None:
        """Keep when it was last used, unless it was ended meanwhile. Raises LenswayError INTERNAL."""
        async with self._writing:
            if sign_in.hash in self._sign_ins:
                used = msgspec.structs.replace(sign_in, used_at=used_at)
                self._sign_ins[sign_in.hash] = used
                await self._in_worker(lambda: self._with_connection(lambda to: mapping.write_sign_ins(to, (used,), ())))

    async def sightings(self) -> dict[RunnerId, tuple[str, str]]:
        """When (RFC 3339) and how each runner was last seen, in the life of this deployment."""
        return await self._in_worker(self._read_sightings)

    def close(self) -> None:
        """Finish what is being written and close the file."""
        self._worker.submit(self._engine.dispose).result()
        self._worker.shutdown()

    # --- in the worker ------------------------------------------------------------------------------------------------------

    async def _in_worker(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except DBAPIError as error:
            raise LenswayError(
                ErrorCode.INTERNAL,
                "The metadata store cannot be written; nothing was changed",
                hint="Check the free space and the permissions of the data directory.",
                details={"class": type(error.orig).__name__},
            ) from None

    def _write(self, changes: Sequence[Change], entries: Sequence[AuditEntry], revision: int) -> None:
        with self._engine.begin() as connection:
            # Removals behind everything that is put: until then something may still point at what goes.
            for change in changes:
                if isinstance(change, Put):
                    mapping.put(connection, change.record)
                    self._write_config(connection, change)
            for change in changes:
                if not isinstance(change, Put):
                    mapping.remove(connection, change.record)
            if changes:
                connection.execute(update(t.deployment).values(revision=revision))
            for entry in entries:
                audit.append(connection, self._audit_key, entry)

    def _write_sightings(self, sightings: Sequence[Sighting]) -> None:
        with self._engine.begin() as connection:
            for each in sightings:
                mapping.put_sighting(connection, each.runner, each.at, each.cause)

    def _write_key_uses(self, uses: Mapping[Key, str]) -> None:
        with self._engine.begin() as connection:
            for key, at in uses.items():
                mapping.put_key_use(connection, key, at)

    def _read_sightings(self) -> dict[RunnerId, tuple[str, str]]:
        with self._engine.connect() as connection:
            return mapping.load_sightings(connection)

    def _write_config(self, connection: Connection, change: Put) -> None:
        record = change.record
        if not isinstance(record, Source) or (change.config is None and record.config_version):
            return
        key = (t.source_configs.c.environment == record.environment, t.source_configs.c.source == record.id)
        connection.execute(t.source_configs.delete().where(*key))
        if change.config is None:
            return
        sealed = sealing.encrypt_at_rest(
            change.config, self._key, environment=record.environment, source=record.id, version=record.config_version
        )
        connection.execute(
            insert(t.source_configs).values(
                environment=record.environment, source=record.id, version=record.config_version, sealed=sealed
            )
        )

    def _keep_config(self, change: Change) -> None:
        record = change.record
        if not isinstance(record, Source):
            return
        if not isinstance(change, Put) or record.config_version == 0:
            self._configs.pop((record.environment, record.id), None)
        elif change.config is not None:
            self._configs[record.environment, record.id] = change.config

    def _with_connection(self, work: Callable[[Connection], Result]) -> Result:
        with self._engine.begin() as connection:
            return work(connection)


def _engine(path: pathlib.Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": _BUSY_MS / 1000}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # We begin transactions ourselves: the driver's own way would leave DDL and reads outside of them.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _claims(of: str) -> dict[str, Any]:
    return {"environment": t.INSTANCE_WIDE, "source": of, "version": 1}


def _founded(connection: Connection, key: bytes, clock: Clock) -> int:
    """The revision; on first use the deployment is founded, with the environment ``default``."""
    revision: int | None = connection.execute(select(t.deployment.c.revision)).scalar()
    if revision is not None:
        return revision
    check = sealing.encrypt_at_rest(_KEY_CHECK, key, **_claims("key-check"))
    connection.execute(insert(t.deployment).values(environment=t.INSTANCE_WIDE, revision=1, key_check=check))
    at = clock.wall().isoformat(timespec="milliseconds")
    mapping.put(connection, Environment(id=new_environment_id(), name=DEFAULT, created_at=at))
    return 1


def _fitting(connection: Connection, ring: Sequence[bytes]) -> bytes:
    """The master key of the ring that this database was written with. Raises LenswayError INVALID_REQUEST when none is."""
    check = connection.execute(select(t.deployment.c.key_check)).scalar_one()
    for master in ring:
        with contextlib.suppress(LenswayError):
            sealing.decrypt_at_rest(check, derive(master, "at-rest"), **_claims("key-check"))
            return master
    raise LenswayError(
        ErrorCode.INVALID_REQUEST,
        "The master key is not the one that this data directory was written with",
        hint="Set LENSWAY_MASTER_KEY to the old one, or restore the master.key file. To rotate the key, name the old one in "
        "LENSWAY_MASTER_KEY_PREVIOUS.",
    )


def _audit_key(connection: Connection, master: bytes) -> bytes:
    """The key of the audit's chain: made from the first master key, and kept, so that a rotation does not end the chain."""
    key = derive(master, "at-rest")
    sealed = connection.execute(select(t.deployment.c.audit_key)).scalar()
    if sealed is not None:
        return sealing.decrypt_at_rest(sealed, key, **_claims("audit-key"))
    made = derive(master, "audit")
    sealed = sealing.encrypt_at_rest(made, key, **_claims("audit-key"))
    connection.execute(update(t.deployment).values(audit_key=sealed))
    return made


def _encrypt_anew(
    connection: Connection, key: bytes, configs: Mapping[tuple[EnvironmentId, SourceId], bytes], audit_key: bytes
) -> None:
    connection.execute(
        update(t.deployment).values(
            key_check=sealing.encrypt_at_rest(_KEY_CHECK, key, **_claims("key-check")),
            audit_key=sealing.encrypt_at_rest(audit_key, key, **_claims("audit-key")),
        )
    )
    for row in connection.execute(select(t.source_configs)).all():
        config = configs[EnvironmentId(row.environment), SourceId(row.source)]
        claims = {"environment": row.environment, "source": row.source, "version": row.version}
        where = (t.source_configs.c.environment == row.environment, t.source_configs.c.source == row.source)
        sealed = sealing.encrypt_at_rest(config, key, **claims)
        connection.execute(update(t.source_configs).where(*where).values(sealed=sealed))


def _load_configs(connection: Connection, key: bytes) -> Any:
    versions = {
        (row.environment, row.id): row.config_version
        for row in connection.execute(select(t.sources.c.environment, t.sources.c.id, t.sources.c.config_version))
    }
    for row in connection.execute(select(t.source_configs)):
        config = sealing.decrypt_at_rest(
            row.sealed,
            key,
            environment=row.environment,
            source=row.source,
            version=versions[row.environment, row.source],
        )
        yield (EnvironmentId(row.environment), SourceId(row.source)), config
