"""From a source's tables to declarations of lenses, and from lenses back to their tables: what differs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

from lensway import limits
from lensway.api.shapes import DriftFinding, LensDrift, ScaffoldAnswer, ScaffoldNote, ScaffoldRequest
from lensway.auth.caller import Caller
from lensway.bridges.contract import TableDescription, TableSummary
from lensway.catalog import rules
from lensway.catalog.names import check_name, invalid, shown
from lensway.catalog.reading import described
from lensway.catalog.records import Lens, Source
from lensway.errors import ErrorCode, LenswayError
from lensway.query.suggestions import nearest
from lensway.usecases.connection_tests import DocumentJob, run_document_job
from lensway.usecases.desk import Desk
from lensway.usecases.drift import drift
from lensway.usecases.scaffold_names import lens_names, plain_name
from lensway.usecases.scaffolding import Note, scaffold

_SKIPPED: Final = frozenset({ErrorCode.NOT_FOUND, ErrorCode.REFUSED_BY_RUNNER})
"""A table that was dropped since the list was made, and one that the runner's policy forbids."""

Member = TypeVar("Member")


class Scaffolds:
    """Introspection turned into declarations, over the same route as queries."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def scaffold(self, caller: Caller, name: str, request: ScaffoldRequest) -> ScaffoldAnswer:
        """Declarations of lenses for the tables of a source, as `push` takes them. Nothing is changed.

        Raises:
            LenswayError: NOT_FOUND, INVALID_REQUEST, and the failures of the source and its runners.
        """
        wanted, prefix = _wanted(request.tables), _prefix(request.prefix)
        source = rules.require_source(self._desk.snapshot(), caller.environment.id, name)
        job = DocumentJob(kind="tables", source=source, owner=caller.identity.key)
        listed = await run_document_job(self._desk, job, list[TableSummary], request_id=caller.request_id)
        every = [each.name for each in listed]
        chosen = every if wanted is None else _chosen(every, wanted, source.name)
        if len(chosen) > limits.SCAFFOLD_TABLES_MAX:
            raise invalid(
                "tables",
                f"source {source.name!r} has {len(chosen):,} tables; one scaffold is limited to {limits.SCAFFOLD_TABLES_MAX:,}",
                hint="Name the tables to scaffold; `lensway sources tables` lists all.",
            )
        notes: list[Note] = []
        tables = [each for each in await self._described(caller, source, chosen, notes) if each is not None]
        # The names depend on all tables, so that a table gets the same one however few are asked for.
        lenses = self._desk.snapshot().lenses(caller.environment.id)
        own = _by_table([lens for lens in lenses if lens.source == source.id], every, prefix)
        present = {table: lens for table, lens in own.items() if lens.name.startswith(prefix)}
        kept = {table: lens.name for table, lens in present.items()}
        taken = {lens.name for lens in lenses} - set(kept.values())
        names = lens_names(every, prefix=prefix, kept=kept, taken=taken)
        found = scaffold(source.name, tables, names, present, own)
        return ScaffoldAnswer(
            source=source.name,
            declaration={"lenses": dict(found.lenses)},
            relations={lens: dict(each) for lens, each in found.relations.items()},
            notes=[
                ScaffoldNote(table=note.table, column=note.column, reason=note.reason)
                for note in (*notes, *found.notes)
            ],
        )

    async def check(self, caller: Caller, name: str) -> LensDrift:
        """How a lens differs from its table.

        Raises:
            LenswayError: NOT_FOUND for the lens, and the failures of the source and its runners.
        """
        snapshot = self._desk.snapshot()
        lens = rules.require_lens(snapshot, caller.environment.id, name)
        source = rules.require_source(snapshot, caller.environment.id, lens.source)
        table = lens.definition.table
        job = DocumentJob(kind="table", source=source, payload=table.encode(), owner=caller.identity.key)
        try:
            found = await run_document_job(self._desk, job, TableDescription, request_id=caller.request_id)
        except LenswayError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            message = (
                f"Table {table} does not exist, or the login cannot read it. Correct table "
                f"(`lensway sources tables {source.name}` lists the names), or grant SELECT"
            )
            findings = [DriftFinding(level="error", code="table_missing", message=message)]
        else:
            findings = drift(lens, found)
        is_ok = all(each.level != "error" for each in findings)
        return LensDrift(lens=lens.name, source=source.name, table=table, ok=is_ok, findings=findings)

    async def _described(
        self, caller: Caller, source: Source, names: Sequence[str], notes: list[Note]
    ) -> list[TableDescription | None]:
        async def one(name: str) -> TableDescription | None:
            job = DocumentJob(kind="table", source=source, payload=name.encode(), owner=caller.identity.key)
            try:
                return await run_document_job(self._desk, job, TableDescription)
            except LenswayError as error:
                if error.code not in _SKIPPED:
                    raise
                notes.append(Note(table=name, reason=f"left out: {error.failure.message}"))
                return None

        found: list[TableDescription | None] = []
        for few in _batches(names, limits.SCAFFOLD_JOBS_MAX):
            found += await asyncio.gather(*map(one, few))
        return found


def _batches(members: Sequence[Member], size: int) -> Iterator[Sequence[Member]]:
    return (members[start : start + size] for start in range(0, len(members), size))


def _wanted(tables: object) -> list[str] | None:
    if tables is None:
        return None
    if not isinstance(tables, list) or not all(isinstance(each, str) and each for each in tables):
        raise invalid("tables", "must be a list of names of tables", hint="Omit it to scaffold every table.")
    return list(dict.fromkeys(tables))


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise invalid("prefix", f"must be text, not {described(prefix)}")
    if prefix:
        check_name(prefix, kind="lens", path="prefix")
    return prefix


def _chosen(every: Sequence[str], wanted: Sequence[str], source: str) -> list[str]:
    """The wanted tables as the source lists them; a name without a schema will do where it is clear."""
    plain: dict[str, list[str]] = {}
    for table in every:
        plain.setdefault(plain_name(table), []).append(table)
    known, chosen = set(every), []
    for name in wanted:
        found = [name] if name in known else plain.get(name, [])
        if len(found) > 1:
            raise invalid(
                "tables", f"{shown(name)} is in several schemas", hint=f"Use one of {', '.join(sorted(found)[:8])}."
            )
        if not found:
            meant = nearest(name, itertools.chain(every, plain))
            raise LenswayError(
                ErrorCode.NOT_FOUND,
                f"Source '{source}' has no table {shown(name)} that its login can read",
                hint=f"`lensway sources tables {source}` lists them." if meant is None else f"Did you mean {meant!r}?",
                details={"kind": "table"},
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _by_table(lenses: Sequence[Lens], every: Sequence[str], prefix: str) -> Mapping[str, Lens]:
    """The lens that a table has already, by the table's listed name: of several the one with the prefix, then the shortest."""
    by_spelling: dict[str, str] = {}
    for table in every:
        plain = plain_name(table)
        by_spelling[plain] = "" if plain in by_spelling else table
    by_spelling |= {table: table for table in every}
    found: dict[str, Lens] = {}
    for lens in sorted(lenses, key=lambda each: (not each.name.startswith(prefix), len(each.name), each.name)):
        known = by_spelling.get(lens.definition.table)
        if known:
            found.setdefault(known, lens)
    return found
