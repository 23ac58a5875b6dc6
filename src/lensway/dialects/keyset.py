"""The condition of a cursor: every row behind a given one, in an order with NULLs and mixed directions.

Neighbouring terms of one direction are compared as one row, ``(a, b) > (x, y)``, which databases serve by walking an index. That
is right as long as a NULL on the left may make the comparison unknown: never for columns without NULLs, and always when
descending, because NULLs come first there and so are never behind a value. The groups then nest:

    first behind OR (first tied AND (second behind OR (second tied AND ...)))

and where there is more than one, ``first not before AND`` stands in front, which says nothing new but gives an index its start.

Where the first term ascends and may be NULL, an OR for its NULLs would take that start away. They stand behind every value, so a
statement of their own reads them, once the first one has found less than a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sqlglot import exp

from lensway.dialects.base import Dialect, ParamSlot, is_null
from lensway.query.fields import FieldType
from lensway.query.ordering import known
from lensway.query.plan import After, OrderBy

_Term: TypeAlias = tuple[OrderBy, After, int]
"""A term of the order, how its value stands, and the index of that value among the params."""


def has_nulls_left(order: Sequence[OrderBy], after: Sequence[After]) -> bool:
    """Whether `behind` leaves the rows out whose first term is NULL, all of which stand behind the cursor's row."""
    return order[0].column.nullable and not order[0].descending and after[0] is not After.NULL


def nulls_left(order: Sequence[OrderBy], dialect: Dialect) -> exp.Expression:
    """The rows that `behind` leaves out."""
    return is_null(dialect.shown(order[0].column))


def behind(order: Sequence[OrderBy], after: Sequence[After], first_param: int, dialect: Dialect) -> exp.Expression:
    """Every row behind the cursor's row, but those that `has_nulls_left` tells of."""
    if has_nulls_left(order, after):
        order = (known(order[0], nullable=False), *order[1:])
    terms: list[_Term] = []
    index = first_param
    for term, stands in zip(order, after, strict=True):
        terms.append((term, stands, index))
        index += stands is not After.NULL
    groups: list[list[_Term]] = []
    for each in terms:
        if groups and _is_row(groups[-1][-1]) and _is_row(each) and groups[-1][-1][0].descending == each[0].descending:
            groups[-1].append(each)
        else:
            groups.append([each])
    if len(groups) > 1 and _is_row(groups[0][0]):
        start = _compared(groups[0][:1], dialect, or_equal=True)
        return exp.And(this=start, expression=exp.Paren(this=_behind(groups, dialect)))
    return _behind(groups, dialect)


def _is_row(term: _Term) -> bool:
    order, after, _ = term
    return after is not After.NULL and (order.descending or not order.column.nullable)


def _behind(groups: list[list[_Term]], dialect: Dialect) -> exp.Expression:
    # Placeholders may count in the order in which they are made, so that is the order of the text.
    first, rest = groups[0], groups[1:]
    strictly = _strictly(first, dialect)
    if not rest:
        return exp.false() if strictly is None else strictly
    tied = exp.and_(*(_tied(term, dialect) for term in first), copy=False, wrap=False)
    later = exp.And(this=tied, expression=exp.Paren(this=_behind(rest, dialect)))
    return later if strictly is None else exp.Or(this=exp.Paren(this=strictly), expression=exp.Paren(this=later))


def _strictly(group: list[_Term], dialect: Dialect) -> exp.Expression | None:
    """Behind by this group alone; None when nothing is."""
    order, after, _ = group[0]
    column = dialect.shown(order.column)
    if after is After.NULL:
        # Nothing stands behind a NULL that comes last; every value stands behind one that comes first.
        return exp.Not(this=is_null(column)) if order.descending else None
    compared = _compared(group, dialect, or_equal=False)
    return compared if _is_row(group[0]) else exp.Or(this=compared, expression=is_null(column))


def _compared(group: list[_Term], dialect: Dialect, *, or_equal: bool) -> exp.Expression:
    columns = [dialect.compared(order.column) for order, _, _ in group]
    values = [_value(term, dialect) for term in group]
    kind: type[exp.Binary]
    if group[0][0].descending:
        kind = exp.LTE if or_equal else exp.LT
    else:
        kind = exp.GTE if or_equal else exp.GT
    if len(group) == 1:
        return kind(this=columns[0], expression=values[0])
    return kind(this=exp.Tuple(expressions=columns), expression=exp.Tuple(expressions=values))


def _tied(term: _Term, dialect: Dialect) -> exp.Expression:
    order, after, _ = term
    if after is After.NULL:
        return is_null(dialect.shown(order.column))
    return exp.EQ(this=dialect.compared(order.column), expression=_value(term, dialect))


def _value(term: _Term, dialect: Dialect) -> exp.Expression:
    order, after, index = term
    type = FieldType.INTEGER if after is After.WHOLE else order.column.type
    return dialect.value(ParamSlot(index, type, zoned=after is After.ZONED, of=order.column.type))
