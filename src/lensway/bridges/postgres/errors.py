"""What PostgreSQL and its driver say → typed failures. Decided by exception class, severity and SQLSTATE, never by text."""

from __future__ import annotations

import dataclasses
import errno
import ssl
import time
from typing import Final

import asyncpg
from asyncpg.pgproto.pgproto import BufferError as ShortMessageError

from lensway.bridges.kit.failures import (
    HINTS,
    cancelled_by_database,
    login_timed_out,
    out_of_descriptors,
    query_failed,
    timed_out,
    unreachable,
)
from lensway.bridges.postgres.states import QUERY_CANCELED, Said, meaning
from lensway.errors import ErrorCode, LenswayError

_LOGIN: Final = {
    "28P01": "password",
    "28000": "not_permitted",
    "3D000": "unknown_database",
    "57P04": "unknown_database",  # dropped meanwhile
    "53300": "too_many_connections",
    "57P01": "starting_up",
    "57P02": "starting_up",
    "57P03": "starting_up",
    "42501": "not_permitted",  # no CONNECT privilege
    "55000": "not_accepting",
    "08P01": "protocol",
}
_ROLLBACKS: Final = "40"
_FATAL: Final = frozenset({"FATAL", "PANIC"})
_RETRY_AFTER_SECONDS: Final = 1.0
_EARLY_SECONDS: Final = 0.01
"""The clocks of two machines do not run alike."""


DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
    ShortMessageError,
)
"""Everything by which the driver says that it failed; the last one of a message that is shorter than its content."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What tells apart the causes of a cancelled statement: its times, on the monotonic clock.

    ``own_timeout_ms`` is the statement timeout that the database itself sets for the login; 0 means no timeout.
    """

    deadline: float
    began_at: float
    own_timeout_ms: int = 0


class UndecodableError(Exception):
    """The driver received a value that it cannot decode. The connection goes on."""


def is_undecodable(error: BaseException) -> bool:
    """True for an error about the values of a statement: they do not exist in our encoding, or the driver has no decoder."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in _UNDECODABLE
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | UndecodableError)


_UNDECODABLE: Final = frozenset({"22021", "22P05"})
DECODING_ERRORS: Final = (ValueError, TypeError, LookupError, ArithmeticError)
"""What decoders of values raise."""


def of_connecting(error: BaseException) -> LenswayError:
    """The failure for an error while connecting."""
    if isinstance(error, LenswayError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        if _said(error) is None:
            return unreachable("tcp", "reset")  # a server that stops closes connections in the middle of a login
        state = error.sqlstate or ""
        cause = _LOGIN.get(state, "too_many_connections" if state.startswith("53") else "login")
        return unreachable("login", cause, sqlstate=state)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return unreachable("login", "protocol" if isinstance(error, asyncpg.InternalClientError) else "login")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return out_of_descriptors()
    stage, cause = of_socket(error)
    return unreachable(stage, cause)


def is_login_full(error: LenswayError) -> bool:
    """True for the failure of a login that may hold no further connection."""
    return error.failure.details.get("class") == "too_many_connections"


def of_socket(error: BaseException) -> tuple[str, str]:
    """Stage and class of an error of the network."""
    match error:
        case ssl.SSLCertVerificationError():
            return "tls", "certificate"
        case ssl.SSLError():
            return "tls", "tls"
        case TimeoutError():
            return "tcp", "timeout"
        case ConnectionRefusedError():
            return "tcp", "refused"
        case ConnectionResetError() | EOFError() | BrokenPipeError():
            return "tcp", "reset"
        case OSError():
            return "tcp", "unreachable"
        case _:
            return "login", "login"


def of_query(error: BaseException, run: Run | None = None) -> LenswayError:
    """The failure for an error while a statement ran. Without ``run``, a cancelled statement is a late one."""
    match error:
        case LenswayError():
            return error
        case asyncpg.PostgresError():
            said = _said(error)
            return unreachable("tcp", "reset") if said is None else of_said(said, run)
        case asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError() | EOFError() | ShortMessageError():
            return unreachable("tcp", "reset")
        case _:
            raise error


def is_broken_connection(error: BaseException) -> bool:
    """True when the connection is gone, so that a statement without a released row may be tried on another one.

    The server ends a connection with an error of severity FATAL. An error of the same class with severity ERROR, such as that of
    a foreign server that is down, ends only the statement.
    """
    if isinstance(error, asyncpg.PostgresError):
        said = _said(error)
        return said is None or said.is_fatal
    return isinstance(
        error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | EOFError | ShortMessageError
    )


def broken_protocol() -> LenswayError:
    """The failure when the server breaks the protocol."""
    return unreachable("login", "protocol")


def of_defect(error: Exception) -> Exception:
    """What to raise for an error that no other rule explains: of the driver itself, which raises anything at a server that breaks
    the protocol, the failure of the source; any other as it is, because it is a defect of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_of_driver = trace is not None and "asyncpg" in trace.tb_frame.f_code.co_filename
    return broken_protocol() if is_of_driver and not isinstance(error, LenswayError) else error


