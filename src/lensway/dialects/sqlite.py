"""SQLite's dialect and what it can do. Its bridge registers the functions of `lensway.dialects.sqlite_functions`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from sqlglot import exp

from lensway import limits
from lensway.dialects.base import ParamSlot, column_of, is_not_null, named, total
from lensway.dialects.sqlite_functions import spellings
from lensway.dialects.sqlite_patterns import ILIKE, LIKE
from lensway.query.capabilities import Capabilities
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.ordering import ComparedAs
from lensway.query.patterns import Transform

CAPABILITIES: Final = Capabilities(dialect="sqlite", has_special_values=False)
_UUID_ONLY: Final = "lensway_uuid_only"
_CHECKED_MAX: Final = 4
"""Sizes added one inside the other: SQLite's parser goes down into each, and keeps up to eight values while it reads them."""


class Dialect:
    """SQLite, with the functions of `lensway.dialects.sqlite_functions` registered."""

    name = "sqlite"
    _FORMS: Final[Mapping[FieldType, str]] = {
        FieldType.DECIMAL: "lensway_decimal",
        FieldType.DATE: "lensway_date",
        FieldType.TIME: "lensway_time",
        FieldType.TIMESTAMP: "lensway_timestamp",
    }
    _SIZED: Final = frozenset({FieldType.TEXT, FieldType.JSON, FieldType.BYTES})
    # What JSON cannot hold travels as text: floats, because SQLite does not read every one of them exactly, and bytes.
    _ELEMENTS: Final[Mapping[FieldType, str]] = {**_FORMS, FieldType.NUMBER: "lensway_number"}

    def __init__(self) -> None:
        self.params: list[ParamSlot] = []
        self.compared_as: Mapping[str, ComparedAs] = {}

    def shown(self, column: PlanColumn) -> exp.Expression:
        # Qualified: SQLite would take "name" for a text where there is no such column.
        return column_of(column, qualified=True)

    def row(self, columns: Sequence[PlanColumn], keys: Sequence[PlanColumn]) -> list[exp.Expression]:
        # SQLite bounds each value, and a row of many is all of them. So the first column is there only where all of them
        # together would fit one value too: a blob of so many zeros, which is never made. The library fails where they would
        # not, before it has read the rest. It costs a fifth of stepping over a short row, which is the least of reading it.
        shown = [self._selected(column, keys) for column in columns]
        sizes = [self._size(self.shown(column)) for column in columns if column.type in self._SIZED]
        if len(sizes) > 1:
            shown[0] = exp.Case(ifs=[exp.If(this=is_not_null(self._together(sizes)), true=shown[0])])
        return [named(*each) for each in zip(shown, columns, strict=True)]

    def compared(self, column: PlanColumn) -> exp.Expression:
        return self._formed(self.shown(column), self._FORMS.get(column.type))

    def ordered(self, column: PlanColumn, *, descending: bool) -> exp.Ordered:
        # For SQLite NULL is the smallest value. For a column without NULLs the generator is told what SQLite does anyway,
        # so that nothing is written and an index serves.
        nulls_first = descending if column.nullable else not descending
        return exp.Ordered(this=self.compared(column), desc=descending, nulls_first=nulls_first)

    def value(self, slot: ParamSlot) -> exp.Expression:
        self.params.append(slot)
        return self._formed(exp.Placeholder(), self._FORMS.get(slot.of or slot.type))

    def comparison(self, kind: Callable[..., exp.Expression], column: PlanColumn, slot: ParamSlot) -> exp.Expression:
        if column.type is FieldType.UUID:
            if kind in (exp.EQ, exp.NEQ):
                return self.member(column, slot, negated=kind is exp.NEQ)
            return kind(this=self._formed(self.shown(column), _UUID_ONLY), expression=self.value(slot))
        if _is_beyond_doubles(slot):
            exactly = kind(this=self._decimal(self.shown(column)), expression=self._decimal(self._placeholder(slot)))
            nearly = kind(this=self.shown(column), expression=self._formed(self._placeholder(slot), "lensway_number"))
            return self._by_storage(column, exactly, nearly)
        return kind(this=self._tested(column), expression=self.value(slot))

    def guarded(self, column: PlanColumn, condition: exp.Expression, *, is_negated: bool) -> exp.Expression:
        guard = self._guard(column)
        if guard is None:
            return condition
        if is_negated:
            return exp.Case(ifs=[exp.If(this=guard, true=condition)])
        # Behind the condition, so that an index still serves that.
        return exp.And(this=exp.Paren(this=condition), expression=exp.Paren(this=guard))

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        if _is_beyond_doubles(slot):
            exactly = self._listed(self._decimal(self.shown(column)), slot, "lensway_decimal")
            nearly = self._listed(self.shown(column), slot, "lensway_number")
            beyond = exp.Paren(this=self._by_storage(column, exactly, nearly))
            return exp.Not(this=beyond) if negated else beyond
        tested, type = self._tested(column), column.type
        if type is FieldType.BYTES:
            tested = self._formed(tested, "hex")
            # hex(NULL) is an empty text, and NULL must stay NULL.
            tested = exp.Case(ifs=[exp.If(this=is_not_null(self.shown(column)), true=tested)])
        if type is FieldType.UUID:
            slot = ParamSlot(slot.index, FieldType.UUID, is_array=True, transform=Transform.SPELLINGS)
        member = self._listed(tested, slot, self._ELEMENTS.get(type))
        return exp.Not(this=member) if negated else member

    @staticmethod
    def takes(value: object) -> bool:
        return True

    @staticmethod
    def bound(value: str, slot: ParamSlot) -> object:
        return value

    @staticmethod
    def bound_list(items: Sequence[object], slot: ParamSlot) -> object:
        if slot.transform is Transform.SPELLINGS:
            items = [each for item in items for each in ((None,) if item is None else spellings(str(item)))]
        return _json_list(items)

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        # SQLite's LIKE never minds case; GLOB always does, and can use an index.
        prefix = self._globbed(column, index, Transform.GLOB_PREFIX)
        matched = self._by_size(column, self._globbed, LIKE, index, Transform.GLOB, Transform.LIKE)
        return exp.And(this=prefix, expression=matched)

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        if transform is Transform.STARTS_WITH:
            return self._liked(column, index, transform)  # reads no more of the value than the pattern is long
        if transform is not Transform.LIKE:
            return self._by_size(column, self._liked, ILIKE, index, transform, transform)
        prefix = self._liked(column, index, Transform.LIKE_PREFIX)
        return exp.And(this=prefix, expression=self._by_size(column, self._liked, ILIKE, index, transform, transform))

    def _by_size(
        self,
        column: PlanColumn,
        native: Callable[[PlanColumn, int, Transform], exp.Expression],
        own: str,
        index: int,
        native_form: Transform,
        own_form: Transform,
    ) -> exp.Expression:
        """SQLite's own matching for usual values; for large ones the function, which can be interrupted."""
        bound = exp.Literal.number(limits.PATTERN_NATIVE_BYTES_MAX)
        is_usual = exp.LTE(this=self._size(self.shown(column)), expression=bound)
        usual = native(column, index, native_form)
        stored = exp.Cast(this=self.shown(column), to=exp.DataType(this=exp.DataType.Type.BLOB))
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=own_form))
        large = exp.Anonymous(this=own, expressions=[exp.Placeholder(), stored])
        return exp.Case(ifs=[exp.If(this=is_usual, true=usual)], default=large)

    def _globbed(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=transform))
        return exp.Glob(this=self.shown(column), expression=exp.Placeholder())

    def _liked(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=transform))
        like = exp.Like(this=self.shown(column), expression=exp.Placeholder())
        return exp.Escape(this=like, expression=exp.Literal.string("\\"))

    def _selected(self, column: PlanColumn, keys: Sequence[PlanColumn]) -> exp.Expression:
        shown = self.shown(column)
        if column.type is not FieldType.BYTES or column in keys:
            return shown
        # The bytes of a text, which need not be UTF-8. Not of a key: texts and blobs have different places in an order.
        stored = exp.Cast(this=shown, to=exp.DataType(this=exp.DataType.Type.BLOB))
        return exp.Case(ifs=[exp.If(this=self._is_stored(column, "text"), true=stored)], default=self.shown(column))

    def _tested(self, column: PlanColumn) -> exp.Expression:
        """The column in a filter: NULL where its value is not of the type, or as it is, and then it needs the guard."""
        form = self._FORMS.get(column.type)
        return self._formed(self.shown(column), form and form + "_only")

    def _guard(self, column: PlanColumn) -> exp.Expression | None:
        """The test that a value is of the column's type; None where the filter's form of it is NULL otherwise."""
        match column.type:
            case FieldType.TEXT:
                # An integer is a text where the column's affinity makes it one of every text that is a number.
                digits = exp.DPipe(this=self.shown(column), expression=exp.Literal.string(""))
                is_number = exp.EQ(this=self.shown(column), expression=exp.Paren(this=digits))
                return exp.Or(
                    this=self._is_stored(column, "text"),
                    expression=exp.Paren(this=exp.And(this=self._is_stored(column, "integer"), expression=is_number)),
                )
            case FieldType.INTEGER:
                whole = exp.Cast(this=self.shown(column), to=exp.DataType(this=exp.DataType.Type.BIGINT))
                is_whole = exp.EQ(this=whole, expression=self.shown(column))
                return exp.Or(
                    this=self._is_stored(column, "integer"),
                    expression=exp.Paren(this=exp.And(this=self._is_stored(column, "real"), expression=is_whole)),
                )
            case FieldType.NUMBER:
                return self._is_stored(column, "integer", "real")
            case FieldType.BOOLEAN:
                known = exp.In(this=self.shown(column), expressions=[exp.Literal.number(0), exp.Literal.number(1)])
                return exp.And(this=self._is_stored(column, "integer"), expression=known)
            case FieldType.BYTES:
                return self._is_stored(column, "blob")
            case FieldType.UUID:
                return is_not_null(self._formed(self.shown(column), _UUID_ONLY))
            case _:
                return None

    def _is_stored(self, column: PlanColumn, *classes: str) -> exp.Expression:
        stored = self._formed(self.shown(column), "typeof")
        names: list[exp.Expression] = [exp.Literal.string(each) for each in classes]
        return exp.EQ(this=stored, expression=names[0]) if len(names) == 1 else exp.In(this=stored, expressions=names)

    def _by_storage(self, column: PlanColumn, integer: exp.Expression, real: exp.Expression) -> exp.Expression:
        return exp.Case(ifs=[exp.If(this=self._is_stored(column, "integer"), true=integer)], default=real)

    def _listed(self, tested: exp.Expression, slot: ParamSlot, form: str | None) -> exp.Expression:
        # json_each takes the list as one value, so the statement is the same for any number of values.
        element = self._formed(exp.column("value", table="e", quoted=True), form)
        listed = exp.alias_(exp.Anonymous(this="json_each", expressions=[self._placeholder(slot)]), "e", quoted=True)
        return exp.In(this=tested, query=exp.Subquery(this=exp.select(element).from_(listed)))

    def _placeholder(self, slot: ParamSlot) -> exp.Expression:
        self.params.append(slot)
        return exp.Placeholder()

    def _decimal(self, value: exp.Expression) -> exp.Expression:
        return self._formed(value, "lensway_decimal")

    def _together(self, sizes: Sequence[exp.Expression]) -> exp.Expression:
        """A blob as large as all of them; a few of them are as much as stays in memory meanwhile."""
        groups = [sizes[at : at + _CHECKED_MAX] for at in range(0, len(sizes), _CHECKED_MAX)]
        return self._formed(total([functools.reduce(self._checked, group) for group in groups]), "zeroblob")

    def _checked(self, total: exp.Expression, size: exp.Expression) -> exp.Expression:
        return self._formed(self._formed(exp.Add(this=total, expression=size), "zeroblob"), "length")

    def _size(self, value: exp.Expression) -> exp.Expression:
        # Of a text it would count characters, and only those before a NUL.
        stored = exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.BLOB))
        return exp.Coalesce(this=self._formed(stored, "length"), expressions=[exp.Literal.number(0)])

    def _formed(self, expression: exp.Expression, function: str | None) -> exp.Expression:
        return expression if function is None else exp.Anonymous(this=function, expressions=[expression])


def _is_beyond_doubles(slot: ParamSlot) -> bool:
    """True for a number as text: integers are compared with it digit by digit, floats with the float next to it."""
    return slot.of is FieldType.NUMBER and slot.type is FieldType.DECIMAL


def _json_list(items: Sequence[object]) -> str:
    """The list as `json_each` takes it; floats and bytes as text, see the dialect."""
    return msgspec.json.encode([_json_item(item) for item in items]).decode()


def _json_item(item: object) -> object:
    match item:
        case float():
            return repr(item)
        case bytes():
            return item.hex().upper()
        case _:
            return item
