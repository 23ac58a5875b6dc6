"""Batches as the driver gives them → batches of a lens's schema. What Arrow cannot hold is named, never bent."""

from __future__ import annotations

import re
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lensway.bridges.encoding.arrow_types import DECIMAL_DIGITS_MAX, Declared
from lensway.bridges.kit.failures import not_representable
from lensway.bridges.postgres.bulk.sql import COMPOSITE, BulkColumn
from lensway.query.fields import FieldType, PlanColumn

_TYPE: Final = b"POSTGRESQL:type"
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name", "char", "xml", "refcursor"})
"""PostgreSQL's own types that the driver sends as text."""
_UNKNOWN: Final = re.compile(r"unnamed<oid:(\d+)>")
"""What the driver calls a type that was not there when it read the catalog."""
_TYPMOD: Final = b"POSTGRESQL:typmod"
_TYPMOD_HEADER: Final = 4
_SCALE_BITS: Final = 0x7FF
_SCALE_SIGN: Final = 0x400
_DAY_MICROSECONDS: Final = 86_400_000_000

# PostgreSQL counts from 2000 and keeps the ends of its integers for infinities; the driver moves them to 1970 without a look
# at overflow, so that they and the last years come out below every day that PostgreSQL has.
_MOMENT_MIN: Final = -210_866_803_200_000_000
_MOMENT_SHIFT: Final = 946_684_800_000_000
_MOMENT_INFINITY: Final = -(2**63) + _MOMENT_SHIFT - 1
_MOMENT_MINUS_INFINITY: Final = -(2**63) + _MOMENT_SHIFT
_DAY_MIN: Final = -2_440_588
_DAY_SHIFT: Final = 10_957
_DAY_INFINITY: Final = -(2**31) + _DAY_SHIFT - 1
_DAY_MINUS_INFINITY: Final = -(2**31) + _DAY_SHIFT


def bulk_column(declared: PlanColumn, field: Any) -> BulkColumn:
    """The column that this field of the driver's schema describes."""
    is_list = pa.types.is_list(field.type)
    element = field.type.value_field if is_list else field
    name = (element.metadata or {}).get(_TYPE, b"").decode()
    # A name alone says nothing: anybody may call a type `uuid`. What the driver makes of its values tells enums and composites.
    if pa.types.is_struct(element.type):
        return BulkColumn(declared=declared, type_name=COMPOSITE, is_list=is_list)
    if pa.types.is_string(element.type) and name not in _TEXTS:
        return BulkColumn(declared=declared, type_name=name, is_list=is_list, is_enum=True)
    unknown = _UNKNOWN.fullmatch(name)
    return BulkColumn(
        declared=declared, type_name=name, is_list=is_list, unknown_type=None if unknown is None else int(unknown[1])
    )


def declared_type(column: BulkColumn, field: Any) -> Declared:
    """What the column's type says of zones and digits."""
    match column.type_name:
        case "timestamp" | "time":
            return Declared(has_zone=False)
        case "timestamptz" | "timetz":
            return Declared(has_zone=True)
        case "numeric" if not column.is_list:
            return _digits(int((field.metadata or {}).get(_TYPMOD, b"-1")))
        case _:
            return Declared()


def _digits(typmod: int) -> Declared:
    if typmod < _TYPMOD_HEADER:
        return Declared()
    packed = typmod - _TYPMOD_HEADER
    precision = (packed >> 16) & 0xFFFF
    scale = ((packed & _SCALE_BITS) ^ _SCALE_SIGN) - _SCALE_SIGN
    if not 0 <= scale <= precision <= DECIMAL_DIGITS_MAX:
        return Declared()
    return Declared(precision=precision, scale=scale)


def shaped(batch: Any, schema: Any, columns: tuple[PlanColumn, ...], format: str) -> Any:
    """The batch with this schema. Raises LenswayError SOURCE_QUERY_FAILED naming the field that the format cannot hold."""
    arrays = []
    for number, column in enumerate(columns):
        try:
            arrays.append(_array(batch.column(number), column, schema.field(number).type))
        except (pa.ArrowException, ValueError, OverflowError):
            raise not_representable(column.name, format) from None
    return pa.record_batch(arrays, schema=schema)


def _array(array: Any, column: PlanColumn, type: Any) -> Any:
    if not column.is_list:
        return _values(array, column.type, type)
    # Up to the last element of these rows: behind it are those of a row that was cut off.
    elements = array.values.slice(0, array.offsets[len(array)].as_py())
    values = _values(elements, column.type, type.value_type)
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(array.offsets, values, type=type, mask=mask)


def _values(array: Any, field_type: FieldType, type: Any) -> Any:
    stored = array.storage if isinstance(array, pa.ExtensionArray) else array
    if isinstance(type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type, _tidied(stored))
    return _tidied(_converted(stored, field_type, type))


def _tidied(array: Any) -> Any:
    """The array with zeros behind the last bit of its bitmaps: the driver leaves there what was in memory before."""
    bits = len(array) % 8
    is_boolean = pa.types.is_boolean(array.type)
    if not bits or not (array.null_count or is_boolean):
        return array
    assert array.offset == 0, "batches are cut at their end only"
    buffers = array.buffers()
    for number in range(2 if is_boolean else 1):
        if buffers[number] is not None:
            bitmap = bytearray(buffers[number].slice(0, len(array) // 8 + 1).to_pybytes())
            bitmap[-1] &= (1 << bits) - 1
            buffers[number] = pa.py_buffer(bitmap)
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count)


def _converted(stored: Any, field_type: FieldType, type: Any) -> Any:
    match field_type:
        case FieldType.TIMESTAMP:
            return _unwrapped(stored, pa.int64(), _MOMENT_MIN, _MOMENT_INFINITY, _MOMENT_MINUS_INFINITY).view(type)
        case FieldType.DATE:
            return _unwrapped(stored, pa.int32(), _DAY_MIN, _DAY_INFINITY, _DAY_MINUS_INFINITY).view(type)
        case FieldType.TIME if pa.types.is_time64(type):
            latest = pc.max(stored.view(pa.int64())).as_py()
            if latest is not None and latest >= _DAY_MICROSECONDS:
                raise ValueError("24:00 is no time of Arrow's")
            return stored
        case _:
            return stored if stored.type == type else stored.cast(type)


def _unwrapped(array: Any, integers: Any, lowest: int, infinity: int, minus_infinity: int) -> Any:
    """Infinities as the largest number and its negative, which is how others who keep both in one integer do it."""
    numbers = array.view(integers)
    if (pc.min(numbers).as_py() or 0) >= lowest:
        return numbers
    largest = 2 ** (integers.bit_width - 1) - 1
    below = pc.less(numbers, lowest)
    known = pc.is_in(numbers, pa.array([infinity, minus_infinity], integers))
    if pc.any(pc.and_(below, pc.invert(known))).as_py():
        raise OverflowError("a moment beyond what 64 bits hold")
    numbers = pc.if_else(pc.equal(numbers, infinity), pa.scalar(largest, integers), numbers)
    return pc.if_else(pc.equal(numbers, minus_infinity), pa.scalar(-largest, integers), numbers)
