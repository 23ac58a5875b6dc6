"""Sessions of PostgreSQL through ADBC and libpq. Every method but `cancel` blocks: call them in a thread, one at a time."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa
from adbc_driver_manager import _reader

from lensway import limits
from lensway.bridges.kit.addresses import is_loopback
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.states import Said
from lensway.errors import LenswayError

_BATCH_SIZE: Final = "adbc.postgresql.batch_size_hint_bytes"
_NOWHERE: Final = "/nonexistent/lensway"


_FATAL: Final = frozenset({"FATAL", "PANIC"})
_SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})


class SessionError(Exception):
    """The driver's error without its text. ``sqlstate`` None: the connection is gone, or never came to be. ``said``: the fields
    of the server's error, when it is one."""

    def __init__(self, sqlstate: str | None, said: Said | None = None) -> None:
        super().__init__(sqlstate or "connection")
        self.sqlstate = sqlstate
        self.said = said
        self.own_timeout_ms = 0
        """The login's own statement timeout in the transaction that failed, where it is stricter than ours."""

    @property
    def is_broken(self) -> bool:
        """True when the connection is gone."""
        return self.said is None or self.said.is_fatal


class Home:
    """What the sessions at one address share: the driver's table of the types of the database.

    Making it costs a login and 0.8 MiB, a session in it 17 KiB: each with its own would be most of what a stalled reader takes.
    Types that are made later are unknown in it, so take a new one now and then. Its methods may be called from any thread.
    """

    def __init__(self, settings: PostgresSettings, address: str) -> None:
        _forget_variables()
        self.made_at = time.monotonic()
        self._lock = threading.Lock()
        self._users = 1
        with contextlib.ExitStack() as files:
            roots = files.enter_context(_trusted(settings))
            with _typed():
                self._database = _connected(settings, address, roots)
            self._files = files.pop_all()

    def enter(self) -> None:
        """One user more. Its maker counts as one."""
        with self._lock:
            assert self._users, "a user enters only while it is still there"
            self._users += 1

    def connect(self) -> Any:
        """A connection, for one who has entered. Raises SessionError."""
        with _typed():
            return adbc_driver_manager.AdbcConnection(self._database)

    def leave(self) -> None:
        """One user less; the last one closes it."""
        with self._lock:
            self._users -= 1
            is_over = not self._users
        if is_over:
            with contextlib.suppress(adbc_driver_manager.Error, RuntimeError):
                self._database.close()
            self._files.close()


class Session:
    """One connection and at most one stream of batches on it."""

    def __init__(self, home: Home) -> None:
        """Connect in a home that was entered for this session; it is left when the session is closed, or cannot be made."""
        self._home = home
        self._closing = threading.Lock()
        try:
            self._connection = home.connect()
        except BaseException:
            home.leave()
            raise
        self._statement: Any = None
        self._reader: Any = None
        self.is_canceled = False

    @property
    def types_known_at(self) -> float:
        """When the driver read the types of the database that this session knows."""
        return self._home.made_at

    @property
    def is_streaming(self) -> bool:
        """True while a stream is open: ending it early takes a cancel first."""
        return self._reader is not None

    def command(self, sql: str) -> None:
        """Run statements in one message; what they give is dropped. Raises SessionError."""
        with _typed():
            self._begin(sql).execute_update()
        self.close_stream()

    def row(self, sql: str, values: Sequence[str | None] = ()) -> list[Any]:
        """The one row of this statement; ``values`` are bound as texts. Raises SessionError."""
        with _typed():
            statement = self._begin(sql)
            if values:
                arrays = [pa.array([value], pa.utf8()) for value in values]
                statement.bind(pa.record_batch(arrays, names=[str(number) for number in range(len(values))]))
            self._reader = self._opened(statement)
            table = self._reader.read_all()
        self.close_stream()
        return [column[0].as_py() for column in table.columns]

    def schema(self, sql: str) -> Any:
        """The Arrow schema of this statement's rows, with the columns' types in its metadata. Raises SessionError."""
        with _typed():
            statement = self._begin(sql)
            found = pa.schema(statement.execute_schema())
        self.close_stream()
        return found

    def stream(self, sql: str) -> None:
        """Begin this statement; `next_batch` gives its rows. Raises SessionError."""
        with _typed():
            self._reader = self._opened(self._begin(sql))

    def next_batch(self) -> Any | None:
        """The next batch, or None behind the last one. Raises SessionError."""
        with _typed():
            try:
                return self._reader.read_next_batch()
            except StopIteration:
                self.close_stream()
                return None

    def close_stream(self) -> None:
        """End the stream that is open, if any. Raises SessionError."""
        reader, self._reader = self._reader, None
        statement, self._statement = self._statement, None
        with _typed():
            if reader is not None:
                reader.close()
            if statement is not None:
                statement.close()

    def cancel(self) -> None:
        """Ask the server to end what runs, and begin nothing more. From any thread."""
        self.is_canceled = True
        with self._closing, contextlib.suppress(adbc_driver_manager.Error):
            if self._connection is not None:
                self._connection.cancel()

    def close(self) -> None:
        """Close the connection. Cancel first what streams: the rest of it would be read."""
        with contextlib.suppress(SessionError):
            self.close_stream()
        # Not while a cancel is on its way: it reads what is freed here.
        with self._closing:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(adbc_driver_manager.Error, RuntimeError):
                connection.close()
            self._home.leave()

    def _begin(self, sql: str) -> Any:
        if self.is_canceled:
            raise SessionError(None)
        self._statement = adbc_driver_manager.AdbcStatement(self._connection)
        self._statement.set_options(**{_BATCH_SIZE: str(limits.ARROW_BATCH_BYTES)})
        self._statement.set_sql_query(sql)
        return self._statement

    def _opened(self, statement: Any) -> Any:
        handle, _ = statement.execute_query()
        # This reader of the driver's, unlike pyarrow's own, tells SQLSTATEs of what fails midway.
        return _reader.AdbcRecordBatchReader._import_from_c(handle.address)


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise SessionError(error.sqlstate or None, _said(error)) from None
    except (pa.ArrowException, OSError):
        raise SessionError(None) from None


