"""DuckDB's engine on one file: opened read-only and confined to it, one connection for each statement that runs.

The engine has one set of threads and one memory for all connections of the file, and writes nothing to a disk: a sort that needs
more memory fails. It holds a lock on the file while it is open, and then no other process can write to it: so it is closed soon
after the last statement.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import stat
import threading
from collections.abc import Mapping
from typing import Final

import duckdb

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import confined_path
from lensway.bridges.kit.failures import FILE_TABLE_HINT, invalid_setting, query_failed, timed_out, unreachable
from lensway.bridges.kit.files import path_of
from lensway.bridges.kit.threads import Driver
from lensway.errors import LenswayError

OTHER_KEYS: Final = ("memory_mib", "threads")
KEEP_SECONDS: Final = 0.1
"""How long the file stays open behind the last statement. To open it takes some 15 ms."""
_MEMORY_MIB_DEFAULT: Final = 1_024
_MEMORY_MIB: Final = range(64, 1_048_577)
"""From what a sort of one page takes, to the memory of the largest machines."""
_THREADS_DEFAULT: Final = 2
_THREADS: Final = range(1, 257)
_PREPARING: Final = threading.Lock()
_HOLDING: Final = threading.Lock()
_HELD: Final[collections.Counter[tuple[int, int]]] = collections.Counter()
"""Files, by device and inode, and how many engines of this process hold each. A process loses its locks on a file when it closes
any descriptor of that file (POSIX, `fcntl`), so nothing here opens a file that is held, except the engine, which shares its own.
"""
_MAGIC: Final = b"DUCK"
_MAGIC_AT: Final = 8
_CONFINED: Final[Mapping[str, str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_unsigned_extensions": "false",
    "allow_community_extensions": "false",
    # Rows are never written to a disk.
    "temp_directory": "",
    # A table that does not exist is not looked for among the variables of this program.
    "python_enable_replacements": "false",
}


@dataclasses.dataclass(frozen=True, slots=True)
class DuckdbSettings:
    """The settings of a source."""

    path: str
    memory_mib: int = _MEMORY_MIB_DEFAULT
    threads: int = _THREADS_DEFAULT


def settings_of(config: Mapping[str, object], kind: str) -> DuckdbSettings:
    """The settings, checked. Raises LenswayError INVALID_REQUEST naming the key."""
    return DuckdbSettings(
        path_of(config, kind, others=OTHER_KEYS),
        _number(config, "memory_mib", _MEMORY_MIB, _MEMORY_MIB_DEFAULT),
        _number(config, "threads", _THREADS, _THREADS_DEFAULT),
    )


def _number(config: Mapping[str, object], key: str, allowed: range, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise invalid_setting(key, f"must be an integer from {allowed[0]} to {allowed[-1]}")
    return value


class _LockedError(duckdb.Error):
    """Another process, or another setting of this one, has the file."""


class Engine(Driver[duckdb.DuckDBPyConnection]):
    """The engine of one source."""

    errors = duckdb.Error

    def __init__(self, settings: DuckdbSettings, policy: AddressPolicy) -> None:
        self._settings = settings
        self._policy = policy
        self._opening = threading.Lock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._file = (0, 0)

    def open(self) -> duckdb.DuckDBPyConnection:
        """A connection; the first one opens the file."""
        with self._opening:
            if self._root is None:
                # Checked at every opening: a link may point elsewhere by now. The real path is what is opened.
                self._root = self._opened(confined_path(self._settings.path, self._policy))
            return self._root.cursor()

    def is_locked(self, error: Exception) -> bool:
        """Another process has the file."""
        return isinstance(error, _LockedError)

    def failure(self, error: Exception, connection: duckdb.DuckDBPyConnection | None) -> LenswayError:
        """By the class of the error."""
        del connection
        return failure_of(error)

    def released(self) -> None:
        """Close the file."""
        with self._opening:
            root, self._root = self._root, None
            if root is not None:
                self._let_go(root)

    def _opened(self, path: pathlib.Path) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            **_CONFINED,
            "memory_limit": f"{self._settings.memory_mib}MiB",
            "threads": str(self._settings.threads),
        }
        with _HOLDING:
            self._file = _identity(path)
            if not _HELD[self._file] and not _is_duckdb(path):
                # The engine would look for an extension that reads it.
                raise unreachable("login", "not_a_database")
            try:
                root = duckdb.connect(str(path), read_only=True, config=config)
            except (duckdb.IOException, duckdb.ConnectionException):
                raise _LockedError from None
            _HELD[self._file] += 1
        try:
            # Sources of one file share its engine, which the first of them has locked.
            with _PREPARING:
                if root.execute("SELECT current_setting('lock_configuration')").fetchall() != [(True,)]:
                    root.execute("SET GLOBAL TimeZone = 'UTC'")
                    root.execute("SET GLOBAL lock_configuration = true")
        except duckdb.Error:
            self._let_go(root)
            raise
        return root

    def _let_go(self, root: duckdb.DuckDBPyConnection) -> None:
        with _HOLDING:
            root.close()
            _HELD[self._file] -= 1
            if not _HELD[self._file]:
                del _HELD[self._file]


def _identity(path: pathlib.Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        raise unreachable("login", "no_file") from None
    if not stat.S_ISREG(status.st_mode):
        raise unreachable("login", "no_file")
    return status.st_dev, status.st_ino


def _is_duckdb(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        raise unreachable("login", "no_file") from None


def failure_of(error: Exception) -> LenswayError:
    """The failure that callers see."""
    match error:
        case duckdb.InterruptException():
            return timed_out()
        case _LockedError():
            return query_failed(
                "locked",
                "The file cannot be opened: another process writes to it, or its version is newer than the installed engine",
                hint="Try again when the other process has closed it, or update the package duckdb.",
            )
        case duckdb.OutOfMemoryException():
            return query_failed(
                "out_of_memory",
                "The query needs more memory than the source may use",
                hint="Request less data, export without an order (`orderBy: []`), or raise `memory_mib` of the source.",
            )
        case duckdb.CatalogException():
            return query_failed(
                "undefined_table",
                "The table of the lens does not exist in the file",
                hint="Correct `table` in the lens. " + FILE_TABLE_HINT,
            )
        case duckdb.BinderException():
            return query_failed(
                "undefined_column",
                "A column of the lens does not exist in its table",
                hint="Correct `column` in the lens.",
            )
        case duckdb.PermissionException():
            return query_failed(
                "permission_denied",
                "The view reads data outside its file, which is not allowed",
                hint="Change the view so that it reads only tables of its file.",
            )
        case duckdb.ConversionException() | duckdb.OutOfRangeException() | duckdb.InvalidInputException():
            return query_failed(
                "invalid_value",
                "The database failed on a value while it read the table or view",
                hint="A value does not fit the type that the filter or the lens asks for, or a function of the view does not "
                "accept a value.",
            )
        case duckdb.IOException() | duckdb.FatalException() | duckdb.InternalException():
            return unreachable("login", "not_a_database")
        case _:
            return query_failed(
                "failed",
                "The database failed while it ran the query",
                hint="Run the view's query in DuckDB to see why.",
            )
