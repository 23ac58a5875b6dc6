"""DuckDB's dialect and what it can do."""

from __future__ import annotations

import collections
import datetime
import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlglot import exp

from lensway.dialects.base import ParamSlot, column_of, named
from lensway.query.capabilities import Capabilities
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.ordering import ComparedAs
from lensway.query.patterns import Transform

# Decimals have no NaN and no infinities there, and times of day no zone.
CAPABILITIES: Final = Capabilities(dialect="duckdb", has_lists=True, folds_unicode=True, has_special_values=False)
_DIGITS_MAX: Final = 38
"""Digits of DuckDB's decimals."""
_SCALE_MAX: Final = 20
"""Digits behind the point of a compared value. DuckDB compares decimals in one type, which needs room for the column's too."""
_EXACT: Final = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


_INT128: Final = range(-(2**127), 2**127)


class Dialect:
    """DuckDB, with the session's time zone UTC.

    A value is cast to the type of its column, which only the database knows: by `cast_to_type`. It is then compared exactly, by
    the column's own order, and row groups are skipped by their statistics. Decimals come as decimals of their own digits instead,
    because the column's type would round them.
    """

    name = "duckdb"
    _BY_COLUMN: Final = frozenset({FieldType.DATE, FieldType.TIME, FieldType.TIMESTAMP, FieldType.UUID})
    _TYPES: Final[Mapping[FieldType, str]] = {
        FieldType.TEXT: "VARCHAR",
        FieldType.INTEGER: "BIGINT",
        FieldType.NUMBER: "DOUBLE",
        FieldType.BOOLEAN: "BOOLEAN",
        FieldType.BYTES: "BLOB",
        FieldType.DATE: "DATE",
        FieldType.TIME: "TIME",
        FieldType.TIMESTAMP: "TIMESTAMPTZ",
        FieldType.UUID: "UUID",
    }
    _BUILT: Final[Mapping[str, exp.DataType]] = {
        name: exp.DataType.build(name, dialect="duckdb")
        for scalar in (*_TYPES.values(), "BIGINT")
        for name in (scalar, scalar + "[]")
    }

    def __init__(self) -> None:
        self.params: list[ParamSlot] = []
        self.compared_as: Mapping[str, ComparedAs] = {}
        # The columns that values of a cursor are compared with, in the order of the text.
        self._compared: collections.deque[PlanColumn] = collections.deque()

    def shown(self, column: PlanColumn) -> exp.Expression:
        # Qualified: a bare name is an output column first of all.
        return column_of(column, qualified=True)

    def row(self, columns: Sequence[PlanColumn], keys: Sequence[PlanColumn]) -> list[exp.Expression]:
        return [named(self.shown(column), column) for column in columns]

    def compared(self, column: PlanColumn) -> exp.Expression:
        self._compared.append(column)
        return self.shown(column)

    def ordered(self, column: PlanColumn, *, descending: bool) -> exp.Ordered:
        return exp.Ordered(this=self.shown(column), desc=descending, nulls_first=descending)

    def value(self, slot: ParamSlot) -> exp.Expression:
        if slot.of is None:
            return self._cast(self._placeholder(slot), slot.type)
        # A value of the column itself, which a cursor brings back; a decimal as text, to the last digit.
        type = FieldType.TEXT if slot.type is FieldType.DECIMAL else slot.type
        return self._as_column(self._placeholder(ParamSlot(slot.index, type)), self._compared.popleft())

    def comparison(self, kind: Callable[..., exp.Expression], column: PlanColumn, slot: ParamSlot) -> exp.Expression:
        shown, value = self.shown(column), self._placeholder(slot)
        if column.type is FieldType.TEXT:
            if kind in (exp.EQ, exp.NEQ):
                return kind(this=self._text(column), expression=self._cast(value, FieldType.TEXT))
            return kind(this=shown, expression=self._as_column(value, column))
        if column.type in self._BY_COLUMN:
            return kind(this=shown, expression=self._as_column(value, column))
        return kind(this=shown, expression=self._cast(value, slot.type))

    def guarded(self, column: PlanColumn, condition: exp.Expression, *, is_negated: bool) -> exp.Expression:
        return condition  # columns hold nothing but their type

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        tested = self._text(column) if column.type is FieldType.TEXT else self.shown(column)
        if column.type is FieldType.TIMESTAMP:
            tested = self._cast(tested, FieldType.TIMESTAMP)
        listed = exp.Paren(this=self._cast(self._placeholder(slot), slot.type, suffix="[]"))
        if negated:
            return exp.NEQ(this=tested, expression=exp.All(this=listed))
        return exp.EQ(this=tested, expression=exp.Any(this=listed))

    @staticmethod
    def takes(value: object) -> bool:
        return True

    @staticmethod
    def bound(value: str, slot: ParamSlot) -> object:
        match slot.type:
            case FieldType.DECIMAL:
                return _decimal(value)
            case FieldType.TIMESTAMP:
                return _in_utc(value)
            case FieldType.DATE:
                return _era(value)
            case _:
                return value

    @staticmethod
    def bound_list(items: Sequence[object], slot: ParamSlot) -> object:
        if slot.type is FieldType.DECIMAL:
            return _decimals(items)
        return [Dialect.bound(item, slot) if isinstance(item, str) else item for item in items]

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        return self._matched(exp.Like, column, index, Transform.LIKE)

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        return self._matched(exp.ILike, column, index, transform)

    def _matched(
        self, kind: type[exp.Like] | type[exp.ILike], column: PlanColumn, index: int, transform: Transform
    ) -> exp.Expression:
        value = self._placeholder(ParamSlot(index, FieldType.TEXT, transform=transform))
        like = kind(this=self._text(column), expression=self._cast(value, FieldType.TEXT))
        return exp.Escape(this=like, expression=exp.Literal.string("\\"))

    def _placeholder(self, slot: ParamSlot) -> exp.Expression:
        self.params.append(slot)
        return exp.Placeholder()

    def _text(self, column: PlanColumn) -> exp.Expression:
        # Changes nothing of texts; integers and enums are compared as the texts that callers are shown.
        return self._cast(self.shown(column), FieldType.TEXT)

    def _as_column(self, value: exp.Expression, column: PlanColumn) -> exp.Expression:
        if column.type in (FieldType.INTEGER, FieldType.BOOLEAN, FieldType.BYTES):
            return self._cast(value, column.type)
        return exp.Anonymous(this="cast_to_type", expressions=[value, self.shown(column)])

    def _cast(self, value: exp.Expression, type: FieldType, *, suffix: str = "") -> exp.Expression:
        name = self._TYPES.get(type)
        return value if name is None else exp.Cast(this=value, to=self._BUILT[name + suffix].copy())


