"""DuckDB's types as callers are shown them: which lens types a column can have, and the SQL that brings its values into shape.

A statement reads from the plan's own statement, whose columns it calls `c0`, `c1` and so on. The engine writes decimals, days,
times and UUIDs as text for text formats, and as Arrow's own types for Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from lensway.bridges.kit.failures import type_mismatch
from lensway.dialects.compile import Compiled
from lensway.query.fields import FieldType, PlanColumn

Show: TypeAlias = Callable[[Any], Any]
"""A value of a text statement as the lens says it."""

_CLOCK_CHARACTERS: Final = 8
_INTEGERS: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})
_WIDE: Final = frozenset({"UBIGINT", "HUGEINT", "UHUGEINT"})
_LARGE: Final = frozenset({"BIGNUM", "VARINT"})
_MOMENTS: Final = frozenset(
    {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATETIME", "TIMESTAMP WITH TIME ZONE"}
)
_NESTED: Final = frozenset({"STRUCT", "MAP", "UNION"})
_TEXTS: Final = frozenset({"VARCHAR", "ENUM", "INTERVAL", "BIT", "TIME WITH TIME ZONE"})
_TYPES: Final[Mapping[FieldType, frozenset[str]]] = {
    # Integers of 64 bits as text or decimals: JavaScript's numbers are doubles, and hold 53.
    FieldType.TEXT: _TEXTS | _INTEGERS | _WIDE | _LARGE | {"UUID"},
    FieldType.INTEGER: _INTEGERS | _WIDE,
    FieldType.NUMBER: frozenset({"FLOAT", "DOUBLE"}) | _INTEGERS,
    FieldType.DECIMAL: frozenset({"DECIMAL"}) | _INTEGERS | _WIDE | _LARGE,
    FieldType.BOOLEAN: frozenset({"BOOLEAN"}),
    FieldType.DATE: frozenset({"DATE"}),
    FieldType.TIME: frozenset({"TIME"}),
    FieldType.TIMESTAMP: _MOMENTS,
    FieldType.UUID: frozenset({"UUID"}),
    FieldType.JSON: frozenset({"JSON"}) | _NESTED,
    FieldType.BYTES: frozenset({"BLOB"}),
}


class ColumnType(NamedTuple):
    """A column's type: its name without arguments (of a list: that of its elements), and its arguments."""

    name: str
    is_list: bool = False
    arguments: str = ""

    @property
    def is_nested(self) -> bool:
        """True for lists of lists."""
        return self.name.endswith("]")

    @property
    def shown(self) -> str:
        """The type in messages."""
        return self.name.lower() + ("[]" if self.is_list else "")


def type_of(text: str) -> ColumnType:
    """The type that this text of DuckDB's catalog means."""
    is_list = text.endswith("]")
    element = text[: text.rindex("[")] if is_list else text
    if element.endswith("]"):
        return ColumnType(element, is_list)
    name, _, arguments = element.partition("(")
    return ColumnType(name, is_list, arguments.removesuffix(")"))


def lens_type(type: ColumnType) -> tuple[FieldType | None, bool]:
    """The type of the lens that fits best, or None, and whether it is a list."""
    if type.is_list and (type.is_nested or type.name in _NESTED):
        return FieldType.JSON, False
    if type.name in _WIDE | _LARGE:
        return FieldType.DECIMAL, type.is_list
    order = (FieldType.UUID, FieldType.INTEGER, *_TYPES)
    return next((each for each in order if type.name in _TYPES[each]), None), type.is_list


class Columns(NamedTuple):
    """The columns of a statement with their types; None where the catalog does not know one, and the statement will fail."""

    columns: Sequence[PlanColumn]
    types: Sequence[ColumnType | None]

    def text(self) -> tuple[list[str], list[Show | None]]:
        """The expressions of a text statement, and how their values are shown; None for as they are."""
        expressions, shows = [], []
        for at, (column, type) in enumerate(zip(self.columns, self.types, strict=True)):
            expressions.append(_text(f"c{at}", column, type))
            show = _SHOWN.get(column.type)
            shows.append(_each(show) if show is not None and column.is_list else show)
        return expressions, shows

    def arrow(self, output: int, tail: Sequence[int]) -> list[str]:
        """The expressions of a statement for Arrow: its first columns as Arrow has them, then those at ``tail`` as text."""
        texts, _ = self.text()
        shown = [_arrow(f"c{at}", *each) for at, each in enumerate(zip(self.columns, self.types, strict=True))][:output]
        return [*shown, *(texts[at] for at in tail)]


def columns_of(compiled: Compiled, types: Mapping[str, ColumnType]) -> Columns:
    """The columns of this statement; ``types`` are those of the table by name in lower case.

    Raises:
        LenswayError: SOURCE_QUERY_FAILED type_mismatch for a column that cannot be what the lens declares.
    """
    # A count is no column of the table.
    is_count = bool(compiled.shape.measures)
    found = [None if is_count else types.get(column.column.lower()) for column in compiled.columns]
    for column, type in zip(compiled.columns, found, strict=True):
        if type is not None and not _fits(column, type):
            wanted = f"a list of {column.type.value}" if column.is_list else column.type.value
            raise type_mismatch(column.name, wanted, type.shown)
    return Columns(compiled.columns, found)


