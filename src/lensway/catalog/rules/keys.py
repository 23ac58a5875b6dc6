"""API keys come and go. Minting and hashing are not decided here: the hash comes as an argument."""

from __future__ import annotations

from collections.abc import Sequence

from lensway.catalog.names import conflict, invalid
from lensway.catalog.reading import described
from lensway.catalog.records import Change, Key, KeyKind, KeyLimits, Put, Remove, Role
from lensway.catalog.rules.lookup import require_environment, require_key
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, KeyId
from lensway.limits import NAME_CHARACTERS_MAX


def create_key(
    snapshot: Snapshot,
    environment: EnvironmentId | None,
    name: object,
    *,
    kind: KeyKind,
    role: Role | None = None,
    limits: KeyLimits = KeyLimits(),  # noqa: B008 - an immutable value
    id: KeyId,
    hash: bytes,
    at: str,
) -> Sequence[Change]:
    """A new key. ``environment`` None makes an instance-wide admin key. Names are labels, they need not be unique.

    Raises:
        LenswayError: INVALID_REQUEST for a role on a key that has none, or a service key without environment; NOT_FOUND.
    """
    if environment is not None:
        require_environment(snapshot, environment)
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        shape = described(name) if not isinstance(name, str) else "this text"
        raise invalid("name", f"{shape} cannot name a key", hint=f"1 to {NAME_CHARACTERS_MAX} printable characters.")
    if kind is not KeyKind.ADMIN:
        if role is not None:
            raise invalid("role", f"only admin keys have a role, not {kind.value} keys")
        if environment is None:
            raise invalid("kind", f"{kind.value} keys belong to one environment")
    elif role is None:
        role = Role.ADMIN
    assert snapshot.key_by_hash(hash) is None, "256 random bits do not repeat"
    key = Key(id=id, environment=environment, kind=kind, name=name, hash=hash, role=role, limits=limits, created_at=at)
    return [Put(record=key)]


def delete_key(snapshot: Snapshot, environment: EnvironmentId | None, key: str) -> Sequence[Change]:
    """The key opens nothing any more.

    Raises:
        LenswayError: NOT_FOUND, or CONFLICT for the last instance-wide admin key: nobody could make another one.
    """
    found = require_key(snapshot, environment, key)
    if _is_master(found) and not any(_is_master(other) for other in snapshot.keys(None) if other.id != found.id):
        raise conflict(
            f"The key {found.name!r} is the last one that may administer this deployment",
            hint="Create another instance-wide admin key first.",
        )
    return [Remove(record=found)]


def _is_master(key: Key) -> bool:
    return key.environment is None and key.kind is KeyKind.ADMIN and key.role is Role.ADMIN
