"""A large catalog, written into a data directory before its server starts: one transaction instead of thousands of calls."""

from __future__ import annotations

import asyncio
import pathlib

import msgspec

from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import Assignment, Change, Credentials, ExecutionMode, Lens, Put, Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.clock import SystemClock
from lensway.ids import new_lens_id, new_runner_id, new_source_id
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.store.bootstrap import DataDirectory
from lensway.store.sqlite import SqliteStore

_AT = "2026-01-01T00:00:00.000+00:00"
_DEFINITION = LensDefinition(
    name="",
    table="public.orders",
    fields={"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)},
)


def fill(data_dir: pathlib.Path, count: int) -> None:
    """So many sources, lenses, runners and assignments in the environment `default`."""
    directory = DataDirectory.open(data_dir)
    try:
        store = SqliteStore.open(directory.database, master_key=directory.master_key(None), clock=SystemClock())
        try:
            asyncio.run(_commit(store, count))
        finally:
            store.close()
    finally:
        directory.close()


async def _commit(store: SqliteStore, count: int) -> None:
    def decide(snapshot: Snapshot) -> tuple[list[Change], AuditEntry]:
        environment = snapshot.environments()[0].id
        changes: list[Change] = []
        for number in range(count):
            source = Source(
                environment=environment, id=new_source_id(), name=f"other-{number}", bridge="postgres",
                credentials=Credentials.RUNNER_LOCAL, execution=ExecutionMode.AUTO, config_version=0, created_at=_AT,
            )  # fmt: skip
            runner = Runner(environment=environment, id=new_runner_id(), name=f"other-{number}", created_at=_AT)
            name = f"other_{number}"
            lens = Lens(
                environment=environment, id=new_lens_id(), name=name, source=source.id, created_at=_AT,
                definition=msgspec.structs.replace(_DEFINITION, name=name),
            )  # fmt: skip
            assignment = Assignment(environment=environment, source=source.id, runner=runner.id, created_at=_AT)
            changes += [Put(record=each) for each in (source, runner, lens, assignment)]
        entry = AuditEntry(
            at=_AT, environment=environment, actor="bench", action="fill", object="catalog", address="",
            outcome="ok", request_id="",
        )  # fmt: skip
        return changes, entry

    await store.commit(decide)
