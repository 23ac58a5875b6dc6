"""A checked query as a value: a shape (what is asked, without values) and the values.

A shape is a root table, relations below it, and measures over it. Its bytes are the key under which every compiled statement is
kept, in the service and in the runner: equal shapes have equal bytes. Identifiers in it come from the lens, never from a
caller; values travel beside it and are always bound.

The form has a version, and each part of it that not every program executes has a feature: runners name theirs in the hello.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.cache import BoundedCache
from lensway.query.conditions import Node, columns_of, params_of
from lensway.query.fields import NestedColumn, PlanColumn, TableName
from lensway.query.measures import Measure

VERSION: Final = 2
"""The form of shapes that this program reads and makes."""
ROWS_AND_COUNTS: Final = frozenset({f"plan:{VERSION}"})
"""The features that rows and counts of one table need."""
FEATURES: Final = ROWS_AND_COUNTS
"""The features of plans that this program executes."""
_RELATIONS: Final = f"plan:{VERSION}:relations"
_AGGREGATES: Final = f"plan:{VERSION}:aggregates"


class UnknownPlanError(LenswayError):
    """The plan is sound as far as can be seen, and asks for what this program does not execute: a runner refuses it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            ErrorCode.INVALID_REQUEST,
            f"The plan needs {what}, which this version of Lensway does not support",
            hint="Upgrade Lensway on the machine that executes the source.",
            details={"needs": what},
        )


