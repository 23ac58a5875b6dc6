"""PostgreSQL: pages as one statement, long results in pieces, both read-only and under a deadline that the database knows.

A page of a plain table is one round trip: the session is read-only by default, plans are SELECTs, and the statement timeout of
the session is already right for most requests. Every other page reads in one READ ONLY transaction that is rolled back
(`transaction`), as does everything behind a pooler that assigns server connections to transactions. Arrow and most exports take
the bulk path (`bulk`), in a process that has it; large pages and all other exports read through a cursor, sized by bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from lensway import limits
from lensway.bridges.contract import (
    CONNECTION_LIMIT,
    AddressPolicy,
    ConnectionReport,
    Execution,
    RowSink,
    Stage,
    TableDescription,
    TableSummary,
)
from lensway.bridges.encoding.writer import ARROW_FORMATS, RowWriter
from lensway.bridges.kit import loading
from lensway.bridges.kit.deadlines import Deadlines
from lensway.bridges.kit.failures import timed_out, undecodable
from lensway.bridges.kit.orderings import Orderings
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.bulk.sql import COLUMNS_MAX, TEXT_FORMATS
from lensway.bridges.postgres.connecting import is_other_backend
from lensway.bridges.postgres.diagnosis import explained, is_explained, undecodable_field
from lensway.bridges.postgres.endpoints import check_places
from lensway.bridges.postgres.inspection import describe_table, list_tables, run_test
from lensway.bridges.postgres.keys import table_facts
from lensway.bridges.postgres.pool import PooledConnection
from lensway.bridges.postgres.reading import Reading, TooMuchAtOnceError, at_once, by_cursor, too_large
from lensway.bridges.postgres.relations import Relations
from lensway.bridges.postgres.settings import PostgresSettings, read_settings
from lensway.bridges.postgres.watch import WatchedPool
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.plan import Plan, decode_shape
from lensway.query.result import ResultEnd, RowFormat, not_available

_DIALECT: Final = "postgres"
_SINGLE_STATEMENT_ROWS_MAX: Final = 1_000
"""Larger pages read through a cursor: all rows of one statement are in memory at once."""


class PostgresBridge:
    """Implements `lensway.bridges.contract.Bridge`."""

    kind = "postgres"

    def driver_version(self) -> str | None:
        """The driver's version."""
        return f"asyncpg {importlib.metadata.version('asyncpg')}"

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse settings that cannot work or that the policy forbids. Raises LenswayError."""
        settings = read_settings(config)
        settings.tls()
        check_places(settings, policy)

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> PostgresSource:
        """A source ready for use; connections are made when needed."""
        return PostgresSource(read_settings(config), policy)


class PostgresSource:
    """Implements `lensway.bridges.contract.OpenSource`."""

    def __init__(self, settings: PostgresSettings, policy: AddressPolicy) -> None:
        self._settings = settings
        self._policy = policy
        relations = Relations()
        self._queries = WatchedPool(settings, policy, size=settings.pool_size, relations=relations)
        self._exports = WatchedPool(settings, policy, size=settings.export_pool_size, relations=relations)
        self._deadlines = Deadlines()
        self._orderings = Orderings(
            _DIALECT, seconds=limits.KEY_FACTS_SECONDS, are_exports_ordered=False, are_texts_judged=True
        )
        self._bulk: Any = None
        # Exports take either driver, and together no more connections than one of them has.
        self._export_slots = asyncio.Semaphore(settings.export_pool_size)

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows; cancelled or late, the statement is gone from the database first."""
        try:
            with self._deadlines.until(execution.deadline):
                try:
                    return await self._tried(plan, execution, sink)
                except LenswayError as error:
                    if errors.is_refused_comparison(error) and await self._compares_otherwise(plan, execution.deadline):
                        return await self._tried(plan, execution, sink)
                    if not is_explained(error):
                        raise
                    raise await self._explained(error, plan, execution.deadline) from None
        except TimeoutError:
            raise timed_out() from None
        except Exception as error:  # noqa: BLE001 - the driver raises anything at a server that breaks the protocol
            raise errors.of_defect(error) from None

    async def _tried(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        compiled = self._orderings.ready(plan.shape) or await self._looked_up(plan, execution.deadline)
        if not execution.is_export and execution.format not in ARROW_FORMATS:
            return await self._run_page(compiled, plan, execution, sink)
        if not execution.is_export:
            return await self._run(compiled, plan, execution, sink)
        async with self._export_slots:
            return await self._run(compiled, plan, execution, sink)

    async def _compares_otherwise(self, plan: Plan, deadline: float) -> bool:
        """Ask the catalog again; True when a column of the plan is to be compared as something else now. The server refused the
        statement before it ran."""
        before = self._orderings.ready(plan.shape)
        self._orderings.forget()
        try:
            after = await self._looked_up(plan, deadline)
        except LenswayError:
            return False
        return before is None or before.sql != after.sql

    async def _explained(self, error: LenswayError, plan: Plan, deadline: float) -> LenswayError:
        """The failure with what the catalog says about its reason, where that can be asked."""
        shape = decode_shape(plan.shape)
        if error.failure.details.get("class") == "invalid_text" and (compiled := self._orderings.ready(plan.shape)):
            return await self._undecodable(compiled, plan, deadline)
        try:
            found: LenswayError = await self._inspect(
                lambda driver: explained(driver, error.failure, shape, plan), deadline
            )
            return found
        except LenswayError:
            return error

    async def _looked_up(self, plan: Plan, deadline: float) -> Compiled:
        """The statement for this plan, once the catalog has said what it guarantees of the table."""
        shape = decode_shape(plan.shape)
        facts = await self._inspect(lambda driver: table_facts(driver, shape), deadline)
        return self._orderings.learned(plan.shape, facts)

    async def _run(self, compiled: Compiled, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        if _is_bulk(compiled, execution) and await self._open_bulk(execution.format):
            end: ResultEnd = await self._bulk.run(compiled, plan, execution, sink)
            return end
        return await self._read(by_cursor, compiled, plan, execution, sink)

    async def _run_page(self, compiled: Compiled, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        if (plan.limit or 0) <= _SINGLE_STATEMENT_ROWS_MAX:
            try:
                return await self._read(at_once, compiled, plan, execution, sink)
            except TooMuchAtOnceError:
                pass
        return await self._read(by_cursor, compiled, plan, execution, sink)

    async def _read(
        self, read: Reading, compiled: Compiled, plan: Plan, execution: Execution, sink: RowSink
    ) -> ResultEnd:
        """Read it on a pooled connection, a second time on a fresh one when the first was stale. Raises TooMuchAtOnceError."""
        pool = self._exports if execution.is_export else self._queries
        for is_last_try in (False, True):
            began_at = time.monotonic()
            connection: PooledConnection | None = None
            is_alive = False
            bounds, is_offset = execution.limits, bool(plan.offset)
            writer = RowWriter(compiled, execution.format, bounds, sink, page_rows=plan.limit, is_offset=is_offset)
            try:
                connection = None if is_last_try else pool.take_idle()
                if connection is None:
                    connection = await pool.acquire(fresh=is_last_try)
                try:
                    end = await read(pool, connection, compiled, plan, execution, writer)
                except BaseException as error:
                    is_alive = not connection.driver.is_closed()
                    await self._give_back(pool, connection, error)
                    raise
                pool.release(connection)
                return end
            except errors.UndecodableError:
                raise await self._undecodable(compiled, plan, execution.deadline) from None
            except errors.DRIVER_ERRORS as error:
                if isinstance(error, TimeoutError):
                    raise
                if connection is not None and (cut := connection.driver.guard.cut):
                    raise too_large(cut, execution, in_pieces=read is by_cursor) from None
                if is_alive and errors.is_undecodable(error):
                    raise await self._undecodable(compiled, plan, execution.deadline) from None
                if is_last_try or writer.rows or not errors.may_repeat(error, execution.may_repeat):
                    own_ms = 0 if connection is None else connection.own_timeout_ms
                    run = errors.Run(deadline=execution.deadline, began_at=began_at, own_timeout_ms=own_ms)
                    raise errors.of_query(error, run) from None
        raise AssertionError("the second try returns or raises")

    async def _undecodable(self, compiled: Compiled, plan: Plan, deadline: float) -> LenswayError:
        """The failure that names the field whose value cannot be decoded: columns are read again, one at a time."""
        name = None
        with contextlib.suppress(LenswayError):
            name = await self._inspect(functools.partial(undecodable_field, compiled=compiled, plan=plan), deadline)
        every = [column.name for column in compiled.columns[: compiled.output_count]]
        return undecodable(every if name is None else [name])

    async def _open_bulk(self, format: RowFormat) -> bool:
        """Whether the bulk path is there. Raises LenswayError NOT_ACCEPTABLE where it is not and nothing else has the format."""
        if self._bulk is None:
            try:
                module = await loading.load("lensway.bridges.postgres.bulk.source", packages=loading.ARROW_PACKAGES)
            except ImportError:
                if format in ARROW_FORMATS:
                    raise not_available(format.value) from None
                return False
            if self._bulk is None:
                self._bulk = module.BulkSource(self._settings, self._policy)
        return True

    async def _give_back(self, pool: WatchedPool, connection: PooledConnection, error: BaseException) -> None:
        """Use the connection again if the server has answered with this error, unless it says otherwise; else close it."""
        is_clean = False
        if isinstance(error, asyncpg.PostgresError):
            is_cancelled = error.sqlstate == "57014"
            is_clean = not (errors.is_broken_connection(error) or connection.driver.is_in_transaction() or is_cancelled)
            if errors.is_stale_statement(error) or errors.is_stale_type(error.sqlstate):
                connection.forget_statements()
                self._orderings.forget()
            if isinstance(error, asyncpg.InvalidSQLStatementNameError) and await is_other_backend(connection):
                self._queries.found_pooler()
                self._exports.found_pooler()
                is_clean = False
        if is_clean:
            connection.driver.guard.relax()
            pool.release(connection)
        else:
            await pool.discard(connection)

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """Prove each stage. Never raises for a failed one."""
        async with self._queries.spare(deadline):
            report = await run_test(self._settings, self._policy, lenses, deadline=deadline)
        report = self._queries.login.noted(report)
        if any(each.stage is Stage.LOGIN and each.ok for each in report.stages):
            for pool in (self._queries, self._exports, self._bulk):
                if pool is not None:
                    pool.answered()
        return report

    def condition(self) -> str:
        """Whether the login's bound on connections was met lately."""
        return CONNECTION_LIMIT if self._queries.login.is_short() else ""

    async def probe(self, *, deadline: float) -> None:
        """One round trip: on an idle connection of the pool, which grows old all the same, or on one that is closed again.

        Raises:
            LenswayError: SOURCE_UNREACHABLE.
        """
        pool = self._queries
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                if (connection := pool.take_idle()) is not None:
                    since = connection.idle_since
                    try:
                        await _ping(connection.driver)
                    except BaseException as error:
                        await pool.discard(connection)
                        if not isinstance(error, errors.DRIVER_ERRORS) or isinstance(error, TimeoutError):
                            raise
                        # A connection that is broken says nothing of the server.
                    else:
                        pool.untouched(connection, since)
                        return
                await pool.server.pace()
                connection = await pool.acquire()
                try:
                    await _ping(connection.driver)
                finally:
                    await pool.discard(connection)
        except TimeoutError:
            raise timed_out() from None
        except errors.DRIVER_ERRORS as error:
            raise errors.of_query(error) from None
        except Exception as error:  # noqa: BLE001 - the driver raises anything at a server that breaks the protocol
            raise errors.of_defect(error) from None

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """Every table and view that this login can read."""
        found: Sequence[TableSummary] = await self._inspect(list_tables, deadline)
        return found

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """One table's columns. Raises LenswayError NOT_FOUND."""
        found: TableDescription = await self._inspect(lambda driver: describe_table(driver, name), deadline)
        return found

    async def _inspect(self, look: Any, deadline: float) -> Any:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                for is_last_try in (False, True):
                    connection = await self._queries.acquire(fresh=is_last_try)
                    is_clean = False
                    try:
                        found = await _looked(connection, look, deadline)
                        is_clean = True
                        return found
                    except errors.DRIVER_ERRORS as error:
                        if is_last_try or isinstance(error, TimeoutError) or not errors.is_broken_connection(error):
                            raise errors.of_query(error) from None
                    finally:
                        if is_clean:
                            self._queries.release(connection)
                        else:
                            await self._queries.discard(connection)
        except TimeoutError:
            raise timed_out() from None
        except Exception as error:  # noqa: BLE001 - the driver raises anything at a server that breaks the protocol
            raise errors.of_defect(error) from None

    @property
    def connections(self) -> int:
        """Connections of the pools, idle ones included."""
        return self._queries.count + self._exports.count

    async def close(self) -> None:
        """Close every connection."""
        self._deadlines.close()
        await self._queries.close()
        await self._exports.close()
        if self._bulk is not None:
            await self._bulk.close()


def _is_bulk(compiled: Compiled, execution: Execution) -> bool:
    """Arrow comes from the driver that has it; of texts only long ones, in the forms that it can make."""
    if execution.format in ARROW_FORMATS:
        return True
    output = compiled.columns[: compiled.output_count]
    return (
        execution.is_export
        and not compiled.shape.has_limit  # a page says the key of its last row, which lines made by the database hide
        and execution.format in TEXT_FORMATS
        and len(output) <= COLUMNS_MAX
        and not any(column.is_list for column in output)
    )


async def _ping(driver: Any) -> None:
    await driver.execute("SELECT 1")


async def _looked(connection: PooledConnection, look: Any, deadline: float) -> Any:
    if connection.is_shared:
        async with connection.transaction(deadline, is_plain=True):
            return await look(connection.driver)
    if (seconds := connection.timeout_for(deadline - time.monotonic())) is not None:
        await connection.limit_time(seconds)
    return await look(connection.driver)
