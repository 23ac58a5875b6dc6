"""From a shape to one statement of a dialect, by expression trees; kept by the shape's bytes.

Identifiers are quoted by the generator, values are placeholders. What differs between dialects stands in `dialects`.
The page fetches one row more than asked, so that the executing side can say whether more follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

import msgspec
from sqlglot import exp

from lensway import limits
from lensway.dialects import keyset
from lensway.dialects.base import TABLE_ALIAS, TERMS_MAX, Dialect, ParamSlot, identifier, is_null
from lensway.dialects.registry import dialect_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query import cursor, values
from lensway.query.cache import BoundedCache
from lensway.query.conditions import And, Compare, Constant, IsNull, Node, Not, Operator, Or
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.measures import COUNT_OF_ROWS
from lensway.query.ordering import DECLARED, RANK_COLUMN, Ordering, known, row_id_column
from lensway.query.patterns import FOLDING, Transform, bind_text
from lensway.query.plan import OrderBy, Plan, Shape, decode_shape

LIMIT_PARAM: Final = -1
"""The page's limit plus one."""
OFFSET_PARAM: Final = -2
# Where rows are ranked, a page by offset reads the row before it too and steps over it.
_LIMIT_AHEAD_PARAM: Final = -3
_OFFSET_BEFORE_PARAM: Final = -4
_SKIP_PARAM: Final = -5


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A statement and how to bind and read it.

    ``columns`` are ``output_count`` of output first, then the keys that are not among them; ``key_positions`` says where each
    of the shape's keys stands, ``has_number_key`` whether one of them is a number. ``count_sql`` counts all matches (only with a
    total). ``rest_sql`` reads the rows that come behind all of ``sql``, for a page that those do not fill. ``row_id_position``
    and ``rank_position`` say where the row id or the rank stands, where the order is not known to be total.
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
    rest_sql: str | None = None
    rest_params: tuple[ParamSlot, ...] = ()
    row_id_position: int | None = None
    rank_position: int | None = None
    shape: Shape

    def bind(self, plan: Plan) -> list[object]:
        """The values for ``sql``, in order, as the dialect's drivers take them.

        Raises:
            LenswayError: INVALID_REQUEST when a value does not fit its place, which only a foreign plan can do.
        """
        return [_bound(slot, plan, self.dialect) for slot in self.params]

    def statements(self, plan: Plan) -> list[tuple[str, list[object]]]:
        """What to execute, in order, until the page is full. Raises LenswayError as `bind`."""
        found = [(self.sql, self.bind(plan))]
        if self.rest_sql is not None:
            found.append((self.rest_sql, [_bound(slot, plan, self.dialect) for slot in self.rest_params]))
        return found

    def bind_count(self, plan: Plan) -> list[object]:
        """The values for ``count_sql``. Raises LenswayError as `bind`."""
        return [_bound(slot, plan, self.dialect) for slot in self.count_params]


def compile_shape(shape: bytes, dialect: str, ordering: Ordering = DECLARED) -> Compiled:
    """The statement for this shape, kept.

    Raises:
        LenswayError: INVALID_REQUEST when the bytes are not a shape that this program executes, INVALID_CURSOR when it starts
            behind a row id that the order does not have.
    """
    key = (dialect, shape, ordering)
    compiled = _kept.get(key)
    if compiled is None:
        try:
            compiled = _compile(decode_shape(shape), dialect_of(dialect), ordering)
        except RecursionError:
            raise _malformed() from None
        _kept.put(key, compiled, len(shape))
    return compiled


