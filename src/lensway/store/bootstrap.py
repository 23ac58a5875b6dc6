"""The data directory: who may use it, the master key, the first admin key, and a new one for administrators without a key."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import pathlib
import secrets
import shlex
import stat
from collections.abc import Mapping
from typing import IO, Any, Final

from lensway.auth import tokens
from lensway.auth.secret import Secret
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.catalog.records import KeyKind, Role
from lensway.catalog.snapshot import Snapshot
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_key_id

_MASTER_KEY_BYTES: Final = 32
_DATABASE: Final = "lensway.db"
_MASTER_KEY: Final = "master.key"
_GENERATION_BEFORE_FIRST: Final = 1023
"""Session ids of data directories without a stored generation were milliseconds of the clock; all of these are smaller."""


class DataDirectory:
    """One server's directory, locked for as long as it is open."""

    def __init__(self, path: pathlib.Path, lock: IO[str] | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: pathlib.Path) -> DataDirectory:
        """The directory, made with mode 0700 when needed.

        Raises:
            LenswayError: CONFLICT while another process uses it, INVALID_REQUEST when other users could read or replace what
                is in it, or it cannot be used.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_modes(path)
            lock = os.fdopen(os.open(path / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w")
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise LenswayError(
                ErrorCode.CONFLICT,
                f"another server uses the data directory {path}",
                hint="Stop it, or give this one another --data-dir.",
            ) from None
        return cls(path, lock)

    @classmethod
    def open_present(cls, path: pathlib.Path) -> DataDirectory:
        """The directory of a deployment that exists already; none is made. Raises LenswayError as `open`."""
        database_in(path)
        return cls.open(path)

    @classmethod
    def unlocked(cls, path: pathlib.Path) -> DataDirectory:
        """The directory to look at, whether a server uses it or not."""
        return cls(path, None)

    @staticmethod
    def check(path: pathlib.Path) -> None:
        """Raises LenswayError INVALID_REQUEST when other users could read or replace what is in it, or it cannot be used."""
        try:
            _check_modes(path)
        except OSError as error:
            raise _unusable(path, error) from None
        if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"{path} is not a directory that this user can write to",
                hint="Check the owner and the permissions, or choose another --data-dir.",
            )

    @property
    def database(self) -> pathlib.Path:
        """The file of the store."""
        return self.path / _DATABASE

    def master_key(self, given: str | None, *, may_create: bool = True) -> bytes:
        """32 bytes: the given ones (base64), or the file's, which is made with mode 0600 on first use.

        Raises:
            LenswayError: INVALID_REQUEST for anything but 32 bytes, or when the file cannot be read or written.
        """
        if given is not None:
            return _decoded(given, "LENSWAY_MASTER_KEY")
        file = self.path / _MASTER_KEY
        try:
            text = file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else ""
            if not text and may_create and not _has_content(self.database):
                # Nothing was encrypted with a key that a full disk kept from being written.
                text = base64.b64encode(secrets.token_bytes(_MASTER_KEY_BYTES)).decode()
                _write_whole(file, text + "\n")
        except OSError as error:
            raise _unusable(file, error) from None
        if not text:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"{file} is missing or empty, and {self.database} was written with a master key",
                hint="Restore the file from a backup, or set LENSWAY_MASTER_KEY.",
            )
        return _decoded(text, str(file))

    @staticmethod
    def previous_keys(given: str | None) -> tuple[bytes, ...]:
        """The master keys of before, which still decrypt: 32 bytes in base64 each, separated by commas or spaces.

        Raises:
            LenswayError: INVALID_REQUEST for anything but 32 bytes.
        """
        texts = (given or "").replace(",", " ").split()
        return tuple(_decoded(text, "LENSWAY_MASTER_KEY_PREVIOUS") for text in texts)

    def next_generation(self) -> int:
        """The number of this start, which only grows and never depends on the wall clock.

        Raises:
            LenswayError: INVALID_REQUEST when it cannot be kept.
        """
        file = self.path / "generation"
        try:
            last = int(file.read_text())
        except (FileNotFoundError, ValueError):
            last = _GENERATION_BEFORE_FIRST
        generation = max(last, _GENERATION_BEFORE_FIRST) + 1
        try:
            _write_whole(file, f"{generation}\n")
        except OSError as error:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"the data directory {self.path} cannot be written ({error.strerror})",
                hint="Check its free space and its owner.",
            ) from None
        return generation

    def close(self) -> None:
        """Let another server use it."""
        if self._lock is not None:
            self._lock.close()


def check_master_keys(given: str | None, previous: str | None) -> None:
    """Refuse variables that hold no master keys, before anything is opened. Raises LenswayError INVALID_REQUEST."""
    if given is not None:
        _decoded(given, "LENSWAY_MASTER_KEY")
    DataDirectory.previous_keys(previous)


def database_in(path: pathlib.Path) -> pathlib.Path:
    """The store in the data directory of a server. Raises LenswayError INVALID_REQUEST for a directory without one."""
    file = path / _DATABASE
    if not file.is_file():
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{path} is not the data directory of a server: it has no {_DATABASE}",
            hint="Name the directory that the server was started with: --data-dir DIR.",
        )
    return file


def _check_modes(path: pathlib.Path) -> None:
    """Refuse a directory that other users can write to, and files in it that they can read.

    A volume that an orchestrator gives to a group is marked by the set-group-ID bit of its directory, and its files may be
    shared with that group.
    """
    found = path.stat()
    is_shared_volume = bool(found.st_mode & stat.S_ISGID)
    foreign = stat.S_IWOTH if is_shared_volume else stat.S_IWOTH | stat.S_IWGRP
    if found.st_mode & foreign:
        raise _too_open(path, found.st_mode, "other users can replace its files", ("700", path))
    if os.geteuid() not in (0, found.st_uid) and found.st_uid != 0:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the data directory {path} belongs to another user",
            hint="Run as its owner, or give this server another --data-dir.",
        )
    private = stat.S_IRWXO if is_shared_volume else stat.S_IRWXO | stat.S_IRWXG
    for name in (_MASTER_KEY, _DATABASE, f"{_DATABASE}-wal"):
        file = path / name
        with contextlib.suppress(FileNotFoundError):
            if (mode := file.stat().st_mode) & private:
                raise _too_open(file, mode, "other users can read it", ("600", file))


def _too_open(path: pathlib.Path, mode: int, why: str, chmod: tuple[str, pathlib.Path]) -> LenswayError:
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path} has mode {stat.S_IMODE(mode):04o}: {why}",
        hint=f"chmod {chmod[0]} {shlex.quote(str(chmod[1]))}",
    )


def _unusable(path: pathlib.Path, error: OSError) -> LenswayError:
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path} cannot be used ({(error.strerror or type(error).__name__).lower()})",
        hint="Check the free space, the owner and the permissions, or choose another --data-dir.",
    )


def _has_content(path: pathlib.Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _write_whole(path: pathlib.Path, text: str) -> None:
    """Write the file completely or not at all, whenever the disk fills up or the power goes."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def first_admin_key(store: CatalogStore, given: Secret | None, clock: Clock) -> Secret | None:
    """Make sure that an admin key exists.

    The given key is added when it is not known yet. A deleted one stays deleted, and the attempt is audited. Without a given
    key, and without any instance-wide admin key, one is made and returned: it is to be printed, once.
    """
    snapshot = store.current()
    if given is not None:
        hashed = tokens.hash_token(given.reveal())
        if (retired := snapshot.retired_key(hashed)) is not None:
            at = moment_text(clock.wall())
            details = {"reason": "LENSWAY_ADMIN_KEY holds a deleted key"}
            await store.record_audit(_entry(at, "server", "key.create", retired.id, details, outcome="conflict"))
        elif snapshot.key_by_hash(hashed) is None:
            await _add(store, given, clock, name="first admin key", actor="server", reason="first start")
        return None
    if any(key.kind is KeyKind.ADMIN and key.role is Role.ADMIN for key in snapshot.keys(None)):
        return None
    minted = tokens.mint("ak")
    await _add(store, minted, clock, name="first admin key", actor="server", reason="first start")
    return minted


