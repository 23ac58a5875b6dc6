"""What SQLite's catalog guarantees of a table, for pages by cursor: columns without NULLs, keys that are unique, the row id.

A unique index is no proof of a total order here: it may have another collation than its column, and decimals and times are
compared by value, of which the same one can be stored in several spellings. Integers have neither.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from lensway.bridges.kit.orderings import EqualKeys, equal_keys_sql, key_warning
from lensway.query.fields import FieldType
from lensway.query.ordering import TableFacts, has_unique_key
from lensway.query.plan import Plan, Shape, decode_shape

PRAGMAS: Final = frozenset({"table_info", "table_list", "table_xinfo", "index_list", "index_info", "foreign_key_list"})
"""What the catalog is asked by; these read nothing else."""
_ROW_IDS: Final = ("rowid", "oid", "_rowid_")
_UNIQUE_TYPES: Final = frozenset({FieldType.INTEGER})
_LOOKED_AT_ROWS: Final = 10_000
"""Rows of a view that a connection test looks at for equal keys."""


def table_facts(connection: sqlite3.Connection, shape: Shape) -> TableFacts:
    """The guarantees for the table of this shape; no guarantee for views, virtual tables and unreadable ones."""
    if (shape.table.schema or "main").lower() != "main":
        return TableFacts()
    try:
        listed = _pragma(connection, "table_list", shape.table.name)
        found = [row for row in listed if row[0] == "main" and row[2] in ("table", "shadow")]
        if not found:
            return TableFacts()
        columns = _pragma(connection, "table_xinfo", shape.table.name)
        indexes = _pragma(connection, "index_list", shape.table.name)
    except sqlite3.DatabaseError:
        return TableFacts()  # the statement itself says why
    has_row_id = not found[0][4]
    key = [row for row in columns if row[5]]
    required = {row[1] for row in columns if row[3] or (row[5] and not has_row_id)}
    if not has_row_id:
        unique = frozenset(row[1] for row in key)
        return TableFacts(not_null=frozenset(required), unique=(unique,), unique_types=_UNIQUE_TYPES)
    # An INTEGER PRIMARY KEY is the row id, unless SQLite keeps an index for it, as it does for some of old (DESC).
    is_alias = len(key) == 1 and key[0][2].upper() == "INTEGER" and all(row[3] != "pk" for row in indexes)
    alias = key[0][1] if is_alias else None
    names = {row[1].lower() for row in columns}
    return TableFacts(
        not_null=frozenset(required if alias is None else required | {alias}),
        unique=() if alias is None else (frozenset({alias}),),
        unique_types=_UNIQUE_TYPES,
        row_id=next((name for name in _ROW_IDS if name not in names), alias),
    )


def key_warnings(connection: sqlite3.Connection, lenses: Sequence[Plan]) -> list[dict[str, str]]:
    """A warning for each lens whose pages may be refused: rows share its primary key, and have no row id."""
    found = []
    for shape in [decode_shape(plan.shape) for plan in lenses]:
        facts = table_facts(connection, shape)
        if not shape.keys or facts.row_id is not None or has_unique_key(shape, facts):
            continue
        with contextlib.suppress(sqlite3.DatabaseError):
            warning = key_warning(shape, EqualKeys.SEEN if _has_equal_keys(connection, shape) else EqualKeys.NONE)
            if warning is not None:
                found.append(warning)
    return found


def _has_equal_keys(connection: sqlite3.Connection, shape: Shape) -> bool:
    return connection.execute(equal_keys_sql(shape, _LOOKED_AT_ROWS)).fetchone() is not None


def _pragma(connection: sqlite3.Connection, name: str, table: str) -> Sequence[Any]:
    return connection.execute(f"PRAGMA {name}({_quoted(table)})").fetchall()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
