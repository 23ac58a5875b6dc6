"""Plants faults in every bridge, one at a time, and says which test of the conformance suite notices each. 1 when none does.

Each fault stands between the suite and the bridge, so that it is the same for every kind of database; a fault is noticed when the
test that is named beside it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from unittest import mock

import msgspec
import pyarrow as pa
import pytest

from lensway.bridges.contract import (
    AddressPolicy,
    ConnectionReport,
    Execution,
    OpenSource,
    RowSink,
    TableDescription,
    TableSummary,
)
from lensway.bridges.contract import Stage as TestStage
from lensway.bridges.postgres import connecting, transaction
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.dialects.sqlite_functions import FUNCTIONS
from lensway.errors import ErrorCode, LenswayError
from lensway.query.conditions import Compare, Operator
from lensway.query.plan import Plan, Shape, decode_shape, encode_shape
from lensway.query.result import ResultEnd, RowFormat
from lensway.testing.bridges.stage import stage_classes
from lensway.testing.bridges.suite import BridgeSuite

_PAGE: Final = (RowFormat.JSON, RowFormat.NDJSON)


class Faulty:
    """Implements `OpenSource` over another one, without a fault of its own."""

    def __init__(self, inner: OpenSource, config: Mapping[str, object]) -> None:
        self.inner = inner
        self.config = config

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """As the source does."""
        return await self.inner.run(plan, execution, sink)

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """As the source does."""
        return await self.inner.test(lenses, deadline=deadline)

    async def probe(self, *, deadline: float) -> None:
        """As the source does."""
        await self.inner.probe(deadline=deadline)

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """As the source does."""
        return await self.inner.tables(deadline=deadline)

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """As the source does."""
        return await self.inner.table(name, deadline=deadline)

    @property
    def connections(self) -> int:
        """As the bridge counts."""
        return self.inner.connections

    def condition(self) -> str:
        """As the bridge says."""
        return self.inner.condition()

    async def close(self) -> None:
        """As the source does."""
        await self.inner.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One fault: how a source with it is made, and the test that must notice."""

    name: str
    made: Callable[[OpenSource, Mapping[str, object]], OpenSource]
    caught_by: str


