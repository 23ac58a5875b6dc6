"""Conditions of a plan: a tree of comparisons of columns with the values at places among the params. Values only."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, assert_never

import msgspec

from lensway import limits
from lensway.query.fields import FieldType, PlanColumn


class Operator(enum.StrEnum):
    """The comparisons that a plan can hold; the value is the caller's word without its dollar sign."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    LIKE = "like"
    ILIKE = "ilike"
    CONTAINS = "contains"
    STARTS_WITH = "startsWith"
    ENDS_WITH = "endsWith"


PATTERN_OPERATORS: Final = frozenset(
    {Operator.LIKE, Operator.ILIKE, Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH}
)
"""The comparisons with a pattern; only text has them."""


class And(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="and"):
    """Every item holds."""

    items: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="or"):
    """Some item holds."""

    items: tuple[Node, ...]


class Not(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="not"):
    """The item does not hold; unknown stays unknown."""

    item: Node


class Compare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="compare"):
    """A column against the value at index ``param``: a list of values for IN and NIN.

    ``zoned`` is set when the value is a time of day that says its zone, which some databases compare as another type.
    ``bound_as`` is the type of a number that is not bound as the column's type, because that would round it.
    """

    operator: Operator
    column: PlanColumn
    param: int
    zoned: bool = False
    bound_as: FieldType | None = None


class IsNull(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="null"):
    """The column is NULL."""

    column: PlanColumn


class Constant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="constant"):
    """True, False, or None for unknown."""

    value: bool | None


Node: TypeAlias = And | Or | Not | Compare | IsNull | Constant


def params_of(conditions: Iterable[Node | None]) -> list[int] | None:
    """The places of all values in these trees; None where a planner could not have made one of them, or they are too large."""
    seen: list[int] = []
    pending: list[tuple[Node, int]] = [(each, 1) for each in conditions if each is not None]
    nodes = 0
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if depth > limits.PLAN_DEPTH_MAX or nodes > limits.PLAN_NODES_MAX:
            return None
        match node:
            case And(items) | Or(items):
                pending.extend((item, depth + 1) for item in items)
            case Not(item):
                pending.append((item, depth + 1))
            case Compare(operator, column, param):
                if not _is_comparison(operator, column, node.bound_as):
                    return None
                seen.append(param)
            case IsNull() | Constant():
                pass
            case _:
                assert_never(node)
    return seen


def columns_of(condition: Node | None) -> Iterable[PlanColumn]:
    """Every column that a tree speaks of."""
    pending = [] if condition is None else [condition]
    while pending:
        match pending.pop():
            case And(items) | Or(items):
                pending.extend(items)
            case Not(item):
                pending.append(item)
            case Compare(_, column) | IsNull(column):
                yield column
            case Constant():
                pass


_BOUND_AS: Final[Mapping[FieldType, tuple[FieldType, ...]]] = {
    FieldType.NUMBER: (FieldType.INTEGER, FieldType.DECIMAL),
    FieldType.DECIMAL: (FieldType.INTEGER,),
}


def _is_comparison(operator: Operator, column: PlanColumn, bound_as: FieldType | None) -> bool:
    if not column.has_order or (operator in PATTERN_OPERATORS and column.type is not FieldType.TEXT):
        return False
    return bound_as is None or bound_as in _BOUND_AS.get(column.type, ())