class OrderBy(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One term of the order."""

    column: PlanColumn
    descending: bool = False


class After(enum.IntEnum):
    """How one value of a cursor stands in the shape."""

    VALUE = 0
    NULL = 1
    ZONED = 2
    """A time of day that says its zone."""
    WHOLE = 3
    """A number or decimal that is an integer of 64 bits: compared as one, which a double may not hold, and by every index."""


class RelationKind(enum.StrEnum):
    """How many rows belong to one row above: a list of them, or at most one."""

    MANY = "many"
    ONE = "one"


class Relation(msgspec.Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of another table that belong to each row above, as a column of that row.

    ``on`` pairs a column of the table above with one of this table. ``limit`` bounds the rows of each list; None is all.
    """

    name: str
    lens: str
    table: TableName
    kind: RelationKind
    on: tuple[tuple[PlanColumn, PlanColumn], ...]
    output: tuple[PlanColumn, ...]
    where: Node | None = None
    order: tuple[OrderBy, ...] = ()
    limit: int | None = None
    relations: tuple[Relation, ...] = ()

    @property
    def column(self) -> NestedColumn:
        """The column that holds its rows."""
        columns: tuple[PlanColumn | NestedColumn, ...] = (*self.output, *(each.column for each in self.relations))
        return NestedColumn(self.name, columns, is_list=self.kind is RelationKind.MANY)


class Shape(msgspec.Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What is asked, without values.

    Without ``measures`` it asks for rows with the columns of ``output``; with them for one row for each group of rows that are
    equal in ``output``, or for all rows together where that is empty. ``having`` and ``order`` then speak of those columns and
    of the results of measures.

    ``order`` ends with the primary key, so that it is total; ``keys`` are its columns when the lens has a primary key, and then
    the end of a result says their values in the last row. ``after`` is set when the page starts behind a cursor, one entry for
    each term of the order, and one more where the cursor says a row id; the values that are not NULL are the last params.
    ``params`` counts those of every condition.
    """

    version: int = VERSION
    lens: str
    table: TableName
    output: tuple[PlanColumn, ...] = ()
    measures: tuple[Measure, ...] = ()
    relations: tuple[Relation, ...] = ()
    keys: tuple[PlanColumn, ...] = ()
    where: Node | None = None
    having: Node | None = None
    order: tuple[OrderBy, ...] = ()
    after: tuple[After, ...] | None = None
    has_limit: bool = False
    has_offset: bool = False
    with_total: bool = False
    params: int = 0

    def tables(self) -> tuple[TableName, ...]:
        """Every table that the plan reads, in every position: the root's first, each once."""
        return self._tables

    @functools.cached_property
    def _tables(self) -> tuple[TableName, ...]:
        found = {self.table: None}
        pending = list(self.relations)
        while pending:
            relation = pending.pop(0)
            found[relation.table] = None
            pending += relation.relations
        return tuple(found)

    def columns(self) -> tuple[tuple[TableName, str], ...]:
        """Every column that the plan uses, with its table: shown, compared, ordered, joined or measured; each once."""
        return self._columns

    @functools.cached_property
    def _columns(self) -> tuple[tuple[TableName, str], ...]:
        # `having` and `order` of groups speak of results too, which are columns of no table.
        results = {each.result for each in self.measures if each.is_sound()} - set(self.output)
        used = [*self.output, *self.keys, *columns_of(self.where)]
        used += [each.column for each in self.measures if each.column is not None]
        used += [term.column for term in self.order if term.column not in results]
        used += [column for column in columns_of(self.having) if column not in results]
        found = dict.fromkeys((self.table, column.column) for column in used)
        pending = [(self.table, relation) for relation in self.relations]
        while pending:
            above, relation = pending.pop(0)
            for local, foreign in relation.on:
                found[above, local.column] = found[relation.table, foreign.column] = None
            below = [*relation.output, *columns_of(relation.where), *(term.column for term in relation.order)]
            found.update(dict.fromkeys((relation.table, column.column) for column in below))
            pending += [(relation.table, each) for each in relation.relations]
        return tuple(found)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell statements apart and hold no value: equal for equal shapes, on every machine."""
        return hashlib.blake2b(_ENCODER.encode(self), digest_size=8).hexdigest()

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """The features that a program must have to execute this."""
        needs = {*ROWS_AND_COUNTS}
        if self.relations:
            needs.add(_RELATIONS)
        is_plain = not self.measures or (len(self.measures) == 1 and self.measures[0].counts_rows)
        if not is_plain or self.having is not None or (self.measures and (self.output or self.order or self.has_limit)):
            needs.add(_AGGREGATES)
        return frozenset(needs)

    def require_executed(self) -> None:
        """Refuse what this program does not execute, before anything is compiled. Raises UnknownPlanError."""
        if not self.needs <= FEATURES:
            raise UnknownPlanError(" and ".join(sorted(self.needs - FEATURES)))


class Plan(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """A shape as bytes, the values, and the page. ``limit`` None is every row."""

    shape: bytes
    params: tuple[object, ...] = ()
    limit: int | None = None
    offset: int | None = None

    def encode(self) -> bytes:
        """The plan on the wire.

        Raises:
            LenswayError: PAYLOAD_TOO_LARGE when it does not fit into one offer.
        """
        encoded = _ENCODER.encode(self)
        if len(encoded) > limits.PLAN_BYTES_MAX:
            raise LenswayError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"the query is {len(encoded):,} bytes as a plan; {limits.PLAN_BYTES_MAX:,} is the limit",
                hint="use fewer or shorter values in `where`",
            )
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """The plan of these bytes, which this program executes. Raises LenswayError as `read`, and UnknownPlanError."""
        plan, shape = cls.read(data)
        shape.require_executed()
        return plan

    @classmethod
    def read(cls, data: bytes) -> tuple[Plan, Shape]:
        """The plan of these bytes and its shape, whether or not this program executes it. The shape is sound and the values are
        as many as that asks for; their types are checked when they are bound.

        Raises:
            LenswayError: INVALID_REQUEST for anything else.
            UnknownPlanError: for a version, or a part of a plan, that this program does not know.
        """
        if len(data) > limits.PLAN_BYTES_MAX:
            raise _malformed()
        try:
            plan = _PLANS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            raise _malformed() from None
        shape = decode_shape(plan.shape)
        behind = sum(each is not After.NULL for each in shape.after or ())
        if (
            len(plan.params) != shape.params + behind
            or not _is_page(plan.limit, given=shape.has_limit)
            or not _is_page(plan.offset, given=shape.has_offset)
        ):
            raise _malformed()
        return plan, shape


def encode_shape(shape: Shape) -> bytes:
    """The shape as bytes: equal shapes give equal bytes."""
    return _ENCODER.encode(shape)


def decode_shape(data: bytes) -> Shape:
    """The shape of these bytes, kept. Raises LenswayError as `Plan.read`."""
    shape = _kept.get(data)
    if shape is None:
        shape = _decode(data)
        _kept.put(data, shape, len(data))
    return shape


def _decode(data: bytes) -> Shape:
    try:
        version = _HEADS.decode(data).version
        if version != VERSION:
            raise UnknownPlanError(f"plan:{version}")
        try:
            shape = _SHAPES.decode(data)
        except msgspec.ValidationError:
            # Well-formed, but with a part that only a newer planner can have written.
            raise UnknownPlanError("a part of a plan that is not known") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise _malformed() from None
    # Another spelling of the same shape would be compiled and kept beside it.
    if not _is_sound(shape) or _ENCODER.encode(shape) != data:
        raise _malformed()
    return shape


def _is_page(value: int | None, *, given: bool) -> bool:
    # One more than the limit is asked of the database, and that must be an integer of 64 bits too.
    return value is None if not given else value is not None and 0 <= value < 2**62


def _is_sound(shape: Shape) -> bool:
    """Whether a shape from elsewhere is one that a planner could have made, as far as statements depend on it."""
    relations = _below(shape)
    if relations is None or not _is_named(shape.table) or (shape.has_offset and not shape.has_limit):
        return False
    is_whole = _is_aggregate(shape) if shape.measures else _are_rows(shape)
    if not is_whole or not all(term.column.has_order for term in shape.order):
        return False
    # Every value is used once, so that none is sent for nothing and none is missing.
    params = params_of((shape.where, shape.having, *(each.where for each in relations)))
    return params is not None and sorted(params) == list(range(shape.params))


def _are_rows(shape: Shape) -> bool:
    if not shape.output or shape.having is not None or not _are_names(_names(shape.output, shape.relations)):
        return False
    if shape.after is not None and (not shape.order or not _is_behind(shape.after, len(shape.order))):
        return False
    return not shape.keys or shape.keys == tuple(term.column for term in shape.order)


def _is_aggregate(shape: Shape) -> bool:
    results = (*shape.output, *(each.result for each in shape.measures if each.is_sound()))
    return (
        len(results) == len(shape.output) + len(shape.measures)
        and len(shape.measures) <= limits.MEASURES_MAX
        and all(column.has_order for column in shape.output)
        and _are_names([column.name for column in results])
        and not (shape.relations or shape.keys or shape.with_total or shape.after is not None)
        and all(term.column in results for term in shape.order)
        and all(column in results for column in columns_of(shape.having))
    )


def _below(shape: Shape) -> Sequence[Relation] | None:
    """Every relation at any depth; None when one of them is unsound, or they are too many or too deep."""
    found: list[Relation] = []
    pending = [(each, 1) for each in shape.relations]
    while pending:
        relation, depth = pending.pop()
        found.append(relation)
        if depth > limits.RELATIONS_DEPTH_MAX or len(found) > limits.RELATIONS_MAX or not _is_relation(relation):
            return None
        pending += [(each, depth + 1) for each in relation.relations]
    return found


def _is_relation(relation: Relation) -> bool:
    return (
        bool(relation.on and relation.output)
        and _is_named(relation.table)
        and _are_names(_names(relation.output, relation.relations))
        and all(local.has_order and foreign.has_order for local, foreign in relation.on)
        and all(term.column.has_order for term in relation.order)
        and (relation.limit is None or 0 < relation.limit <= limits.ROWS_PER_PAGE_MAX)
    )


def _names(output: Sequence[PlanColumn], relations: Sequence[Relation]) -> list[str]:
    return [*(column.name for column in output), *(each.name for each in relations)]


def _are_names(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def _is_named(table: TableName) -> bool:
    return bool(table.name) and table.schema != ""


def _is_behind(after: tuple[After, ...], terms: int) -> bool:
    return len(after) == terms or (len(after) == terms + 1 and after[-1] is After.VALUE)


def _malformed() -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, "the plan is malformed")


class _Head(msgspec.Struct, array_like=True):
    version: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_PLANS: Final = msgspec.msgpack.Decoder(Plan)
_HEADS: Final = msgspec.msgpack.Decoder(_Head)
_SHAPES: Final = msgspec.msgpack.Decoder(Shape)
_kept: Final[BoundedCache[bytes, Shape]] = BoundedCache(
    entries_max=limits.COMPILED_PLANS_MAX, bytes_max=limits.COMPILED_SHAPES_BYTES_MAX
)