class _Collected:
    """A sink that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


# --- kinds of faults ------------------------------------------------------------------------------------------------------------


def _bytes(edit: Callable[[bytes], bytes], formats: Sequence[RowFormat]) -> type[Faulty]:
    """The result of these formats is edited on its way."""

    class Edited(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            if execution.format not in formats:
                return await self.inner.run(plan, execution, sink)
            kept = _Collected()
            end = await self.inner.run(plan, execution, kept)
            await sink.write(edit(kept.data))
            return end

    return Edited


def _shape(edit: Callable[[Shape], Shape]) -> type[Faulty]:
    """Another question is asked."""

    class Reshaped(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            shape = edit(decode_shape(plan.shape))
            return await self.inner.run(
                Plan(encode_shape(shape), plan.params, plan.limit, plan.offset), execution, sink
            )

    return Reshaped


def _plan(edit: Callable[[Plan], Plan]) -> type[Faulty]:
    """Another page is asked for."""

    class Replanned(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            return await self.inner.run(edit(plan), execution, sink)

    return Replanned


def _end(edit: Callable[[ResultEnd], ResultEnd]) -> type[Faulty]:
    """The end mark says something else."""

    class Ended(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            return edit(await self.inner.run(plan, execution, sink))

    return Ended


def _execution(edit: Callable[[Execution], Execution]) -> type[Faulty]:
    """It is run otherwise than asked."""

    class Executed(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            return await self.inner.run(plan, edit(execution), sink)

    return Executed


def _limits(**bounds: int) -> type[Faulty]:
    return _execution(
        lambda given: msgspec.structs.replace(given, limits=msgspec.structs.replace(given.limits, **bounds))
    )


def _failure(edit: Callable[[LenswayError, Mapping[str, object]], BaseException]) -> type[Faulty]:
    """A failure of a query is told otherwise."""

    class Failing(Faulty):
        async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
            try:
                return await self.inner.run(plan, execution, sink)
            except LenswayError as error:
                raise edit(error, self.config) from None

    return Failing


def _retold(error: LenswayError, **other: Any) -> LenswayError:
    told = error.failure
    said = {"code": told.code, "message": told.message, "hint": told.hint, "details": told.details} | other
    return LenswayError(said.pop("code"), said.pop("message"), **said)


def _report(edit: Callable[[ConnectionReport], ConnectionReport]) -> type[Faulty]:
    """The connection test finds something else."""

    class Reported(Faulty):
        async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
            return edit(await self.inner.test(lenses, deadline=deadline))

    return Reported


def _described(edit: Callable[[TableDescription], TableDescription]) -> type[Faulty]:
    """Introspection shows a table otherwise."""

    class Described(Faulty):
        async def table(self, name: str, *, deadline: float) -> TableDescription:
            return edit(await self.inner.table(name, deadline=deadline))

    return Described


def _columns(**other: bool) -> type[Faulty]:
    return _described(
        lambda found: msgspec.structs.replace(
            found, columns=[msgspec.structs.replace(column, **other) for column in found.columns]
        )
    )


# --- faults with a body of their own --------------------------------------------------------------------------------------------


class _CancelDoesNothing(Faulty):
    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        return await asyncio.shield(asyncio.ensure_future(self.inner.run(plan, execution, sink)))


class _CancelIsSlow(Faulty):
    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        task = asyncio.ensure_future(self.inner.run(plan, execution, sink))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=0.5)
            task.cancel()
            await asyncio.wait({task})
            raise


class _WholeResultIsHeld(Faulty):
    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        kept = _Collected()
        end = await self.inner.run(plan, execution, kept)
        await sink.write(kept.data)
        return end


class _ReaderIsNotAwaited(Faulty):
    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        writes: set[asyncio.Future[None]] = set()

        class Hasty:
            async def write(self, chunk: bytes) -> None:
                writes.add(asyncio.ensure_future(sink.write(chunk)))
                await asyncio.sleep(0)

        try:
            end = await self.inner.run(plan, execution, Hasty())
            await asyncio.gather(*writes)
            return end
        finally:
            for each in writes:
                each.cancel()


class _LimitShortens(Faulty):
    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        try:
            return await self.inner.run(plan, execution, sink)
        except LenswayError as error:
            if error.code is not ErrorCode.LIMIT_EXCEEDED:
                raise
            return ResultEnd(rows=0, bytes=0)


class _CloseDoesNothing(Faulty):
    async def close(self) -> None:
        pass


class _ProbeNeverFails(Faulty):
    async def probe(self, *, deadline: float) -> None:
        pass


class _TestRaises(Faulty):
    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        report = await self.inner.test(lenses, deadline=deadline)
        if not report.ok:
            raise LenswayError(ErrorCode.SOURCE_UNREACHABLE, "the test failed")
        return report


class _MissingTableIsEmpty(Faulty):
    async def table(self, name: str, *, deadline: float) -> TableDescription:
        try:
            return await self.inner.table(name, deadline=deadline)
        except LenswayError:
            return TableDescription(name=name, kind="table", columns=[])


class _ViewsAreNotListed(Faulty):
    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        return [each for each in await self.inner.tables(deadline=deadline) if each.kind == "table"]


class _ViewsAreTables(Faulty):
    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        return [TableSummary(name=each.name, kind="table") for each in await self.inner.tables(deadline=deadline)]


class _WritesPass(Faulty):
    """The bridge's own guards are off; of a kind without an entry in `_UNGUARDED`, only its report says so."""

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        with self._unguarded():
            return await self.inner.run(plan, execution, sink)

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        with self._unguarded():
            report = await self.inner.test(lenses, deadline=deadline)
        if self._has_own_guards():
            return report
        stages = [
            msgspec.structs.replace(each, ok=False, error="writable") if each.stage is TestStage.READ_ONLY else each
            for each in report.stages
        ]
        return msgspec.structs.replace(report, ok=False, stages=stages)

    def _has_own_guards(self) -> bool:
        return type(self.inner).__name__ in _UNGUARDED

    def _unguarded(self) -> contextlib.AbstractContextManager[object]:
        turn_off = _UNGUARDED.get(type(self.inner).__name__)
        return contextlib.nullcontext() if turn_off is None else turn_off(self.inner)


