"""The failures that bridges give: closed classes, facts, and what to do. Never a driver's text, never a setting's value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lensway.errors import CANCELLED_BY_DATABASE, ErrorCode, LenswayError

_KEY_CHARACTERS_MAX: Final = 200
HINTS: Final[Mapping[str, str]] = {
    "unknown_host": "The host name does not resolve. Check the source's host, and DNS on the machine that executes the source.",
    "refused": "No server listens at that address and port, or a firewall rejects the connection. Is the database up?",
    "timeout": "The server does not answer in time: a firewall drops the packets, or the address is wrong.",
    "reset": "The connection was closed. The database may have restarted, or a proxy or firewall closes connections.",
    "no_tls": "The server does not offer TLS. Enable TLS on the server, or set sslmode to disable if the network is trusted.",
    "certificate": "The server's certificate is not trusted or does not match its name. Set sslrootcert, or correct the host.",
    "tls": "The TLS handshake failed.",
    "password": "The database rejects this user or password.",
    "clear_text_password": "The server asks for the password in clear text, and the connection is not encrypted. Set sslmode "
    "to require or stricter, or let the server use scram-sha-256.",
    "unknown_database": "The server has no database of this name.",
    "not_permitted": "The server does not allow this user to connect to this database from this address. On PostgreSQL, check "
    "pg_hba.conf, and GRANT CONNECT on the database to the user.",
    "not_accepting": "The database accepts no connections (on PostgreSQL, ALLOW_CONNECTIONS is off). Use another database.",
    "login": "The server ends the login for another reason, which its log names. Check the settings of the login, such as "
    "those of ALTER ROLE … SET.",
    "too_many_connections": "The server has no free connection. Raise max_connections, or close other clients' connections.",
    "no_transactions": "The pooler in front of the database closes a connection that begins a transaction. "
    "Set its pool_mode to transaction or session; statement pooling cannot serve Lensway.",
    "session_attributes": "No server in the list matches target_session_attrs.",
    "starting_up": "The database is starting, stopping or recovering. Repeat the request when it is up; its log says what it "
    "does.",
    "forbidden_address": "The policy of the runner or service that executes this source forbids that address.",
    "no_file": "The file does not exist on the machine that executes this source, or cannot be read.",
    "wal_read_only": "The file is in WAL mode, and SQLite reads such a file only if it can write to its directory. Allow this "
    "process to write to the directory, or turn WAL off where the file is produced (PRAGMA journal_mode = DELETE). If the file "
    "never changes, checkpoint it (PRAGMA wal_checkpoint(TRUNCATE)) and set `immutable` to true in the source's config.",
    "wal_not_checkpointed": "The source is `immutable`, but a write-ahead log with rows exists beside the file. Checkpoint "
    "the file where it is writable (PRAGMA wal_checkpoint(TRUNCATE)), and copy it again.",
    "not_a_database": "The file is not a database of this kind.",
    "protocol": "The peer does not speak the database's protocol. Check the port, and any proxies on the way. A pooler such as "
    "PgBouncer reports its own failures this way: its log says why.",
    "unreachable": "The network has no route to that address.",
}


_LISTED: Final = "`lensway sources tables SOURCE` lists the tables as `table` names them: "
_QUOTED: Final = 'a part with a dot or a quote is written in double quotes, as in "my.schema".orders.'
TABLE_HINT: Final = f"{_LISTED}case counts, and {_QUOTED}"
FILE_TABLE_HINT: Final = f"{_LISTED}{_QUOTED}"
"""For SQLite and DuckDB, whose names compare without case."""


def unreachable(stage: str, cause: str, *, hint: str | None = None, **details: object) -> LenswayError:
    """The database cannot be reached: at which stage, the class of failure, and what to do when that says more than the class."""
    where = {"dns": "look up the host of", "tcp": "connect to", "tls": "secure the connection to", "login": "log in to"}
    return LenswayError(
        ErrorCode.SOURCE_UNREACHABLE,
        f"Cannot {where.get(stage, 'reach')} the database ({cause.replace('_', ' ')})",
        hint=hint or HINTS.get(cause),
        details={"stage": stage, "class": cause, **details},
    )


def query_failed(
    cause: str, message: str, *, hint: str | None = None, retry_after_seconds: float | None = None, **details: object
) -> LenswayError:
    """The database refused or failed the statement."""
    return LenswayError(
        ErrorCode.SOURCE_QUERY_FAILED,
        message,
        hint=hint,
        details={"class": cause, **details},
        retry_after_seconds=retry_after_seconds,
    )


def type_mismatch(field: str, wanted: str, found: str, *, hint: str | None = None) -> LenswayError:
    """A field is declared as something that its column is not; ``hint`` for a column that has no fitting type."""
    return query_failed(
        "type_mismatch",
        f"The field '{field}' is declared as {wanted}, and its column holds {found}",
        hint=hint or "Correct the type in the lens.",
        field=field,
    )


def key_not_unique(lens: str, fields: Sequence[str]) -> LenswayError:
    """A page begins or ends between rows that the order of the lens cannot tell apart."""
    return query_failed(
        "key_not_unique",
        f"Lens '{lens}': this page would end between rows with equal values in {', '.join(fields)}",
        hint="Declare a unique primary key, add a field to `orderBy` that distinguishes the rows, or export the rows.",
        lens=lens,
        fields=list(fields),
    )


def wrong_value(field: str, wanted: str, found: str, key: Mapping[str, object]) -> LenswayError:
    """A value of a column that is not of the type that its field declares; ``key`` says in which row, as far as it is known."""
    known = {name: _plain(value) for name, value in key.items()}
    row = f"the row with {', '.join(f'{name} {value}' for name, value in known.items())}" if known else "a row"
    return query_failed(
        "type_mismatch",
        f"The field '{field}' is declared as {wanted}, and {row} holds {found} that is not of this type",
        hint="Correct the value in the database or the type in the lens, or leave the field out with `select`.",
        retry_after_seconds=None,
        field=field,
        **({"key": known} if known else {}),
    )


def _plain(value: object) -> object:
    """A key value as details carry it: short, and nothing that JSON has no form for."""
    if isinstance(value, str):
        return value[:_KEY_CHARACTERS_MAX]
    return value if isinstance(value, bool | int | float) else None


def not_representable(field: str, format: str) -> LenswayError:
    """A value of this field has no place in the format that was asked for."""
    return query_failed(
        "not_representable",
        f"The field '{field}' holds a value that {format} cannot hold",
        hint="Request application/x-ndjson or text/csv, which hold every value, or leave the field out with `select`.",
        field=field,
    )


def timed_out() -> LenswayError:
    """The deadline passed while the database worked, or while a connection was waited for."""
    return LenswayError(
        ErrorCode.QUERY_TIMEOUT,
        "The deadline passed before the database answered",
        hint="Request less data, add an index for the filter and the order, or raise `timeoutMs`.",
    )


def login_timed_out(milliseconds: int) -> LenswayError:
    """The statement timeout that the database sets for the source's login passed before the deadline."""
    return LenswayError(
        ErrorCode.QUERY_TIMEOUT,
        f"The statement_timeout of the source's login ({milliseconds} ms) passed before the database answered",
        hint="Request less data, add an index for the filter and the order, or raise the timeout with "
        "`ALTER ROLE … SET statement_timeout`.",
        details={"class": "login_timeout", "statementTimeoutMs": milliseconds},
    )


