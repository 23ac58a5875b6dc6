"""What every use case works with: the catalog's store, the dispatcher, the hub, and who asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lensway import limits
from lensway.auth.caller import Caller
from lensway.auth.events import without_keys
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.catalog.records import Change
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import Warning as CatalogWarning
from lensway.catalog.warnings import warnings_of_change
from lensway.clock import Clock
from lensway.dispatch.shell import Dispatcher
from lensway.errors import LenswayError
from lensway.kinds import BUILT_IN, Kinds
from lensway.usecases.endings import KeyEndings
from lensway.usecases.events import EventHub
from lensway.usecases.fleet_view import FleetOfNode
from lensway.usecases.tally import AuditTally

Rule = Callable[[Snapshot], Sequence[Change]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change that is durable: the snapshot after it, and what is bad about it."""

    snapshot: Snapshot
    warnings: tuple[CatalogWarning, ...]
    changes: tuple[Change, ...]


class Desk:
    """Shared by the use cases; makes every change the same way."""

    def __init__(
        self,
        *,
        store: CatalogStore,
        dispatcher: Dispatcher,
        hub: EventHub,
        clock: Clock,
        endings: KeyEndings,
        tally: AuditTally,
        gateway_url: str,
        public_url: str = "",
        kinds: Kinds = BUILT_IN,
    ) -> None:
        self.kinds = kinds
        self.store = store
        self.dispatcher = dispatcher
        self.hub = hub
        self.clock = clock
        self.endings = endings
        self.tally = tally
        self.gateway_url = gateway_url
        self.public_url = public_url
        self.fleet = FleetOfNode(dispatcher)

    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self.store.current()

    def now_text(self) -> str:
        """The present moment for records."""
        return self.clock.wall().isoformat(timespec="milliseconds")

    async def change(
        self,
        caller: Caller,
        action: str,
        object: str,
        rule: Rule,
        *,
        details: Mapping[str, Any] | None = None,
        is_instance_wide: bool = False,
    ) -> Changed:
        """Decide, write and publish; the audit row goes with it. A refusal is audited too, and raised.

        Raises:
            LenswayError: what the rule raises; nothing was changed.
        """
        before: list[Snapshot] = []
        made: list[Change] = []

        def entry(outcome: str) -> AuditEntry:
            return self._audit_entry(
                caller, action, object, outcome, details=details, is_instance_wide=is_instance_wide
            )

        def decide(snapshot: Snapshot) -> tuple[Sequence[Change], AuditEntry | None]:
            self.endings.require_good(caller)
            before[:] = [snapshot]
            made[:] = rule(snapshot)
            return made, entry("ok") if made else None

        try:
            after = await self.store.commit(decide)
        except LenswayError as error:
            # Refusals, and changes that change nothing, can be repeated at will.
            self.tally.note(entry(error.code.value))
            raise
        if not made:
            self.tally.note(entry("unchanged"))
        warnings: tuple[CatalogWarning, ...] = ()
        if made and not is_instance_wide:
            warnings = warnings_of_change(before[0], after, made, environment=caller.environment.id, fleet=self.fleet)
            for warning in warnings:
                self.hub.publish(caller.environment.id, "warning", warning_document(warning))
        return Changed(snapshot=after, warnings=warnings, changes=tuple(made))

    def note(self, caller: Caller, action: str, object: str) -> None:
        """Write down what was done without a change of the catalog."""
        self.tally.note(self._audit_entry(caller, action, object, "ok"))

    def _audit_entry(
        self,
        caller: Caller,
        action: str,
        object: str,
        outcome: str,
        *,
        details: Mapping[str, Any] | None = None,
        is_instance_wide: bool = False,
    ) -> AuditEntry:
        return AuditEntry(
            at=self.now_text(),
            environment=None if is_instance_wide else caller.environment.id,
            actor=caller.identity.actor,
            action=action,
            object=without_keys(object),
            address=caller.address,
            outcome=outcome,
            request_id=caller.request_id,
            details=bounded(details or {}),
        )

    def preview(self, caller: Caller, rule: Rule) -> tuple[CatalogWarning, ...]:
        """What would be bad about a change, without making it. Raises LenswayError as the rule does."""
        before = self.snapshot()
        changes = rule(before)
        after = before.after(changes, revision=before.revision + 1)
        return warnings_of_change(before, after, changes, environment=caller.environment.id, fleet=self.fleet)


def warning_document(warning: CatalogWarning) -> dict[str, Any]:
    """A warning as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(warning)
    return document


def bounded(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details if they are small enough for an audit row, else a mark that they were left out."""
    size = len(msgspec.json.encode(details))
    return details if size <= limits.AUDIT_DETAILS_BYTES_MAX else {"omitted_bytes": size}
