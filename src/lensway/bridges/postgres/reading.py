"""How a page or a long result is read from PostgreSQL on one connection: as one statement, in a transaction, or by a cursor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import asyncpg

from lensway import limits
from lensway.bridges.contract import (
    Execution,
)
from lensway.bridges.encoding.writer import RowWriter
from lensway.bridges.kit.failures import limit_exceeded, row_too_large
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.guard import Cut
from lensway.bridges.postgres.pool import PooledConnection
from lensway.bridges.postgres.relations import Relation
from lensway.bridges.postgres.transaction import ReadOnlyTransaction
from lensway.bridges.postgres.values import as_digits, exact_end
from lensway.bridges.postgres.watch import WatchedPool
from lensway.dialects.compile import Compiled
from lensway.query.plan import Plan
from lensway.query.result import ResultEnd

_SINGLE_STATEMENT_BYTES_MAX: Final = limits.PAGE_BYTES_MAX // 4
"""As encoded; so on the wire, where it may be four times as much, never more than a page. Larger ones are read again."""
_FIRST_FETCH_ROWS: Final = 10
"""Nothing is known of their size yet."""
_FETCH_ROWS_MAX: Final = 2_000
"""Some milliseconds of decoding: the loop serves others in between."""
_FETCH_BYTES: Final = 4 * limits.FETCH_BYTES_TARGET


class TooMuchAtOnceError(Exception):
    """The answer to a single statement is larger than may be in memory; nothing of it was written."""


class Reading(Protocol):
    """One way to read a result on a connection that no other task reads meanwhile."""

    async def __call__(
        self,
        pool: WatchedPool,
        connection: PooledConnection,
        compiled: Compiled,
        plan: Plan,
        execution: Execution,
        writer: RowWriter,
        /,
    ) -> ResultEnd:
        """Read and write every row. Raises LenswayError, TooMuchAtOnceError and the driver's errors."""


async def at_once(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
) -> ResultEnd:
    """The page of a plain table whose statement is prepared; everything else is for `_judged`."""
    statement = connection.known(compiled.sql)
    if statement is None or compiled.count_sql is not None or compiled.rest_sql is not None:
        return await _judged(pool, connection, compiled, plan, execution, writer)
    if (seconds := connection.timeout_for(execution.deadline - time.monotonic())) is not None:
        await connection.limit_time(seconds)
    bounds, guard = execution.limits, connection.driver.guard
    answer_bytes_max = min(bounds.bytes_max, _SINGLE_STATEMENT_BYTES_MAX)
    guard.expect(row_bytes_max=bounds.row_bytes_max, answer_bytes_max=answer_bytes_max)
    try:
        rows = await statement.fetch(*compiled.bind(plan))
    except asyncpg.InvalidArgumentForWidthBucketFunctionError:
        return await _changed(pool, connection, compiled, plan, execution, writer)
    except errors.DECODING_ERRORS as error:
        raise errors.of_decoding(error) from None
    guard.relax()
    pool.rests(connection)
    if connection.digits and (positions := connection.digits.get(compiled.sql)):
        rows = as_digits(rows, positions)
    await writer.write(rows)
    return exact_end(await writer.end(), compiled, statement)


async def _judged(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
) -> ResultEnd:
    """The page in the form that its table needs."""
    relation = await _plain(pool, connection, compiled, execution.deadline)
    if relation is None:
        return await _in_transaction(pool, connection, compiled, plan, execution, writer, None)
    try:
        if connection.is_shared:
            return await _in_transaction(pool, connection, compiled, plan, execution, writer, relation)
        return await _alone(pool, connection, compiled, plan, execution, writer, relation)
    except asyncpg.InvalidArgumentForWidthBucketFunctionError:
        if writer.rows:
            raise
        return await _changed(pool, connection, compiled, plan, execution, writer)


async def _changed(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
) -> ResultEnd:
    """The guard says that it is another table than the one that was judged."""
    connection.forget_statements()
    pool.relations.forget(compiled)
    return await _in_transaction(pool, connection, compiled, plan, execution, writer, None)


async def _plain(
    pool: WatchedPool, connection: PooledConnection, compiled: Compiled, deadline: float
) -> Relation | None:
    """The plain table that the statement reads; None when it is anything else."""
    if not connection.is_shared or pool.relations.is_known(compiled):
        return await pool.relations.plain(connection.driver, compiled)
    async with connection.transaction(deadline, is_plain=True):
        return await pool.relations.plain(connection.driver, compiled)


async def _alone(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
    relation: Relation,
) -> ResultEnd:
    """The page of a plain table: statements without a transaction around them."""
    if (seconds := connection.timeout_for(execution.deadline - time.monotonic())) is not None:
        await connection.limit_time(seconds)
    statement: Any = None
    found = []
    for sql, values in compiled.statements(plan):
        statement = await connection.guarded(relation, compiled, sql, execution.tag)
        found.append(await _fetched(connection, statement, sql, values, execution))
        if _is_full(found[-1], plan):
            break
    pool.rests(connection)
    await _written(found, writer)
    if compiled.count_sql is None:
        return exact_end(await writer.end(), compiled, statement)
    pool.waits(connection)
    counting = await connection.guarded(relation, compiled, compiled.count_sql, execution.tag)
    total: int = await counting.fetchval(*compiled.bind_count(plan))
    return exact_end(await writer.end(total), compiled, statement)


