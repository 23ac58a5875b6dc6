"""Field types and the definition of a lens as the planner sees it. Values only."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping

import msgspec

from lensway.query.table_names import parts_of, written


class FieldType(enum.StrEnum):
    """The closed list of types that a field can declare."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    UUID = "uuid"
    JSON = "json"
    BYTES = "bytes"


class TableName(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """A table in a plan. With ``schema`` None the database looks it up on its search path."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        """``schema.name``. A part that holds a dot or a quote is quoted, so that no two tables have the same text."""
        return written(self.name) if self.schema is None else written(self.schema, self.name)


class PlanColumn(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One column as plans have it: ``name`` is the field's, ``column`` the table's."""

    name: str
    column: str
    type: FieldType
    is_list: bool = False
    nullable: bool = True

    @property
    def has_order(self) -> bool:
        """True when values of the column compare: all but JSON and lists."""
        return self.type is not FieldType.JSON and not self.is_list


class NestedColumn(msgspec.Struct, frozen=True, gc=False):
    """A column whose value is a row of its own, or with ``is_list`` a list of rows. NULL where there is no such row."""

    name: str
    columns: tuple[PlanColumn | NestedColumn, ...]
    is_list: bool = False


class Field(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One field of a lens, mapped to one column of its table."""

    name: str
    type: FieldType
    column: str
    nullable: bool = True
    primary_key: bool = False
    is_list: bool = False

    @functools.cached_property
    def plan_column(self) -> PlanColumn:
        """The column behind the field. Key columns are never NULL: databases do not let them be."""
        return PlanColumn(self.name, self.column, self.type, self.is_list, self.nullable and not self.primary_key)


class LensDefinition(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What may be asked of one table: the fields in declared order, and where they come from.

    ``table`` is the name as declared, ``name`` or ``schema.name``: see `lensway.query.table_names`. The primary key is the fields
    with ``primary_key`` in declared order; it may be empty, and then pages have no cursors.
    """

    name: str
    table: str
    fields: Mapping[str, Field]

    @functools.cached_property
    def primary_key(self) -> tuple[Field, ...]:
        """The key fields in declared order; empty when the lens declares none."""
        return tuple(field for field in self.fields.values() if field.primary_key)

    @functools.cached_property
    def columns(self) -> tuple[PlanColumn, ...]:
        """The columns of all fields in declared order."""
        return tuple(field.plan_column for field in self.fields.values())

    @functools.cached_property
    def place(self) -> tuple[str | None, str]:
        """Schema, where one is declared, and table."""
        parts = parts_of(self.table)
        assert parts is not None, "the declaration was checked"
        return (parts[0], parts[1]) if len(parts) > 1 else (None, parts[0])

    @functools.cached_property
    def plan_table(self) -> TableName:
        """The table as plans name it."""
        return TableName(*self.place)
