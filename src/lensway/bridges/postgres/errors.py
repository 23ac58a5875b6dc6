"""What PostgreSQL and its driver say → typed failures. Decided by exception class and SQLSTATE, never by text."""

from __future__ import annotations

import errno
import ssl
from typing import Final

import asyncpg

from lensway.bridges.kit.failures import out_of_descriptors, query_failed, timed_out, unreachable
from lensway.errors import ErrorCode, LenswayError

_LOGIN: Final = {
    "28P01": "password",
    "28000": "not_permitted",
    "3D000": "unknown_database",
    "53300": "too_many_connections",
    "57P03": "starting_up",
    "57P01": "starting_up",
}
_QUERY: Final = {
    "42P01": ("undefined_table", "The table of the lens does not exist", "Correct `table` in the lens."),
    "42703": ("undefined_column", "A column of the lens does not exist", "Correct `column` in the lens."),
    "42501": ("permission_denied", "The source's login may not read that table", "GRANT SELECT on it to the login."),
    "42883": ("type_mismatch", "A field is declared as another type than its column", "Correct `type` in the lens."),
    "42804": ("type_mismatch", "A field is declared as another type than its column", "Correct `type` in the lens."),
    "42846": ("type_mismatch", "A field is declared as another type than its column", "Correct `type` in the lens."),
    "0A000": (
        "unsupported",
        "The database cannot do this with a column of that kind",
        "A pattern on a column with a nondeterministic collation, for one, needs PostgreSQL 18.",
    ),
    # The driver itself refuses to send a value that its column's type does not have.
    "22000": ("invalid_value", "A value of the query does not fit the type of its column", None),
    "22P02": ("invalid_value", "A value of the query does not fit the type of its column", None),
    "22003": ("out_of_range", "A value of the query is out of the range of its column's type", None),
    "22007": ("invalid_value", "A date or time of the query does not exist", None),
    "22008": ("out_of_range", "A date or time of the query is out of range", None),
    "3F000": ("undefined_table", "The schema of the lens does not exist", "Correct `table` in the lens."),
    "25006": ("read_only", "The statement would write, and connections are read-only", None),
}
_CONNECTION_CLASSES: Final = frozenset({"08"})
_SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
_QUERY_CANCELED: Final = "57014"


DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)
"""Everything by which the driver says that it failed."""


def of_connecting(error: BaseException) -> LenswayError:
    """The failure for an error while connecting."""
    if isinstance(error, LenswayError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        cause = _LOGIN.get(state, "too_many_connections" if state.startswith("53") else "login")
        return unreachable("login", cause, sqlstate=state)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return unreachable("login", "protocol" if isinstance(error, asyncpg.InternalClientError) else "login")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return out_of_descriptors()
    stage, cause = of_socket(error)
    return unreachable(stage, cause)


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


def of_query(error: BaseException) -> LenswayError:
    """The failure for an error while a statement ran."""
    match error:
        case LenswayError():
            return error
        case asyncpg.PostgresError():
            return of_state(error.sqlstate or "")
        case asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError() | EOFError():
            return unreachable("tcp", "reset")
        case _:
            raise error


def is_broken_connection(error: BaseException) -> bool:
    """True when the connection is gone, so that a statement of which nothing was released may be tried on another one."""
    if isinstance(error, asyncpg.PostgresError):
        return is_broken_state(error.sqlstate or "")
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | EOFError)


def is_broken_state(state: str | None) -> bool:
    """As `is_broken_connection`, by SQLSTATE; None is an error that the server has not sent."""
    return state is None or state[:2] in _CONNECTION_CLASSES or state in _SHUTDOWNS


def is_stale_statement(error: BaseException) -> bool:
    """True when a prepared statement does not fit the table any more: prepare it again."""
    return isinstance(
        error,
        asyncpg.InvalidCachedStatementError | asyncpg.InvalidSQLStatementNameError | asyncpg.FeatureNotSupportedError,
    )


def of_state(state: str) -> LenswayError:
    """The failure for this SQLSTATE of a statement."""
    if state == _QUERY_CANCELED:
        return timed_out()
    if state[:2] in _CONNECTION_CLASSES or state in _SHUTDOWNS:
        return unreachable("tcp", "reset", sqlstate=state)
    if state.startswith("53"):
        return LenswayError(
            ErrorCode.OVERLOADED,
            "The database has not enough resources for this now",
            details={"sqlstate": state, "class": "resources"},
            retry_after_seconds=1.0,
        )
    cause, message, hint = _QUERY.get(state, (f"sqlstate_{state[:2]}", "The database failed the statement", None))
    return query_failed(cause, message, hint=hint, sqlstate=state)
