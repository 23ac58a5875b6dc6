"""Environments: made, listed, deleted."""

from __future__ import annotations

from typing import Any

from lensway import limits
from lensway.auth.caller import Caller
from lensway.auth.decisions import require_instance_wide
from lensway.catalog import declaration, rules
from lensway.catalog.reading import Section
from lensway.catalog.records import Environment
from lensway.ids import new_environment_id, new_lens_id, new_source_id
from lensway.usecases.desk import Desk

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


def _environment_answer(environment: Environment) -> dict[str, Any]:
    return {"id": environment.id, "name": environment.name, "createdAt": environment.created_at}
