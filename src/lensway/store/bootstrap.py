"""The data directory: who may use it, the master key, and the first admin key."""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import pathlib
import secrets
from typing import IO

from lensway.auth import tokens
from lensway.auth.secret import Secret
from lensway.catalog import rules
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.catalog.records import KeyKind, Role
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_key_id

_MASTER_KEY_BYTES = 32
_GENERATION_BEFORE_FIRST = 1023
"""Session ids of data directories without a stored generation were milliseconds of the clock; all of these are smaller."""


class DataDirectory:
    """One server's directory, locked for as long as it is open."""

    def __init__(self, path: pathlib.Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: pathlib.Path) -> DataDirectory:
        """The directory, made with mode 0700 when needed. Raises LenswayError CONFLICT while another server uses it."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (path / "lock").open("w")
        except OSError as error:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST, f"the data directory {path} cannot be used ({error.strerror})"
            ) from None
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

    @property
    def database(self) -> pathlib.Path:
        """The file of the store."""
        return self.path / "lensway.db"

    def master_key(self, given: str | None) -> bytes:
        """32 bytes: the given ones (base64), or the file's, which is made with mode 0600 on first use.

        Raises:
            LenswayError: INVALID_REQUEST for anything but 32 bytes.
        """
        if given is not None:
            return _decoded(given, "LENSWAY_MASTER_KEY")
        file = self.path / "master.key"
        if not file.exists():
            text = base64.b64encode(secrets.token_bytes(_MASTER_KEY_BYTES)).decode()
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(text + "\n")
                opened.flush()
                os.fsync(opened.fileno())
        return _decoded(file.read_text().strip(), str(file))

    def next_generation(self) -> int:
        """The number of this start, which only grows, whatever the wall clock says.

        Raises:
            LenswayError: INVALID_REQUEST when it cannot be kept.
        """
        file, draft = self.path / "generation", self.path / "generation.new"
        try:
            last = int(file.read_text())
        except (FileNotFoundError, ValueError):
            last = _GENERATION_BEFORE_FIRST
        generation = max(last, _GENERATION_BEFORE_FIRST) + 1
        try:
            with draft.open("w") as opened:
                opened.write(f"{generation}\n")
                opened.flush()
                os.fsync(opened.fileno())
            draft.replace(file)
        except OSError as error:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"the data directory {self.path} cannot be written ({error.strerror})",
                hint="Check its free space and its owner.",
            ) from None
        return generation

    def close(self) -> None:
        """Let another server use it."""
        self._lock.close()


async def first_admin_key(store: CatalogStore, given: Secret | None, clock: Clock) -> Secret | None:
    """Make sure that somebody can sign in.

    The given key is added when it is not known yet. Without one, and without any instance-wide admin key, one is made and
    returned: it is to be printed, once.
    """
    snapshot = store.current()
    if given is not None:
        if snapshot.key_by_hash(tokens.hash_token(given.reveal())) is None:
            await _add(store, given, clock)
        return None
    if any(key.kind is KeyKind.ADMIN and key.role is Role.ADMIN for key in snapshot.keys(None)):
        return None
    minted = tokens.mint("ak")
    await _add(store, minted, clock)
    return minted


async def _add(store: CatalogStore, key: Secret, clock: Clock) -> None:
    id, at = new_key_id(), clock.wall().isoformat(timespec="milliseconds")
    hashed = tokens.hash_token(key.reveal())
    entry = AuditEntry(
        at=at,
        environment=None,
        actor="server",
        action="key.create",
        object=id,
        address="",
        outcome="ok",
        request_id="",
        details={"kind": "ak", "reason": "first start"},
    )
    await store.commit(
        lambda snapshot: (
            rules.create_key(
                snapshot, None, "first admin key", kind=KeyKind.ADMIN, role=Role.ADMIN, id=id, hash=hashed, at=at
            ),
            entry,
        )
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
