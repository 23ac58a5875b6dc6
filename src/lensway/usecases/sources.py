"""Sources: declared, changed, deleted, tested, looked into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensway.auth.caller import Caller
from lensway.bridges.contract import TableDescription, TableSummary
from lensway.catalog import rules
from lensway.catalog.definitions import (
    SourceDraft,
    read_source,
    read_source_patch,
)
from lensway.catalog.reading import mapping
from lensway.catalog.records import Source
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import warnings_now
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_source_id
from lensway.usecases.connection_tests import ConnectionTests, DocumentJob, asker_of, run_document_job
from lensway.usecases.desk import Desk, warning_document
from lensway.usecases.fleet_view import condition_document, conditions_of, overrides_of

CheckConfig = Callable[[str, Mapping[str, object]], None]
"""Refuses settings of a bridge that cannot work or that the service's own policy forbids. Raises LenswayError."""

InlineCondition = Callable[[Source], str]
"""What holds a source back that the service itself executes, although it answers; empty for nothing."""


class Sources:
    """Sources: declared, changed, deleted, tested, looked into."""

    def __init__(
        self,
        desk: Desk,
        tests: ConnectionTests,
        check_config: CheckConfig,
        inline_condition: InlineCondition = lambda _source: "",
    ) -> None:
        self._inline_condition = inline_condition
        self._desk = desk
        self._tests = tests
        self._check_config = check_config

    def list(self, caller: Caller) -> dict[str, Any]:
        """Every source of the environment."""
        snapshot = self._desk.snapshot()
        environment = caller.environment.id
        warnings = warnings_now(snapshot, environment=environment, fleet=self._desk.fleet)
        documents = [self._document(snapshot, source) for source in snapshot.sources(environment)]
        for document in documents:
            document["warnings"] = [warning_document(one) for one in warnings if one.source == document["name"]]
        return {"sources": documents}

    def show(self, caller: Caller, name: str) -> dict[str, Any]:
        """One source. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        source = rules.require_source(snapshot, caller.environment.id, name)
        overrides = overrides_of(snapshot, source, self._desk.dispatcher)
        return self._document(snapshot, source) | ({"overrides": overrides} if overrides else {})

    def _document(self, snapshot: Snapshot, source: Source) -> dict[str, Any]:
        found = conditions_of(snapshot, source, self._desk.dispatcher)
        if not snapshot.runners_of(source.environment, source.id) and (code := self._inline_condition(source)):
            found = [condition_document(code, None)]
        document = source_answer(snapshot, source)
        return document | {"conditions": found} if found else document

    def kinds(self) -> Sequence[Mapping[str, Any]]:
        """The kinds of databases that this server serves, each with the setting that says where its database is."""
        return [
            {
                "name": kind.name,
                "setting": "path" if kind.is_path else "url",
                "example": f"/data/{kind.name}{kind.suffixes[0] if kind.suffixes else ''}"
                if kind.is_path
                else f"{kind.url_schemes[0] if kind.url_schemes else kind.name}://reader:password@host/database",
            }
            for kind in self._desk.kinds.served
        ]

    async def create(self, caller: Caller, body: object) -> dict[str, Any]:
        """A new source. Raises LenswayError INVALID_REQUEST, CONFLICT."""
        members = dict(mapping(body, ""))
        draft = read_source(members.pop("name", None), members, kinds=self._desk.kinds)
        self.check(draft)
        id, at = new_source_id(), self._desk.now_text()
        changed = await self._desk.change(
            caller,
            "source.create",
            draft.name,
            lambda snapshot: rules.create_source(snapshot, caller.environment.id, draft, id=id, at=at),
            details={"bridge": draft.bridge, "credentials": draft.credentials.value},
        )
        self._desk.hub.publish(caller.environment.id, "source", {"source": draft.name, "change": "created"})
        return self.show_after(changed.snapshot, caller, draft.name)

    async def patch(self, caller: Caller, name: str, body: object) -> dict[str, Any]:
        """The source with some parts changed. Raises LenswayError NOT_FOUND, INVALID_REQUEST."""
        snapshot = self._desk.snapshot()
        present = rules.require_source(snapshot, caller.environment.id, name)
        draft = read_source_patch(present, body, kinds=self._desk.kinds)
        self.check(draft)
        stored = self._desk.store.source_config(caller.environment.id, present.id)
        changed = await self._desk.change(
            caller,
            "source.patch",
            present.name,
            lambda snapshot: rules.patch_source(
                snapshot, caller.environment.id, present.name, draft, stored_config=stored
            ),
            details={"config": "changed" if draft.config is not None else "kept"},
        )
        self._desk.hub.publish(caller.environment.id, "source", {"source": present.name, "change": "changed"})
        return self.show_after(changed.snapshot, caller, present.name)

    async def delete(self, caller: Caller, name: str) -> None:
        """The source goes. Raises LenswayError NOT_FOUND, CONFLICT."""
        await self._desk.change(
            caller,
            "source.delete",
            name,
            lambda snapshot: rules.delete_source(snapshot, caller.environment.id, name),
        )
        self._desk.hub.publish(caller.environment.id, "source", {"source": name, "change": "deleted"})

    async def test(self, caller: Caller, name: str, *, runner: str | None = None) -> dict[str, Any]:
        """Test the connection. Raises LenswayError NOT_FOUND, SOURCE_REQUIRES_RUNNER."""
        snapshot = self._desk.snapshot()
        source = rules.require_source(snapshot, caller.environment.id, name)
        by = None if runner is None else rules.require_runner(snapshot, caller.environment.id, runner)
        return {"results": await self._tests.test(caller, source, runner=by)}

    async def tables(self, caller: Caller, name: str) -> Any:
        """The tables that the source's login can read. Raises LenswayError."""
        source = rules.require_source(self._desk.snapshot(), caller.environment.id, name)
        job = DocumentJob(kind="tables", source=source, owner=caller.identity.key, asker=asker_of(caller))
        return {"tables": await run_document_job(self._desk, job, list[TableSummary], request_id=caller.request_id)}

    async def table(self, caller: Caller, name: str, table: str) -> Any:
        """One table's columns. Raises LenswayError."""
        source = rules.require_source(self._desk.snapshot(), caller.environment.id, name)
        job = DocumentJob(
            kind="table", source=source, payload=table.encode(), owner=caller.identity.key, asker=asker_of(caller)
        )
        return await run_document_job(self._desk, job, TableDescription, request_id=caller.request_id)

    def check(self, draft: SourceDraft) -> None:
        """Refuse a source that can never work. Raises LenswayError INVALID_REQUEST."""
        capabilities_of(draft.bridge, self._desk.kinds)
        if draft.config is not None:
            self._check_config(draft.bridge, draft.config)

    def show_after(self, snapshot: Snapshot, caller: Caller, name: str) -> dict[str, Any]:
        """The source as a snapshot has it."""
        return source_answer(snapshot, rules.require_source(snapshot, caller.environment.id, name))


def source_answer(snapshot: Snapshot, source: Source) -> dict[str, Any]:
    """A source as the API shows it, without its config."""
    runners = [snapshot.runner_by_id(runner) for runner in snapshot.runners_of(source.environment, source.id)]
    return {
        "id": source.id,
        "name": source.name,
        "bridge": source.bridge,
        "dialect": source.dialect,
        "credentials": source.credentials.value,
        "execution": source.execution.value,
        "hasConfig": source.config_version > 0,
        "runners": sorted(runner.name for runner in runners if runner is not None),
        "lenses": [lens.name for lens in snapshot.lenses_of(source.environment, source.id)],
        "createdAt": source.created_at,
    }


def not_verified(runner: str, results: list[dict[str, Any]]) -> LenswayError:
    """The error for an assignment whose test failed: nothing was changed."""
    return LenswayError(
        ErrorCode.CONFLICT,
        f"The connection test from runner '{runner}' failed; nothing was assigned",
        hint="Fix the stage that fails, or assign without verifying.",
        details={"results": results},
    )
