"""One plan on one connection of a blocking driver: statements until the page is full, then the total."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from lensway.bridges.contract import Execution, RowSink
from lensway.bridges.encoding.writer import RowWriter, load_encoder
from lensway.bridges.kit.threads import Blocking, Threads, within
from lensway.dialects.compile import Compiled
from lensway.query.plan import Plan
from lensway.query.result import ResultEnd

Connection = TypeVar("Connection", bound=Blocking)
Connection_contra = TypeVar("Connection_contra", bound=Blocking, contravariant=True)


class Reading(Protocol[Connection_contra]):
    """One statement while its rows are read. `start` and `next` block, in a thread."""

    def start(self, connection: Connection_contra) -> None:
        """Execute it."""

    def next(self, connection: Connection_contra) -> tuple[Sequence[tuple[Any, ...]], bool]:
        """The next rows, and whether they are the last ones."""

    def close(self) -> None:
        """End it."""


async def write_rows(
    threads: Threads[Connection],
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    sink: RowSink,
    *,
    read: Callable[[str, Sequence[Any], int | None], Reading[Connection]],
    count: Callable[[Connection, str, Sequence[Any]], int],
) -> ResultEnd:
    """Execute the plan and write its rows.

    ``read`` makes the reading of a statement with its values, for a page with so many rows left; ``count`` the number that a
    statement gives. Raises LenswayError as `OpenSource.run`.
    """
    await load_encoder(execution.format)
    writer = RowWriter(
        compiled, execution.format, execution.limits, sink, page_rows=plan.limit, is_offset=bool(plan.offset)
    )
    async with threads.connection(execution.deadline) as work:
        for sql, values in compiled.statements(plan):
            writer.begin_statement()
            reading = read(sql, values, None if plan.limit is None else plan.limit - writer.rows)
            try:
                await work(reading.start)
                is_last = False
                while not (is_last or writer.has_more):
                    rows, is_last = await work(reading.next)
                    await within(execution.deadline, writer.write(rows))
            finally:
                if not work.is_busy:
                    reading.close()
            if writer.has_more:
                break
        total = None
        if compiled.count_sql is not None:
            count_sql, counted = compiled.count_sql, compiled.bind_count(plan)
            total = await work(lambda connection: count(connection, count_sql, counted))
    return await within(execution.deadline, writer.end(total))
