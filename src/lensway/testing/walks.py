"""Full walks by cursor, and what must come of them: every row once, in order, or a refusal at the first cut between equals."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat

_CURSOR_KEY: Final = b"k" * 32
_PAGES_MAX: Final = 2_000
"""A walk that repeats rows must end too."""


def lens(table: str, *, key: Sequence[str], **fields: str) -> LensDefinition:
    """A lens with these fields; columns have their names."""
    made = {
        name: Field(name=name, column=name, type=FieldType(type), primary_key=name in key)
        for name, type in fields.items()
    }
    return LensDefinition(name="walked", table=table, fields=made)


@dataclasses.dataclass(slots=True, kw_only=True)
class Walk:
    """The ids that a walk gave, in order, and the class of failure that ended it (None: it came to its end)."""

    ids: list[int] = dataclasses.field(default_factory=list)
    failure: str | None = None


class Walker:
    """Walks over lenses of one source, through the execution library as the service and runners use it."""

    def __init__(
        self, bridge: str, config: Mapping[str, object], arrow_ids: Callable[[bytes], list[int]] | None = None
    ) -> None:
        self._library = ExecutionLibrary(AddressPolicy())
        self._arrow_ids = arrow_ids
        self._bridge, self._config = bridge, config

    async def close(self) -> None:
        """Close every connection."""
        await self._library.close()

    async def walk(
        self,
        definition: LensDefinition,
        order_by: Sequence[Mapping[str, str]] | None,
        limit: int,
        *,
        format: RowFormat = RowFormat.JSON,
        by_offset: bool = False,
    ) -> Walk:
        """Every page to the last one. ``definition`` has a field `id`."""
        walk = Walk()
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            request = QueryRequest(
                order_by=None if order_by is None else list(order_by),  # type: ignore[arg-type]  # as decoded from JSON
                limit=limit,
                cursor=None if by_offset else cursor,
                offset=len(walk.ids) if by_offset else None,
            )
            try:
                ids, end, cursor = await self.page(definition, request, format=format)
            except LenswayError as error:
                walk.failure = str(error.failure.details.get("class", error.code.value))
                return walk
            walk.ids += ids
            if not end.has_more:
                return walk
            assert cursor is not None, "a page with more behind it says where they begin"
        walk.failure = "endless"
        return walk

    async def page(
        self, definition: LensDefinition, request: QueryRequest, *, format: RowFormat = RowFormat.JSON
    ) -> tuple[list[int], ResultEnd, str | None]:
        """The ids of one page, its end, and the next cursor. Raises LenswayError."""
        capabilities = capabilities_of(self._bridge)
        planned = plan_rows(definition, request, capabilities, cursor_key=_CURSOR_KEY, environment="e")
        ids, end = await self._perform(planned.plan, "rows", format)
        return ids, end, planned.next_cursor(end, by_runner=False)

    async def export(self, definition: LensDefinition) -> list[int]:
        """The ids of every row, in the order of the primary key. Raises LenswayError."""
        plan = plan_export(definition, ExportRequest(), capabilities_of(self._bridge))
        return (await self._perform(plan, "export", RowFormat.NDJSON))[0]

    async def _perform(self, plan: Plan, kind: str, format: RowFormat) -> tuple[list[int], ResultEnd]:
        sink = _Sink()
        execution = Execution(
            deadline=time.monotonic() + 30,
            format=format,
            limits=ResultLimits(rows_max=10**6, bytes_max=10**9, row_bytes_max=10**8),
            tag="walk/1",
            # As the service asks for rows that are streamed.
            is_export=format is not RowFormat.JSON,
        )
        payload = plan.encode()
        end = await self._library.perform(
            "walk", self._bridge, self._config, kind=kind, payload=payload, execution=execution, sink=sink
        )
        body = b"".join(sink.chunks)
        if format is RowFormat.ARROW:
            assert self._arrow_ids is not None, "walks in Arrow need a reader of it"
            ids = self._arrow_ids(body)
        else:
            ids = _ids(body, format)
        return ids, end


class _Sink:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


def _ids(body: bytes, format: RowFormat) -> list[int]:
    match format:
        case RowFormat.JSON:
            return [row["id"] for row in json.loads(b"[" + body + b"]")]
        case RowFormat.NDJSON:
            return [json.loads(line)["id"] for line in body.split(b"\n") if line]
        case _:
            return [int(line.split(b",")[0]) for line in body.split(b"\r\n")[1:] if line]


def wrong(walk: Walk, ranked: Sequence[tuple[int, int]], limit: int, *, is_total: bool = False) -> str | None:
    """What is wrong with a walk; None is nothing.

    ``ranked`` are all rows in order, with their rank; equal rows have the same one. ``is_total`` tells that something beyond
    the order tells them apart, so that no page may be refused.
    """
    cuts = range(limit, len(ranked), limit)
    refused = None if is_total else next((cut for cut in cuts if ranked[cut - 1][1] == ranked[cut][1]), None)
    expected = ranked if refused is None else ranked[: refused - limit]
    failure = None if refused is None else "key_not_unique"
    rank = dict(ranked)
    ranks = [rank.get(id, -1) for id in walk.ids]
    if walk.failure != failure:
        return f"ended with {walk.failure}, expected {failure} after {len(expected)} rows; gave {walk.ids} of {ranked}"
    if sorted(walk.ids) != sorted(id for id, _ in expected):
        return f"gave {walk.ids}, expected {[id for id, _ in expected]}"
    if ranks != sorted(ranks):
        return f"gave {walk.ids} out of order {[id for id, _ in expected]}"
    return None


# --- random walks -----------------------------------------------------------------------------------------------------------

_COLUMNS: Final = ("a", "b", "c")
_TYPES: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "integer": ("bigint", ("0", "1", "2", "-5", "9007199254740993")),
    "text": ("text", ("''", "'a'", "'B'", "'b'", "'é'")),
    "number": ("double precision", ("0.5", "-0.0", "0.0", "1e300")),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RandomCase:
    """One table or view, what a lens says of it (which may be wrong), and an order. ``ranks`` asks for its rows and ranks."""

    statements: Sequence[str]
    definition: LensDefinition
    order_by: Sequence[Mapping[str, str]]
    ranks: str
    is_total: bool
    limits: Sequence[int]
    format: RowFormat

    @classmethod
    def made(cls, chance: random.Random, table: str, *, is_sqlite: bool) -> RandomCase:
        """Some case; the same for the same state of ``chance``."""
        types = {name: chance.choice(list(_TYPES)) for name in _COLUMNS}
        key = chance.sample(_COLUMNS, chance.randint(1, 3))
        order = [(name, chance.choice(("asc", "desc"))) for name in chance.sample(_COLUMNS, chance.randint(0, 3))]
        # As the lens declares the key, in the order of its fields.
        terms = order + [(name, "asc") for name in _COLUMNS if name in key and name not in dict(order)]
        constraint = chance.choice(("", "", f", UNIQUE ({', '.join(key)})", f", PRIMARY KEY ({', '.join(key)})"))
        suffix = " WITHOUT ROWID" if is_sqlite and "PRIMARY" in constraint and chance.random() < 0.5 else ""
        is_view = chance.random() < 0.3
        columns = ", ".join(
            f"{name} {_TYPES[types[name]][0]}{chance.choice(('', '', ' NOT NULL'))}" for name in _COLUMNS
        )
        rows = [
            f"({id}, {', '.join(_value(chance, types[name], columns, name) for name in _COLUMNS)})"
            for id in range(chance.randint(0, 24))
        ]
        statements = [f"CREATE TABLE {table} (id bigint, {columns}{constraint}){suffix}"]
        insert = f"INSERT {'OR IGNORE ' if is_sqlite else ''}INTO {table} VALUES "
        conflict = "" if is_sqlite else " ON CONFLICT DO NOTHING"
        # One by one: a row that the constraint refuses is left out.
        not_null = [] if is_sqlite or "PRIMARY" not in constraint else key
        statements += [f"{insert}{row}{conflict}" for row in rows if not (not_null and "NULL" in row)]
        if is_view:
            statements.append(f"CREATE VIEW v{table} AS SELECT * FROM {table}")
        if not is_sqlite:
            statements.append("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
        name = f"v{table}" if is_view else table
        fields = {
            each: Field(
                name=each,
                column=each,
                type=FieldType(types[each]),
                primary_key=each in key,
                nullable=chance.random() < 0.5,
            )
            for each in _COLUMNS
        }
        fields["id"] = Field(name="id", column="id", type=FieldType.INTEGER)
        nulls = {"asc": "NULLS LAST", "desc": "NULLS FIRST"}
        ordered = "ORDER BY " + ", ".join(f"{each} {direction} {nulls[direction]}" for each, direction in terms)
        return cls(
            statements=statements,
            definition=LensDefinition(name="walked", table=name, fields=fields),
            order_by=[{"field": each, "dir": direction} for each, direction in order],
            ranks=f"SELECT id, rank() OVER ({ordered}) FROM {name} {ordered}",
            is_total=is_sqlite and not is_view and not suffix,
            limits=(1, 2, chance.randint(3, 12)),
            format=chance.choice((RowFormat.JSON, RowFormat.NDJSON, RowFormat.ARROW)),
        )


def _value(chance: random.Random, type: str, columns: str, name: str) -> str:
    may_be_null = f"{name} {_TYPES[type][0]} NOT NULL" not in columns
    return "NULL" if may_be_null and chance.random() < 0.25 else chance.choice(_TYPES[type][1])


async def violations(walker: Walker, case: RandomCase, ranked: Sequence[tuple[int, int]]) -> list[str]:
    """What is wrong with the walks of a case, by cursor and by offset."""
    found = []
    for limit in case.limits:
        for by_offset in (False, True):
            walk = await walker.walk(
                case.definition, case.order_by or None, limit, format=case.format, by_offset=by_offset
            )
            error = wrong(walk, ranked, limit, is_total=case.is_total)
            if error is not None:
                found.append(f"{case.statements[0]}; {case.order_by} by {limit} ({by_offset=}, {case.format}): {error}")
    return found