_kept: Final[BoundedCache[tuple[str, bytes, Ordering], Compiled]] = BoundedCache(
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


def _compile(shape: Shape, make: Callable[[], Dialect], ordering: Ordering) -> Compiled:
    shape.require_executed()
    compared_as = {each.column: each for each in ordering.compared_as}

    def make_dialect() -> Dialect:
        dialect = make()
        dialect.compared_as = compared_as
        return dialect

    dialect = make_dialect()
    if shape.measures:
        sql = _counting(shape, dialect)
        params = tuple(dialect.params)
        return Compiled(
            dialect=dialect.name,
            sql=sql,
            params=params,
            columns=tuple(each.result for each in shape.measures),
            output_count=len(shape.measures),
            key_positions=(),
            shape=shape,
        )
    terms = ordering.terms(shape.order)
    if shape.after is not None and len(shape.after) > len(terms):
        raise cursor.invalid("says a row id, and the rows of the table have none")
    columns, positions = _layout(shape)
    row_id_position = rank_position = None
    if ordering.row_id is not None:
        row_id_position = len(columns)
        columns += (row_id_column(ordering.row_id),)
    sql = _page(shape, terms, columns, dialect, is_ranked=ordering.is_ranked)
    counting, rest = make_dialect(), make_dialect()
    rest_sql = None
    if shape.after is not None and keyset.has_nulls_left(terms, shape.after):
        rest_sql = _page(shape, terms, columns, rest, is_ranked=ordering.is_ranked, is_rest=True)
    if ordering.is_ranked:
        rank_position = len(columns)
        columns += (RANK_COLUMN,)
    return Compiled(
        dialect=dialect.name,
        sql=sql,
        params=tuple(dialect.params),
        columns=columns,
        output_count=len(shape.output),
        key_positions=positions,
        rest_sql=rest_sql,
        rest_params=tuple(rest.params),
        row_id_position=row_id_position,
        rank_position=rank_position,
        has_number_key=any(key.type is FieldType.NUMBER for key in shape.keys),
        count_sql=_counting(shape, counting) if shape.with_total else None,
        count_params=tuple(counting.params),
        shape=shape,
    )


def _page(
    shape: Shape,
    terms: Sequence[OrderBy],
    columns: Sequence[PlanColumn],
    dialect: Dialect,
    *,
    is_ranked: bool,
    is_rest: bool = False,
) -> str:
    """The statement for one page; with ``is_rest`` for the rows that the condition of the cursor leaves out."""
    query = exp.select(*dialect.row(columns, shape.keys))
    query = _filtered(query.from_(_table(shape), copy=False), shape, dialect)
    order = list(terms)
    if is_rest:
        query = query.where(keyset.nulls_left(terms, dialect), copy=False)
    elif shape.after is not None:
        # A cursor from before the rows were known to share keys has no row id; then no other row shared this key.
        order_said = terms[: len(shape.after)]
        query = query.where(exp.Paren(this=keyset.behind(order_said, shape.after, shape.params, dialect)), copy=False)
        if keyset.has_nulls_left(terms, shape.after):
            order[0] = known(order[0], nullable=False)
    query = _ordered(query, order, dialect)
    if not shape.has_limit:
        return _sql(query, dialect)
    steps_back = is_ranked and shape.has_offset
    query.set("limit", exp.Limit(expression=_number(dialect, _LIMIT_AHEAD_PARAM if steps_back else LIMIT_PARAM)))
    if shape.has_offset:
        offset = _number(dialect, _OFFSET_BEFORE_PARAM if steps_back else OFFSET_PARAM)
        query.set("offset", exp.Offset(expression=offset))
    return _sql(_ranked(query, order, columns, dialect, steps_back=steps_back) if is_ranked else query, dialect)


def _ordered(query: exp.Select, order: Sequence[OrderBy], dialect: Dialect) -> exp.Select:
    for term in order:
        query = query.order_by(dialect.ordered(term.column, descending=term.descending), copy=False)
    return query


def _number(dialect: Dialect, index: int) -> exp.Expression:
    return dialect.value(ParamSlot(index, FieldType.INTEGER))


def _ranked(
    page: exp.Select, order: Sequence[OrderBy], columns: Sequence[PlanColumn], dialect: Dialect, *, steps_back: bool
) -> exp.Select:
    """The page with the rank of each row in it. Equal is what the database's own order takes for equal, NULLs among it."""
    inside = [msgspec.structs.replace(column, column=column.name) for column in columns]
    named = [OrderBy(msgspec.structs.replace(each.column, column=each.column.name), each.descending) for each in order]
    window = exp.Order(expressions=[dialect.ordered(each.column, descending=each.descending) for each in named])
    rank = exp.Window(this=exp.Anonymous(this="rank"), order=window)
    shown = [exp.alias_(dialect.shown(column), column.name, quoted=True) for column in inside]
    outer = exp.select(*shown, exp.alias_(rank, RANK_COLUMN.name, quoted=True))
    outer = outer.from_(exp.Subquery(this=page, alias=exp.TableAlias(this=identifier(TABLE_ALIAS))), copy=False)
    outer = _ordered(outer, named, dialect)
    if steps_back:
        outer.set("limit", exp.Limit(expression=_number(dialect, LIMIT_PARAM)))
        outer.set("offset", exp.Offset(expression=_number(dialect, _SKIP_PARAM)))
    return outer


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
        this=identifier(shape.table.name),
        db=identifier(shape.table.schema) if shape.table.schema else None,
        alias=exp.TableAlias(this=identifier(TABLE_ALIAS)),
    )


def _counting(shape: Shape, dialect: Dialect) -> str:
    measures = shape.measures or (COUNT_OF_ROWS,)
    assert all(each.counts_rows for each in measures), "no other measures are executed yet"
    counted = [exp.alias_(exp.Count(this=exp.Star()), each.name, quoted=True) for each in measures]
    return _sql(_filtered(exp.select(*counted).from_(_table(shape), copy=False), shape, dialect), dialect)


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
    if slot.index < 0:
        return _bound_page(slot.index, plan)
    if slot.index >= len(plan.params):
        raise _malformed()
    value, written = plan.params[slot.index], dialect_of(dialect)
    if slot.is_array:
        return _bound_list(slot, value, written)
    if not values.fits(value, slot.type) or not written.takes(value):
        raise _malformed()
    if value.__class__ is not str:
        return value
    if slot.transform is not Transform.NONE:
        return bind_text(str(value), slot.transform)
    return written.bound(str(value), slot)


def _bound_page(index: int, plan: Plan) -> int:
    limit, offset = plan.limit or 0, plan.offset or 0
    if index == OFFSET_PARAM:
        return offset
    skipped = min(offset, 1)
    if index == _OFFSET_BEFORE_PARAM:
        return offset - skipped
    return skipped if index == _SKIP_PARAM else limit + 1 + skipped


def _bound_list(slot: ParamSlot, value: object, written: type[Dialect]) -> object:
    items = (value,) if slot.transform is Transform.SPELLINGS and isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(
        item is None or (values.fits(item, slot.type) and written.takes(item)) for item in items
    ):
        raise _malformed()
    return written.bound_list(items, slot)


def _malformed() -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, "the values of the plan do not fit its shape")
