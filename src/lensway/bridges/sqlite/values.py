"""SQLite's values as callers see them. A column may hold anything there; values of other types than the lens's are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from lensway.dialects import sqlite_functions as forms
from lensway.dialects.compile import Compiled
from lensway.query.fields import FieldType, PlanColumn

_INT64: Final = range(-(2**63), 2**63)


Show: TypeAlias = Callable[[Any], Any]
"""A stored value as the lens says it; None for one that is not of its type."""


def shows_of(columns: Sequence[PlanColumn]) -> list[Show]:
    """How each column is shown. SQLite has no lists."""
    return [_nothing if column.is_list else _SHOWN[column.type] for column in columns]


def key_of(row: Sequence[Any], compiled: Compiled) -> dict[str, Any]:
    """The values by which the row is ordered, as far as they can be read: an order ends with the primary key."""
    named = {term.column.name for term in compiled.shape.order}
    key = {}
    for value, column in zip(row, compiled.columns, strict=True):
        found = None if value is None else _SHOWN[column.type](value)
        if column.name in named and (value is None or found is not None):
            key[column.name] = found
    return key


def class_of(value: Any) -> str:
    """What is stored, in words."""
    return {str: "a text", int: "an integer", float: "a real", bytes: "a blob"}[type(value)]


def _nothing(_value: Any) -> Any:
    return None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and value in _INT64 else None


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        return None
    # A large integer that is no double stays what it is: the next page must begin right behind it.
    double = float(value)
    return double if double == value else value


def _boolean(value: Any) -> Any:
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _timestamp(value: Any) -> Any:
    formed = forms.timestamp(value)
    if formed is None:
        return None
    has_zone = isinstance(value, int | float) or _has_zone(value)
    return formed + "Z" if has_zone else formed


def _has_zone(text: str) -> bool:
    clock = text[10:]
    return clock.endswith(("Z", "z")) or "+" in clock or "-" in clock


def _uuid(value: Any) -> Any:
    # As it is stored: so it is ordered, and the next page begins behind it.
    return value if forms.is_uuid(value) else None


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return None
    try:
        return msgspec.Raw(msgspec.json.format(value.encode(), indent=-1))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def _bytes(value: Any) -> Any:
    return value if isinstance(value, bytes) else None


_SHOWN: Final[Mapping[FieldType, Show]] = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.NUMBER: _number,
    FieldType.DECIMAL: forms.decimal_text,
    FieldType.BOOLEAN: _boolean,
    FieldType.DATE: forms.date,
    FieldType.TIME: forms.time,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.UUID: _uuid,
    FieldType.JSON: _json,
    FieldType.BYTES: _bytes,
}
