"""What every dialect of SQL answers, and what they share. One instance compiles one statement and collects its placeholders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from sqlglot import exp

from lensway.query.fields import FieldType, PlanColumn
from lensway.query.ordering import ComparedAs
from lensway.query.patterns import Transform

TABLE_ALIAS: Final = "lensway_t"
"""No name that a column has: PostgreSQL would take a column that does not exist for the whole row."""
TERMS_MAX: Final = 64
"""Terms joined in one pair of parentheses; SQLite refuses a chain of a thousand."""


class ParamSlot(msgspec.Struct, frozen=True):
    """One placeholder: the value at ``index`` of the plan's params, or the page's limit or offset.

    ``type`` is that of the value, ``of`` that of the column it is compared with, which may be another one for numbers.
    """

    index: int
    type: FieldType
    is_array: bool = False
    transform: Transform = Transform.NONE
    zoned: bool = False
    of: FieldType | None = None


class Dialect(Protocol):
    """One dialect while it compiles one statement."""

    name: str
    params: list[ParamSlot]
    compared_as: Mapping[str, ComparedAs]
    """The columns, by their names in the table, that the catalog says not to compare as they are."""

    def shown(self, column: PlanColumn) -> exp.Expression:
        """The column as it is selected and tested for NULL."""

    def row(self, columns: Sequence[PlanColumn], keys: Sequence[PlanColumn]) -> list[exp.Expression]:
        """The columns as they are selected together: each as it is shown, under its name. ``keys`` are those whose values the
        next page begins behind."""

    def compared(self, column: PlanColumn) -> exp.Expression:
        """The column as it is compared."""

    def ordered(self, column: PlanColumn, *, descending: bool) -> exp.Ordered:
        """The column as a term of the order: NULLs last when ascending, first when descending."""

    def value(self, slot: ParamSlot) -> exp.Expression:
        """The placeholder for a value that a column is compared with."""

    def comparison(self, kind: Callable[..., exp.Expression], column: PlanColumn, slot: ParamSlot) -> exp.Expression:
        """The column compared with a value, in a filter."""

    def guarded(self, column: PlanColumn, condition: exp.Expression, *, is_negated: bool) -> exp.Expression:
        """A condition on the column, in a filter, which holds for no value that is not of the column's type.

        ``is_negated`` says that a `Not` stands around it: then it must be unknown for such a value, not false.
        """

    def member(self, column: PlanColumn, slot: ParamSlot, *, negated: bool) -> exp.Expression:
        """Membership in a list that is one value."""

    @staticmethod
    def takes(value: object) -> bool:
        """False for a value that no column of such a database can hold, so that no cursor of its pages has one."""

    @staticmethod
    def bound(value: str, slot: ParamSlot) -> object:
        """A text as a driver takes it for the placeholder of `value`."""

    @staticmethod
    def bound_list(items: Sequence[object], slot: ParamSlot) -> object:
        """A list as a driver takes it for the placeholder of `member`."""

    def like(self, column: PlanColumn, index: int) -> exp.Expression:
        """LIKE that minds case."""

    def pattern(self, column: PlanColumn, index: int, transform: Transform) -> exp.Expression:
        """LIKE that does not."""


def is_null(expression: exp.Expression) -> exp.Expression:
    """The test for NULL."""
    return exp.Is(this=expression, expression=exp.Null())


def identifier(name: str) -> exp.Identifier:
    """The name as an identifier; the generator quotes it."""
    return exp.Identifier(this=name, quoted=True)


def is_not_null(expression: exp.Expression) -> exp.Expression:
    """The test for anything but NULL."""
    return exp.Not(this=is_null(expression))


def total(terms: Sequence[exp.Expression]) -> exp.Expression:
    """The sum, nested so that no chain is longer than `TERMS_MAX`."""
    while len(terms) > TERMS_MAX:
        terms = [exp.Paren(this=total(terms[at : at + TERMS_MAX])) for at in range(0, len(terms), TERMS_MAX)]
    return functools.reduce(lambda left, right: exp.Add(this=left, expression=right), terms)


def named(expression: exp.Expression, column: PlanColumn) -> exp.Expression:
    """The expression under the name of the column's field."""
    return exp.Alias(this=expression, alias=identifier(column.name))


def column_of(column: PlanColumn, *, qualified: bool = False) -> exp.Column:
    """The column itself."""
    return exp.Column(this=identifier(column.column), table=identifier(TABLE_ALIAS) if qualified else None)
