"""The condition of a cursor holds for exactly the rows behind one, in every order over NULLs and ties.

The condition is evaluated as three-valued logic over small rows, without a database, and compared with the order itself.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest
from sqlglot import exp

from lensway.dialects import keyset
from lensway.dialects.base import Dialect
from lensway.dialects.registry import dialect_of
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.plan import After, OrderBy

VALUES: Final = (None, 1, 2)
A, B = (PlanColumn(name, name, FieldType.INTEGER) for name in ("a", "b"))
KEY: Final = PlanColumn("k", "k", FieldType.INTEGER, nullable=False)
ROWS: Final = [dict(zip("abk", row, strict=True)) for row in itertools.product(VALUES, VALUES, (1, 2, 3))]
ORDERS: Final = [
    tuple(OrderBy(column, down) for column, down in zip((*columns, KEY), downs, strict=True))
    for columns in ((), (A,), (A, B))
    for downs in itertools.product((False, True), repeat=len(columns) + 1)
]


def rank(row: dict[str, Any], order: tuple[OrderBy, ...]) -> tuple[tuple[int, int], ...]:
    """Ascending puts NULLs last, descending first."""
    found = []
    for term in order:
        value = row[term.column.name]
        place = (1, 0) if value is None else (0, value)
        found.append((-place[0], -place[1]) if term.descending else place)
    return tuple(found)


def truth(node: exp.Expression, row: dict[str, Any], params: tuple[object, ...]) -> Any:
    """What SQL makes of this condition: True, False, or None for unknown; or the value of an operand."""
    match node:
        case exp.Paren():
            return truth(node.this, row, params)
        case exp.And() | exp.Or():
            sides = [truth(node.this, row, params), truth(node.expression, row, params)]
            decisive = isinstance(node, exp.Or)
            return decisive if decisive in sides else None if None in sides else not decisive
        case exp.Not():
            inner = truth(node.this, row, params)
            return None if inner is None else not inner
        case exp.Is():
            return truth(node.this, row, params) is None
        case exp.Boolean():
            return node.this
        case exp.Column():
            return row[node.name]
        case exp.Cast():
            return truth(node.this, row, params)
        case exp.Placeholder() | exp.Parameter():
            return params[int(str(node.this)) - 1]
        case exp.EQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE():
            return compared(node, row, params)
    raise AssertionError(f"the evaluator does not know {node!r}")


def compared(node: exp.Binary, row: dict[str, Any], params: tuple[object, ...]) -> bool | None:
    left, right = (
        [truth(each, row, params) for each in (side.expressions if isinstance(side, exp.Tuple) else [side])]
        for side in (node.this, node.expression)
    )
    for one, other in zip(left, right, strict=True):
        if one is None or other is None:
            return None
        if one != other:
            greater = one > other
            return False if isinstance(node, exp.EQ) else greater == isinstance(node, (exp.GT, exp.GTE))
    return isinstance(node, (exp.EQ, exp.GTE, exp.LTE))


def condition(
    order: tuple[OrderBy, ...], last: dict[str, Any], dialect: Dialect
) -> tuple[exp.Expression, tuple[object, ...]]:
    after = tuple(After.NULL if last[term.column.name] is None else After.VALUE for term in order)
    values = [last[term.column.name] for term in order if last[term.column.name] is not None]
    behind = keyset.behind(order, after, 0, dialect)
    if keyset.has_nulls_left(order, after):
        behind = exp.Or(this=exp.Paren(this=behind), expression=exp.Paren(this=keyset.nulls_left(order, dialect)))
    # The dialect counts its placeholders as they are made; each says which of the values it stands for.
    return behind, tuple(values[slot.index] for slot in dialect.params)


@pytest.mark.parametrize(
    "order", ORDERS, ids=lambda order: ",".join(f"{t.column.name}{'-' * t.descending}" for t in order)
)
def test_it_holds_for_exactly_the_rows_behind(order: tuple[OrderBy, ...]) -> None:
    for last in ROWS:
        found, params = condition(order, last, dialect_of("postgres")())
        for row in ROWS:
            expected = rank(row, order) > rank(last, order)
            assert (truth(found, row, params) is True) == expected, (order, last, row)


def text(order: tuple[OrderBy, ...], *after: After) -> str:
    return keyset.behind(order, after, 0, dialect_of("postgres")()).sql("postgres")


def test_neighbours_of_one_direction_are_one_row_comparison() -> None:
    not_null = PlanColumn("a", "a", FieldType.INTEGER, nullable=False)
    assert text((OrderBy(not_null), OrderBy(KEY)), After.VALUE, After.VALUE).startswith("(")
    assert text((OrderBy(not_null), OrderBy(KEY)), After.VALUE, After.VALUE).count(">") == 1
    assert text((OrderBy(A, True), OrderBy(KEY, True)), After.VALUE, After.VALUE).count("<") == 1


def test_mixed_directions_begin_with_a_bound_that_an_index_starts_from() -> None:
    not_null = PlanColumn("a", "a", FieldType.INTEGER, nullable=False)
    found = keyset.behind(
        (OrderBy(not_null), OrderBy(KEY, True)), (After.VALUE, After.VALUE), 0, dialect_of("postgres")()
    )
    assert isinstance(found, exp.And)
    assert isinstance(found.this, exp.GTE)


def test_a_row_id_is_one_more_term() -> None:
    dialect = dialect_of("postgres")()
    row_id = OrderBy(PlanColumn("lensway row id", "ctid", FieldType.INTEGER, nullable=False))
    keyset.behind((OrderBy(KEY), row_id), (After.VALUE, After.VALUE), 4, dialect)
    assert [slot.index for slot in dialect.params] == [4, 5]
