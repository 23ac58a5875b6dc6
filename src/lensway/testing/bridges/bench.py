"""A started stage with one open source on an event loop of its own: what the tests of the suite work with."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import Execution, OpenSource, RowSink
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import PlannedRows, plan_count, plan_export, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.bridges.stage import Column, Stage

Result = TypeVar("Result")
CURSOR_KEY: Final = b"k" * 32
SECONDS: Final = 30.0
_PAGES_MAX: Final = 1_000


class Sink:
    """Keeps every chunk."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        """Keep this one."""
        self.chunks.append(chunk)

    @property
    def data(self) -> bytes:
        """All of them."""
        return b"".join(self.chunks)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a result and its end mark."""

    body: bytes
    end: ResultEnd

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of a JSON page."""
        found: list[dict[str, Any]] = json.loads(b"[" + self.body + b"]")
        return found


def lens(table: str, columns: Iterable[Column], *, name: str = "staged") -> LensDefinition:
    """The lens over a table of the stage: one field for each column, under its name."""
    fields = {
        each.name: Field(
            name=each.name,
            column=each.name,
            type=each.type,
            nullable=each.nullable,
            primary_key=each.primary_key,
            is_list=each.is_list,
        )
        for each in columns
    }
    return LensDefinition(name=name, table=table, fields=fields)


ID: Final = Column(name="id", type=FieldType.INTEGER, nullable=False, primary_key=True)
NOTE: Final = Column(name="note", type=FieldType.TEXT)


def series_lens(table: str) -> LensDefinition:
    """The lens over what `Stage.create_series` makes."""
    return lens(table, (ID, NOTE))


class Bench:
    """Asks one source of one stage. Tables are made once for all tests, by name."""

    def __init__(self, stage: Stage, source: OpenSource, loop: asyncio.AbstractEventLoop) -> None:
        self.stage = stage
        self.source = source
        self.capabilities = stage.capabilities()
        self._loop = loop
        self._made: set[str] = set()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do this on the loop of the source."""
        return self._loop.run_until_complete(asyncio.wait_for(work, 60.0))

    def made(self, name: str, make: Callable[[str], Awaitable[object]]) -> str:
        """The name, once the table of this name has been made."""
        if name not in self._made:

            async def wait() -> None:
                await make(name)

            self.run(wait())
            self._made.add(name)
        return name

    def series(self, rows: int, text_bytes: int) -> str:
        """The name of a table of `Stage.create_series`."""
        return self.made(f"series_{rows}_{text_bytes}", lambda name: self.stage.create_series(name, rows, text_bytes))

    def slow(self) -> LensDefinition:
        """The lens over a view that takes longer than any test."""
        return lens(self.made("slow_view", self.stage.create_slow_view), (ID,))

    # --- plans ------------------------------------------------------------------------------------------------------------

    def page(self, definition: LensDefinition, **request: Any) -> PlannedRows:
        """A page as the service plans it."""
        return plan_rows(
            definition, QueryRequest(**request), self.capabilities, cursor_key=CURSOR_KEY, environment="bench"
        )

    def export(self, definition: LensDefinition, **request: Any) -> Plan:
        """An export as the service plans it."""
        return plan_export(definition, ExportRequest(**request), self.capabilities)

    # --- answers ----------------------------------------------------------------------------------------------------------

    async def answer(
        self,
        plan: Plan,
        format: RowFormat = RowFormat.JSON,
        *,
        source: OpenSource | None = None,
        seconds: float = SECONDS,
        is_export: bool = False,
        sink: RowSink | None = None,
        **bounds: int,
    ) -> Answer:
        """What the source gives for a plan that came over the wire. Raises LenswayError."""
        kept = Sink()
        execution = Execution(
            deadline=time.monotonic() + seconds,
            format=format,
            limits=ResultLimits(**{"rows_max": 10**7, "bytes_max": 10**9, "row_bytes_max": 10**8} | bounds),
            tag="bench/1",
            is_export=is_export,
        )
        plan = Plan.decode(plan.encode())
        end = await (source or self.source).run(plan, execution, sink or kept)
        return Answer(kept.data, end)

    def ask(self, plan: Plan, format: RowFormat = RowFormat.JSON, **more: Any) -> Answer:
        """As `answer`, waited for."""
        return self.run(self.answer(plan, format, **more))

    def rows(self, definition: LensDefinition, **request: Any) -> list[dict[str, Any]]:
        """The rows of one page."""
        return self.ask(self.page(definition, **request).plan).rows

    def count(self, definition: LensDefinition, where: object) -> int:
        """How many rows there are, by a plan that counts."""
        body = self.ask(plan_count(definition, where, self.capabilities)).body
        found: dict[str, int] = json.loads(body)
        assert list(found) == ["count"]
        return found["count"]

    def walk(
        self,
        definition: LensDefinition,
        *,
        limit: int,
        order_by: Sequence[Mapping[str, str]],
        **request: Any,
    ) -> list[dict[str, Any]]:
        """Every row, by following cursors to the end."""
        seen: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            planned = self.page(definition, limit=limit, order_by=list(order_by), cursor=cursor, **request)
            answer = self.ask(planned.plan)
            seen += answer.rows
            assert answer.end.rows == len(answer.rows)
            cursor = planned.next_cursor(answer.end)
            assert (cursor is not None) == answer.end.has_more, (
                "a page with more behind it has a cursor, the last has none"
            )
            if cursor is None:
                return seen
            assert len(answer.rows) == limit, "a page that is not the last is full"
        raise AssertionError("the walk does not end")
