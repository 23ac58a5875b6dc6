"""API keys: made once, shown once, deleted."""

from __future__ import annotations

from typing import Any

from lensway.auth import tokens
from lensway.auth.caller import Caller
from lensway.auth.decisions import require_instance_wide
from lensway.catalog import declaration, rules
from lensway.catalog.definitions import limits_document, read_key_limits
from lensway.catalog.moments import read_moment
from lensway.catalog.names import invalid
from lensway.catalog.origins import read_origins
from lensway.catalog.reading import Section
from lensway.catalog.records import Key, KeyKind, Role
from lensway.ids import EnvironmentId, new_key_id, new_lens_id, new_source_id
from lensway.usecases.desk import Desk

_MINTING = declaration.Minting(source_id=new_source_id, lens_id=new_lens_id)


class Keys:
    """API keys: made once, shown once, deleted."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def list(self, caller: Caller) -> dict[str, Any]:
        """The environment's keys; for an instance-wide key the instance-wide ones too."""
        snapshot = self._desk.snapshot()
        keys = list(snapshot.keys(caller.environment.id))
        if caller.identity.environment is None:
            keys += snapshot.keys(None)
        return {"keys": [self._answer(key) for key in keys]}

    async def create(self, caller: Caller, body: object) -> dict[str, Any]:
        """A new key, shown once. Raises LenswayError INVALID_REQUEST, FORBIDDEN for an instance-wide one."""
        section = Section(
            body, "", frozenset({"kind", "name", "role", "instanceWide", "limits", "expiresAt", "origins"})
        )
        kind = section.choice("kind", KeyKind)
        role = section.choice("role", Role) if section.get("role") is not None else None
        is_wide = section.flag("instanceWide", default=False)
        if is_wide:
            require_instance_wide(caller.identity)
            if kind is not KeyKind.ADMIN:
                raise invalid("instanceWide", "only admin keys can be instance-wide")
        environment: EnvironmentId | None = None if is_wide else caller.environment.id
        limits = read_key_limits(section.get("limits") if "limits" in section else {}, "limits")
        expires_at = None if section.get("expiresAt") is None else read_moment(section.get("expiresAt"), "expiresAt")
        origins = read_origins(section.get("origins"), "origins") if "origins" in section else ()
        minted = tokens.mint(kind.value)
        id, at, name = new_key_id(), self._desk.now_text(), section.required("name")
        hashed = tokens.hash_token(minted.reveal())
        changed = await self._desk.change(
            caller,
            "key.create",
            id,
            lambda snapshot: rules.create_key(
                snapshot,
                environment,
                name,
                kind=kind,
                role=role,
                limits=limits,
                expires_at=expires_at,
                origins=origins,
                id=id,
                hash=hashed,
                at=at,
            ),
            details={"kind": kind.value, "role": None if role is None else role.value, "instanceWide": is_wide}
            | ({"limits": given} if (given := limits_document(limits)) else {})
            | ({} if expires_at is None else {"expiresAt": expires_at})
            | ({"origins": list(origins)} if origins else {}),
        )
        self._desk.hub.publish(caller.environment.id, "key", {"key": id, "change": "created"})
        return self._answer(rules.require_key(changed.snapshot, environment, id)) | {"key": minted.reveal()}

    async def delete(self, caller: Caller, key: str) -> None:
        """The key opens nothing any more. Raises LenswayError NOT_FOUND, CONFLICT for the last master key."""
        snapshot = self._desk.snapshot()
        environment: EnvironmentId | None = caller.environment.id
        found = next((each for each in snapshot.keys(None) if each.id == key), None)
        if found is not None and caller.identity.environment is None:
            environment = None
        at = self._desk.now_text()
        await self._desk.change(
            caller, "key.delete", key, lambda snapshot: rules.delete_key(snapshot, environment, key, at=at)
        )
        self._desk.hub.publish(caller.environment.id, "key", {"key": key, "change": "deleted"})

    def _answer(self, key: Key) -> dict[str, Any]:
        environment = None if key.environment is None else self._desk.snapshot().environment(key.environment)
        answer: dict[str, Any] = {"id": key.id, "kind": key.kind.value, "name": key.name, "createdAt": key.created_at}
        if key.role is not None:
            answer["role"] = key.role.value
        if environment is not None:
            answer["environment"] = environment.name
        if given := limits_document(key.limits):
            answer["limits"] = given
        if key.expires_at is not None:
            answer["expiresAt"] = key.expires_at
        if key.origins:
            answer["origins"] = list(key.origins)
        if (used := self._desk.endings.last_use(key.id)) is not None:
            answer["lastUsedAt"] = used
        return answer
