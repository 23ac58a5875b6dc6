"""Lenses: declared, deleted, and what a key may ask of them."""

from __future__ import annotations

from typing import Any

from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.definitions import (
    lens_document,
    read_lens,
)
from lensway.ids import new_lens_id
from lensway.usecases.desk import Desk


class Lenses:
    """Lenses: declared and deleted."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

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
