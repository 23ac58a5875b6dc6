"""PostgreSQL's values as callers are shown them: decoders by type, and which column types each type of the lens can be."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lensway.bridges.kit.failures import type_mismatch
from lensway.bridges.postgres.types import ENUM, OTHER, RANGE
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.result import ResultEnd

_DAY_CHARACTERS: Final = 10
_SECOND_END: Final = 19
_MICROSECONDS: Final = 6


def timestamptz(text: str) -> str:
    """``2013-01-31T17:05:00.000000Z``; the session is in UTC, so PostgreSQL writes ``+00``."""
    if text.endswith("+00") and text[4] == "-":
        return f"{text[:10]}T{_clock(text[11:-3])}Z"
    return _unusual(text)


def timestamp(text: str) -> str:
    """``2013-01-31T17:05:00.000000``, without a suffix: the column has no zone."""
    return f"{text[:10]}T{_clock(text[11:])}" if text[4] == "-" and text[-1] != "C" else _unusual(text)


def time(text: str) -> str:
    """``17:05:00.000000``."""
    return _clock(text)


def timetz(text: str) -> str:
    """``17:05:00.000000+02:00``."""
    sign = max(text.rfind("+"), text.rfind("-"))
    clock, zone = text[:sign], text[sign:]
    return _clock(clock) + (zone if ":" in zone else zone + ":00")


def _clock(text: str) -> str:
    if len(text) == 8:
        return text + ".000000"
    seconds, _, fraction = text.partition(".")
    return f"{seconds}.{fraction:0<6}"


def _unusual(text: str) -> str:
    """Infinities as they are; years beyond four digits and before 1 in the same form, with `` BC`` as PostgreSQL has it."""
    if "infinity" in text:
        return text
    era = " BC" if text.endswith(" BC") else ""
    day, _, clock = text.removesuffix(" BC").partition(" ")
    zone = "Z" if clock.endswith("+00") else ""
    return f"{day}T{_clock(clock.removesuffix('+00'))}{zone}{era}"


def json(text: str) -> Any:
    """The document as it is; without line breaks, so that it can stand in NDJSON. Inside texts there are none."""
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())


def single(shown: float) -> float:
    """The number that a ``float4`` is, from the one that it is shown as: the shortest text of it, read as a double."""
    exact: float = struct.unpack("f", struct.pack("f", shown))[0]
    return exact


TEXT_DECODERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "timestamptz": timestamptz,
    "timestamp": timestamp,
    "date": str,
    "time": time,
    "timetz": timetz,
    "numeric": str,
    "uuid": str,
    "json": json,
    "jsonb": json,
    "float4": float,
    "interval": str,
    "inet": str,
    "cidr": str,
    "macaddr": str,
    "macaddr8": str,
    "money": str,
    "xml": str,
    "bit": str,
    "varbit": str,
    "tsvector": str,
    "point": str,
    "pg_lsn": str,
}
"""How each type is read when PostgreSQL sends it as text; types that are not here come in the driver's binary form."""

_INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid"})
_PLAIN_TEXTS: Final = frozenset(
    {"text", "varchar", "bpchar", "name", "citext", "interval", "inet", "cidr", "macaddr", "macaddr8"}
    | {"money", "xml", "bit", "varbit", "tsvector", "point", "pg_lsn", "uuid"}
    | {ENUM, RANGE, OTHER}
)
NOT_COMPARED: Final = frozenset({"point", "xml"})
"""PostgreSQL can neither order them nor test them for equality. A lens may declare them as text all the same, to be read."""
COLUMN_TYPES: Final[Mapping[FieldType, frozenset[str]]] = {
    # Integers of 64 bits as text or decimals: JavaScript's numbers are doubles, and hold 53.
    FieldType.TEXT: _PLAIN_TEXTS | _INTEGERS,
    FieldType.INTEGER: _INTEGERS,
    FieldType.NUMBER: frozenset({"float4", "float8"}) | _INTEGERS,
    FieldType.DECIMAL: frozenset({"numeric"}) | _INTEGERS,
    FieldType.BOOLEAN: frozenset({"bool"}),
    FieldType.DATE: frozenset({"date"}),
    FieldType.TIME: frozenset({"time", "timetz"}),
    FieldType.TIMESTAMP: frozenset({"timestamp", "timestamptz"}),
    FieldType.UUID: frozenset({"uuid"}),
    FieldType.JSON: frozenset({"json", "jsonb"}),
    FieldType.BYTES: frozenset({"bytea"}),
}
"""The kinds of columns that each type of a lens can show."""
KNOWN_KINDS: Final = frozenset[str]().union(*COLUMN_TYPES.values())


def written(type: FieldType, name: str) -> bool:
    """True when values of this column come from the driver as integers and are shown as their digits."""
    return name in _INTEGERS and type in (FieldType.TEXT, FieldType.DECIMAL)


def as_digits(rows: Sequence[Sequence[Any]], positions: Sequence[int]) -> list[list[Any]]:
    """The rows with the integers at these positions as texts, in lists too."""
    found = [list(row) for row in rows]
    for row in found:
        for position in positions:
            row[position] = _digits(row[position])
    return found


def _digits(value: Any) -> Any:
    if value.__class__ is list:
        return [_digits(each) for each in value]
    return None if value is None else str(value)


def fitting_types(kind: str) -> list[FieldType]:
    """Every type of a lens that can show a column of this kind."""
    return [type for type in FieldType if fits(type, kind)]


def lens_type(kind: str) -> FieldType | None:
    """The type of the lens that fits a column of this kind best, or None."""
    if kind == "uuid":
        return FieldType.UUID
    if kind in _INTEGERS:
        return FieldType.INTEGER
    return next((type for type, kinds in COLUMN_TYPES.items() if kind in kinds), None)


def fits(type: FieldType, kind: str) -> bool:
    """True when a column of this kind can be shown as this type."""
    return kind in COLUMN_TYPES[type]


def column_mismatch(column: PlanColumn, kind: str, shown: str) -> LenswayError:
    """The failure of a field whose column is something else; ``shown`` is the type of the column in words."""
    wanted = f"a list of {column.type.value}" if column.is_list else column.type.value
    hint = None if lens_type(kind) is not None else WITHOUT_TYPE
    return type_mismatch(column.name, wanted, shown, hint=hint)


WITHOUT_TYPE: Final = (
    "No field type can show such a column. Cast it in a view (`column::text`), and declare a lens on the view."
)
WITHOUT_ORDER: Final = (
    "PostgreSQL cannot order such values. A lens can declare the column as text, to be read only. To filter or order by it, "
    "cast it in a view (`column::text`)."
)


def exact_end(end: ResultEnd, compiled: Compiled, statement: Any) -> ResultEnd:
    """The end mark whose key says of each ``float4`` the number that it is, not the one that rows show."""
    if end.last_key is None or not compiled.has_number_key:
        return end
    attributes = statement.get_attributes()
    names = [attributes[position].type.name for position in compiled.key_positions]
    key = tuple(
        single(value) if name == "float4" and isinstance(value, float) else value
        for value, name in zip(end.last_key, names, strict=True)
    )
    return msgspec.structs.replace(end, last_key=key)
