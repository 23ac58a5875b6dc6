"""Use cases of environments, keys, declarations and the audit."""

from __future__ import annotations

from typing import Any

from lensway import limits
from lensway.auth import tokens
from lensway.auth.caller import Caller
from lensway.auth.decisions import require_instance_wide
from lensway.catalog import declaration, rules
from lensway.catalog.definitions import limits_document, read_key_limits
from lensway.catalog.moments import read_moment
from lensway.catalog.names import invalid
from lensway.catalog.reading import Section
from lensway.catalog.records import Environment, Key, KeyKind, Role
from lensway.errors import LenswayError
from lensway.ids import EnvironmentId, new_environment_id, new_key_id, new_lens_id, new_source_id
from lensway.usecases.desk import Desk, warning_document
from lensway.usecases.sources import Sources

_MINTING = declaration.Minting(source_id=new_source_id, lens_id=new_lens_id)


class Environments:
    """Environments come and go."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def list(self, caller: Caller) -> dict[str, Any]:
        """Every environment for an instance-wide key, the own one for others."""
        if caller.identity.environment is None:
            found = self._desk.snapshot().environments()
        else:
            found = (caller.environment,)
        return {"environments": [_environment_answer(each) for each in found]}

    async def create(self, caller: Caller, body: object) -> dict[str, Any]:
        """A new environment. Raises LenswayError FORBIDDEN, INVALID_REQUEST, CONFLICT."""
        require_instance_wide(caller.identity)
        name = Section(body, "", frozenset({"name"})).required("name")
        id, at = new_environment_id(), self._desk.now_text()
        changed = await self._desk.change(
            caller,
            "environment.create",
            str(name)[: limits.NAME_CHARACTERS_MAX],
            lambda snapshot: rules.create_environment(snapshot, name, id=id, at=at),
            is_instance_wide=True,
        )
        return _environment_answer(rules.require_environment(changed.snapshot, id))

    async def delete(self, caller: Caller, name: str) -> None:
        """An empty environment goes. Raises LenswayError FORBIDDEN, NOT_FOUND, CONFLICT."""
        require_instance_wide(caller.identity)
        await self._desk.change(
            caller,
            "environment.delete",
            name,
            lambda snapshot: rules.delete_environment(snapshot, name),
            is_instance_wide=True,
        )


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
        section = Section(body, "", frozenset({"kind", "name", "role", "instanceWide", "limits", "expiresAt"}))
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
                id=id,
                hash=hashed,
                at=at,
            ),
            details={"kind": kind.value, "role": None if role is None else role.value, "instanceWide": is_wide}
            | ({"limits": given} if (given := limits_document(limits)) else {})
            | ({} if expires_at is None else {"expiresAt": expires_at}),
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
        if (used := self._desk.endings.last_use(key.id)) is not None:
            answer["lastUsedAt"] = used
        return answer


class Declarations:
    """Declarative set-up: push and the way back."""

    def __init__(self, desk: Desk, sources: Sources) -> None:
        self._desk = desk
        self._sources = sources

    def export(self, caller: Caller) -> dict[str, Any]:
        """The environment as a document that `push` takes. Never with configs."""
        return declaration.export(self._desk.snapshot(), caller.environment.id)

    async def push(self, caller: Caller, body: object, *, prune: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Make the document true, in one transaction, and say what changed.

        Raises:
            LenswayError: INVALID_REQUEST with the path of what is wrong, CONFLICT; then nothing was changed.
        """
        wanted = declaration.read(body, kinds=self._desk.kinds)
        for name, draft in wanted.sources.items():
            with_path(lambda draft=draft: self._sources.check(draft), f"sources.{name}")
        at = self._desk.now_text()
        plans: list[declaration.Push] = []

        def rule(snapshot: Any) -> Any:
            plans[:] = [
                declaration.plan(
                    snapshot,
                    caller.environment.id,
                    wanted,
                    prune=prune,
                    stored_config=self._desk.store.source_config,
                    minting=_MINTING,
                    at=at,
                )
            ]
            return plans[0].changes

        if dry_run:
            warnings, revision = self._desk.preview(caller, rule), self._desk.snapshot().revision
        else:
            changed = await self._desk.change(caller, "push", "declaration", rule, details={"prune": prune})
            warnings, revision = changed.warnings, changed.snapshot.revision
            if changed.changes:
                self._desk.hub.publish(caller.environment.id, "source", {"change": "pushed"})
        changes = [
            {"action": each.effect.value, "kind": each.kind, "name": each.name}
            | ({"details": ", ".join(each.parts)} if each.parts else {})
            for each in plans[0].differences
        ]
        return {
            "changes": changes,
            "warnings": [warning_document(warning) for warning in warnings],
            "revision": revision,
            "dryRun": dry_run,
        }


def with_path(check: Any, path: str) -> None:
    """Run a check; its error says where in the document it was. Raises LenswayError."""
    try:
        check()
    except LenswayError as error:
        failure = error.failure
        inner = str(failure.details.get("path", ""))
        whole = f"{path}.{inner}" if inner else path
        raise LenswayError(
            failure.code,
            f"{path}: {failure.message}" if not inner else failure.message.replace(inner, whole, 1),
            hint=failure.hint,
            details={**failure.details, "path": whole},
        ) from None


def _environment_answer(environment: Environment) -> dict[str, Any]:
    return {"id": environment.id, "name": environment.name, "createdAt": environment.created_at}