@contextlib.contextmanager
def _unguarded_postgres(_: OpenSource) -> Iterator[None]:
    """Sessions and transactions that may write."""

    def without(made: Callable[..., str], guard: str, instead: str) -> Callable[..., str]:
        return lambda *given, **named: made(*given, **named).replace(guard, instead)

    on, off = "'default_transaction_read_only', 'on'", "'default_transaction_read_only', 'off'"
    with (
        mock.patch.object(connecting, "session_sql", without(transaction.session_sql, on, off)),
        mock.patch.object(transaction, "begin_sql", without(transaction.begin_sql, "BEGIN READ ONLY", "BEGIN")),
    ):
        yield


@contextlib.contextmanager
def _unguarded_sqlite(source: OpenSource) -> Iterator[None]:
    """A connection that may write, and that authorizes everything."""

    def opened() -> GuardedConnection:
        connection = sqlite3.connect(
            source._path,  # type: ignore[attr-defined]  # the fault is inside
            check_same_thread=False,
            isolation_level=None,
            factory=GuardedConnection,
        )
        for name, function in FUNCTIONS.items():
            connection.create_function(name, 1, function, deterministic=True)
        return connection

    with mock.patch.object(source, "_opened", opened):
        yield


_UNGUARDED: Final[Mapping[str, Callable[[OpenSource], contextlib.AbstractContextManager[object]]]] = {
    "PostgresSource": _unguarded_postgres,
    "SqliteSource": _unguarded_sqlite,
}


# --- edits ----------------------------------------------------------------------------------------------------------------------


