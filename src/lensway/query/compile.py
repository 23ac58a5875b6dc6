"""From a shape to one statement of a dialect, by expression trees; kept by the shape's bytes.

Identifiers are quoted by the generator, values are placeholders. What differs between dialects is one small class each.
The page fetches one row more than asked, so that the executing side can say whether more follow.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Final, Protocol, assert_never

import msgspec
from sqlglot import exp

from lensway import limits
from lensway.query.fields import FieldType
from lensway.query.plan import (
    And,
    Compare,
    Constant,
    IsNull,
    Node,
    Not,
    Operator,
    Or,
    OrderBy,
    PlanColumn,
    PlanKind,
    Shape,
    decode_shape,
)


class Transform(enum.Enum):
    """What becomes of a text value before it is bound, so that only the wildcards meant as such are wildcards."""

    NONE = "none"
    LIKE = "like"
    """`%` and `_` are wildcards, backslash is itself."""
    GLOB = "glob"
    """The same in GLOB's alphabet."""
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"


class ParamSlot(msgspec.Struct, frozen=True):
    """One placeholder: the value at ``index`` of the plan's params, or the page's limit or offset."""

    index: int
    type: FieldType
    is_array: bool = False
    transform: Transform = Transform.NONE


LIMIT_PARAM: Final = -1
"""The page's limit plus one."""
OFFSET_PARAM: Final = -2


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A statement and how to bind and read it. Columns are ``output`` first, then the ``keys`` that are not among them;
    ``key_positions`` says where each key stands. ``count_sql`` counts all matches (only with a total)."""

    sql: str
    params: tuple[ParamSlot, ...]
    columns: tuple[PlanColumn, ...]
    output_count: int
    key_positions: tuple[int, ...]
    count_sql: str | None = None
    count_params: tuple[ParamSlot, ...] = ()
    shape: Shape


@functools.lru_cache(maxsize=limits.COMPILED_PLANS_MAX)
def compile_shape(shape: bytes, dialect: str) -> Compiled:
    """The statement for this shape, kept. Raises LenswayError INVALID_REQUEST when the bytes are not a shape."""
    return _compile(decode_shape(shape), _DIALECTS[dialect]())


def bind_text(value: str, transform: Transform) -> str:
    """The value as it is bound under its transform."""
    match transform:
        case Transform.NONE:
            return value
        case Transform.LIKE:
            return value.replace("\\", "\\\\")
        case Transform.GLOB:
            return "".join(_GLOB.get(character, character) for character in value)
        case Transform.CONTAINS:
            return f"%{_literal(value)}%"
        case Transform.STARTS_WITH:
            return f"{_literal(value)}%"
        case Transform.ENDS_WITH:
            return f"%{_literal(value)}"


_GLOB: Final = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
_PATTERNS: Final = {
    Operator.ILIKE: Transform.LIKE,
    Operator.CONTAINS: Transform.CONTAINS,
    Operator.STARTS_WITH: Transform.STARTS_WITH,
    Operator.ENDS_WITH: Transform.ENDS_WITH,
}
_COMPARISONS: Final[dict[Operator, Callable[..., exp.Expression]]] = {
    Operator.EQ: exp.EQ,
    Operator.NE: exp.NEQ,
    Operator.GT: exp.GT,
    Operator.GTE: exp.GTE,
    Operator.LT: exp.LT,
    Operator.LTE: exp.LTE,
}


# Spelled as a type of the user's, because the generator would write REAL and lose digits of integers.
_NUMERIC: Final = exp.DataType(this=exp.DataType.Type.USERDEFINED, kind="NUMERIC")


def _literal(value: str) -> str:
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


class _Dialect(Protocol):
    """What a dialect does its own way. One instance compiles one statement and collects its placeholders in order."""

    name: str
    params: list[ParamSlot]

    def value(self, slot: ParamSlot) -> exp.Expression:
        """The placeholder for a value that a column is compared with."""

    def column(self, column: PlanColumn) -> exp.Expression:
        """The column as it is compared and ordered by."""

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        """Membership in a list that is one value."""

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        """LIKE that minds case."""

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        """LIKE that does not."""


class _Postgres:
    name = "postgres"
    # Texts that a domain of values has a stricter type for in PostgreSQL are sent as text and cast there: the server's own
    # parser takes infinities, years before Christ and every digit. Text itself stays without a type, so that it becomes
    # that of the column (varchar, char, enum, citext), and the column's index serves.
    _CASTS: Final = {
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

    def __init__(self) -> None:
        self.params: list[ParamSlot] = []

    def value(self, slot: ParamSlot) -> exp.Expression:
        self.params.append(slot)
        placeholder: exp.Expression = exp.Parameter(this=exp.Literal.number(len(self.params)))
        for type_name in self._CASTS.get(slot.type, ()):
            suffix = "[]" if slot.is_array else ""
            placeholder = exp.Cast(this=placeholder, to=exp.DataType.build(type_name + suffix, dialect="postgres"))
        return placeholder

    def column(self, column: PlanColumn) -> exp.Expression:
        return _column(column)

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        # One array: the statement is the same for any number of values.
        value = self.value(slot)
        if negated:
            return exp.NEQ(this=self.column(column), expression=exp.All(this=exp.Paren(this=value)))
        return exp.EQ(this=self.column(column), expression=exp.Any(this=exp.Paren(this=value)))

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        return exp.Like(this=self._as_text(column), expression=self._pattern(index, Transform.LIKE))

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        return exp.ILike(this=self._as_text(column), expression=self._pattern(index, transform))

    def _as_text(self, column: PlanColumn) -> exp.Expression:
        return exp.Cast(this=_column(column), to=exp.DataType.build("text"))

    def _pattern(self, index: int, transform: Transform) -> exp.Expression:
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=transform))
        placeholder = exp.Parameter(this=exp.Literal.number(len(self.params)))
        return exp.Cast(this=placeholder, to=exp.DataType.build("text"))


class _Sqlite:
    name = "sqlite"
    # SQLite has no types for these; the bridge registers functions that bring what is stored into one form.
    _FORMS: Final = {
        FieldType.DATE: "lensway_date",
        FieldType.TIME: "lensway_time",
        FieldType.TIMESTAMP: "lensway_timestamp",
    }

    def __init__(self) -> None:
        self.params: list[ParamSlot] = []

    def value(self, slot: ParamSlot) -> exp.Expression:
        self.params.append(slot)
        placeholder = exp.Placeholder()
        if slot.type is FieldType.DECIMAL:
            return exp.Cast(this=placeholder, to=_NUMERIC)
        if slot.type in self._FORMS:
            return exp.Anonymous(this=self._FORMS[slot.type], expressions=[placeholder])
        return placeholder

    def column(self, column: PlanColumn) -> exp.Expression:
        plain = _column(column)
        if column.type is FieldType.DECIMAL:
            return exp.Cast(this=plain, to=_NUMERIC)
        if column.type in self._FORMS:
            return exp.Anonymous(this=self._FORMS[column.type], expressions=[plain])
        return plain

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        # json_each takes the list as one value; bytes travel as hex, which JSON can hold.
        self.params.append(slot)
        element: exp.Expression = exp.column("value")
        tested = self.column(column)
        if slot.type is FieldType.BYTES:
            tested = exp.Anonymous(this="hex", expressions=[tested])
        elif slot.type is FieldType.DECIMAL:
            element = exp.Cast(this=element, to=_NUMERIC)
        elif slot.type in self._FORMS:
            element = exp.Anonymous(this=self._FORMS[slot.type], expressions=[element])
        elements = exp.select(element).from_(exp.Anonymous(this="json_each", expressions=[exp.Placeholder()]))
        member = exp.In(this=tested, query=exp.Subquery(this=elements))
        return exp.Not(this=member) if negated else member

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        # SQLite's LIKE never minds case; GLOB always does, and can use an index.
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=Transform.GLOB))
        return exp.Glob(this=_column(column), expression=exp.Placeholder())

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        self.params.append(ParamSlot(index, FieldType.TEXT, transform=transform))
        like = exp.Like(this=_column(column), expression=exp.Placeholder())
        return exp.Escape(this=like, expression=exp.Literal.string("\\"))


_DIALECTS: Final[dict[str, Callable[[], _Dialect]]] = {"postgres": _Postgres, "sqlite": _Sqlite}


def _compile(shape: Shape, dialect: _Dialect) -> Compiled:
    table = exp.Table(this=_identifier(shape.table), db=_identifier(shape.schema) if shape.schema else None)
    if shape.kind is PlanKind.COUNT:
        counted = exp.select(exp.alias_(exp.Count(this=exp.Star()), "count", quoted=True)).from_(table)
        sql = _sql(_filtered(counted, shape, dialect), dialect)
        return Compiled(
            sql=sql, params=tuple(dialect.params), columns=shape.output, output_count=1, key_positions=(), shape=shape
        )
    columns = list(shape.output)
    positions = []
    for key in shape.keys:
        found = next((number for number, column in enumerate(columns) if column.column == key.column), None)
        if found is None:
            columns.append(key)
            found = len(columns) - 1
        positions.append(found)
    query = exp.select(*(exp.alias_(_column(column), column.name, quoted=True) for column in columns)).from_(table)
    query = _filtered(query, shape, dialect)
    if shape.after is not None:
        query = query.where(_after(shape, dialect), copy=False)
    for term in shape.order:
        query = query.order_by(_ordered(term, dialect), copy=False)
    if shape.has_limit:
        query.set("limit", exp.Limit(expression=dialect.value(ParamSlot(LIMIT_PARAM, FieldType.INTEGER))))
    if shape.has_offset:
        query.set("offset", exp.Offset(expression=dialect.value(ParamSlot(OFFSET_PARAM, FieldType.INTEGER))))
    count_sql, count_params = _total(shape, dialect) if shape.with_total else (None, ())
    return Compiled(
        sql=_sql(query, dialect),
        params=tuple(dialect.params),
        columns=tuple(columns),
        output_count=len(shape.output),
        key_positions=tuple(positions),
        count_sql=count_sql,
        count_params=count_params,
        shape=shape,
    )


def _total(shape: Shape, dialect: _Dialect) -> tuple[str, tuple[ParamSlot, ...]]:
    counting = type(dialect)()
    table = exp.Table(this=_identifier(shape.table), db=_identifier(shape.schema) if shape.schema else None)
    query = _filtered(exp.select(exp.Count(this=exp.Star())).from_(table), shape, counting)
    return _sql(query, counting), tuple(counting.params)


def _sql(query: exp.Expression, dialect: _Dialect) -> str:
    return query.sql(dialect=dialect.name, identify=True, comments=False)


def _filtered(query: exp.Select, shape: Shape, dialect: _Dialect) -> exp.Select:
    if shape.where is None:
        return query
    return query.where(_condition(shape.where, dialect), copy=False)


def _condition(node: Node, dialect: _Dialect) -> exp.Expression:
    match node:
        case And(items):
            return _joined(exp.And, [_condition(item, dialect) for item in items], empty=True)
        case Or(items):
            return _joined(exp.Or, [_condition(item, dialect) for item in items], empty=False)
        case Not(item):
            return exp.Not(this=exp.Paren(this=_condition(item, dialect)))
        case Compare(operator, column, param):
            return _comparison(operator, column, param, dialect)
        case IsNull(column):
            return exp.Is(this=_column(column), expression=exp.Null())
        case Constant(value):
            if value is None:
                return exp.Cast(this=exp.Null(), to=exp.DataType.build("boolean"))
            return exp.Boolean(this=value)
        case _:
            assert_never(node)


def _comparison(operator: Operator, column: PlanColumn, param: int, dialect: _Dialect) -> exp.Expression:
    if operator in (Operator.IN, Operator.NIN):
        slot = ParamSlot(param, column.type, is_array=True)
        return dialect.member(column, slot, negated=operator is Operator.NIN)
    if operator is Operator.LIKE:
        return dialect.like(column, param)
    if operator in _PATTERNS:
        return dialect.pattern(column, param, _PATTERNS[operator])
    left = dialect.column(column)
    return _COMPARISONS[operator](this=left, expression=dialect.value(ParamSlot(param, column.type)))


def _joined(kind: type[exp.And] | type[exp.Or], items: list[exp.Expression], *, empty: bool) -> exp.Expression:
    if not items:
        return exp.Boolean(this=empty)
    joined = exp.Paren(this=items[0]) if len(items) > 1 else items[0]
    for item in items[1:]:
        joined = kind(this=joined, expression=exp.Paren(this=item))
    return joined


def _after(shape: Shape, dialect: _Dialect) -> exp.Expression:
    """Every row behind the cursor's row, in the shape's order."""
    assert shape.after is not None
    indexes: list[int | None] = []
    position = shape.params
    for is_null in shape.after:
        indexes.append(None if is_null else position)
        position += not is_null
    directions = {term.descending for term in shape.order}
    if len(directions) == 1 and not any(term.column.nullable for term in shape.order) and None not in indexes:
        # One comparison of rows: databases walk an index with it.
        left = [dialect.column(term.column) for term in shape.order]
        right = [_placed(term, index, dialect) for term, index in zip(shape.order, indexes, strict=True)]
        kind = exp.LT if directions == {True} else exp.GT
        if len(left) == 1:
            return kind(this=left[0], expression=right[0])
        return kind(this=exp.Tuple(expressions=left), expression=exp.Tuple(expressions=right))
    alternatives = []
    for depth, term in enumerate(shape.order):
        if indexes[depth] is None and not term.descending:
            continue  # nothing stands behind a NULL that comes last
        # Placeholders count in the order in which they are made, so that must be the order of the text.
        ties = [_tied(shape.order[level], indexes[level], dialect) for level in range(depth)]
        behind = _behind(term, indexes[depth], dialect)
        alternatives.append(_joined(exp.And, [*ties, behind], empty=True) if ties else behind)
    return exp.Paren(this=_joined(exp.Or, alternatives, empty=False))


def _behind(term: OrderBy, index: int | None, dialect: _Dialect) -> exp.Expression:
    # Ascending puts NULLs last, descending first.
    if index is None:
        return exp.Not(this=exp.Is(this=_column(term.column), expression=exp.Null()))
    kind = exp.LT if term.descending else exp.GT
    behind: exp.Expression = kind(this=dialect.column(term.column), expression=_placed(term, index, dialect))
    if term.column.nullable and not term.descending:
        is_null = exp.Is(this=_column(term.column), expression=exp.Null())
        behind = exp.Paren(this=exp.Or(this=behind, expression=is_null))
    return behind


def _tied(term: OrderBy, index: int | None, dialect: _Dialect) -> exp.Expression:
    if index is None:
        return exp.Is(this=_column(term.column), expression=exp.Null())
    return exp.EQ(this=dialect.column(term.column), expression=_placed(term, index, dialect))


def _placed(term: OrderBy, index: int | None, dialect: _Dialect) -> exp.Expression:
    assert index is not None
    return dialect.value(ParamSlot(index, term.column.type))


def _ordered(term: OrderBy, dialect: _Dialect) -> exp.Ordered:
    # The generator writes NULLS FIRST or LAST only where the dialect would do otherwise; for a column that is never NULL
    # it is told what the dialect does anyway, so that nothing is written and an index serves.
    nulls_first = term.descending
    if not term.column.nullable and dialect.name == "sqlite":
        nulls_first = not term.descending
    return exp.Ordered(this=dialect.column(term.column), desc=term.descending, nulls_first=nulls_first)


def _column(column: PlanColumn) -> exp.Column:
    return exp.Column(this=_identifier(column.column))


def _identifier(name: str) -> exp.Identifier:
    return exp.Identifier(this=name, quoted=True)
