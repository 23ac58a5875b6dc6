"""Lenses for readers: a page of them, one with everything that is declared, and a few of its rows."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lensway import limits
from lensway.api.shapes import PageMeta, QueryRequest
from lensway.auth import decisions
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.definitions import lens_document
from lensway.catalog.records import Credentials, ExecutionMode, Lens, QueryGrant, Source
from lensway.catalog.snapshot import Snapshot
from lensway.dialects.registry import capabilities_of
from lensway.fleet import RunnerState
from lensway.query.conditions import Operator
from lensway.query.result import RowFormat, decode_end, unbelievable
from lensway.query.where import operators_of
from lensway.usecases.believing import check_page
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_pages import Pace, has_text
from lensway.usecases.fleet_view import status_of
from lensway.usecases.query import Delivery, Queries

_LIVE: Final = (RunnerState.HEALTHY, RunnerState.DEGRADED)
_ROWS: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LensQuery:
    """Lenses with this text in their name, source or table. ``grant`` is empty for all, ``public`` or ``none``."""

    text: str = ""
    source: str = ""
    grant: str = ""
    page: int = 1
    size: int = limits.CONSOLE_ROWS_MAX


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LensRows:
    """A few rows: the fields in order, and each value as a text, None for NULL. A row may lack a value."""

    fields: Sequence[str]
    rows: Sequence[Mapping[str, str | None]]
    meta: PageMeta


class LensPages:
    """The lenses of one environment. Viewers see definitions; rows need a key that may query the lens."""

    def __init__(self, desk: Desk, queries: Queries) -> None:
        self._desk = desk
        self._queries = queries

    def mark(self) -> Hashable:
        """A value that differs as soon as the catalog changed or something happened."""
        return self._desk.snapshot().revision, self._desk.hub.sequence

    async def page(self, caller: Caller, query: LensQuery) -> dict[str, Any]:
        """One page of lenses by name."""
        pace, snapshot = Pace(self._desk.clock), self._desk.snapshot()
        everything = sorted(snapshot.lenses(caller.environment.id), key=lambda lens: lens.name)
        matching: list[tuple[Lens, Source]] = []
        for lens in everything:
            await pace.give_way()
            source = snapshot.source(lens.environment, lens.source)
            if (
                source is None
                or query.grant not in ("", lens.query_grant.value)
                or query.source not in ("", source.name)
            ):
                continue
            if has_text(query.text, (lens.name, source.name, lens.definition.table)):
                matching.append((lens, source))
        shown = []
        start = (query.page - 1) * query.size
        for lens, source in matching[start : start + query.size]:
            await pace.give_way()
            shown.append(self._summary(snapshot, lens, source))
        return {"lenses": shown, "matching": len(matching), "total": len(everything)}

    def show(self, caller: Caller, name: str) -> dict[str, Any]:
        """One lens with its fields, operators, grants, limits and relations. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        lens = rules.require_lens(snapshot, caller.environment.id, name)
        source = snapshot.source(lens.environment, lens.source)
        assert source is not None, "a lens points at a source of its environment"
        declared = lens_document(lens, source=source.name)
        available = capabilities_of(source.bridge, self._desk.kinds).operators
        return {
            **self._summary(snapshot, lens, source),
            "fields": [
                {
                    "name": field.name,
                    "column": field.column,
                    "type": field.type.value,
                    "list": field.is_list,
                    "nullable": field.nullable and not field.primary_key,
                    "primaryKey": field.primary_key,
                    "operators": operators_of(field, available),
                }
                for field in lens.definition.fields.values()
            ],
            "limits": declared.get("limits", {}),
            "relations": declared.get("relations", {}),
            "url": self._desk.public_url,
            "mayQuery": decisions.may_query(caller.identity, lens),
            "operatorsMissing": sorted(each.value for each in frozenset(Operator) - available),
        }

    async def rows(self, caller: Caller, name: str, question: QueryRequest) -> LensRows:
        """A few rows, by the way of every query. Raises LenswayError as `Queries.rows`, and FORBIDDEN for a viewer."""
        self._queries.admit(caller)
        question = msgspec.structs.replace(
            question, limit=min(question.limit or limits.CONSOLE_LENS_ROWS_MAX, limits.CONSOLE_LENS_ROWS_MAX)
        )
        answering = self._queries.rows(caller, name, question, format=RowFormat.JSON, delivery=Delivery.WHOLE)
        page = await answering.handle.page()
        end = decode_end(page.result, by_runner=page.record.is_by_runner)
        body = b"".join((b"[", *page.chunks, b"]"))
        if page.record.is_by_runner:
            check_page(body, 0, len(body), end)
        declared = list(answering.asked.lens.definition.fields)
        names = declared if question.select is None else [each for each in question.select if each in declared]
        return LensRows(
            fields=names, rows=await asyncio.to_thread(_shortened, body), meta=answering.meta(end, page.record)
        )

    def _summary(self, snapshot: Snapshot, lens: Lens, source: Source) -> dict[str, Any]:
        return {
            "id": lens.id,
            "name": lens.name,
            "source": source.name,
            "bridge": source.bridge,
            "table": lens.definition.table,
            "fieldCount": len(lens.definition.fields),
            "primaryKeyNames": [field.name for field in lens.definition.primary_key],
            "isPublic": lens.query_grant is QueryGrant.PUBLIC,
            "retry": lens.retry.value,
            "version": lens.version,
            "createdAt": lens.created_at,
            "place": self._place(snapshot, source),
        }

    def _place(self, snapshot: Snapshot, source: Source) -> dict[str, Any]:
        """Where queries run: inline, or on so many of so many runners that are live."""
        runners = [
            runner
            for runner in map(snapshot.runner_by_id, snapshot.runners_of(source.environment, source.id))
            if runner is not None
        ]
        now = self._desk.clock.monotonic()
        states = [status_of(snapshot, runner, self._desk.dispatcher, now).state for runner in runners]
        is_bound = source.credentials is Credentials.RUNNER_LOCAL or source.execution is ExecutionMode.RUNNER_REQUIRED
        return {
            "runners": sorted(runner.name for runner in runners)[: limits.CONSOLE_CHIPS_MAX],
            "assigned": len(runners),
            "live": sum(state in _LIVE for state in states),
            "needsRunner": is_bound and not runners,
        }


def _shortened(body: bytes) -> list[dict[str, str | None]]:
    """The rows with each value as a text; long values are cut. Raises LenswayError RUNNER_FAILED."""
    try:
        return [{name: _cut(bytes(value)) for name, value in row.items()} for row in _ROWS.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise unbelievable("the rows of the page") from None


def _cut(value: bytes) -> str | None:
    if value == b"null":
        return None
    # A character has four bytes at most: what is cut here would not be shown.
    text = value[: 4 * limits.CONSOLE_CELL_CHARACTERS_MAX + 1].decode(errors="ignore")
    if value.startswith(b'"') and len(value) <= 4 * limits.CONSOLE_CELL_CHARACTERS_MAX:
        text = str(msgspec.json.decode(value))
    if len(text) <= limits.CONSOLE_CELL_CHARACTERS_MAX and len(value) <= 4 * limits.CONSOLE_CELL_CHARACTERS_MAX:
        return text
    return f"{text[: limits.CONSOLE_CELL_CHARACTERS_MAX]}… ({len(value):,} bytes)"
