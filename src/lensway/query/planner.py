"""From a request on a lens to a plan: names are looked up, values are checked, the order is made total."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from lensway import limits
from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.errors import ErrorCode, LenswayError
from lensway.query import cursor as cursors
from lensway.query import values
from lensway.query import where as wheres
from lensway.query.capabilities import Capabilities
from lensway.query.conditions import Constant
from lensway.query.fields import Field, FieldType, LensDefinition, PlanColumn
from lensway.query.measures import COUNT_OF_ROWS
from lensway.query.order_terms import order_term
from lensway.query.plan import After, OrderBy, Plan, Shape, encode_shape
from lensway.query.result import ResultEnd, unbelievable

_AROUND_BYTES: Final = 32
"""More than anything in a plan takes beside its value: lengths, the limit and the offset."""
_SMALL: Final[Mapping[type, int]] = {int: 9, float: 9, bool: 1, type(None): 1}
"""Bytes of values in MessagePack."""
_COUNT: Final = (COUNT_OF_ROWS,)
_INTEGER: Final = re.compile(r"-?\d{1,19}", re.ASCII)
"""How databases write an integer that may have 64 bits."""
_DOUBLE_INTEGERS_MAX: Final = 2**53
"""From here on several integers are the same double."""


class PlannedRows(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A plan, and what its next cursor will be bound to (None: the lens has no primary key)."""

    plan: Plan
    binding: cursors.CursorBinding | None
    keys: tuple[PlanColumn, ...] = ()

    def next_cursor(self, end: ResultEnd, *, by_runner: bool = True) -> str | None:
        """The cursor behind the last row of the page. None when no more rows follow, and when the lens has no primary key;
        ``end.has_more`` tells the truth in both cases.

        Raises:
            LenswayError: LIMIT_EXCEEDED when the values of the order are too long for a cursor. For key values that do not
                match the order RUNNER_FAILED, or INTERNAL when the service executed the query itself.
        """
        if self.binding is None or end.last_key is None or not end.has_more:
            return None
        if len(self.keys) != len(end.last_key) or not all(
            value is None or values.fits(value, column.type)
            for value, column in zip(end.last_key, self.keys, strict=True)
        ):
            raise unbelievable("the key of the last row", by_runner=by_runner)
        return self.binding.sign(end.last_key, end.row_id)


def plan_rows(
    definition: LensDefinition,
    request: QueryRequest,
    capabilities: Capabilities,
    *,
    cursor_key: bytes,
    environment: str,
    previous_cursor_keys: Sequence[bytes] = (),
) -> PlannedRows:
    """One page of rows. Cursors that one of ``previous_cursor_keys`` signed are read too; the next one has ``cursor_key``.

    Raises:
        LenswayError: INVALID_REQUEST, UNKNOWN_FIELD, UNSUPPORTED_OPERATOR, INVALID_CURSOR, PAYLOAD_TOO_LARGE.
    """
    limit = _integer(request.limit, "limit", 1, limits.ROWS_PER_PAGE_MAX, limits.ROWS_PER_PAGE_DEFAULT)
    offset = _integer(request.offset, "offset", 0, limits.OFFSET_MAX, None)
    if not isinstance(request.total, bool):
        raise _invalid("total", "expected true or false")
    node, params = wheres.parse(request.where, definition, capabilities)
    order, is_total = _order(definition, request.order_by)
    binding = None
    if is_total:
        binding = cursors.CursorBinding.of(
            cursor_key,
            environment=environment,
            lens=definition.name,
            where=node,
            params=params,
            order=order,
            previous=previous_cursor_keys,
        )
    after: tuple[After, ...] | None = None
    where_params = len(params)
    if request.cursor is not None:
        if offset is not None:
            raise cursors.invalid("cannot be combined with `offset`")
        if binding is None:
            raise cursors.invalid("cannot be used: the lens has no primary key")
        last = binding.read(request.cursor, order)
        after = tuple(_after(term, value) for term, value in zip(order, last, strict=False))
        if len(last) > len(order):
            after += (After.VALUE,)
        params += tuple(
            int(str(value)) if each is After.WHOLE else value
            for value, each in zip(last, after, strict=True)
            if each is not After.NULL
        )
    shape = Shape(
        lens=definition.name,
        table=definition.plan_table,
        output=_output(definition, request.select),
        keys=tuple(term.column for term in order) if is_total else (),
        where=node,
        order=order,
        after=after,
        has_limit=True,
        has_offset=offset is not None,
        with_total=request.total,
        params=where_params,
    )
    return PlannedRows(plan=_plan(shape, params, limit, offset), binding=binding, keys=shape.keys)


