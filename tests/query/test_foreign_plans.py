"""Plans that no planner made: whoever executes them refuses what no statement can be made of."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lensway.dialects.compile import compile_shape
from lensway.errors import ErrorCode, LenswayError
from lensway.query.conditions import And, Compare, IsNull, Operator
from lensway.query.fields import FieldType, PlanColumn, TableName
from lensway.query.measures import COUNT_OF_ROWS
from lensway.query.plan import OrderBy, Plan, Shape, encode_shape

ID = PlanColumn("id", "id", FieldType.INTEGER)
NUL = PlanColumn("id", "id\0", FieldType.INTEGER)
SOUND = Shape(lens="orders", table=TableName("public", "orders"), output=(ID,))


@pytest.mark.parametrize("dialect", ["postgres", "sqlite"])
@pytest.mark.parametrize(
    "change",
    [
        {"after": ()},
        {"table": TableName("public", "orders\0")},
        {"table": TableName("\0", "orders")},
        {"output": (NUL,)},
        {"output": (PlanColumn("\0", "id", FieldType.INTEGER),)},
        {"order": (OrderBy(NUL),)},
        {"where": And((IsNull(NUL),))},
        {"where": Compare(Operator.EQ, NUL, 0), "params": 1},
        {"output": (), "measures": (COUNT_OF_ROWS,), "where": IsNull(NUL)},
    ],
    ids=str,
)
def test_a_shape_that_no_statement_can_be_made_of_is_refused(change: dict[str, Any], dialect: str) -> None:
    assert compile_shape(encode_shape(SOUND), dialect).sql
    shape = msgspec.structs.replace(SOUND, **change)
    with pytest.raises(LenswayError) as caught:
        compile_shape(Plan.decode(Plan(encode_shape(shape), (7,) * shape.params).encode()).shape, dialect)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