def is_repeatable(error: BaseException) -> bool:
    """True when the server ended the statement for a reason that may be over, so that it may be tried again."""
    return isinstance(error, asyncpg.PostgresError) and is_repeatable_state(error.sqlstate or "")


def is_repeatable_state(state: str) -> bool:
    """As `is_repeatable`, by SQLSTATE. Locks and a lack of resources do not end by asking at once again."""
    return state[:2] == _ROLLBACKS


def is_stale_statement(error: BaseException) -> bool:
    """True when a prepared statement does not fit the table any more: prepare it again."""
    return isinstance(
        error,
        asyncpg.InvalidCachedStatementError
        | asyncpg.InvalidSQLStatementNameError
        | asyncpg.FeatureNotSupportedError
        | asyncpg.exceptions.OutdatedSchemaCacheError,
    )


def may_repeat(error: BaseException, is_allowed: bool) -> bool:
    """True when the statement may be tried a second time: always when it was never executed, otherwise where the lens allows it
    (``is_allowed``)."""
    if is_stale_statement(error):
        return True
    is_over = is_repeatable(error) or (isinstance(error, asyncpg.PostgresError) and is_stale_type(error.sqlstate))
    return is_allowed and (is_over or is_broken_connection(error))


def of_decoding(error: Exception) -> Exception:
    """What to raise for an error of a decoder. Of the driver's own errors, some are values' errors by class too."""
    return error if isinstance(error, DRIVER_ERRORS) else UndecodableError()


def is_stale_type(state: str | None) -> bool:
    """True when the statement may have named a type by an oid that is gone: look the types up again."""
    return state in ("XX000", "42704")


def is_refused_comparison(error: LenswayError) -> bool:
    """True when the server refused a statement that compares columns as another type than they have, or through one that is
    gone."""
    return error.failure.details.get("sqlstate") in ("42804", "42846", "42883", "42704")


def of_said(said: Said, run: Run | None = None) -> LenswayError:
    """The failure for an error of the server while a statement ran."""
    if said.is_fatal:
        return unreachable("tcp", "reset", sqlstate=said.sqlstate)
    if said.sqlstate == QUERY_CANCELED:
        return _of_cancel(run)
    found = meaning(said.sqlstate)
    details = {"sqlstate": said.sqlstate, **said.facts(), **({"repeatable": True} if found.is_repeatable else {})}
    if found.code is ErrorCode.OVERLOADED:
        return LenswayError(
            found.code,
            found.message,
            hint=found.hint,
            details={"class": found.cause, **details},
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
    if found.code is ErrorCode.SOURCE_UNREACHABLE:
        # Only said of a foreign server here: our own connection is alive.
        found = meaning("08000")
    return query_failed(
        found.cause,
        f"{found.message}{said.where()}",
        hint=found.hint or HINTS.get(found.cause),
        retry_after_seconds=_RETRY_AFTER_SECONDS if found.is_repeatable else None,
        **details,
    )


def _said(error: asyncpg.PostgresError) -> Said | None:
    """The error's fields; None for what the driver says itself of a connection that is gone."""
    severity = error.severity_en or error.severity
    state = error.sqlstate or ""
    if severity is None and isinstance(error, asyncpg.PostgresConnectionError):
        return None
    return Said(
        sqlstate=state,
        is_fatal=severity in _FATAL,
        schema=error.schema_name,
        table=error.table_name,
        column=error.column_name,
        constraint=error.constraint_name,
        data_type=error.data_type_name,
    )


def _of_cancel(run: Run | None) -> LenswayError:
    """A statement that is cancelled before its deadline was not ended by us: our own timeout comes after it."""
    now = time.monotonic()
    if run is None or now >= run.deadline - _EARLY_SECONDS:
        return timed_out()
    if run.own_timeout_ms and now - run.began_at >= run.own_timeout_ms / 1000 - _EARLY_SECONDS:
        return login_timed_out(run.own_timeout_ms)
    found = meaning(QUERY_CANCELED)
    return cancelled_by_database(found.message, hint=found.hint, sqlstate=QUERY_CANCELED)