def cancelled_by_database(message: str, *, hint: str | None = None, **details: object) -> LenswayError:
    """An administrator of the database ended the statement."""
    return LenswayError(ErrorCode.CANCELLED, message, hint=hint, details={"reason": CANCELLED_BY_DATABASE, **details})


def undecodable(fields: Sequence[str]) -> LenswayError:
    """A value that the driver cannot decode, in one of these fields."""
    named = f"The field '{fields[0]}' holds" if len(fields) == 1 else f"One of the fields {', '.join(fields)} holds"
    return query_failed(
        "undecodable",
        f"{named} a value that cannot be decoded",
        hint="Correct the value in the database, or leave the field out with `select`.",
        **({"field": fields[0]} if len(fields) == 1 else {"fields": list(fields)}),
    )


def out_of_descriptors() -> LenswayError:
    """This process can open nothing more: not the database's fault, and another place may serve."""
    return LenswayError(
        ErrorCode.OVERLOADED,
        "The process that executes this source has too many files and connections open",
        hint="Raise its limit of open files (`ulimit -n`).",
        details={"class": "descriptors"},
        retry_after_seconds=1.0,
    )


def row_too_large(limit: int) -> LenswayError:
    """One row is larger than the lens allows."""
    return LenswayError(
        ErrorCode.ROW_TOO_LARGE,
        f"A row is larger than {limit:,} bytes",
        hint="Select fewer fields, or raise limits.maxRowBytes of the lens.",
        details={"maxRowBytes": limit},
    )


def limit_exceeded(what: str, limit: int) -> LenswayError:
    """The result is larger than a limit; it is never shortened instead."""
    return LenswayError(
        ErrorCode.LIMIT_EXCEEDED,
        f"The result has more than {limit:,} {what}",
        hint="Narrow it with `where`, select fewer fields, or request a smaller page.",
        details={"limit": limit, "of": what},
    )


def invalid_setting(key: str, what: str, *, hint: str | None = None) -> LenswayError:
    """A setting of a source is wrong; names the key, never the value."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST, f"config.{key}: {what}", hint=hint, details={"path": f"config.{key}"}
    )
