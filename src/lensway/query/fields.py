"""Field types and the definition of a lens as the planner sees it. Values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec


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


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a lens, mapped to one column of its table."""

    name: str
    type: FieldType
    column: str
    nullable: bool = True
    primary_key: bool = False
    is_list: bool = False


class LensDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked of one table: the fields in declared order, and where they come from.

    ``table`` is the name as declared: ``name`` or ``schema.name``. The primary key is the fields with ``primary_key`` in
    declared order; it may be empty (then there are no cursors).
    """

    name: str
    table: str
    fields: Mapping[str, Field]

    @property
    def primary_key(self) -> tuple[Field, ...]:
        """The key fields in declared order; empty when the lens declares none."""
        return tuple(field for field in self.fields.values() if field.primary_key)
