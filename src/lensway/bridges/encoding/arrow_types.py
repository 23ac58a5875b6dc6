"""The Arrow type of every type of a lens, and the schema of a result: from the lens and the columns' types, never from rows.

An empty result has the whole schema, and the metadata of each field names the type that the lens declares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from lensway.query.fields import FieldType, PlanColumn

TYPE_KEY: Final = "lensway:type"
"""Metadata of a field: the type that the lens declares."""
DECIMAL_DIGITS_MAX: Final = 38
"""Digits of `decimal128`."""

_SIMPLE: Final = {
    FieldType.TEXT: pa.utf8(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.DATE: pa.date32(),
    FieldType.UUID: pa.uuid(),
    FieldType.JSON: pa.json_(),
    FieldType.BYTES: pa.binary(),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a column's own type says beyond the lens's type: a zone, and the digits of decimals.

    The default is that of databases that declare nothing: timestamps are moments, times have no zone, decimals any digits.
    """

    has_zone: bool | None = None
    precision: int | None = None
    scale: int | None = None


def element_type(type: FieldType, declared: Declared) -> Any:
    """The Arrow type of one value.

    Decimals are `decimal128` where the column bounds their digits, otherwise text, which loses none; times with a zone are
    text, because Arrow has no such type.
    """
    match type:
        case FieldType.DECIMAL:
            precision, scale = declared.precision, declared.scale
            if precision is None or scale is None or not 0 <= scale <= precision <= DECIMAL_DIGITS_MAX:
                return pa.utf8()
            return pa.decimal128(precision, scale)
        case FieldType.TIME:
            return pa.utf8() if declared.has_zone else pa.time64("us")
        case FieldType.TIMESTAMP:
            return pa.timestamp("us", tz=None if declared.has_zone is False else "UTC")
        case _:
            return _SIMPLE[type]


def schema_of(columns: Sequence[PlanColumn], declared: Sequence[Declared]) -> Any:
    """The schema of rows with these columns. Every field may be NULL: what a lens says of that is not checked."""
    return pa.schema([_field(column, each) for column, each in zip(columns, declared, strict=True)])


def _field(column: PlanColumn, declared: Declared) -> Any:
    type = element_type(column.type, declared)
    return pa.field(column.name, pa.list_(type) if column.is_list else type, metadata={TYPE_KEY: column.type.value})
