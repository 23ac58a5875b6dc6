"""SQLite's catalog as introspection shows it: columns with the lens types that fit, and keys."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lensway.bridges.contract import ForeignKey, TableColumn, TableDescription, TableSummary
from lensway.bridges.kit.failures import FILE_TABLE_HINT
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType
from lensway.query.table_names import parts_of, written

_BEST_TYPES: Final = (
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
"""The first word that a declared type contains decides."""

_NUMBERS: Final = frozenset(
    {FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL, FieldType.BOOLEAN, FieldType.DATE, FieldType.TIMESTAMP}
)
_AFFINITIES: Final = (
    (("INT",), _NUMBERS),
    (("CHAR", "CLOB", "TEXT"), frozenset(FieldType) - {FieldType.INTEGER, FieldType.NUMBER, FieldType.BOOLEAN}),
    (("BLOB",), frozenset(FieldType)),
    (("REAL", "FLOA", "DOUB"), _NUMBERS),
)
"""Which types a lens can give a column, by its affinity (https://www.sqlite.org/datatype3.html, section 3.1): a column of text
stores a number as text, and one of numbers stores a text that looks like a number as a number. Others store what they get."""


def list_tables(connection: sqlite3.Connection) -> list[TableSummary]:
    """Every table and view, without the tables in which virtual ones keep their data. Raises sqlite3.Error."""
    return [TableSummary(name=written(name), kind=kind) for name, kind in _tables(connection)]


def describe_table(connection: sqlite3.Connection, name: str) -> TableDescription:
    """The table that a lens of this name reads, with its columns and keys: names compare without case, ``main`` is the file.

    Raises:
        LenswayError: NOT_FOUND.
        sqlite3.Error: when the file cannot be read.
    """
    *schema, given = parts_of(name) or ("",)
    alike = [each for each in _tables(connection) if each[0].lower() == given.lower()]
    if not alike or [each.lower() for each in schema] not in ([], ["main"]):
        raise LenswayError(ErrorCode.NOT_FOUND, f"No table '{name[:120]}' in the file", hint=FILE_TABLE_HINT)
    table, kind = next((each for each in alike if each[0] == given), alike[0])
    columns = _pragma(connection, "table_xinfo", table)
    return TableDescription(
        name=written(table),
        kind=kind,
        # Hidden columns of virtual tables (1) are arguments, not data; generated ones (2, 3) are data.
        columns=[_column(row) for row in columns if row[6] != 1],
        key=_key(columns),
        unique_keys=_unique_keys(connection, table),
        foreign_keys=_foreign_keys(connection, table),
        folds_case=True,
    )


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    found = connection.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    shadows: set[str] = set()
    with contextlib.suppress(sqlite3.DatabaseError):  # a list with more than it should have is better than none
        shadows = {row[1] for row in connection.execute("PRAGMA table_list") if row[0] == "main" and row[2] == "shadow"}
    return [(name, kind) for name, kind in found if name not in shadows]


def _column(row: Sequence[Any]) -> TableColumn:
    _, name, declared, required, _, key, _ = row
    upper = declared.upper()
    found = next((type for word, type in _BEST_TYPES if word in upper), None)
    fitting = next(
        (types for words, types in _AFFINITIES if any(word in upper for word in words)), frozenset(FieldType)
    )
    return TableColumn(
        name=name,
        database_type=declared,
        type=None if found is None else found.value,
        nullable=not required and not key,
        primary_key=bool(key),
        types=[type.value for type in FieldType if type in fitting],
    )


def _key(columns: Sequence[Any]) -> tuple[str, ...]:
    return tuple(row[1] for row in sorted((row for row in columns if row[5]), key=lambda row: int(row[5])))


def _unique_keys(connection: sqlite3.Connection, table: str) -> tuple[tuple[str, ...], ...]:
    found = []
    for _, index, is_unique, origin, is_partial in _pragma(connection, "index_list", table):
        names = [row[2] for row in _pragma(connection, "index_info", index)]
        if is_unique and origin != "pk" and not is_partial and None not in names:
            found.append(tuple(names))
    return tuple(sorted(dict.fromkeys(found), key=lambda names: (len(names), names)))


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    """Names of tables and columns compare without case here; each is given as it was created."""
    rows_of: dict[int, list[Sequence[Any]]] = {}
    for row in _pragma(connection, "foreign_key_list", table):
        rows_of.setdefault(row[0], []).append(row)
    found = []
    for rows in rows_of.values():
        other = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)", (rows[0][2],)
        ).fetchone()
        if other is None:
            continue  # SQLite lets a key refer to a table that does not exist
        columns = _pragma(connection, "table_xinfo", other[0])
        names: Mapping[str, str] = {row[1].lower(): row[1] for row in columns}
        # Without columns, a key refers to the primary key of the other table.
        given = [row[4] for row in rows]
        referenced = _key(columns) if None in given else tuple(names.get(name.lower(), name) for name in given)
        if len(referenced) == len(rows):
            found.append(
                ForeignKey(columns=tuple(row[3] for row in rows), table=written(other[0]), references=referenced)
            )
    return tuple(sorted(found, key=lambda key: (key.columns, key.table)))


def _pragma(connection: sqlite3.Connection, name: str, argument: str) -> list[Any]:
    quoted = argument.replace('"', '""')
    return connection.execute(f'PRAGMA {name}("{quoted}")').fetchall()