def _without_last_row(body: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    return b"".join(lines[:-1])


def _reversed(shape: Shape) -> Shape:
    order = tuple(msgspec.structs.replace(term, descending=not term.descending) for term in shape.order)
    return msgspec.structs.replace(shape, order=order)


def _swapped(wanted: Operator, planted: Operator) -> type[Faulty]:
    def edit(shape: Shape) -> Shape:
        where = shape.where
        if isinstance(where, Compare) and where.operator is wanted:
            return msgspec.structs.replace(shape, where=msgspec.structs.replace(where, operator=planted))
        return shape

    return _shape(edit)


def _without_filter(plan: Plan) -> Plan:
    shape = decode_shape(plan.shape)
    bare = msgspec.structs.replace(shape, where=None, params=0)
    return Plan(encode_shape(bare), plan.params[shape.params :], plan.limit, plan.offset)


def _without_cursor(plan: Plan) -> Plan:
    shape = decode_shape(plan.shape)
    bare = msgspec.structs.replace(shape, after=None)
    return Plan(encode_shape(bare), plan.params[: shape.params], plan.limit, plan.offset)


def _page(rows: int = 0, offset: int = 0) -> type[Faulty]:
    def edit(plan: Plan) -> Plan:
        limit = None if plan.limit is None else max(0, plan.limit + rows)
        return Plan(plan.shape, plan.params, limit, None if plan.offset is None else plan.offset + offset)

    return _plan(edit)


def _without_metadata(body: bytes) -> bytes:
    table = pa.ipc.open_stream(body).read_all()
    schema = pa.schema([field.remove_metadata() for field in table.schema])
    made = pa.BufferOutputStream()
    with pa.ipc.new_stream(made, schema) as writer:
        writer.write_table(table.cast(schema))
    return bytes(made.getvalue())


def _all_ok(report: ConnectionReport) -> ConnectionReport:
    stages = [msgspec.structs.replace(each, ok=True, error=None, hint=None) for each in report.stages]
    return msgspec.structs.replace(report, ok=True, stages=stages)


_REPLACE: Final = msgspec.structs.replace
_CELL, _COLUMN = "test_a_cell_as_text", "test_a_cell_in_columns"
_MANY = "test_every_row_comes_once_in_order_in_every_encoding"
_MODEL, _MORE = "test_pages_totals_counts_and_offsets", "test_a_page_says_whether_there_is_more"
_LIMIT, _ORDER = "test_a_limit_fails_the_result", "test_every_type_is_ordered"
_FAILURE, _STOPS = "test_a_failure_has_its_code_and_class", "test_the_connection_test_stops"
_PROVES, _DESCRIBED = "test_the_connection_test_proves", "test_introspection_shows_every_column"
_CANCEL = "test_i7_a_cancelled_statement"

FAULTS: Final = (
    Fault("a NULL becomes an empty text", _bytes(lambda body: body.replace(b":null", b':""'), _PAGE), _CELL),
    Fault("an empty text becomes a NULL", _bytes(lambda body: body.replace(b'""', b""), (RowFormat.CSV,)), _CELL),
    Fault("moments lose their microseconds", _bytes(lambda body: re.sub(rb"\.\d{6}", b"", body), _PAGE), _CELL),
    Fault("decimals become floats", _bytes(lambda body: re.sub(rb'"(-?\d+\.\d+)"', rb"\1", body), _PAGE), _CELL),
    Fault(
        "texts lose what is beyond ASCII", _bytes(lambda body: body.decode().encode("ascii", "replace"), _PAGE), _CELL
    ),
    Fault("Arrow fields lose their lens type", _bytes(_without_metadata, (RowFormat.ARROW,)), _COLUMN),
    Fault("the last row is dropped", _bytes(_without_last_row, (RowFormat.NDJSON, RowFormat.CSV)), _MANY),
    Fault(
        "a row comes twice", _bytes(lambda body: body + body.splitlines(keepends=True)[-1], (RowFormat.NDJSON,)), _MANY
    ),
    Fault("the order is reversed", _shape(_reversed), _ORDER),
    Fault("the order is lost", _shape(lambda shape: _REPLACE(shape, order=shape.order[-1:], keys=())), _ORDER),
    Fault("the filter is ignored", _plan(_without_filter), "test_every_operator_holds"),
    Fault("less than is less or equal", _swapped(Operator.LT, Operator.LTE), "test_every_operator_holds"),
    Fault("not equal is equal", _swapped(Operator.NE, Operator.EQ), "test_every_operator_holds"),
    Fault("contains is starts with", _swapped(Operator.CONTAINS, Operator.STARTS_WITH), "test_every_operator_holds"),
    Fault("the cursor is ignored", _plan(_without_cursor), _ORDER),
    Fault("a page is one row short", _page(rows=-1), _MORE),
    Fault("a page is one row long", _page(rows=1), _MORE),
    Fault("an offset skips one more", _page(offset=1), _MODEL),
    Fault("there is never more", _end(lambda end: _REPLACE(end, has_more=False)), _MORE),
    Fault("there is always more", _end(lambda end: _REPLACE(end, has_more=True)), _MORE),
    Fault("the last key is lost", _end(lambda end: _REPLACE(end, last_key=None)), _ORDER),
    Fault("the total counts one more", _end(lambda end: _REPLACE(end, total=end.total and end.total + 1)), _MORE),
    Fault("the end counts one row less", _end(lambda end: _REPLACE(end, rows=max(0, end.rows - 1))), _MANY),
    Fault("the end counts no bytes", _end(lambda end: _REPLACE(end, bytes=0)), _MANY),
    Fault("rows have no limit", _limits(rows_max=10**9), _LIMIT),
    Fault("bytes have no limit", _limits(bytes_max=10**12), _LIMIT),
    Fault("a row has no limit", _limits(row_bytes_max=10**9), _LIMIT),
    Fault("a limit shortens the result", _LimitShortens, _LIMIT),
    Fault(
        "the deadline is late", _execution(lambda it: _REPLACE(it, deadline=it.deadline + 3)), "test_a_deadline_ends"
    ),
    Fault("a cancel does nothing", _CancelDoesNothing, _CANCEL),
    Fault("a cancel takes half a second", _CancelIsSlow, _CANCEL),
    Fault("the whole result is held", _WholeResultIsHeld, "test_a_large_result_passes"),
    Fault("a slow reader is not waited for", _ReaderIsNotAwaited, "test_a_reader_that_takes_nothing"),
    Fault("a write passes", _WritesPass, "test_a_login_that_may_write"),
    Fault("a failure has another code", _failure(lambda e, _: _retold(e, code=ErrorCode.INTERNAL)), _FAILURE),
    Fault("a failure has no class", _failure(lambda e, _: _retold(e, details={"class": ""})), _FAILURE),
    Fault("a failure has no hint", _failure(lambda e, _: _retold(e, hint=None)), _FAILURE),
    Fault("a failure shows the settings", _failure(lambda e, config: _retold(e, message=str(config))), _FAILURE),
    Fault("the driver's error escapes", _failure(lambda e, _: RuntimeError(str(e))), _FAILURE),
    Fault("the probe never fails", _ProbeNeverFails, _FAILURE),
    Fault("every stage is proved", _report(_all_ok), _STOPS),
    Fault("the connection test raises", _TestRaises, _STOPS),
    Fault("a stage is not reported", _report(lambda it: _REPLACE(it, stages=it.stages[:-1])), _PROVES),
    Fault("the server has no version", _report(lambda it: _REPLACE(it, server_version=None)), _PROVES),
    Fault("a column is not described", _described(lambda it: _REPLACE(it, columns=it.columns[:-1])), _DESCRIBED),
    Fault("every column is nullable", _columns(nullable=True), _DESCRIBED),
    Fault("no column is of the key", _columns(primary_key=False), _DESCRIBED),
    Fault("a missing table is empty", _MissingTableIsEmpty, "test_a_table_that_is_not_there"),
    Fault("views are not listed", _ViewsAreNotListed, "test_introspection_lists"),
    Fault("views are tables", _ViewsAreTables, "test_introspection_lists"),
    Fault("close does nothing", _CloseDoesNothing, "test_close_ends_idle"),
)


# --- the runner -----------------------------------------------------------------------------------------------------------------


class _Planter:
    """A plugin of pytest that plants one fault for one run, and notes how its tests end."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._original = BridgeSuite.__dict__["open_source"]
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.broken: list[str] = []

    def pytest_configure(self) -> None:
        """Put the fault between the suite and its sources."""
        fault = self._fault

        async def open_source(cls: type[BridgeSuite], config: Mapping[str, object]) -> OpenSource:
            return fault.made(await cls.bridge().open(config, policy=AddressPolicy()), config)

        BridgeSuite.open_source = classmethod(open_source)  # type: ignore[method-assign, assignment]  # for this run

    def pytest_unconfigure(self) -> None:
        """Take it out again."""
        BridgeSuite.open_source = self._original  # type: ignore[method-assign]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Only a test that fails itself has noticed; one whose fixture fails has not."""
        if report.when == "call":
            (self.failed if report.failed else self.passed).append(report.nodeid)
        elif report.failed and report.when == "setup":
            self.broken.append(report.nodeid)

    @property
    def has_been_noticed(self) -> bool:
        """A test failed, and none could not run."""
        return bool(self.failed) and not self.broken


def main() -> int:
    """Plant all faults, or those whose name has one of the words given, in every bridge; 0 when every one was noticed."""
    kind, words = ("", sys.argv[1:]) if "--kind" not in sys.argv else (sys.argv[2], sys.argv[3:])
    if kind:
        return _planted_in(kind, words)
    workers = [
        subprocess.Popen([sys.executable, "-m", "tools.planted_bridges", "--kind", each, *words])
        for each in stage_classes()
    ]
    return max([worker.wait() for worker in workers])


def _planted_in(kind: str, words: Sequence[str]) -> int:
    chosen = [each for each in FAULTS if not words or any(word in each.name for word in words)]
    caught = 0
    for fault in chosen:
        started = time.monotonic()
        planter = _Planter(fault)
        with tempfile.TemporaryDirectory(prefix="lensway-fault-") as directory:
            pathlib.Path(directory).chmod(0o711)  # PostgreSQL runs as another user where this one is root
            arguments = ["-x", "-q", "--hypothesis-profile=mutants", "--basetemp", f"{directory}/run"]
            arguments += ["-o", "filterwarnings=ignore"]  # modules are imported already, from the run before
            arguments += ["-k", f"Test{kind.title()} and {fault.caught_by}", "tests/bridges/test_conformance.py"]
            with contextlib.redirect_stdout(io.StringIO()):
                pytest.main(arguments, plugins=[planter])
        caught += planter.has_been_noticed
        said = "caught" if planter.has_been_noticed else "SURVIVED"
        test = planter.failed[0].rpartition("::")[2] if planter.failed else fault.caught_by
        print(f"{said:<9} {kind:<9} {fault.name:<36} {test} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{kind}: {caught} of {len(chosen)} planted faults were noticed", flush=True)
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
