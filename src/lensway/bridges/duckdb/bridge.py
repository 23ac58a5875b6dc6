"""DuckDB: a file, opened read-only, read in threads of its own.

Plans are SELECTs, the file is attached read-only, and the engine may reach nothing else: no other file, no extension, no setting.
A statement is ended by `interrupt`, by cancellation or by its deadline.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import duckdb

from lensway import limits
from lensway.bridges.contract import (
    AddressPolicy,
    ConnectionReport,
    Execution,
    RowSink,
    Stage,
    TableDescription,
    TableSummary,
)
from lensway.bridges.duckdb import catalog
from lensway.bridges.duckdb.columns import Columns, columns_of
from lensway.bridges.duckdb.engine import KEEP_SECONDS, DuckdbSettings, Engine, failure_of, settings_of
from lensway.bridges.duckdb.reading import Reading
from lensway.bridges.encoding.writer import ARROW_FORMATS, Meter, load_encoder
from lensway.bridges.kit import loading
from lensway.bridges.kit.addresses import confined_path
from lensway.bridges.kit.failures import FILE_TABLE_HINT, query_failed
from lensway.bridges.kit.orderings import Orderings
from lensway.bridges.kit.results import write_rows
from lensway.bridges.kit.stages import NETWORK, of_lens, staged
from lensway.bridges.kit.threads import Threads, within
from lensway.dialects.compile import Compiled, compile_shape
from lensway.errors import ErrorCode, LenswayError
from lensway.query.cache import BoundedCache
from lensway.query.plan import Plan, decode_shape
from lensway.query.result import ResultEnd

_DIALECT: Final = "duckdb"
_ARROW_MODULE: Final = "lensway.bridges.duckdb.arrow"

Result = TypeVar("Result")


class DuckdbBridge:
    """Implements `lensway.bridges.contract.Bridge`."""

    kind = "duckdb"

    def driver_version(self) -> str | None:
        """The engine's version."""
        return f"duckdb {duckdb.__version__}"

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse settings that cannot work or that the policy forbids. Raises LenswayError."""
        confined_path(settings_of(config, self.kind).path, policy)

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> DuckdbSource:
        """A source ready for use; the file is opened when needed."""
        return DuckdbSource(settings_of(config, self.kind), policy)


class DuckdbSource:
    """Implements `lensway.bridges.contract.OpenSource`. One thread and one connection for each statement that runs."""

    def __init__(self, settings: DuckdbSettings, policy: AddressPolicy) -> None:
        self._threads = Threads(Engine(settings, policy), _DIALECT, keep_seconds=KEEP_SECONDS)
        self._orderings = Orderings(_DIALECT, seconds=limits.FILE_KEY_FACTS_SECONDS, are_exports_ordered=True)
        self._columns: BoundedCache[bytes, tuple[Columns, float]] = BoundedCache(
            entries_max=limits.COMPILED_PLANS_MAX, bytes_max=limits.COMPILED_SHAPES_BYTES_MAX
        )

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows; cancelled or late, the statement is interrupted first."""
        try:
            return await self._run(plan, execution, sink)
        except BaseException:
            self._threads.rest()  # what was ended holds the file no longer
            raise

    async def _run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        compiled, columns = await self._known(plan, execution.deadline)
        if execution.format in ARROW_FORMATS:
            return await self._batches(compiled, columns, plan, execution, sink)
        return await write_rows(
            self._threads,
            compiled,
            plan,
            execution,
            sink,
            read=lambda sql, values, _: Reading(columns, sql, values, execution.tag),
            count=_counted,
        )

    async def _batches(
        self, compiled: Compiled, columns: Columns, plan: Plan, execution: Execution, sink: RowSink
    ) -> ResultEnd:
        await load_encoder(execution.format)
        arrow = await loading.load(_ARROW_MODULE)
        batches = arrow.Batches(compiled, columns, plan, execution)
        meter = Meter(execution.limits)
        async with self._threads.connection(execution.deadline) as work:
            try:
                await work(batches.start)
                while (found := await work(batches.next)) is not None:
                    meter.count(found[0], len(found[1]))
                    await within(execution.deadline, sink.write(found[1]))
            finally:
                if not work.is_busy:
                    batches.close()
            total = None
            if compiled.count_sql is not None:
                sql, values = compiled.count_sql, compiled.bind_count(plan)
                total = await work(lambda connection: _counted(connection, sql, values))
        tail = batches.finish()
        meter.count(0, len(tail))
        await within(execution.deadline, sink.write(tail))
        key, row_id = batches.page.key()
        return ResultEnd(
            rows=meter.rows,
            bytes=meter.bytes,
            has_more=batches.page.has_more,
            last_key=key,
            total=total,
            row_id=row_id,
        )

    async def _known(self, plan: Plan, deadline: float) -> tuple[Compiled, Columns]:
        """The statement for this plan and its columns, once the file has said what they are."""
        compiled, found = self._orderings.ready(plan.shape), self._columns.get(plan.shape)
        if compiled is not None and found is not None and found[1] > time.monotonic():
            return compiled, found[0]
        shape = decode_shape(plan.shape)
        table = await self._with_connection(deadline, lambda connection: catalog.look_at(connection, shape))
        compiled = self._orderings.learned(plan.shape, table.facts)
        columns = columns_of(compiled, table.types)
        self._columns.put(plan.shape, (columns, time.monotonic() + limits.FILE_KEY_FACTS_SECONDS), len(plan.shape))
        return compiled, columns

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """Prove each stage that a file has. Never raises for a failed one."""
        checks: list[tuple[Stage, Callable[[duckdb.DuckDBPyConnection], Any]]] = [
            (Stage.LOGIN, lambda connection: connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone()),
            (Stage.QUERY, lambda connection: connection.execute("SELECT 1").fetchone()),
            (Stage.READ_ONLY, _refuses_writes),
            (Stage.LENSES, lambda connection: _read_lenses(connection, lenses)),
        ]
        stages = await staged(
            [(stage, functools.partial(self._with_connection, deadline, check)) for stage, check in checks],
            skipped=NETWORK,
        )
        is_ok = all(each.ok is not False for each in stages)
        warnings: Sequence[Mapping[str, str]] = ()
        if is_ok:
            with contextlib.suppress(LenswayError):  # the stages have proved what queries need; this only looks ahead
                soon = min(deadline, time.monotonic() + limits.KEY_LOOK_SECONDS)
                warnings = await self._with_connection(
                    soon, lambda connection: catalog.key_warnings(connection, lenses)
                )
        return ConnectionReport(ok=is_ok, stages=stages, warnings=warnings, server_version=duckdb.__version__)

    def condition(self) -> str:
        """Nothing: a file has no logins."""
        return ""

    async def probe(self, *, deadline: float) -> None:
        """Open the file and read its catalog. Raises LenswayError SOURCE_UNREACHABLE."""
        await self._with_connection(
            deadline, lambda connection: connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
        )

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """Every table and view."""
        return await self._with_connection(deadline, catalog.tables)

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """One table's columns. Raises LenswayError NOT_FOUND."""
        found = await self._with_connection(deadline, lambda connection: catalog.description(connection, name))
        if found is None:
            raise LenswayError(ErrorCode.NOT_FOUND, f"No table '{name[:120]}' in the file", hint=FILE_TABLE_HINT)
        return found

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones included."""
        return self._threads.count

    async def close(self) -> None:
        """Close every connection and the file."""
        self._threads.close()

    async def _with_connection(self, deadline: float, do: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        async with self._threads.connection(deadline) as work:
            return await work(do)


def _counted(connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any]) -> int:
    found = connection.execute(sql, list(values)).fetchone()
    assert found is not None, "an aggregate gives a row"
    return int(found[0])


def _refuses_writes(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("CREATE TABLE lensway_must_not_exist (x INTEGER)")
    except duckdb.Error:
        return
    raise query_failed("writable", "The file could be written")


def _read_lenses(connection: duckdb.DuckDBPyConnection, lenses: Sequence[Plan]) -> None:
    for plan in lenses:
        compiled = compile_shape(plan.shape, _DIALECT)
        try:
            columns_of(compiled, catalog.look_at(connection, compiled.shape).types)
            connection.execute(compiled.sql, compiled.bind(plan)).fetchall()
        except (duckdb.Error, LenswayError) as error:
            raise of_lens(
                compiled.shape.lens, error if isinstance(error, LenswayError) else failure_of(error)
            ) from None