def fitting_types(type: ColumnType) -> list[str]:
    """The types that a lens can give such a column."""
    return [each.value for each in FieldType if type.name in _TYPES[each] or (each is FieldType.JSON and type.is_list)]


def wrapped(sql: str, expressions: Sequence[str], columns: int, tag: str) -> str:
    """The statement around the plan's own; a subquery with an order keeps it through a projection."""
    names = ", ".join(f"c{at}" for at in range(columns))
    shown = ", ".join(f"{each} AS v{at}" for at, each in enumerate(expressions))
    return f"/* lensway {tag.replace('*', '')} */ SELECT {shown} FROM ({sql}) AS r({names})"  # noqa: S608 - compiled


def _fits(column: PlanColumn, type: ColumnType) -> bool:
    if column.type is FieldType.JSON and not column.is_list and type.is_list:
        return True
    return column.is_list == type.is_list and type.name in _TYPES[column.type]


def _text(name: str, column: PlanColumn, type: ColumnType | None) -> str:
    known = "" if type is None else type.name
    many = "[]" if column.is_list else ""
    match column.type:
        case FieldType.INTEGER:
            return f"CAST({name} AS BIGINT{many})" if known in _WIDE else name
        case FieldType.NUMBER if known == "FLOAT":
            # As it reads: the double that its shortest text means.
            return f"CAST(CAST({name} AS VARCHAR{many}) AS DOUBLE{many})"
        case FieldType.JSON if column.is_list:
            return f"list_transform({name}, lambda x: {_one_line('x' if known == 'JSON' else 'to_json(x)')})"
        case FieldType.JSON:
            document = name if known == "JSON" or type is None else f"to_json({name})"
            return _one_line(document)
        case FieldType.NUMBER | FieldType.BOOLEAN | FieldType.BYTES:
            return name
        case FieldType.TEXT if known == "VARCHAR":
            return name
        case _:
            return f"CAST({name} AS VARCHAR{many})"


def _one_line(document: str) -> str:
    # Without line breaks, so that it can stand in NDJSON. JSON texts escape theirs.
    return f"translate(CAST({document} AS VARCHAR), chr(10) || chr(13), '  ')"


def _arrow(name: str, column: PlanColumn, type: ColumnType | None) -> str:
    known = "" if type is None else type.name
    many = "[]" if column.is_list else ""
    match column.type:
        case FieldType.INTEGER:
            return f"CAST({name} AS BIGINT{many})"
        case FieldType.NUMBER if known != "FLOAT":
            return f"CAST({name} AS DOUBLE{many})"
        case FieldType.DECIMAL if known == "DECIMAL" and not column.is_list:
            return name
        case FieldType.DATE | FieldType.TIME:
            return name
        case FieldType.TIMESTAMP if known == "TIMESTAMP_NS" and not column.is_list:
            # A cast would round, and a moment must not become a later one.
            cut = f"make_timestamp(epoch_ns({name}) // 1000)"
            return f"CASE WHEN isfinite({name}) THEN {cut} ELSE CAST({name} AS TIMESTAMP) END"
        case FieldType.TIMESTAMP:
            return name if known == "TIMESTAMP WITH TIME ZONE" else f"CAST({name} AS TIMESTAMP{many})"
        case FieldType.UUID if column.is_list:
            return f"list_transform({name}, lambda x: unhex(replace(CAST(x AS VARCHAR), '-', '')))"
        case FieldType.UUID:
            return f"unhex(replace(CAST({name} AS VARCHAR), '-', ''))"
        case _:
            return _text(name, column, type)


# --- values -----------------------------------------------------------------------------------------------------------------


def _day(text: str) -> str:
    return text.replace(" (BC)", " BC")


def _clock(text: str) -> str:
    if len(text) == _CLOCK_CHARACTERS:
        return text + ".000000"
    seconds, _, fraction = text.partition(".")
    return f"{seconds}.{fraction:0<6}"


def _moment(text: str) -> str:
    if "infinity" in text:
        return text
    era = " BC" if "(BC)" in text else ""
    day, _, clock = text.replace(" (BC)", "").partition(" ")
    zone = "Z" if clock.endswith("+00") else ""
    return f"{day}T{_clock(clock.removesuffix('+00'))}{zone}{era}"


def _document(text: str) -> Any:
    return msgspec.Raw(text.encode())


def _each(show: Show) -> Show:
    return lambda values: [None if value is None else show(value) for value in values]


_SHOWN: Final[Mapping[FieldType, Show]] = {
    FieldType.DATE: _day,
    FieldType.TIME: _clock,
    FieldType.TIMESTAMP: _moment,
    FieldType.JSON: _document,
}