async def _fetched(
    connection: PooledConnection, statement: Any, sql: str, values: Sequence[object], execution: Execution
) -> Sequence[Any]:
    bounds, guard = execution.limits, connection.driver.guard
    answer_bytes_max = min(bounds.bytes_max, _SINGLE_STATEMENT_BYTES_MAX)
    guard.expect(row_bytes_max=bounds.row_bytes_max, answer_bytes_max=answer_bytes_max)
    try:
        rows: Sequence[Any] = await statement.fetch(*values)
    except errors.DECODING_ERRORS as error:
        raise errors.of_decoding(error) from None
    guard.relax()
    positions = connection.digits.get(sql)
    return as_digits(rows, positions) if positions else rows


def _is_full(rows: Sequence[Any], plan: Plan) -> bool:
    """True when no further statement of the page is needed."""
    return plan.limit is None or len(rows) > plan.limit


async def _written(found: Sequence[Sequence[Any]], writer: RowWriter) -> None:
    # Not before the last statement: where all that it gives is too much, the page is read again from its start.
    for rows in found:
        writer.begin_statement()
        await writer.write(rows)


async def _in_transaction(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
    relation: Relation | None,
) -> ResultEnd:
    """The page of anything, in a transaction that leaves nothing behind. ``relation``: a plain table, which saves steps."""
    has_steps = compiled.count_sql is not None or compiled.rest_sql is not None
    is_plain = relation is not None
    statement: Any = None
    found: list[Sequence[Any]] = []
    async with connection.transaction(execution.deadline, is_plain=is_plain, has_steps=has_steps) as transaction:
        for sql, values in compiled.statements(plan):
            if found:
                await transaction.step(execution.deadline)
            statement = await connection.prepared(compiled, sql, execution.tag, relation=relation)
            found.append(await _fetched(connection, statement, sql, values, execution))
            if _is_full(found[-1], plan):
                break
        total = await _total(connection, transaction, compiled, plan, execution)
    pool.rests(connection)
    await _written(found, writer)
    return exact_end(await writer.end(total), compiled, statement)


async def by_cursor(
    pool: WatchedPool,
    connection: PooledConnection,
    compiled: Compiled,
    plan: Plan,
    execution: Execution,
    writer: RowWriter,
) -> ResultEnd:
    """A long result, some rows at a time. Raises as `Reading`."""
    driver = connection.driver
    has_steps = compiled.count_sql is not None or compiled.rest_sql is not None
    statement: Any = None
    async with connection.transaction(execution.deadline, is_plain=False, has_steps=has_steps) as transaction:
        # A statement of its own for each export: its tag makes the database's log a witness of what was executed.
        for sql, values in compiled.statements(plan):
            if statement is not None:
                await transaction.step(execution.deadline)
            statement = await connection.prepared(compiled, sql, execution.tag, always_tags=execution.is_export)
            writer.begin_statement()
            cursor = await statement.cursor(*values)
            positions = connection.digits.get(sql, ())
            await _drained(pool, connection, transaction, cursor, execution, writer, positions)
            if writer.has_more:
                break
        total = await _total(connection, transaction, compiled, plan, execution)
    driver.guard.relax()
    return exact_end(await writer.end(total), compiled, statement)


async def _drained(
    pool: WatchedPool,
    connection: PooledConnection,
    transaction: ReadOnlyTransaction,
    cursor: Any,
    execution: Execution,
    writer: RowWriter,
    positions: tuple[int, ...],
) -> None:
    """Read the cursor to its end, or the page's, and write its rows."""
    driver = connection.driver
    count = _FIRST_FETCH_ROWS
    row_bytes_max = execution.limits.row_bytes_max
    while True:
        driver.guard.expect(row_bytes_max=row_bytes_max, answer_bytes_max=limits.FETCH_BYTES_MAX)
        try:
            rows = await cursor.fetch(count)
        except errors.DECODING_ERRORS as error:
            raise errors.of_decoding(error) from None
        # While the caller takes them no task waits for the server: an idle server is not a lost one.
        pool.rests(connection)
        await writer.write(as_digits(rows, positions) if positions else rows)
        pool.waits(connection)
        if writer.has_more or len(rows) < count:
            break
        count = max(1, min(_FETCH_ROWS_MAX, _FETCH_BYTES * writer.rows // max(1, writer.bytes)))
        # The timeout counts for each fetch; what is set must never reach beyond the deadline by more than a second.
        await transaction.lower(execution.deadline)


def too_large(cut: Cut, execution: Execution, *, in_pieces: bool) -> Exception:
    """The error for an answer that the guard has cut; TooMuchAtOnceError when it can be read in pieces."""
    if cut is Cut.ROW:
        return row_too_large(execution.limits.row_bytes_max)
    if not in_pieces and execution.limits.bytes_max > _SINGLE_STATEMENT_BYTES_MAX:
        return TooMuchAtOnceError()
    if in_pieces:
        return limit_exceeded("bytes in rows that are read at once", limits.FETCH_BYTES_MAX)
    return limit_exceeded("bytes", execution.limits.bytes_max)


async def _total(
    connection: PooledConnection, transaction: ReadOnlyTransaction, compiled: Compiled, plan: Plan, execution: Execution
) -> int | None:
    if compiled.count_sql is None:
        return None
    await transaction.step(execution.deadline)
    statement = await connection.prepared(compiled, compiled.count_sql)
    found: int = await statement.fetchval(*compiled.bind_count(plan))
    return found