def _decimal(text: str) -> object:
    """A decimal that DuckDB takes, which stands in every comparison where this one does: beyond all columns an infinity, and with
    too many digits behind the point one that is cut and not equal to any shorter one."""
    number = _EXACT.create_decimal(text)
    whole = max(number.adjusted() + 1, 1)
    if number == number.to_integral_value(context=_EXACT) and whole <= _DIGITS_MAX + 1:
        if whole <= _DIGITS_MAX:
            return decimal.Decimal(int(number))
        if int(number) in _INT128:
            return int(number)
    if whole >= _DIGITS_MAX:
        return math.copysign(math.inf, number)
    scale = min(_SCALE_MAX, _DIGITS_MAX - whole - 1)
    quantum = decimal.Decimal(1).scaleb(-scale)
    cut = number.quantize(quantum, rounding=decimal.ROUND_DOWN, context=_EXACT)
    if cut == number:
        return _EXACT.create_decimal(format(number.normalize(_EXACT), "f"))
    # One more digit than is compared, which no column with fewer has.
    return _EXACT.add(cut, (quantum / 2).copy_sign(number))


def _decimals(items: Sequence[object]) -> list[object]:
    """Without those that no column can hold: equal to nothing."""
    found: list[object] = []
    for item in items:
        if item is None:
            found.append(None)
            continue
        number = decimal.Decimal(str(item))
        taken = _decimal(str(item))
        if isinstance(taken, decimal.Decimal) and taken == number:
            found.append(taken)
    return found


def _in_utc(text: str) -> str:
    """A moment as DuckDB reads it for columns with and without a zone: in UTC, without one."""
    era = text.endswith(" BC")
    day, has_clock, clock = text.removesuffix(" BC").partition("T")
    if not has_clock:
        return _era(text)
    sign = max(clock.rfind("+"), clock.rfind("-"))
    if sign < 0:
        return f"{day}{' (BC)' if era else ''} {clock.removesuffix('Z')}"
    # The calendar repeats itself every 400 years.
    year, month, date = day.split("-")
    shown = 1 - int(year) if era else int(year)
    cycles = (shown - 2000) // 400
    moment = datetime.datetime.fromisoformat(f"{shown - 400 * cycles:04d}-{month}-{date}T{clock}")
    moment = moment.astimezone(datetime.UTC)
    shown = moment.year + 400 * cycles
    said = f"{1 - shown:04d}" if shown < 1 else f"{shown:04d}"
    return f"{said}-{moment:%m-%d}{' (BC)' if shown < 1 else ''} {moment:%H:%M:%S.%f}"


def _era(day: str) -> str:
    return f"{day.removesuffix(' BC')} (BC)" if day.endswith(" BC") else day
