"""The generated tables of `docs/reference/declarations.md`: every key that `lensway push` reads, from the sets that read it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from lensway import limits
from lensway.bridges.duckdb import engine
from lensway.bridges.postgres import settings
from lensway.bridges.sqlite import bridge as sqlite
from lensway.catalog import declaration, definitions
from lensway.catalog.records import Credentials, ExecutionMode, QueryGrant, RetryMode
from lensway.kinds import BUILT_IN
from lensway.query.fields import FieldType

Rows = Mapping[str, tuple[str, str, str]]
"""By key: its type, its default ("required" where there is none), and what it does."""


def _one_of(words: Collection[str]) -> str:
    return " or ".join(f"`{word}`" for word in words) if len(words) < 3 else ", ".join(f"`{word}`" for word in words)


_DOCUMENT: Final[Rows] = {
    "sources": ("table by name", "empty", "Databases: `[sources.NAME]`."),
    "lenses": ("table by name", "empty", "Views of their tables: `[lenses.NAME]`."),
    "assignments": (
        "table: source = list of runners",
        "assignments stay as they are",
        "The runners of each source that it names. A source with an empty list, or one that `--prune` removes, loses all; "
        "sources that the table does not name keep theirs.",
    ),
}
_SOURCE: Final[Rows] = {
    "bridge": (
        _one_of([kind.name for kind in BUILT_IN.served]),
        "required",
        "The kind of database. Installed packages can add kinds ([write a bridge](../how-to/write-a-bridge.md)).",
    ),
    "dialect": (
        "a dialect of the bridge",
        "the first of its bridge",
        "The SQL that the database speaks, where its bridge knows several.",
    ),
    "credentials": (
        _one_of([each.value for each in Credentials]),
        f"`{Credentials.MANAGED.value}`",
        "`managed`: the service keeps `config` encrypted and gives it to the runners of the source. `runner-local`: each runner "
        "reads `LENSWAY_SOURCE_<NAME>_…` from its own environment, and the service never sees it.",
    ),
    "config": (
        "table",
        "the stored one",
        "The settings of the database, below; only with `managed`. The server never returns it: `pull` leaves it out, and a push "
        "without it keeps it.",
    ),
    "execution": (
        _one_of([each.value for each in ExecutionMode]),
        f"`{ExecutionMode.AUTO.value}`",
        "`auto`: the service executes a source without runners itself. `runner_required`: it never does.",
    ),
}
_POSTGRES: Final[Rows] = {
    "url": (
        "text",
        "none",
        "`postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`; the other keys override its parts.",
    ),
    "host": (
        "text",
        "required, here or in `url`",
        "Name, address, list with commas, or the directory of a Unix socket.",
    ),
    "port": ("text or number", "5432", "One for each host, or one for all."),
    "database": ("text", "the user's name", "The database."),
    "user": ("text", "required, here or in `url`", "A login that may only `SELECT`."),
    "password": ("text", "none", "Its password."),
    "sslmode": (
        _one_of(settings._SSL_MODES),
        "`prefer` on loopback, `require` elsewhere",
        "How the connection is encrypted and the server checked.",
    ),
    "sslrootcert": (
        "path or PEM text",
        "the system's",
        "Certificates to trust; a path on the machine that executes the source.",
    ),
    "connect_timeout": ("seconds, 1 to 60", "5", "For one address."),
    "target_session_attrs": (_one_of(settings._SESSION_ATTRIBUTES), "`any`", "Which server of a list to use."),
    "statement_tags": ("`on` or `off`", "`off`", "Put the ids of request and attempt into every statement."),
    "pooler": (
        _one_of(settings._POOLERS),
        "`auto`",
        "A pooler such as PgBouncer in front ([poolers](../how-to/operations.md#connection-poolers)).",
    ),
    "pool_size": (
        f"1 to {limits.CONNECTIONS_PER_SOURCE_MAX}",
        str(limits.CONNECTIONS_PER_SOURCE_MAX),
        "Connections of one process at most.",
    ),
}
_SQLITE: Final[Rows] = {
    "path": ("text", "required", "The absolute path of the file, or `url` with `sqlite:///absolute/path`."),
    "immutable": ("true or false", "false", "The file never changes: WAL files on read-only media can be read."),
}
_DUCKDB: Final[Rows] = {
    "path": ("text", "required", "The absolute path of the file, or `url` with `duckdb:///absolute/path`."),
    "memory_mib": (
        f"{engine._MEMORY_MIB[0]} to {engine._MEMORY_MIB[-1]:,}",
        f"{engine._MEMORY_MIB_DEFAULT:,}",
        "Memory for the queries of the source, in MiB.",
    ),
    "threads": (
        f"{engine._THREADS[0]} to {engine._THREADS[-1]}",
        str(engine._THREADS_DEFAULT),
        "Threads of the engine.",
    ),
}
_LENS: Final[Rows] = {
    "source": ("text", "required", "The name of the source."),
    "table": (
        "text",
        "required",
        "`table` or `schema.table`, as `lensway sources tables SOURCE` lists it. Case counts; a part with a dot or a quote is in "
        "double quotes: `table = '\"my.schema\".orders'`.",
    ),
    "fields": ("table by name", "required", "The fields in the order of rows: `[lenses.NAME.fields]`."),
    "grants": (
        "table",
        "`none`",
        f"`grants.query` is {_one_of([each.value for each in QueryGrant])}: may publishable keys (`pk_`) query the lens.",
    ),
    "limits": ("table", "none", "Bounds of a request: `limits.maxRows = …`."),
    "retry": (
        _one_of([each.value for each in RetryMode]),
        f"`{RetryMode.AUTO.value}`",
        "`never`: a query that a runner has begun is not repeated on another one.",
    ),
}
_FIELD: Final[Rows] = {
    "type": (
        _one_of([each.value for each in FieldType]),
        "required",
        "How values look ([types](types.md)); it must fit the type of the column.",
    ),
    "column": ("text", "the field's name", "The column that the field shows."),
    "primaryKey": (
        "true or false",
        "false",
        "Part of the key, in the order of the fields. Pages by cursor need a key, and its values must be unique.",
    ),
    "nullable": ("true or false", "true", "May the column hold NULL."),
    "list": ("true or false", "false", "The column is an array of the type."),
}
_LIMITS: Final[Rows] = {
    "maxRows": (
        f"1 to {limits.LENS_ROWS_MAX:,}",
        f"{limits.EXPORT_ROWS_DEFAULT:,}",
        "Rows of one result; a larger one fails.",
    ),
    "maxBytes": (f"1 to {limits.LENS_BYTES_MAX:,}", f"{limits.EXPORT_BYTES_DEFAULT:,}", "Bytes of one result."),
    "maxRowBytes": (f"1 to {limits.ROW_BYTES_MAX:,}", f"{limits.ROW_BYTES_DEFAULT:,}", "Bytes of one row."),
    "timeoutMs": (
        f"1 to {limits.QUERY_TIMEOUT_MS_MAX:,}",
        "none",
        "The longest deadline of a request; longer ones are shortened to it.",
    ),
}
TABLES: Final[Mapping[str, tuple[Rows, Collection[str]]]] = {
    "declaration-document": (_DOCUMENT, declaration.DOCUMENT_KEYS),
    "declaration-sources": (_SOURCE, definitions.SOURCE_KEYS),
    "declaration-postgres": (_POSTGRES, {"url", *settings.FIELDS}),
    "declaration-sqlite": (_SQLITE, {"path", *sqlite.OTHER_KEYS}),
    "declaration-duckdb": (_DUCKDB, {"path", *engine.OTHER_KEYS}),
    "declaration-lenses": (_LENS, definitions.LENS_KEYS),
    "declaration-fields": (_FIELD, definitions.FIELD_KEYS),
    "declaration-limits": (_LIMITS, definitions.LIMIT_KEYS),
}
"""The rows of each table, and the keys that the code reads there."""


def table(name: str) -> Iterator[str]:
    """One table. Raises ValueError when it does not describe exactly the keys that the code reads."""
    rows, known = TABLES[name]
    if rows.keys() != set(known):
        raise ValueError(f"{name}: {sorted(rows.keys() ^ set(known))} are described or read, but not both")
    yield "| key | value | default | |"
    yield "| --- | --- | --- | --- |"
    for key, (value, default, text) in rows.items():
        yield f"| `{key}` | {value} | {default} | {text} |"
