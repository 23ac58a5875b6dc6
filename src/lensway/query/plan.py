"""A checked query as a value: a shape (what is asked, without values) and the values.

The shape's bytes are the key under which every compiled statement is kept, in the service and in the runner. Identifiers in it
come from the lens, never from a caller; values travel beside it and are always bound.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeAlias, assert_never

import msgspec

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.cache import BoundedCache
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.table_names import written


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


class And(msgspec.Struct, frozen=True, array_like=True, tag="and"):
    """Every item holds."""

    items: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True, array_like=True, tag="or"):
    """Some item holds."""

    items: tuple[Node, ...]


class Not(msgspec.Struct, frozen=True, array_like=True, tag="not"):
    """The item does not hold; unknown stays unknown."""

    item: Node


class Compare(msgspec.Struct, frozen=True, array_like=True, tag="compare"):
    """A column against the value at index ``param``: a list of values for IN and NIN.

    ``zoned`` is set when the value is a time of day that says its zone, which some databases compare as another type.
    ``bound_as`` is the type of a number that is not bound as the column's type, because that would round it.
    """

    operator: Operator
    column: PlanColumn
    param: int
    zoned: bool = False
    bound_as: FieldType | None = None


class IsNull(msgspec.Struct, frozen=True, array_like=True, tag="null"):
    """The column is NULL."""

    column: PlanColumn


class Constant(msgspec.Struct, frozen=True, array_like=True, tag="constant"):
    """True, False, or None for unknown."""

    value: bool | None


Node: TypeAlias = And | Or | Not | Compare | IsNull | Constant


class PlanKind(enum.StrEnum):
    """What comes back."""

    ROWS = "rows"
    COUNT = "count"


class OrderBy(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


class Shape(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is asked, without values.

    ``order`` ends with the primary key, so that it is total; ``keys`` are its columns when the lens has a primary key, and then
    the end of a result says their values in the last row. ``after`` is set when the page starts behind a cursor, one entry for
    each term of the order, and one more where the cursor says a row id; the values that are not NULL are the last params.
    ``params`` counts those of ``where``.
    """

    kind: PlanKind
    lens: str
    schema: str | None
    table: str
    output: tuple[PlanColumn, ...]
    keys: tuple[PlanColumn, ...] = ()
    where: Node | None = None
    order: tuple[OrderBy, ...] = ()
    after: tuple[After, ...] | None = None
    has_limit: bool = False
    has_offset: bool = False
    with_total: bool = False
    params: int = 0

    @property
    def full_table(self) -> str:
        """``schema.table``, or ``table`` where no schema is said, as a lens declares it."""
        return written(self.schema, self.table) if self.schema else written(self.table)


class Plan(msgspec.Struct, frozen=True, array_like=True, gc=False):
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
        """The plan of these bytes; its shape is sound and its values are as many as that asks for. Their types are checked
        when they are bound. Raises LenswayError INVALID_REQUEST for anything else."""
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
        return plan


def encode_shape(shape: Shape) -> bytes:
    """The shape as bytes: equal shapes give equal bytes."""
    return _ENCODER.encode(shape)


def decode_shape(data: bytes) -> Shape:
    """The shape of these bytes, kept. Raises LenswayError INVALID_REQUEST for anything else."""
    shape = _kept.get(data)
    if shape is None:
        try:
            shape = _SHAPES.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            raise _malformed() from None
        if not _is_sound(shape):
            raise _malformed()
        _kept.put(data, shape, len(data))
    return shape


def _is_page(value: int | None, *, given: bool) -> bool:
    # One more than the limit is asked of the database, and that must be an integer of 64 bits too.
    return value is None if not given else value is not None and 0 <= value < 2**62


def _is_sound(shape: Shape) -> bool:
    """Whether a shape from elsewhere is one that the planner could have made, as far as statements depend on it."""
    if not shape.output or (shape.has_offset and not shape.has_limit):
        return False
    if shape.after is not None and (not shape.order or not _is_behind(shape.after, len(shape.order))):
        return False
    if shape.keys and shape.keys != tuple(term.column for term in shape.order):
        return False
    if not all(_is_ordered(term.column) for term in shape.order):
        return False
    seen: list[int] = []
    pending: list[tuple[Node, int]] = [(shape.where, 1)] if shape.where is not None else []
    nodes = 0
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if depth > limits.PLAN_DEPTH_MAX or nodes > limits.PLAN_NODES_MAX:
            return False
        match node:
            case And(items) | Or(items):
                pending.extend((item, depth + 1) for item in items)
            case Not(item):
                pending.append((item, depth + 1))
            case Compare(operator, column, param):
                if not _is_comparison(operator, column, node.bound_as):
                    return False
                seen.append(param)
            case IsNull() | Constant():
                pass
            case _:
                assert_never(node)
    # Every value is used once, so that none is sent for nothing and none is missing.
    return sorted(seen) == list(range(shape.params))


def _is_behind(after: tuple[After, ...], terms: int) -> bool:
    return len(after) == terms or (len(after) == terms + 1 and after[-1] is After.VALUE)


_BOUND_AS: Final[Mapping[FieldType, tuple[FieldType, ...]]] = {
    FieldType.NUMBER: (FieldType.INTEGER, FieldType.DECIMAL),
    FieldType.DECIMAL: (FieldType.INTEGER,),
}


def _is_comparison(operator: Operator, column: PlanColumn, bound_as: FieldType | None) -> bool:
    if not _is_ordered(column) or (operator in PATTERN_OPERATORS and column.type is not FieldType.TEXT):
        return False
    return bound_as is None or bound_as in _BOUND_AS.get(column.type, ())


def _is_ordered(column: PlanColumn) -> bool:
    return column.type is not FieldType.JSON and not column.is_list


def _malformed() -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, "the plan is malformed")


_ENCODER: Final = msgspec.msgpack.Encoder()
_PLANS: Final = msgspec.msgpack.Decoder(Plan)
_SHAPES: Final = msgspec.msgpack.Decoder(Shape)
_kept: Final[BoundedCache[bytes, Shape]] = BoundedCache(
    entries_max=limits.COMPILED_PLANS_MAX, bytes_max=limits.COMPILED_SHAPES_BYTES_MAX
)
