"""Lenses: declared, deleted, and what a key may ask of them."""

from __future__ import annotations

from typing import Any

from lensway.auth import decisions
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.definitions import (
    lens_document,
    read_lens,
)
from lensway.catalog.records import Lens
from lensway.dialects.registry import capabilities_of
from lensway.ids import new_lens_id
from lensway.query.conditions import Operator
from lensway.query.where import operators_of
from lensway.usecases.desk import Desk


class Lenses:
    """Lenses: declared and deleted."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def askable(self, caller: Caller) -> dict[str, Any]:
        """The lenses that this key may ask, with what may be asked of each."""
        lenses = self._desk.snapshot().lenses(caller.environment.id)
        return {"lenses": [self._answer(lens) for lens in lenses if decisions.may_query(caller.identity, lens)]}

    def show(self, caller: Caller, name: str) -> dict[str, Any]:
        """One lens that this key may ask. Raises LenswayError NOT_FOUND, FORBIDDEN."""
        found = decisions.access(self._desk.snapshot(), caller.identity, caller.environment, name)
        return self._answer(found.lens)

    async def put(self, caller: Caller, name: str, body: object) -> dict[str, Any]:
        """The lens as declared; the source is not contacted. Raises LenswayError INVALID_REQUEST, NOT_FOUND."""
        draft = read_lens(name, body)
        id, at = new_lens_id(), self._desk.now_text()
        changed = await self._desk.change(
            caller,
            "lens.put",
            name,
            lambda snapshot: rules.put_lens(snapshot, caller.environment.id, draft, id=id, at=at),
        )
        self._desk.hub.publish(caller.environment.id, "lens", {"lens": name, "change": "put"})
        lens = rules.require_lens(changed.snapshot, caller.environment.id, name)
        return {"name": lens.name, "version": lens.version, **lens_document(lens, source=draft.source)}

    async def delete(self, caller: Caller, name: str) -> None:
        """The lens goes. Raises LenswayError NOT_FOUND."""
        await self._desk.change(
            caller, "lens.delete", name, lambda snapshot: rules.delete_lens(snapshot, caller.environment.id, name)
        )
        self._desk.hub.publish(caller.environment.id, "lens", {"lens": name, "change": "deleted"})

    def _answer(self, lens: Lens) -> dict[str, Any]:
        source = self._desk.snapshot().source(lens.environment, lens.source)
        capabilities = None if source is None else capabilities_of(source.bridge, self._desk.kinds, source.dialect)
        available = frozenset(Operator) if capabilities is None else capabilities.operators
        fields = list(lens.definition.fields.values())
        return {
            "name": lens.name,
            "fields": [
                {
                    "name": field.name,
                    "type": field.type.value,
                    "nullable": field.nullable and not field.primary_key,
                    "primaryKey": field.primary_key,
                    "list": field.is_list,
                }
                for field in fields
            ],
            "primaryKey": [field.name for field in lens.definition.primary_key],
            "operators": {field.name: operators_of(field, available) for field in fields},
        }
