"""A checked query as a value: a shape (what is asked, without values) and the values.

The shape's bytes are the key under which every compiled statement is kept, in the service and in the runner. Identifiers in it
come from the lens, never from a caller; values travel beside it and are always bound.
"""

from __future__ import annotations

import enum
import functools
from typing import Final, TypeAlias

import msgspec

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType


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


class PlanColumn(msgspec.Struct, frozen=True, array_like=True):
    """One column as the plan uses it: ``name`` is the field's, ``column`` the table's."""

    name: str
    column: str
    type: FieldType
    is_list: bool = False
    nullable: bool = True

    @classmethod
    def of(cls, field: Field) -> PlanColumn:
        """The column behind a field. Key columns are never NULL: databases do not let them be."""
        return cls(field.name, field.column, field.type, field.is_list, field.nullable and not field.primary_key)


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
    """A column against the value at index ``param``."""

    operator: Operator
    column: PlanColumn
    param: int


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


class OrderBy(msgspec.Struct, frozen=True, array_like=True):
    """One term of the order."""

    column: PlanColumn
    descending: bool = False


class Shape(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is asked, without values.

    ``order`` ends with the primary key, so that it is total; ``keys`` are its columns when the lens has a primary key, and then
    the end of a result says their values in the last row. ``after`` is set when the page starts behind a cursor: True where the
    cursor's value is NULL; the other values are the last params. ``params`` counts those of ``where``.
    """

    kind: PlanKind
    lens: str
    schema: str | None
    table: str
    output: tuple[PlanColumn, ...]
    keys: tuple[PlanColumn, ...] = ()
    where: Node | None = None
    order: tuple[OrderBy, ...] = ()
    after: tuple[bool, ...] | None = None
    has_limit: bool = False
    has_offset: bool = False
    with_total: bool = False
    params: int = 0


class Plan(msgspec.Struct, frozen=True, array_like=True):
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
                f"the query is {len(encoded)} bytes as a plan; {limits.PLAN_BYTES_MAX} is the limit",
                hint="use fewer or shorter values in `where`",
            )
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """The plan of these bytes. Raises LenswayError INVALID_REQUEST for anything else."""
        if len(data) > limits.PLAN_BYTES_MAX:
            raise _malformed()
        try:
            return _PLANS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            raise _malformed() from None


def encode_shape(shape: Shape) -> bytes:
    """The shape as bytes: equal shapes give equal bytes."""
    return _ENCODER.encode(shape)


@functools.lru_cache(maxsize=limits.COMPILED_PLANS_MAX)
def decode_shape(data: bytes) -> Shape:
    """The shape of these bytes, kept. Raises LenswayError INVALID_REQUEST for anything else."""
    try:
        shape = _SHAPES.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise _malformed() from None
    if not shape.output and shape.kind is PlanKind.ROWS:
        raise _malformed()
    if shape.after is not None and len(shape.after) != len(shape.order):
        raise _malformed()
    return shape


def _malformed() -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, "the plan is malformed")


_ENCODER: Final = msgspec.msgpack.Encoder()
_PLANS: Final = msgspec.msgpack.Decoder(Plan)
_SHAPES: Final = msgspec.msgpack.Decoder(Shape)
