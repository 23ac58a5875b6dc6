"""Declarative set-up: push, and the way back."""

from __future__ import annotations

from typing import Any

from lensway.auth.caller import Caller
from lensway.catalog import declaration
from lensway.errors import LenswayError
from lensway.ids import new_lens_id, new_source_id
from lensway.usecases.desk import Desk, warning_document
from lensway.usecases.sources import Sources

_MINTING = declaration.Minting(source_id=new_source_id, lens_id=new_lens_id)


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
