"""From a shape to one statement of a dialect, by expression trees; kept by the shape's bytes.

Identifiers are quoted by the generator, values are placeholders. What differs between dialects stands in `dialects`.
The page fetches one row more than asked, so that the executing side can say whether more follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

import msgspec
from sqlglot import exp

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query import keyset, values
from lensway.query.cache import BoundedCache
from lensway.query.dialects import DIALECTS, TABLE_ALIAS, TERMS_MAX, Dialect, ParamSlot, identifier, is_null
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.forms import spellings
from lensway.query.patterns import FOLDING, Transform, bind_text
from lensway.query.plan import (
    And,
    Compare,
    Constant,
    IsNull,
    Node,
    Not,
    Operator,
    Or,
    Plan,
    PlanKind,
    Shape,
    decode_shape,
)

LIMIT_PARAM: Final = -1
"""The page's limit plus one."""
OFFSET_PARAM: Final = -2


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A statement and how to bind and read it.

    ``columns`` are ``output_count`` of output first, then the keys that are not among them; ``key_positions`` says where each
    of the shape's keys stands, ``has_number_key`` whether one of them is a number. ``count_sql`` counts all matches (only with a
    total).
    """

    dialect: str
    sql: str
    params: tuple[ParamSlot, ...]
    columns: tuple[PlanColumn, ...]
    output_count: int
    key_positions: tuple[int, ...]
    has_number_key: bool = False
    count_sql: str | None = None
    count_params: tuple[ParamSlot, ...] = ()
    shape: Shape

    def bind(self, plan: Plan) -> list[object]:
        """The values for ``sql``, in order, as the dialect's drivers take them.

        Raises:
            LenswayError: INVALID_REQUEST when a value does not fit its place, which only a foreign plan can do.
        """
        return [_bound(slot, plan, self.dialect) for slot in self.params]

    def bind_count(self, plan: Plan) -> list[object]:
        """The values for ``count_sql``. Raises LenswayError as `bind`."""
        return [_bound(slot, plan, self.dialect) for slot in self.count_params]


def compile_shape(shape: bytes, dialect: str) -> Compiled:
    """The statement for this shape, kept.

    Raises:
        LenswayError: INVALID_REQUEST when the bytes are not a shape.
    """
    key = (dialect, shape)
    compiled = _kept.get(key)
    if compiled is None:
        try:
            compiled = _compile(decode_shape(shape), DIALECTS[dialect])
        except RecursionError:
            raise _malformed() from None
        _kept.put(key, compiled, len(shape))
    return compiled


_kept: Final[BoundedCache[tuple[str, bytes], Compiled]] = BoundedCache(
    entries_max=limits.COMPILED_PLANS_MAX, bytes_max=limits.COMPILED_SHAPES_BYTES_MAX
)
_COMPARISONS: Final[Mapping[Operator, Callable[..., exp.Expression]]] = {
    Operator.EQ: exp.EQ,
    Operator.NE: exp.NEQ,
    Operator.GT: exp.GT,
    Operator.GTE: exp.GTE,
    Operator.LT: exp.LT,
    Operator.LTE: exp.LTE,
}


def _compile(shape: Shape, make_dialect: Callable[[], Dialect]) -> Compiled:
    dialect = make_dialect()
    if shape.kind is PlanKind.COUNT:
        sql = _counting(shape, dialect)
        params = tuple(dialect.params)
        return Compiled(
            dialect=dialect.name,
            sql=sql,
            params=params,
            columns=shape.output,
            output_count=1,
            key_positions=(),
            shape=shape,
        )
    columns, positions = _layout(shape)
    query = exp.select(*dialect.row(columns, shape.keys))
    query = _filtered(query.from_(_table(shape), copy=False), shape, dialect)
    if shape.after is not None:
        query = query.where(exp.Paren(this=keyset.behind(shape, dialect)), copy=False)
    for term in shape.order:
        query = query.order_by(dialect.ordered(term.column, descending=term.descending), copy=False)
    if shape.has_limit:
        query.set("limit", exp.Limit(expression=dialect.value(ParamSlot(LIMIT_PARAM, FieldType.INTEGER))))
    if shape.has_offset:
        query.set("offset", exp.Offset(expression=dialect.value(ParamSlot(OFFSET_PARAM, FieldType.INTEGER))))
    counting = make_dialect()
    return Compiled(
        dialect=dialect.name,
        sql=_sql(query, dialect),
        params=tuple(dialect.params),
        columns=columns,
        output_count=len(shape.output),
        key_positions=positions,
        has_number_key=any(key.type is FieldType.NUMBER for key in shape.keys),
        count_sql=_counting(shape, counting) if shape.with_total else None,
        count_params=tuple(counting.params),
        shape=shape,
    )


def _layout(shape: Shape) -> tuple[tuple[PlanColumn, ...], tuple[int, ...]]:
    columns = list(shape.output)
    at = {column.name: number for number, column in enumerate(columns)}
    for key in shape.keys:
        if key.name not in at:
            at[key.name] = len(columns)
            columns.append(key)
    return tuple(columns), tuple(at[key.name] for key in shape.keys)


def _table(shape: Shape) -> exp.Table:
    return exp.Table(
        this=identifier(shape.table),
        db=identifier(shape.schema) if shape.schema else None,
        alias=exp.TableAlias(this=identifier(TABLE_ALIAS)),
    )


def _counting(shape: Shape, dialect: Dialect) -> str:
    counted = exp.alias_(exp.Count(this=exp.Star()), "count", quoted=True)
    return _sql(_filtered(exp.select(counted).from_(_table(shape), copy=False), shape, dialect), dialect)


def _sql(query: exp.Expression, dialect: Dialect) -> str:
    sql = query.sql(dialect=dialect.name, identify=True, comments=False, normalize_functions=False)
    if "\0" in sql:
        # Only a foreign plan names something so. Drivers end a statement there, and read what follows as another message.
        raise LenswayError(ErrorCode.INVALID_REQUEST, "the plan names something with a NUL character")
    return sql


def _filtered(query: exp.Select, shape: Shape, dialect: Dialect) -> exp.Select:
    if shape.where is None:
        return query
    return query.where(exp.Paren(this=_condition(shape.where, dialect)), copy=False)


def _condition(node: Node, dialect: Dialect, *, is_negated: bool = False) -> exp.Expression:
    match node:
        case And(items):
            return _joined(exp.And, [_condition(each, dialect, is_negated=is_negated) for each in items], empty=True)
        case Or(items):
            return _joined(exp.Or, [_condition(each, dialect, is_negated=is_negated) for each in items], empty=False)
        case Not(IsNull(column)):
            return exp.Not(this=is_null(dialect.shown(column)))
        case Not(item):
            return exp.Not(this=exp.Paren(this=_condition(item, dialect, is_negated=True)))
        case Compare():
            return dialect.guarded(node.column, _comparison(node, dialect), is_negated=is_negated)
        case IsNull(column):
            return is_null(dialect.shown(column))
        case Constant(value):
            if value is None:
                return exp.Cast(this=exp.Null(), to=exp.DataType(this=exp.DataType.Type.BOOLEAN))
            return exp.Boolean(this=value)
        case _:
            assert_never(node)


def _comparison(node: Compare, dialect: Dialect) -> exp.Expression:
    operator, column = node.operator, node.column
    if operator in (Operator.IN, Operator.NIN):
        slot = ParamSlot(node.param, node.bound_as or column.type, is_array=True, zoned=node.zoned, of=column.type)
        return dialect.member(column, slot, negated=operator is Operator.NIN)
    if operator is Operator.LIKE:
        return dialect.like(column, node.param)
    if operator in FOLDING:
        return dialect.pattern(column, node.param, FOLDING[operator])
    slot = ParamSlot(node.param, node.bound_as or column.type, zoned=node.zoned, of=column.type)
    return dialect.comparison(_COMPARISONS[operator], column, slot)


def _joined(kind: type[exp.And] | type[exp.Or], items: Sequence[exp.Expression], *, empty: bool) -> exp.Expression:
    if not items:
        return exp.Boolean(this=empty)
    while len(items) > TERMS_MAX:
        items = [
            _joined(kind, items[start : start + TERMS_MAX], empty=empty) for start in range(0, len(items), TERMS_MAX)
        ]
    if len(items) == 1:
        return items[0]
    joined: exp.Expression = exp.Paren(this=items[0])
    for item in items[1:]:
        joined = kind(this=joined, expression=exp.Paren(this=item))
    return joined


def _bound(slot: ParamSlot, plan: Plan, dialect: str) -> object:
    if slot.index == LIMIT_PARAM:
        return None if plan.limit is None else plan.limit + 1
    if slot.index == OFFSET_PARAM:
        return plan.offset
    if slot.index >= len(plan.params):
        raise _malformed()
    value = plan.params[slot.index]
    if slot.is_array:
        return _bound_list(slot, value, dialect)
    if not values.fits(value, slot.type):
        raise _malformed()
    if value.__class__ is not str:
        return value
    if slot.transform is not Transform.NONE:
        return bind_text(str(value), slot.transform)
    if value[:1] in _BEGINNINGS and dialect == "postgres" and slot.type is FieldType.TEXT:
        return _text_or_digits(value)
    return value


def _bound_list(slot: ParamSlot, value: object, dialect: str) -> object:
    items = (value,) if slot.transform is Transform.SPELLINGS and isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(item is None or values.fits(item, slot.type) for item in items):
        raise _malformed()
    if slot.transform is Transform.SPELLINGS:
        items = [each for item in items for each in ((None,) if item is None else spellings(str(item)))]
    if dialect == "sqlite":
        return _json_list(items)
    return [_text_or_digits(item) for item in items] if slot.type is FieldType.TEXT else list(items)


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
"""Longer ones are none of 64 bits, and may be UUIDs."""


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


def _malformed() -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, "the values of the plan do not fit its shape")
