"""PostgreSQL's dialect and what it can do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlglot import exp

from lensway.dialects.base import ParamSlot, column_of, named
from lensway.query.capabilities import Capabilities
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.ordering import ComparedAs, Comparison
from lensway.query.patterns import Transform

CAPABILITIES: Final = Capabilities(dialect="postgres", has_lists=True, folds_unicode=True)


class Dialect:
    """PostgreSQL. The session's time zone is UTC; `timestamp` and `timestamptz` compare across types there, by index."""

    name = "postgres"
    # Texts that a domain of values has a stricter type for in PostgreSQL are sent as text and cast there: the server's own
    # parser takes infinities, years before Christ and every digit. Text itself stays without a type, so that it becomes
    # that of the column (varchar, char, enum, citext), and the column's index serves. Columns are never cast to be compared.
    _TYPES: Final[Mapping[FieldType, tuple[str, ...]]] = {
        FieldType.TEXT: (),
        FieldType.INTEGER: ("bigint",),
        FieldType.NUMBER: ("double precision",),
        FieldType.BOOLEAN: ("boolean",),
        FieldType.BYTES: ("bytea",),
        FieldType.DECIMAL: ("text", "numeric"),
        FieldType.DATE: ("text", "date"),
        FieldType.TIME: ("text", "time"),
        FieldType.TIMESTAMP: ("text", "timestamptz"),
        FieldType.UUID: ("text", "uuid"),
    }
    _ZONED: Final = ("text", "timetz")
    _BUILT: Final[Mapping[str, exp.DataType]] = {
        name: exp.DataType.build(name, dialect="postgres")
        for each in (*_TYPES.values(), _ZONED)
        for scalar in each
        for name in (scalar, scalar + "[]")
    }

    def __init__(self) -> None:
        self.params: list[ParamSlot] = []
        self.compared_as: Mapping[str, ComparedAs] = {}
        self._selected: frozenset[str] = frozenset()

    def shown(self, column: PlanColumn) -> exp.Expression:
        # Not qualified: PostgreSQL would take t."upper" for the function upper(t) where there is no such column.
        return column_of(column)

    def row(self, columns: Sequence[PlanColumn], keys: Sequence[PlanColumn]) -> list[exp.Expression]:
        self._selected = frozenset(column.column for column in columns)
        return [named(self.shown(column), column) for column in columns]

    def compared(self, column: PlanColumn) -> exp.Expression:
        found = self.compared_as.get(column.column)
        if found is None or found.comparison is not Comparison.AS_BASE:
            return column_of(column)
        # A domain over an enum is no enum to the operators of enums. A CASE with another branch has the base type, whatever its
        # name and whoever may use its schema; the planner takes it for the column alone, so that an index serves.
        return exp.Case(ifs=[exp.If(this=exp.true(), true=column_of(column))], default=exp.Null())

    def ordered(self, column: PlanColumn, *, descending: bool) -> exp.Ordered:
        # A bare name in ORDER BY is first of all the name of an output column. A qualified one may be a function, see `shown`,
        # unless the column is selected too: then the statement fails where it does not exist. Inside an expression a bare name
        # is a column; the planner takes this one for the column alone, so that an index serves.
        term: exp.Expression = column_of(column, qualified=True)
        if column.column not in self._selected:
            term = exp.Case(ifs=[exp.If(this=exp.true(), true=column_of(column))], default=column_of(column))
        # Where NULLs stand is said only where the dialect would do otherwise, which PostgreSQL does not.
        return exp.Ordered(this=term, desc=descending, nulls_first=descending)

    def value(self, slot: ParamSlot) -> exp.Expression:
        # A cursor compares with the same value several times; it is sent once.
        if slot not in self.params:
            self.params.append(slot)
        placeholder: exp.Expression = exp.Parameter(this=exp.Literal.number(self.params.index(slot) + 1))
        for name in self._ZONED if slot.zoned else self._TYPES[slot.type]:
            built = self._BUILT[name + "[]" if slot.is_array else name]
            placeholder = exp.Cast(this=placeholder, to=built.copy())
        return placeholder

    def comparison(self, kind: Callable[..., exp.Expression], column: PlanColumn, slot: ParamSlot) -> exp.Expression:
        return kind(this=self.compared(column), expression=self._value_for(column, slot))

    def guarded(self, column: PlanColumn, condition: exp.Expression, *, is_negated: bool) -> exp.Expression:
        return condition  # columns hold nothing but their type

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        # One array: the statement is the same for any number of values.
        value = exp.Paren(this=self._value_for(column, slot))
        if negated:
            return exp.NEQ(this=self.compared(column), expression=exp.All(this=value))
        return exp.EQ(this=self.compared(column), expression=exp.Any(this=value))

    def _value_for(self, column: PlanColumn, slot: ParamSlot) -> exp.Expression:
        value, found = self.value(slot), self.compared_as.get(column.column)
        if found is None or found.comparison is not Comparison.WITH_TEXT:
            return value
        return exp.Cast(this=value, to=self._BUILT["text[]" if slot.is_array else "text"].copy())

    @staticmethod
    def takes(value: object) -> bool:
        # PostgreSQL's texts have no NUL characters, and its driver would fail on one.
        return not (isinstance(value, str) and "\0" in value)

    @staticmethod
    def bound(value: str, slot: ParamSlot) -> object:
        return _text_or_digits(value) if value[:1] in _BEGINNINGS and slot.type is FieldType.TEXT else value

    @staticmethod
    def bound_list(items: Sequence[object], slot: ParamSlot) -> object:
        return [_text_or_digits(item) for item in items] if slot.type is FieldType.TEXT else list(items)

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        return exp.Like(this=self._text(column), expression=self._pattern(index, Transform.LIKE))

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        return exp.ILike(this=self._text(column), expression=self._pattern(index, transform))

    def _text(self, column: PlanColumn) -> exp.Expression:
        # Nothing for text and varchar; for citext it brings case back, for enums it makes patterns possible at all.
        return exp.Cast(this=column_of(column), to=self._BUILT["text"].copy())

    def _pattern(self, index: int, transform: Transform) -> exp.Expression:
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=transform))
        placeholder = exp.Parameter(this=exp.Literal.number(len(self.params)))
        return exp.Cast(this=placeholder, to=self._BUILT["text"].copy())


class _Digits(str):
    """A text that a column of integers, declared as text, can be compared with too: drivers take it for either."""

    __slots__ = ()

    def __int__(self) -> int:
        return int(str(self))


def _text_or_digits(value: object) -> object:
    return _Digits(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


_BEGINNINGS: Final = "+-0123456789"
"""Most texts are known to be no integer by their first character."""
_INTEGER: Final = re.compile(r"[+-]?\d{1,20}", re.ASCII)
"""Longer ones exceed 64 bits, and may be UUIDs."""
