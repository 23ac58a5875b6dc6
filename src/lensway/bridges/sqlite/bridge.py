"""SQLite: a file, opened read-only, read in threads of its own.

Three belts make it read-only: the file is opened with mode=ro, an authorizer allows nothing but reading, and plans are SELECTs.
A statement is ended by `interrupt`, by cancellation or by its deadline.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import pathlib
import sqlite3
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from lensway import limits
from lensway.bridges.contract import (
    AddressPolicy,
    ConnectionReport,
    Execution,
    RowSink,
    Stage,
    StageResult,
    TableColumn,
    TableDescription,
    TableSummary,
)
from lensway.bridges.encoding.writer import RowWriter, load_encoder
from lensway.bridges.kit.addresses import confined_path
from lensway.bridges.kit.failures import (
    invalid_setting,
    query_failed,
    row_too_large,
    timed_out,
    unreachable,
)
from lensway.bridges.kit.orderings import Orderings
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.bridges.sqlite.keys import key_warnings, table_facts
from lensway.bridges.sqlite.reading import Reading, started
from lensway.dialects.compile import Compiled, compile_shape
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType
from lensway.query.plan import Plan, decode_shape
from lensway.query.result import ResultEnd

_DIALECT: Final = "sqlite"
_STEPS_PER_CHECK: Final = 10_000
"""Virtual-machine steps between looks at the clock; some ten microseconds of work each thousand."""
_LOCKED_SECONDS_MAX: Final = limits.CONNECT_TIMEOUT_SECONDS
_LOCKED_PAUSE_SECONDS: Final = 0.02

Result = TypeVar("Result")


class SqliteBridge:
    """Implements `lensway.bridges.contract.Bridge`."""

    kind = "sqlite"

    def driver_version(self) -> str | None:
        """The library's version."""
        return f"sqlite {sqlite3.sqlite_version}"

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse settings that cannot work or that the policy forbids. Raises LenswayError."""
        confined_path(_path_of(config), policy)

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> SqliteSource:
        """A source ready for use; the file is opened when needed."""
        return SqliteSource(_path_of(config), policy)


def _path_of(config: Mapping[str, object]) -> str:
    for key in config:
        if key not in ("path", "url"):
            raise invalid_setting(str(key)[:63], "unknown setting of a sqlite source", hint="Known: path.")
    path = config.get("path")
    if path is None and isinstance(config.get("url"), str):
        parts = urllib.parse.urlsplit(str(config["url"]))
        if parts.scheme != "sqlite" or parts.netloc or parts.query:
            raise invalid_setting("url", "must be sqlite:///absolute/path")
        path = urllib.parse.unquote(parts.path)
    if not isinstance(path, str) or not path:
        raise invalid_setting("path", "is missing")
    return path


class SqliteSource:
    """Implements `lensway.bridges.contract.OpenSource`. One thread and one connection for each statement that runs."""

    def __init__(self, path: str, policy: AddressPolicy) -> None:
        self._path = path
        self._policy = policy
        self._threads = concurrent.futures.ThreadPoolExecutor(
            limits.CONNECTIONS_PER_SOURCE_MAX, thread_name_prefix="sqlite"
        )
        self._orderings = Orderings(_DIALECT, seconds=limits.FILE_KEY_FACTS_SECONDS, are_exports_ordered=True)
        self._idle: list[GuardedConnection] = []
        self._is_closed = False

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows; cancelled or late, the statement is interrupted first."""
        compiled = self._orderings.ready(plan.shape) or await self._looked_up(plan, execution.deadline)
        await load_encoder(execution.format)
        writer = RowWriter(
            compiled, execution.format, execution.limits, sink, page_rows=plan.limit, is_offset=bool(plan.offset)
        )
        async with self._connection(execution.deadline) as work:
            for sql, values in compiled.statements(plan):
                writer.begin_statement()
                reading = Reading(
                    compiled,
                    sql,
                    values,
                    execution.limits.row_bytes_max,
                    page_rows=None if plan.limit is None else plan.limit - writer.rows,
                )
                try:
                    await work(reading.start)
                    is_last = False
                    while not (is_last or writer.has_more):
                        rows, is_last = await work(reading.next)
                        await self._within(execution.deadline, writer.write(rows))
                finally:
                    reading.close()
                if writer.has_more:
                    break
            total = None
            if compiled.count_sql is not None:
                count_sql, counted = compiled.count_sql, compiled.bind_count(plan)
                total = await work(lambda connection: started(connection, count_sql, counted).fetchone()[0])
        end: ResultEnd = await self._within(execution.deadline, writer.end(total))
        return end

    async def _looked_up(self, plan: Plan, deadline: float) -> Compiled:
        """The statement for this plan, once the file has said what it guarantees of the table."""
        shape = decode_shape(plan.shape)
        async with self._connection(deadline) as work:
            return self._orderings.learned(plan.shape, await work(lambda connection: table_facts(connection, shape)))

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """Prove each stage that a file has. Never raises for a failed one."""
        stages = [StageResult(stage=stage, ok=None) for stage in (Stage.DNS, Stage.TCP, Stage.TLS)]
        checks: list[tuple[Stage, Callable[[GuardedConnection], Any]]] = [
            (Stage.LOGIN, lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone()),
            (Stage.QUERY, lambda connection: connection.execute("SELECT 1").fetchone()),
            (Stage.READ_ONLY, _refuses_writes),
            (Stage.LENSES, lambda connection: _read_lenses(connection, lenses)),
        ]
        is_failed = False
        for stage, check in checks:
            if is_failed:
                stages.append(StageResult(stage=stage, ok=None))
                continue
            started = time.monotonic()
            error = hint = None
            try:
                async with self._connection(deadline) as work:
                    await work(check)
            except LenswayError as failure:
                is_failed = True
                error = str(failure.failure.details.get("class", failure.code.value))
                hint = failure.failure.hint or str(failure)
            ms = round((time.monotonic() - started) * 1000, 3)
            stages.append(StageResult(stage=stage, ok=error is None, ms=ms, error=error, hint=hint))
        warnings: Sequence[Mapping[str, str]] = ()
        if not is_failed:
            with contextlib.suppress(LenswayError):  # the stages have proved what queries need; this only looks ahead
                async with self._connection(min(deadline, time.monotonic() + limits.KEY_LOOK_SECONDS)) as work:
                    warnings = await work(lambda connection: key_warnings(connection, lenses))
        return ConnectionReport(
            ok=not is_failed, stages=stages, warnings=warnings, server_version=sqlite3.sqlite_version
        )

    async def probe(self, *, deadline: float) -> None:
        """Open and read the file's header. Raises LenswayError SOURCE_UNREACHABLE."""
        async with self._connection(deadline) as work:
            await work(lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone())

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """Every table and view."""
        sql = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
        async with self._connection(deadline) as work:
            rows: list[tuple[str, str]] = await work(lambda connection: connection.execute(sql).fetchall())
        return [TableSummary(name=name, kind=kind) for name, kind in rows]

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """One table's columns. Raises LenswayError NOT_FOUND."""
        kind = next((each.kind for each in await self.tables(deadline=deadline) if each.name == name), None)
        if kind is None:
            raise LenswayError(ErrorCode.NOT_FOUND, f"No table '{name[:120]}' in the file", hint="List the tables.")
        quoted = name.replace('"', '""')
        async with self._connection(deadline) as work:
            rows: list[Any] = await work(
                lambda connection: connection.execute(f'PRAGMA table_info("{quoted}")').fetchall()
            )
        return TableDescription(name=name, kind=kind, columns=[_column(row) for row in rows])

    async def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._threads.shutdown(wait=False)

    # --- threads ------------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connection(self, deadline: float) -> Any:
        """Gives a function that does work on one connection in a thread; ended by interruption."""
        loop = asyncio.get_running_loop()
        connection = self._idle.pop() if self._idle else await self._open(deadline)
        connection.limit_time(deadline, _STEPS_PER_CHECK)

        async def work(do: Callable[[GuardedConnection], Result]) -> Result:
            try:
                return await self._patiently(deadline, lambda: work_once(do))
            except sqlite3.Error as error:
                raise _of_sqlite(error, connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)) from None

        async def work_once(do: Callable[[GuardedConnection], Result]) -> Result:
            future = loop.run_in_executor(self._threads, do, connection)
            try:
                result: Result = await self._within(deadline, asyncio.shield(future))
                return result
            finally:
                # Interrupt again and again: one that comes before the statement has begun is lost.
                while not future.done():
                    connection.interrupt()
                    await asyncio.wait({future}, timeout=0.01)
                if not future.cancelled():
                    future.exception()

        try:
            yield work
        finally:
            if self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)

    async def _open(self, deadline: float) -> GuardedConnection:
        loop = asyncio.get_running_loop()
        try:
            return await self._patiently(deadline, lambda: loop.run_in_executor(self._threads, self._opened))
        except sqlite3.Error as error:
            raise _of_sqlite(error) from None

    async def _patiently(self, deadline: float, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Wait for a lock here and not in the library, whose wait nothing can interrupt."""
        give_up = time.monotonic() + _LOCKED_SECONDS_MAX
        while True:
            try:
                return await attempt()
            except sqlite3.Error as error:
                if not _is_locked(error) or time.monotonic() >= give_up:
                    raise
            await self._within(deadline, asyncio.sleep(_LOCKED_PAUSE_SECONDS))

    async def _within(self, deadline: float, awaited: Any) -> Any:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await awaited
        except TimeoutError:
            raise timed_out() from None

    def _opened(self) -> GuardedConnection:
        # Checked again at every opening: a link may point elsewhere by now. The real path is what is opened.
        path = confined_path(self._path, self._policy)
        if not path.is_file():
            raise unreachable("login", "no_file")
        connection = sqlite3.connect(
            _uri(path),
            uri=True,
            check_same_thread=False,
            isolation_level=None,
            timeout=0.0,
            factory=GuardedConnection,
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.add_functions()
            connection.guard()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _uri(path: pathlib.Path) -> str:
    return f"file:{urllib.parse.quote(str(path))}?mode=ro"


def _refuses_writes(connection: GuardedConnection) -> None:
    try:
        connection.execute("CREATE TABLE lensway_must_not_exist (x)")
    except sqlite3.DatabaseError:
        return
    raise query_failed("writable", "The file could be written")


def _read_lenses(connection: GuardedConnection, lenses: Sequence[Plan]) -> None:
    for plan in lenses:
        compiled = compile_shape(plan.shape, _DIALECT)
        try:
            started(connection, compiled.sql, compiled.bind(plan)).fetchall()
        except (sqlite3.Error, LenswayError) as error:
            failure = (error if isinstance(error, LenswayError) else _of_sqlite(error)).failure
            raise LenswayError(
                failure.code,
                failure.message,
                hint=f"Lens '{compiled.shape.lens}': {failure.message}. {failure.hint or ''}".strip(),
                details=failure.details,
            ) from None


def _of_sqlite(error: sqlite3.Error, length_max: int = limits.ROW_BYTES_MAX) -> LenswayError:
    # The extended code's low byte is the class; see https://www.sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_INTERRUPT:
            return timed_out()
        case sqlite3.SQLITE_TOOBIG:
            return row_too_large(length_max)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
            return unreachable("login", "no_file")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return unreachable("login", "not_a_database")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return query_failed("locked", "Another process has locked the file", hint="Try again when it has finished.")
        case sqlite3.SQLITE_AUTH:
            return query_failed("permission_denied", "The statement may do nothing but read")
        case _:
            return query_failed(
                "undefined_column",
                "The table or a column of the lens does not exist in the file",
                hint="Correct `table` and `column` in the lens.",
                sqlite=getattr(error, "sqlite_errorname", "SQLITE_ERROR"),
            )


# --- values -----------------------------------------------------------------------------------------------------------------


_AFFINITIES: Final = (
    ("BOOL", FieldType.BOOLEAN),
    ("INT", FieldType.INTEGER),
    ("CHAR", FieldType.TEXT),
    ("CLOB", FieldType.TEXT),
    ("TEXT", FieldType.TEXT),
    ("BLOB", FieldType.BYTES),
    ("REAL", FieldType.NUMBER),
    ("FLOA", FieldType.NUMBER),
    ("DOUB", FieldType.NUMBER),
    ("TIMESTAMP", FieldType.TIMESTAMP),
    ("DATETIME", FieldType.TIMESTAMP),
    ("DATE", FieldType.DATE),
    ("TIME", FieldType.TIME),
    ("JSON", FieldType.JSON),
    ("UUID", FieldType.UUID),
    ("NUM", FieldType.DECIMAL),
    ("DEC", FieldType.DECIMAL),
)


def _column(row: Any) -> TableColumn:
    _, name, declared, required, _, key = row
    found = next((type for word, type in _AFFINITIES if word in declared.upper()), None)
    return TableColumn(
        name=name,
        database_type=declared,
        type=None if found is None else found.value,
        nullable=not required and not key,
        primary_key=bool(key),
    )
