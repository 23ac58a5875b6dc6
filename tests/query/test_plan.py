"""Plans on the wire: equal shapes give equal bytes, and what no planner makes is refused with the right word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensway import limits
from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.errors import ErrorCode, LenswayError
from lensway.query.capabilities import Capabilities
from lensway.query.conditions import And, Compare, Constant, IsNull, Node, Not, Operator, Or
from lensway.query.fields import Field, FieldType, LensDefinition, PlanColumn, TableName
from lensway.query.measures import COUNT_OF_ROWS, Measure, MeasureFunction
from lensway.query.plan import (
    FEATURES,
    ROWS_AND_COUNTS,
    After,
    OrderBy,
    Plan,
    Relation,
    RelationKind,
    Shape,
    UnknownPlanError,
    decode_shape,
    encode_shape,
)
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows

ID = PlanColumn("id", "id", FieldType.INTEGER, nullable=False)
NAME = PlanColumn("name", "name", FieldType.TEXT)
TOTAL = PlanColumn("total", "total", FieldType.DECIMAL)
EXTRA = PlanColumn("extra", "extra", FieldType.JSON)
ORDERS, ITEMS = TableName("public", "orders"), TableName("public", "items")
ROWS = Shape(lens="orders", table=ORDERS, output=(ID, NAME))
COUNT = Shape(lens="orders", table=ORDERS, measures=(COUNT_OF_ROWS,))
SUM = Measure("sum", MeasureFunction.SUM, TOTAL)
GROUPS = Shape(lens="orders", table=ORDERS, output=(NAME,), measures=(COUNT_OF_ROWS, SUM))


def related(name: str = "items", table: TableName = ITEMS, **more: Any) -> Relation:
    fields = {"kind": RelationKind.MANY, "on": ((ID, ID),), "output": (ID,), **more}
    return Relation(name=name, lens=name, table=table, **fields)


def levels(depth: int) -> Relation:
    return related(relations=(levels(depth - 1),) if depth > 1 else ())


def error_of(read: Callable[[bytes], object], data: bytes) -> LenswayError | None:
    """The typed error that these bytes give; any other exception is a failure of the test."""
    try:
        read(data)
    except LenswayError as error:
        return error
    return None


def code_of(data: bytes) -> ErrorCode:
    error = error_of(Plan.read, data)
    assert error is not None
    assert not isinstance(error, UnknownPlanError)
    return error.code


def is_malformed(shape: Shape) -> bool:
    error = error_of(decode_shape, encode_shape(shape))
    assert not isinstance(error, UnknownPlanError)
    return error is not None and error.code is ErrorCode.INVALID_REQUEST


# --- equal shapes ---------------------------------------------------------------------------------------------------------

columns = st.sampled_from([ID, NAME, TOTAL])
leaves = st.sampled_from([IsNull(NAME), IsNull(EXTRA), Constant(True), Constant(None)])
trees: st.SearchStrategy[Node] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple).map(And)
        | st.lists(inner, max_size=3).map(tuple).map(Or)
        | inner.map(Not)
    ),
    max_leaves=8,
)
relations = st.recursive(
    st.builds(related, where=st.none() | trees, limit=st.none() | st.integers(1, 100)),
    lambda inner: st.builds(lambda each: related(relations=(each,)), inner),
    max_leaves=3,
).filter(lambda each: depth_of(each) <= limits.RELATIONS_DEPTH_MAX)
shapes = st.builds(
    lambda where, order, below, limited: Shape(
        lens="orders", table=ORDERS, output=(ID, NAME), where=where, order=order, relations=below, has_limit=limited
    ),
    where=st.none() | trees,
    order=st.lists(st.builds(OrderBy, columns, st.booleans()), max_size=3).map(tuple),
    below=st.lists(relations, max_size=1).map(tuple),
    limited=st.booleans(),
)


def depth_of(relation: Relation) -> int:
    return 1 + max((depth_of(each) for each in relation.relations), default=0)


@settings(max_examples=200, deadline=None)
@given(shape=shapes)
def test_a_shape_is_its_bytes(shape: Shape) -> None:
    data = encode_shape(shape)
    found = decode_shape(data)
    assert found == shape
    assert encode_shape(msgspec.structs.replace(found)) == data
    assert found.tables()[0] == ORDERS
    assert set(found.tables()) == ({ORDERS, ITEMS} if shape.relations else {ORDERS})


@settings(max_examples=200, deadline=None)
@given(shape=shapes, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_altered_bytes_give_a_sound_shape_or_a_typed_error(shape: Shape, at: int, byte: int) -> None:
    data = bytearray(encode_shape(shape))
    data[at % len(data)] = byte
    error = error_of(decode_shape, bytes(data))
    if error is None:
        assert encode_shape(decode_shape(bytes(data))) == data
    else:
        assert error.code is ErrorCode.INVALID_REQUEST


@given(data=st.binary(max_size=60))
def test_rubbish_is_malformed(data: bytes) -> None:
    error = error_of(Plan.read, data)
    assert error is not None
    assert error.code is ErrorCode.INVALID_REQUEST


def test_another_spelling_of_a_shape_is_malformed() -> None:
    data = encode_shape(ROWS)
    assert data[1] == 2
    assert code_of(Plan(data[:1] + b"\xcc\x02" + data[2:]).encode()) is ErrorCode.INVALID_REQUEST, "a longer integer"
    fields = msgspec.msgpack.decode(data)
    assert code_of(Plan(msgspec.msgpack.encode(fields[:4])).encode()) is ErrorCode.INVALID_REQUEST, "defaults left out"
    assert code_of(Plan(data + b"\x00").encode()) is ErrorCode.INVALID_REQUEST


# --- versions and parts to come -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 3, 7, 2**40])
def test_another_version_is_unknown_and_not_malformed(version: int) -> None:
    fields = msgspec.msgpack.decode(encode_shape(ROWS))
    data = msgspec.msgpack.encode([version, *fields[1:]])
    with pytest.raises(UnknownPlanError, match=f"plan:{version}"):
        decode_shape(data)
    with pytest.raises(UnknownPlanError):
        decode_shape(msgspec.msgpack.encode([version]))


@pytest.mark.parametrize("at", [None, "function", "node", "column", "relation"])
def test_a_part_that_is_not_known_is_never_left_out_in_silence(at: str | None) -> None:
    fields = msgspec.msgpack.decode(encode_shape(msgspec.structs.replace(GROUPS, where=IsNull(NAME))))
    if at is None:
        fields.append({"rowFilter": True})
    elif at == "function":
        fields[4][1][1] = "median"
    elif at == "node":
        fields[7] = ["within", NAME]
    elif at == "column":
        fields[3][0].append("masked")
    else:
        fields[5] = [*fields[5], msgspec.msgpack.decode(msgspec.msgpack.encode(related()))]
        fields[5][0].append("lateral")
    with pytest.raises(UnknownPlanError) as caught:
        decode_shape(msgspec.msgpack.encode(fields))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_what_this_program_does_not_execute_is_read_and_not_decoded() -> None:
    for shape, feature in (
        (msgspec.structs.replace(ROWS, relations=(related(),)), "plan:2:relations"),
        (GROUPS, "plan:2:aggregates"),
        (msgspec.structs.replace(COUNT, measures=(SUM,)), "plan:2:aggregates"),
        (
            msgspec.structs.replace(COUNT, measures=(COUNT_OF_ROWS, Measure("n", MeasureFunction.COUNT))),
            "plan:2:aggregates",
        ),
    ):
        data = Plan(encode_shape(shape)).encode()
        assert Plan.read(data)[1] == shape
        assert shape.needs == {"plan:2", feature}
        with pytest.raises(UnknownPlanError, match=feature):
            Plan.decode(data)


def test_every_plan_of_the_planner_needs_what_the_service_says_it_needs() -> None:
    fields = {"id": Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True)}
    lens = LensDefinition(name="orders", table="public.orders", fields=fields)
    can = Capabilities(dialect="any")
    request = QueryRequest(total=True, offset=1, where={"id": 1})
    for plan in (
        plan_rows(lens, request, can, cursor_key=b"k" * 32, environment="env").plan,
        plan_export(lens, ExportRequest(), can),
        plan_count(lens, {"id": 1}, can),
        plan_probe(lens),
    ):
        assert Plan.decode(plan.encode()) == plan
        assert decode_shape(plan.shape).needs == ROWS_AND_COUNTS
    assert ROWS_AND_COUNTS <= FEATURES


# --- soundness --------------------------------------------------------------------------------------------------------------

DEEP: Node = IsNull(NAME)
for _ in range(limits.PLAN_DEPTH_MAX):
    DEEP = Not(DEEP)
WIDE = And((IsNull(NAME),) * limits.PLAN_NODES_MAX)
HALF = And((IsNull(NAME),) * (limits.PLAN_NODES_MAX // 2 + 1))
EQUAL = Compare(Operator.EQ, ID, 0)


@pytest.mark.parametrize(
    "shape",
    [
        ROWS,
        COUNT,
        GROUPS,
        msgspec.structs.replace(
            GROUPS, having=Compare(Operator.GT, SUM.result, 0), order=(OrderBy(SUM.result),), params=1
        ),
        msgspec.structs.replace(ROWS, relations=(levels(limits.RELATIONS_DEPTH_MAX),)),
        msgspec.structs.replace(ROWS, relations=tuple(related(f"r{n}") for n in range(limits.RELATIONS_MAX))),
        msgspec.structs.replace(ROWS, where=EQUAL, relations=(related(where=Compare(Operator.EQ, ID, 1)),), params=2),
        msgspec.structs.replace(ROWS, order=(OrderBy(ID),), keys=(ID,), after=(After.VALUE,), has_limit=True),
        msgspec.structs.replace(ROWS, where=Not(IsNull(EXTRA))),
    ],
)
def test_sound_shapes_are_read(shape: Shape) -> None:
    assert decode_shape(encode_shape(shape)) == shape


@pytest.mark.parametrize(
    "change",
    [
        {"output": ()},
        {"output": (ID, ID)},
        {"table": TableName("public", "")},
        {"table": TableName("", "orders")},
        {"has_offset": True},
        {"after": (After.VALUE,)},
        {"order": (OrderBy(ID),), "after": (After.VALUE, After.NULL)},
        {"order": (OrderBy(ID),), "keys": (NAME,)},
        {"order": (OrderBy(EXTRA),)},
        {"having": IsNull(NAME)},
        {"where": EQUAL},
        {"params": 1},
        {"where": And((EQUAL, EQUAL)), "params": 1},
        {"where": Compare(Operator.EQ, ID, 1), "params": 1},
        {"where": Compare(Operator.LIKE, ID, 0), "params": 1},
        {"where": Compare(Operator.EQ, EXTRA, 0), "params": 1},
        {"where": Compare(Operator.EQ, ID, 0, bound_as=FieldType.DECIMAL), "params": 1},
        {"where": DEEP},
        {"where": WIDE},
        {"where": HALF, "relations": (related(where=HALF),)},
        {"relations": (levels(limits.RELATIONS_DEPTH_MAX + 1),)},
        {"relations": tuple(related(f"r{n}") for n in range(limits.RELATIONS_MAX + 1))},
        {"relations": (related("name"),)},
        {"relations": (related(), related())},
        {"relations": (related(table=TableName(None, "")),)},
        {"relations": (related(on=()),)},
        {"relations": (related(on=((ID, EXTRA),)),)},
        {"relations": (related(output=()),)},
        {"relations": (related(order=(OrderBy(EXTRA),)),)},
        {"relations": (related(limit=0),)},
        {"relations": (related(where=EQUAL),), "where": EQUAL, "params": 1},
        {"relations": (related(relations=(related(table=TableName("", "x")),)),)},
    ],
    ids=",".join,
)
def test_rows_that_no_planner_asks_for_are_malformed(change: dict[str, Any]) -> None:
    assert is_malformed(msgspec.structs.replace(ROWS, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"measures": (Measure("n", MeasureFunction.SUM),)},
        {"measures": (Measure("n", MeasureFunction.SUM, NAME),)},
        {"measures": (Measure("n", MeasureFunction.MAX, EXTRA),)},
        {"measures": (Measure("n", MeasureFunction.COUNT_DISTINCT),)},
        {"measures": (SUM, SUM)},
        {"measures": (Measure("name", MeasureFunction.COUNT),)},
        {"measures": tuple(Measure(f"m{n}", MeasureFunction.COUNT) for n in range(limits.MEASURES_MAX + 1))},
        {"output": (EXTRA,)},
        {"keys": (NAME,), "order": (OrderBy(NAME),)},
        {"with_total": True},
        {"relations": (related(),)},
        {"order": (OrderBy(ID),)},
        {"having": IsNull(ID)},
        {"having": IsNull(PlanColumn("name", "salary", FieldType.TEXT))},
    ],
    ids=str,
)
def test_measures_that_no_planner_asks_for_are_malformed(change: dict[str, Any]) -> None:
    assert is_malformed(msgspec.structs.replace(GROUPS, **change))


@pytest.mark.parametrize(
    "plan",
    [
        Plan(encode_shape(ROWS), (7,)),
        Plan(encode_shape(ROWS), (), 10),
        Plan(encode_shape(msgspec.structs.replace(ROWS, has_limit=True))),
        Plan(encode_shape(msgspec.structs.replace(ROWS, has_limit=True)), (), -1),
        Plan(encode_shape(msgspec.structs.replace(ROWS, has_limit=True)), (), 2**62),
    ],
)
def test_values_that_are_not_those_of_the_shape_are_malformed(plan: Plan) -> None:
    assert code_of(plan.encode()) is ErrorCode.INVALID_REQUEST


def test_deep_nesting_is_malformed_and_crashes_nothing() -> None:
    deep = b"\x91" * 100_000
    assert code_of(Plan(deep).encode()) is ErrorCode.INVALID_REQUEST
    assert code_of(Plan(b"\x9d\x02" + deep).encode()) is ErrorCode.INVALID_REQUEST
    assert code_of(deep) is ErrorCode.INVALID_REQUEST


def test_a_plan_that_fits_no_offer_is_too_large() -> None:
    with pytest.raises(LenswayError) as caught:
        Plan(encode_shape(ROWS), ("x" * limits.PLAN_BYTES_MAX,)).encode()
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE


def test_no_two_tables_have_the_same_text() -> None:
    names = [
        TableName(schema, name)
        for schema in (None, "a", "a.b", 'a"', '"a"', "a.", '"a.b"')
        for name in ("b", "a.b", "c.d", '"b"', 'b"."c', ".b")
    ]
    assert len({str(each) for each in names}) == len(names)
    assert (str(TableName("public", "orders")), str(TableName(None, "orders"))) == ("public.orders", "orders")