def admin_key_notice(snapshot: Snapshot, given: Secret | None, clock: Clock) -> str | None:
    """One line that says why the given key, or every key, does not administer this deployment, and what to do; or None."""
    at = moment_text(clock.wall())
    is_locked = not any(rules.can_administer(key, at=at) for key in snapshot.keys(None))
    remedy = "run `lensway keys recover` on this machine while the server is stopped"
    if given is not None:
        hashed = tokens.hash_token(given.reveal())
        key, retired = snapshot.key_by_hash(hashed), snapshot.retired_key(hashed)
        otherwise = f"to get a new key, {remedy}" if is_locked else f"without another admin key, {remedy}"
        if retired is not None:
            return (
                f"LENSWAY_ADMIN_KEY holds a key that was deleted on {retired.retired_at[:10]}. It opens nothing: unset it, "
                f"or set a new one; {otherwise}."
            )
        if key is not None and rules.has_expired(key, at=at):
            return f"LENSWAY_ADMIN_KEY holds a key that expired at {key.expires_at}. Set a new one; {otherwise}."
        if key is not None and not rules.can_administer(key, at=at):
            return (
                f"LENSWAY_ADMIN_KEY holds the key {key.name!r}, not an instance-wide admin key. Set one; {otherwise}."
            )
    return f"No valid admin key is left: {remedy}." if is_locked else None


async def recover_admin_key(store: CatalogStore, clock: Clock, *, by: str) -> Secret:
    """A new instance-wide admin key for those who can write to the data directory; audited as a local recovery."""
    minted = tokens.mint("ak")
    await _add(
        store, minted, clock, name="recovery key", actor="local recovery", reason=f"lensway keys recover, run by {by}"
    )
    return minted


async def note_restore(store: CatalogStore, clock: Clock, *, by: str) -> None:
    """Audit that the store is a backup that was put back."""
    at = moment_text(clock.wall())
    reason = {"reason": f"lensway restore, run by {by}", "revision": store.current().revision}
    await store.record_audit(_entry(at, "local restore", "store.restore", "store", reason))


async def _add(store: CatalogStore, key: Secret, clock: Clock, *, name: str, actor: str, reason: str) -> None:
    id, at = new_key_id(), moment_text(clock.wall())
    hashed = tokens.hash_token(key.reveal())
    entry = _entry(at, actor, "key.create", id, {"kind": "ak", "reason": reason})
    await store.commit(
        lambda snapshot: (
            rules.create_key(snapshot, None, name, kind=KeyKind.ADMIN, role=Role.ADMIN, id=id, hash=hashed, at=at),
            entry,
        )
    )


def _entry(
    at: str, actor: str, action: str, object: str, details: Mapping[str, Any], *, outcome: str = "ok"
) -> AuditEntry:
    return AuditEntry(
        at=at,
        environment=None,
        actor=actor,
        action=action,
        object=object,
        address="",
        outcome=outcome,
        request_id="",
        details=details,
    )


def _decoded(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _MASTER_KEY_BYTES:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{where} does not hold {_MASTER_KEY_BYTES} bytes in base64",
            hint="Make one with `openssl rand -base64 32`.",
        )
    return key
