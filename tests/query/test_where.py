"""The grammar of `where`: what becomes which tree, and where an error points."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.capabilities import Capabilities
from lensway.query.conditions import And, Compare, Constant, IsNull, Node, Not, Operator, Or
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.where import parse

FIELDS = {
    field.name: field
    for field in (
        Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True),
        Field(name="region", type=FieldType.TEXT, column="Region"),
        Field(name="total", type=FieldType.DECIMAL, column="total_amount"),
        Field(name="rate", type=FieldType.NUMBER, column="rate"),
        Field(name="paid", type=FieldType.BOOLEAN, column="paid"),
        Field(name="opens", type=FieldType.TIME, column="opens"),
        Field(name="extra", type=FieldType.JSON, column="extra"),
        Field(name="tags", type=FieldType.TEXT, column="tags", is_list=True),
    )
}
ORDERS = LensDefinition(name="orders", table="public.orders", fields=FIELDS)
ALL = Capabilities(dialect="any", bridge="any")
ID, REGION, TOTAL, RATE = (FIELDS[name].plan_column for name in ("id", "region", "total", "rate"))


def tree(where: object, capabilities: Capabilities = ALL) -> tuple[Node | None, tuple[object, ...]]:
    return parse(where, ORDERS, capabilities)


@pytest.mark.parametrize(
    ("where", "node", "params"),
    [
        (None, None, ()),
        ({}, None, ()),
        ({"$and": []}, Constant(True), ()),
        ({"$or": []}, Constant(False), ()),
        ({"id": 7}, Compare(Operator.EQ, ID, 0), (7,)),
        ({"id": {"$eq": 7}}, Compare(Operator.EQ, ID, 0), (7,)),
        ({"id": [7, 8]}, Compare(Operator.IN, ID, 0), ([7, 8],)),
        ({"id": []}, Constant(False), ()),
        ({"id": {"$nin": []}}, Constant(True), ()),
        ({"region": None}, IsNull(REGION), ()),
        ({"region": {"$ne": None}}, Not(IsNull(REGION)), ()),
        ({"region": {"$exists": True}}, Not(IsNull(REGION)), ()),
        ({"region": {"$exists": False}}, IsNull(REGION), ()),
        ({"region": {"$gt": None}}, Constant(None), ()),
        ({"region": {"$in": ["a", None]}}, Compare(Operator.IN, REGION, 0), (["a", None],)),
        ({"$not": {"id": 7}}, Not(Compare(Operator.EQ, ID, 0)), (7,)),
        ({"$or": [{"id": 7}]}, Compare(Operator.EQ, ID, 0), (7,)),
        (
            {"id": {"$gt": 1, "$lt": 9}, "region": "n"},
            And(
                (
                    And((Compare(Operator.GT, ID, 0), Compare(Operator.LT, ID, 1))),
                    Compare(Operator.EQ, REGION, 2),
                )
            ),
            (1, 9, "n"),
        ),
        (
            {"$or": [{"id": 1}, {"region": {"$like": "n%"}}]},
            Or((Compare(Operator.EQ, ID, 0), Compare(Operator.LIKE, REGION, 1))),
            (1, "n%"),
        ),
        ({"total": "1.50"}, Compare(Operator.EQ, TOTAL, 0), ("1.50",)),
        ({"total": 7}, Compare(Operator.EQ, TOTAL, 0, bound_as=FieldType.INTEGER), (7,)),
        ({"rate": 2**60}, Compare(Operator.EQ, RATE, 0, bound_as=FieldType.INTEGER), (2**60,)),
        ({"id": {"$gt": 1.5}}, None, None),
    ],
)
def test_a_where_becomes_its_tree(where: object, node: Node | None, params: tuple[object, ...] | None) -> None:
    found = tree(where)
    if params is None:
        # A number between two integers: the comparison holds for the same rows with one of them.
        assert isinstance(found[0], Compare)
        assert (found[0].operator, found[1]) in ((Operator.GT, (1,)), (Operator.GTE, (2,)))
    else:
        assert found == (node, params)


def test_a_time_with_a_zone_is_marked() -> None:
    [plain, zoned] = [tree({"opens": {"$gt": text}})[0] for text in ("17:05:00", "17:05:00+02:00")]
    assert isinstance(plain, Compare)
    assert isinstance(zoned, Compare)
    assert (plain.zoned, zoned.zoned) == (False, True)


@pytest.mark.parametrize(
    ("where", "code", "path"),
    [
        (7, ErrorCode.INVALID_REQUEST, "where"),
        ({"$and": {}}, ErrorCode.INVALID_REQUEST, "where.$and"),
        ({"$or": [{"id": 1}, 7]}, ErrorCode.INVALID_REQUEST, "where.$or[1]"),
        ({"totl": 1}, ErrorCode.UNKNOWN_FIELD, "where.totl"),
        ({"$not": {"$or": [{"idd": 1}]}}, ErrorCode.UNKNOWN_FIELD, "where.$not.$or[0].idd"),
        ({"$nor": []}, ErrorCode.UNSUPPORTED_OPERATOR, "where.$nor"),
        ({"id": {"$gte": 1, "$lessThan": 2}}, ErrorCode.UNSUPPORTED_OPERATOR, "where.id.$lessThan"),
        ({"id": {}}, ErrorCode.INVALID_REQUEST, "where.id"),
        ({"id": {"$in": 7}}, ErrorCode.INVALID_REQUEST, "where.id.$in"),
        ({"region": {"$in": ["a", 7]}}, ErrorCode.INVALID_REQUEST, "where.region.$in[1]"),
        ({"region": {"$exists": "yes"}}, ErrorCode.INVALID_REQUEST, "where.region.$exists"),
        ({"id": {"$like": "1%"}}, ErrorCode.UNSUPPORTED_OPERATOR, "where.id.$like"),
        ({"extra": {"a": 1}}, ErrorCode.UNSUPPORTED_OPERATOR, "where.extra.a"),
        ({"tags": {"$eq": "x"}}, ErrorCode.UNSUPPORTED_OPERATOR, "where.tags.$eq"),
        ({"paid": "yes"}, ErrorCode.INVALID_REQUEST, "where.paid"),
        ({"id": list(range(limits.IN_VALUES_MAX + 1))}, ErrorCode.INVALID_REQUEST, "where.id"),
    ],
)
def test_an_error_names_the_path_of_the_offender(where: object, code: ErrorCode, path: str) -> None:
    with pytest.raises(LenswayError) as caught:
        tree(where)
    assert (caught.value.code, caught.value.failure.details["path"]) == (code, path)
    assert caught.value.message.startswith(f"{path}:")


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    for where, nearest in (({"totl": 1}, "total"), ({"id": {"$gtt": 1}}, "$gt"), ({"$ands": []}, "$and")):
        with pytest.raises(LenswayError) as caught:
            tree(where)
        assert caught.value.failure.details["nearest"] == nearest
        assert nearest in (caught.value.hint or "")


def test_what_a_bridge_cannot_do_is_refused_and_never_emulated() -> None:
    poor = msgspec.structs.replace(ALL, operators=frozenset({Operator.EQ}), bridge="poor")
    assert tree({"id": 1}, poor)[1] == (1,)
    with pytest.raises(LenswayError) as caught:
        tree({"id": {"$gt": 1}}, poor)
    assert caught.value.code is ErrorCode.UNSUPPORTED_OPERATOR
    assert "'poor'" in caught.value.message


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"id": 1}
    for _ in range(levels - 1):
        where = {"$not": where}
    return where


def test_depth_and_conditions_are_bounded() -> None:
    assert tree(nested(limits.REQUEST_NESTING_MAX))[1] == (1,)
    assert len(tree({"$or": [{"id": 1}] * limits.WHERE_NODES_MAX})[1]) == limits.WHERE_NODES_MAX
    for where in (nested(limits.REQUEST_NESTING_MAX + 1), {"$or": [{"id": 1}] * (limits.WHERE_NODES_MAX + 1)}):
        with pytest.raises(LenswayError) as caught:
            tree(where)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