def _said(error: adbc_driver_manager.Error) -> Said | None:
    """The fields of the server's error; None for an error that the driver makes itself."""
    if not error.sqlstate:
        return None
    fields = {str(name): value.decode(errors="replace") for name, value in error.details or ()}
    severity = fields.get("PG_DIAG_SEVERITY_NONLOCALIZED") or fields.get("PG_DIAG_SEVERITY")
    return Said(
        sqlstate=error.sqlstate,
        # Of what fails midway the driver tells only the SQLSTATE.
        is_fatal=severity in _FATAL if severity else error.sqlstate in _SHUTDOWNS,
        schema=fields.get("PG_DIAG_SCHEMA_NAME"),
        table=fields.get("PG_DIAG_TABLE_NAME"),
        column=fields.get("PG_DIAG_COLUMN_NAME"),
        constraint=fields.get("PG_DIAG_CONSTRAINT_NAME"),
        data_type=fields.get("PG_DIAG_DATATYPE_NAME"),
    )


def _connected(settings: PostgresSettings, address: str, roots: str) -> Any:
    """The driver's handle. A password travels in clear text under TLS or on this machine only. Raises the driver's errors."""
    is_local = address.startswith("/") or is_loopback(address)
    if settings.sslmode != "prefer" or is_local:
        may_send = settings.sslmode != "disable" or is_local
        return adbc_driver_postgresql.connect(_conninfo(settings, address, roots, settings.sslmode, may_send=may_send))
    # libpq has one list of ways to log in for both ends of `prefer`, so each of them is a try of its own.
    try:
        return adbc_driver_postgresql.connect(_conninfo(settings, address, roots, "require", may_send=True))
    except adbc_driver_manager.Error:
        return adbc_driver_postgresql.connect(_conninfo(settings, address, roots, "disable", may_send=False))


def _conninfo(settings: PostgresSettings, address: str, roots: str, sslmode: str, *, may_send: bool) -> str:
    """Everything is said, so that no variable, file of passwords or service of this machine has a say."""
    values = {
        "host": settings.host,  # for certificates; the address that was checked is where it connects
        **({} if address.startswith("/") else {"hostaddr": address}),
        "port": str(settings.port),
        "user": settings.user,
        "password": settings.password,
        "dbname": settings.database,
        "sslmode": sslmode,
        "sslrootcert": roots,
        "sslcert": _NOWHERE,
        "sslkey": _NOWHERE,
        "sslcrl": _NOWHERE,
        "sslnegotiation": "postgres",
        "passfile": _NOWHERE,
        "options": "",
        "client_encoding": "UTF8",
        "connect_timeout": str(int(settings.connect_timeout_seconds)),
        "gssencmode": "disable",
        "require_auth": f"{'password,' if may_send else ''}md5,scram-sha-256,none",
        "channel_binding": "prefer",
        "target_session_attrs": settings.target_session_attrs,
        "load_balance_hosts": "disable",
        "keepalives": "1",
        "keepalives_idle": str(limits.SOCKET_IDLE_SECONDS),
        "keepalives_interval": "1",
        "keepalives_count": str(limits.SOCKET_PROBES_MAX),
        "tcp_user_timeout": str(int(limits.SOCKET_UNANSWERED_SECONDS * 1000)),
    }
    return " ".join(f"{key}={_quoted(value)}" for key, value in values.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _forget_variables() -> None:
    # A service file, which only a variable names, can bring settings that no connection string can refuse.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


@contextlib.contextmanager
def _trusted(settings: PostgresSettings) -> Iterator[str]:
    """A file with the roots to check the server's certificate with; one that does not exist where nothing is checked.

    The very ones that pages are checked with, and in memory where the system has such files: no disk must be writable.
    """
    try:
        roots = settings.roots()
    except LenswayError:
        # The other driver fails for the same reason, and says it.
        raise SessionError(None) from None
    if roots is None:
        yield _NOWHERE
    elif hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("lensway-roots"), "w+b") as file:
            file.write(roots.encode("ascii", "ignore"))
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory(prefix="lensway-") as directory:
            path = pathlib.Path(directory, "roots.pem")
            path.write_text(roots)
            yield str(path)
