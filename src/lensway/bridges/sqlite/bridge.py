"""SQLite: a file, opened read-only, read in threads of its own.

Three belts make it read-only: the file is opened with mode=ro, an authorizer allows nothing but reading, and plans are SELECTs.
A statement is ended by `interrupt`, by cancellation or by its deadline.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

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
from lensway.bridges.kit.addresses import confined_path
from lensway.bridges.kit.failures import (
    FILE_TABLE_HINT,
    invalid_setting,
    query_failed,
    row_too_large,
    timed_out,
    unreachable,
)
from lensway.bridges.kit.files import path_of
from lensway.bridges.kit.orderings import Orderings
from lensway.bridges.kit.results import write_rows
from lensway.bridges.kit.stages import NETWORK, of_lens, staged
from lensway.bridges.kit.threads import Driver, Threads
from lensway.bridges.sqlite import wal
from lensway.bridges.sqlite.guard import GuardedConnection
from lensway.bridges.sqlite.inspection import describe_table, list_tables
from lensway.bridges.sqlite.keys import key_warnings, table_facts
from lensway.bridges.sqlite.reading import Reading, started
from lensway.dialects.compile import Compiled, compile_shape
from lensway.errors import LenswayError
from lensway.query.plan import Plan, decode_shape
from lensway.query.result import ResultEnd

OTHER_KEYS: Final = ("immutable",)
"""Settings beside the path."""
_DIALECT: Final = "sqlite"
_STEPS_PER_CHECK: Final = 10_000
"""Virtual-machine steps between looks at the clock; some ten microseconds of work each thousand."""

Result = TypeVar("Result")


class SqliteBridge:
    """Implements `lensway.bridges.contract.Bridge`."""

    kind = "sqlite"

    def driver_version(self) -> str | None:
        """The library's version."""
        return f"sqlite {sqlite3.sqlite_version}"

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse settings that cannot work or that the policy forbids. Raises LenswayError."""
        confined_path(_file_of(config).path, policy)

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> SqliteSource:
        """A source ready for use; the file is opened when needed."""
        return SqliteSource(_file_of(config), policy)


class _File(NamedTuple):
    path: str
    is_immutable: bool


def _file_of(config: Mapping[str, object]) -> _File:
    path = path_of(config, SqliteBridge.kind, others=OTHER_KEYS)
    immutable = config.get("immutable", False)
    if immutable not in (True, False, "true", "false"):
        raise invalid_setting("immutable", "must be true or false")
    return _File(path, immutable in (True, "true"))


class SqliteSource:
    """Implements `lensway.bridges.contract.OpenSource`. One thread and one connection for each statement that runs."""

    def __init__(self, file: _File, policy: AddressPolicy) -> None:
        self._threads = Threads(_Driver(file, policy), _DIALECT)
        self._orderings = Orderings(_DIALECT, seconds=limits.FILE_KEY_FACTS_SECONDS, are_exports_ordered=True)

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows; cancelled or late, the statement is interrupted first."""
        compiled = self._orderings.ready(plan.shape) or await self._looked_up(plan, execution.deadline)
        row_bytes_max = execution.limits.row_bytes_max
        return await write_rows(
            self._threads,
            compiled,
            plan,
            execution,
            sink,
            read=lambda sql, values, left: Reading(compiled, sql, values, row_bytes_max, page_rows=left),
            count=lambda connection, sql, values: int(started(connection, sql, values).fetchone()[0]),
        )

    async def _looked_up(self, plan: Plan, deadline: float) -> Compiled:
        """The statement for this plan, once the file has said what it guarantees of the table."""
        shape = decode_shape(plan.shape)
        facts = await self._with_connection(deadline, lambda connection: table_facts(connection, shape))
        return self._orderings.learned(plan.shape, facts)

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """Prove each stage that a file has. Never raises for a failed one."""
        checks: list[tuple[Stage, Callable[[GuardedConnection], Any]]] = [
            (Stage.LOGIN, lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone()),
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
                warnings = await self._with_connection(soon, lambda connection: key_warnings(connection, lenses))
        return ConnectionReport(ok=is_ok, stages=stages, warnings=warnings, server_version=sqlite3.sqlite_version)

    def condition(self) -> str:
        """Nothing: a file has no logins."""
        return ""

    async def probe(self, *, deadline: float) -> None:
        """Open and read the file's header. Raises LenswayError SOURCE_UNREACHABLE."""
        await self._with_connection(
            deadline, lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        )

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """Every table and view."""
        found: Sequence[TableSummary] = await self._with_connection(deadline, list_tables)
        return found

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """One table's columns and keys. Raises LenswayError NOT_FOUND."""
        found: TableDescription = await self._with_connection(
            deadline, lambda connection: describe_table(connection, name)
        )
        return found

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones included."""
        return self._threads.count

    async def close(self) -> None:
        """Close every connection."""
        self._threads.close()

    async def _with_connection(self, deadline: float, do: Callable[[GuardedConnection], Result]) -> Result:
        async with self._threads.connection(deadline) as work:
            return await work(do)


class _Driver(Driver[GuardedConnection]):
    """SQLite's library, for one file."""

    errors = sqlite3.Error

    def __init__(self, file: _File, policy: AddressPolicy) -> None:
        self._path = file.path
        self._is_immutable = file.is_immutable
        self._policy = policy

    def open(self) -> GuardedConnection:
        """A connection that only reads."""
        # Checked again at every opening: a link may point elsewhere by now. The real path is what is opened.
        path = confined_path(self._path, self._policy)
        if not path.is_file():
            raise unreachable("login", "no_file")
        if self._is_immutable and wal.has_log(path):
            # What it holds would be missing from every answer.
            raise unreachable("login", "wal_not_checkpointed")
        connection = sqlite3.connect(
            _uri(path) + ("&immutable=1" if self._is_immutable else ""),
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
        except sqlite3.Error as error:
            connection.close()
            if wal.needs_writing(path, error):
                raise unreachable("login", "wal_read_only") from None
            raise
        return connection

    def lend(self, connection: GuardedConnection, deadline: float) -> None:
        """The library looks at the clock itself."""
        connection.limit_time(deadline, _STEPS_PER_CHECK)

    def is_locked(self, error: Exception) -> bool:
        """A writer has the file."""
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def failure(self, error: Exception, connection: GuardedConnection | None) -> LenswayError:
        """By the library's code."""
        if connection is None:
            return _of_sqlite(error)
        return _of_sqlite(error, connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH))


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
            raise of_lens(
                compiled.shape.lens, error if isinstance(error, LenswayError) else _of_sqlite(error)
            ) from None


def _of_sqlite(error: Exception, length_max: int = limits.ROW_BYTES_MAX) -> LenswayError:
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
            return query_failed("permission_denied", "The statement may only read")
        case _:
            return query_failed(
                "undefined_column",
                "The table or a column of the lens does not exist in the file",
                hint="Correct `table` and `column` in the lens. " + FILE_TABLE_HINT,
                sqlite=getattr(error, "sqlite_errorname", "SQLITE_ERROR"),
            )
