"""API keys come and go. Minting and hashing are not decided here: the hash comes as an argument."""

from __future__ import annotations

from collections.abc import Sequence

from lensway.catalog.names import conflict, invalid
from lensway.catalog.reading import described
from lensway.catalog.records import Change, Key, KeyKind, KeyLimits, Put, Remove, RetiredKey, Role
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
    expires_at: str | None = None,
    origins: tuple[str, ...] = (),
    id: KeyId,
    hash: bytes,
    at: str,
) -> Sequence[Change]:
    """A new key. ``environment`` None makes an instance-wide admin key. Names are labels, they need not be unique.

    Raises:
        LenswayError: INVALID_REQUEST for a role or origins on a key that has none, a service key without environment, or an
            expiry in the past; CONFLICT for the text of a deleted key; NOT_FOUND.
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
    if origins and kind is not KeyKind.PUBLISHABLE:
        raise invalid(
            "origins",
            f"only publishable keys (pk) are for web pages, not {kind.value} keys",
            hint="Every visitor of a page can read its key. Use a pk key.",
        )
    if expires_at is not None and expires_at <= at:
        raise invalid("expiresAt", f"{expires_at} is in the past", hint="Choose a moment in the future.")
    if (retired := snapshot.retired_key(hash)) is not None:
        raise conflict(
            f"This key was deleted on {retired.retired_at[:10]} and stays deleted",
            hint="Choose another key, or let the server create one.",
        )
    assert snapshot.key_by_hash(hash) is None, "256 random bits do not repeat"
    key = Key(
        id=id,
        environment=environment,
        kind=kind,
        name=name,
        hash=hash,
        role=role,
        limits=limits,
        created_at=at,
        expires_at=expires_at,
        origins=origins,
    )
    return [Put(record=key)]


def delete_key(snapshot: Snapshot, environment: EnvironmentId | None, key: str, *, at: str) -> Sequence[Change]:
    """Delete the key for good: the text of an admin key is never accepted again.

    Raises:
        LenswayError: NOT_FOUND, or CONFLICT for the last valid instance-wide admin key, without which no other can be made.
    """
    found = require_key(snapshot, environment, key)
    if can_administer(found, at=at) and not any(
        can_administer(other, at=at) for other in snapshot.keys(None) if other.id != found.id
    ):
        raise conflict(
            f"The key {found.name!r} is the last key that may administer this deployment",
            hint="Create another instance-wide admin key first.",
        )
    changes: list[Change] = [Remove(record=found)]
    if found.kind is KeyKind.ADMIN:
        changes.append(
            Put(record=RetiredKey(id=found.id, environment=found.environment, hash=found.hash, retired_at=at))
        )
    return changes


def has_expired(key: Key, *, at: str) -> bool:
    """True from the moment at which the key expires; ``at`` is a moment of the catalog's form."""
    return key.expires_at is not None and key.expires_at <= at


def can_administer(key: Key, *, at: str) -> bool:
    """True for an instance-wide admin key with role admin that has not expired."""
    return (
        key.environment is None and key.kind is KeyKind.ADMIN and key.role is Role.ADMIN and not has_expired(key, at=at)
    )
