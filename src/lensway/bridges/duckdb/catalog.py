"""What DuckDB's catalog says of tables: their columns, what pages by cursor can rely on, and what introspection shows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import duckdb

from lensway.bridges.contract import ForeignKey, TableColumn, TableDescription, TableSummary
from lensway.bridges.duckdb.columns import ColumnType, fitting_types, lens_type, type_of
from lensway.bridges.kit.orderings import EqualKeys, equal_keys_sql, key_warning
from lensway.query.fields import FieldType
from lensway.query.ordering import TableFacts, has_unique_key
from lensway.query.plan import Plan, Shape, decode_shape
from lensway.query.table_names import parts_of, written

DEFAULT_SCHEMA: Final = "main"
_ROW_ID: Final = "rowid"
_UNIQUE_TYPES: Final = frozenset({FieldType.INTEGER, FieldType.UUID, FieldType.DATE})
"""Types whose index has the same order and equality as the column: texts may have a collation."""
_LOOKED_AT_ROWS: Final = 10_000
"""Rows of a view that a connection test looks at for equal keys."""
_HERE: Final = "database_name = current_database() AND NOT internal"
_OF_TABLE: Final = (
    "database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
)
_COLUMNS: Final = (
    f"SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE {_OF_TABLE} ORDER BY column_index"  # noqa: S608
)
_KEYS: Final = (
    "SELECT constraint_type, constraint_column_names FROM duckdb_constraints()"  # noqa: S608
    f" WHERE {_OF_TABLE} AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')"
)
_FOREIGN: Final = (
    "SELECT constraint_column_names, referenced_table, referenced_column_names FROM duckdb_constraints()"  # noqa: S608
    f" WHERE {_OF_TABLE} AND constraint_type = 'FOREIGN KEY' ORDER BY constraint_index"
)
_IS_TABLE: Final = f"SELECT 1 FROM duckdb_tables() WHERE {_OF_TABLE}"  # noqa: S608
_TABLES: Final = (
    f"SELECT schema_name, table_name, 'table' FROM duckdb_tables() WHERE {_HERE}"  # noqa: S608
    f" UNION ALL SELECT schema_name, view_name, 'view' FROM duckdb_views() WHERE {_HERE} ORDER BY ALL"
)


class Table(NamedTuple):
    """What the catalog says of one table or view."""

    facts: TableFacts
    types: Mapping[str, ColumnType]


def look_at(connection: duckdb.DuckDBPyConnection, shape: Shape) -> Table:
    """The table of this shape; nothing is known of one that does not exist, whose statement fails."""
    place = [shape.table.schema or DEFAULT_SCHEMA, shape.table.name]
    rows = connection.execute(_COLUMNS, place).fetchall()
    types = {name.lower(): type_of(type) for name, type, _ in rows}
    if connection.execute(_IS_TABLE, place).fetchone() is None:
        return Table(TableFacts(), types)
    # The lens may write a name in other letters than the table does.
    spelled: dict[str, set[str]] = {}
    for term in shape.order:
        spelled.setdefault(term.column.column.lower(), set()).add(term.column.column)
    required = {name.lower() for name, _, is_nullable in rows if not is_nullable}
    unique = []
    for kind, names in connection.execute(_KEYS, place).fetchall():
        if kind == "PRIMARY KEY" or {name.lower() for name in names} <= required:
            unique.append(frozenset(min(spelled.get(name.lower(), {name})) for name in names))
    facts = TableFacts(
        not_null=frozenset(each for name in required for each in spelled.get(name, {name})),
        unique=tuple(unique),
        unique_types=_UNIQUE_TYPES,
        row_id=None if _ROW_ID in types else _ROW_ID,
    )
    return Table(facts, types)


def key_warnings(connection: duckdb.DuckDBPyConnection, lenses: Sequence[Plan]) -> list[dict[str, str]]:
    """A warning for each lens whose pages may be refused: rows share its primary key, and have no row id."""
    found = []
    for shape in [decode_shape(plan.shape) for plan in lenses]:
        facts = look_at(connection, shape).facts
        if not shape.keys or facts.row_id is not None or has_unique_key(shape, facts):
            continue
        with contextlib.suppress(duckdb.Error):
            rows = connection.execute(equal_keys_sql(shape, _LOOKED_AT_ROWS)).fetchall()
            warning = key_warning(shape, EqualKeys.SEEN if rows else EqualKeys.NONE)
            if warning is not None:
                found.append(warning)
    return found


def tables(connection: duckdb.DuckDBPyConnection) -> list[TableSummary]:
    """Every table and view, as a lens would declare it."""
    rows = connection.execute(_TABLES).fetchall()
    return [TableSummary(name=_declared_name(schema, name), kind=kind) for schema, name, kind in rows]


def description(connection: duckdb.DuckDBPyConnection, name: str) -> TableDescription | None:
    """The table of this name with its keys, or None. Names compare without case."""
    *schema, table = parts_of(name.lower()) or ("",)
    wanted = (*(schema or [DEFAULT_SCHEMA]), table)
    for schema_name, table_name, kind in connection.execute(_TABLES).fetchall():
        if (schema_name.lower(), table_name.lower()) != wanted:
            continue
        place = [schema_name, table_name]
        keys = connection.execute(_KEYS, place).fetchall()
        key = next((tuple(columns) for kind, columns in keys if kind == "PRIMARY KEY"), ())
        foreign = connection.execute(_FOREIGN, place).fetchall()
        return TableDescription(
            name=_declared_name(schema_name, table_name),
            kind=kind,
            columns=[_column(row, key) for row in connection.execute(_COLUMNS, place).fetchall()],
            key=key,
            unique_keys=sorted(tuple(columns) for kind, columns in keys if kind == "UNIQUE"),
            # A key refers to a table of its own schema.
            foreign_keys=[
                ForeignKey(
                    columns=tuple(columns),
                    table=_declared_name(schema_name, referenced),
                    references=tuple(referenced_columns),
                )
                for columns, referenced, referenced_columns in foreign
            ],
            folds_case=True,
        )
    return None


def _declared_name(schema: str, table: str) -> str:
    return written(table) if schema == DEFAULT_SCHEMA else written(schema, table)


def _column(row: tuple[Any, ...], key: Sequence[str]) -> TableColumn:
    name, declared, is_nullable = row
    type = type_of(declared)
    found, is_list = lens_type(type)
    return TableColumn(
        name=name,
        database_type=declared,
        type=None if found is None else found.value,
        is_list=is_list and found is not None,
        nullable=bool(is_nullable) and name not in key,
        primary_key=name in key,
        types=fitting_types(type),
    )
