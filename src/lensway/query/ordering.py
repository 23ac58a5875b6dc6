"""Whether an order is total, judged by what a database's catalog says of the table, and what a statement does where it is not.

A cursor is right only if no two rows are equal in every term of its order, and if NULLs stand where the condition expects
them. A lens declares its primary key; the catalog knows whether that is one. Where it is not, the order ends with the table's
row id, if it has one. Otherwise each row says its rank in the order, and a page whose boundary falls between two rows of one
rank is refused.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from lensway.query.conditions import columns_of
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.plan import OrderBy, Shape


class Comparison(enum.Enum):
    """How a column of texts is compared, where not as it is."""

    AS_BASE = "as_base"
    """As the base type of its domain."""
    WITH_TEXT = "with_text"
    """With values that stay texts."""


class ComparedAs(msgspec.Struct, frozen=True):
    """A column that is not compared as it is."""

    column: str
    comparison: Comparison


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog guarantees of one table; the default is nothing at all, as of a view.

    ``not_null`` are columns without NULLs. No two rows share the values of all columns of a set in ``unique``, as long as the
    lens declares each of them as one of ``unique_types`` (None: any type). ``row_id`` names a column that differs in every row.
    ``compared_as`` are the columns that cannot be compared as they are.
    """

    not_null: frozenset[str] = frozenset()
    unique: tuple[frozenset[str], ...] = ()
    unique_types: frozenset[FieldType] | None = None
    row_id: str | None = None
    compared_as: tuple[ComparedAs, ...] = ()


class Ordering(msgspec.Struct, frozen=True):
    """How a statement makes pages safe. ``nullable`` says of each term whether it may be NULL; None: as the lens declares.

    ``compared_as`` are the columns of the statement that are not compared as they are.
    """

    nullable: tuple[bool, ...] | None = None
    row_id: str | None = None
    is_ranked: bool = False
    compared_as: tuple[ComparedAs, ...] = ()

    def terms(self, order: tuple[OrderBy, ...]) -> tuple[OrderBy, ...]:
        """The terms of the order with facts about NULLs, followed by the row id."""
        if self.nullable is not None:
            order = tuple(known(term, nullable=is_null) for term, is_null in zip(order, self.nullable, strict=True))
        if self.row_id is None:
            return order
        # In the direction of the last term: one walk along an index, whose entries end with the row id.
        return (*order, OrderBy(row_id_column(self.row_id), bool(order) and order[-1].descending))


DECLARED: Final = Ordering()
"""The lens is right: its primary key is unique, and no column holds a NULL that may hold none."""

_TIE: Final = "lensway row id"
_RANK: Final = "lensway rank"


def row_id_column(name: str) -> PlanColumn:
    """The column of this name as the last term of an order. No field can have its name."""
    return PlanColumn(_TIE, name, FieldType.INTEGER, nullable=False)


RANK_COLUMN: Final = PlanColumn(_RANK, _RANK, FieldType.INTEGER, nullable=False)
"""The rank of a row among those of its statement: equal rows have the same one."""


def known(term: OrderBy, *, nullable: bool) -> OrderBy:
    """The term, with the facts about its NULLs."""
    column = term.column
    if column.nullable == nullable:
        return term
    return OrderBy(msgspec.structs.replace(column, nullable=nullable), term.descending)


def assumed(shape: Shape) -> Ordering:
    """The ordering that a cursor of this shape tells of, for who does not look into the catalog."""
    has_row_id = shape.after is not None and len(shape.after) > len(shape.order)
    return Ordering(row_id="rowid") if has_row_id else DECLARED


def has_unique_key(shape: Shape, facts: TableFacts) -> bool:
    """Whether no two rows of the table are equal in all terms of this order."""
    types = facts.unique_types
    counted = {term.column.column for term in shape.order if types is None or term.column.type in types}
    return any(unique <= counted for unique in facts.unique)


def judge(shape: Shape, facts: TableFacts) -> Ordering:
    """How pages of this shape are made safe on a table of which this is known."""
    columns = [term.column for term in shape.order]
    is_total = not (shape.keys and shape.has_limit) or has_unique_key(shape, facts)
    is_declared = all(column.nullable or column.column in facts.not_null for column in columns)
    compared_as = _compared_as(shape, facts) if facts.compared_as else ()
    if is_total and is_declared:
        return Ordering(compared_as=compared_as) if compared_as else DECLARED
    return Ordering(
        nullable=tuple(column.column not in facts.not_null for column in columns),
        row_id=None if is_total else facts.row_id,
        is_ranked=not is_total and facts.row_id is None,
        compared_as=compared_as,
    )


def compares_text(shape: Shape) -> bool:
    """Whether the filter compares fields that are texts: only those may have columns that need a cast."""
    return any(column.type is FieldType.TEXT for column in columns_of(shape.where))


def _compared_as(shape: Shape, facts: TableFacts) -> tuple[ComparedAs, ...]:
    compared = (*columns_of(shape.where), *(term.column for term in shape.order))
    texts = {column.column for column in compared if column.type is FieldType.TEXT}
    return tuple(each for each in facts.compared_as if each.column in texts)