def plan_export(definition: LensDefinition, request: ExportRequest, capabilities: Capabilities) -> Plan:
    """Every matching row, by primary key unless `orderBy` says otherwise; an empty one takes them as the database finds them.

    Raises:
        LenswayError: as `plan_rows`.
    """
    node, params = wheres.parse(request.where, definition, capabilities)
    order = () if request.order_by == [] else _order(definition, request.order_by)[0]
    shape = Shape(
        lens=definition.name,
        table=definition.plan_table,
        output=_output(definition, request.select),
        where=node,
        order=order,
        params=len(params),
    )
    return _plan(shape, params)


def plan_count(definition: LensDefinition, where: object, capabilities: Capabilities) -> Plan:
    """How many rows match: one row with one column `count`. Raises LenswayError as `plan_rows`."""
    node, params = wheres.parse(where, definition, capabilities)
    shape = Shape(
        lens=definition.name,
        table=definition.plan_table,
        measures=_COUNT,
        where=node,
        params=len(params),
    )
    return _plan(shape, params)


def plan_probe(definition: LensDefinition) -> Plan:
    """A plan over every column that reads no row: it proves that the lens can be read, and in the order of its key."""
    order = _order(definition, None)[0]
    if not all(term.column.has_order for term in order):
        order = ()
    shape = Shape(
        lens=definition.name,
        table=definition.plan_table,
        output=_output(definition, None),
        keys=tuple(term.column for term in order),
        order=order,
        # Not a limit of 0: executing sides fetch one row more than the limit.
        where=Constant(False),
    )
    return Plan(encode_shape(shape))


def _plan(shape: Shape, params: tuple[object, ...], limit: int | None = None, offset: int | None = None) -> Plan:
    plan = Plan(encode_shape(shape), params, limit, offset)
    # Refused here and not where it is offered, so that a query is not too large only when a runner executes it. Nearly every one
    # is so small that it need not be encoded to know.
    if len(plan.shape) + sum(map(_bytes_at_most, params)) + _AROUND_BYTES > limits.PLAN_BYTES_MAX:
        plan.encode()
    return plan


def _bytes_at_most(value: object) -> int:
    """What the value takes in a plan, or more."""
    return (
        4 * len(value) + _AROUND_BYTES
        if isinstance(value, str | bytes)
        else _SMALL.get(type(value), limits.PLAN_BYTES_MAX)
    )


def _after(term: OrderBy, value: object) -> After:
    if value is None:
        return After.NULL
    if term.column.type is FieldType.TIME and values.has_zone(value):
        return After.ZONED
    if term.column.type is FieldType.DECIMAL:
        is_whole = isinstance(value, str) and _INTEGER.fullmatch(value) is not None and values.fits_integer(int(value))
    else:
        is_whole = (
            term.column.type is FieldType.NUMBER and isinstance(value, int) and abs(value) >= _DOUBLE_INTEGERS_MAX
        )
    return After.WHOLE if is_whole else After.VALUE


def _output(definition: LensDefinition, select: object) -> tuple[PlanColumn, ...]:
    if select is None:
        return definition.columns
    if not isinstance(select, list) or not select:
        raise _invalid("select", "expected a list of field names")
    chosen: dict[str, PlanColumn] = {}
    for number, name in enumerate(select):
        path = f"select[{number}]"
        field = _field(definition, name, path)
        if field.name in chosen:
            raise _invalid(path, f"field {field.name!r} is listed twice")
        chosen[field.name] = field.plan_column
    return tuple(chosen.values())


def _order(definition: LensDefinition, order_by: object) -> tuple[tuple[OrderBy, ...], bool]:
    primary_key = definition.primary_key
    if order_by is None:
        return tuple(OrderBy(field.plan_column) for field in primary_key), bool(primary_key)
    terms: dict[str, OrderBy] = {}
    items = order_by if isinstance(order_by, list) else [order_by]
    if len(items) > limits.ORDER_TERMS_MAX:
        raise _invalid("orderBy", f"{len(items):,} terms; {limits.ORDER_TERMS_MAX} is the limit")
    for number, item in enumerate(items):
        path = f"orderBy[{number}]" if isinstance(order_by, list) else "orderBy"
        field, descending = order_term(definition, item, path)
        if field.name in terms:
            raise _invalid(path, f"field {field.name!r} is listed twice")
        terms[field.name] = OrderBy(field.plan_column, descending)
    for field in primary_key:
        terms.setdefault(field.name, OrderBy(field.plan_column))
    return tuple(terms.values()), bool(primary_key)


def _field(definition: LensDefinition, name: object, path: str) -> Field:
    if not isinstance(name, str):
        raise _invalid(path, "expected a field name")
    field = definition.fields.get(name)
    if field is None:
        raise wheres.unknown_field(name, definition, path)
    return field


def _integer(value: object, path: str, least: int, most: int, default: int | None) -> int | None:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _invalid(path, f"expected an integer from {least:,} to {most:,}")
    return value


def _invalid(path: str, message: str) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"{path}: {message}", details={"path": path})
