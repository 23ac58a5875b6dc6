"""What a cursor holds, what it refuses, and who is blamed for a key that none can be made of."""

from __future__ import annotations

import math

import pytest

from lensway import limits
from lensway.api.shapes import QueryRequest
from lensway.dialects.compile import compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.ordering import Ordering, assumed
from lensway.query.plan import Plan, decode_shape
from lensway.query.planner import PlannedRows, plan_rows
from lensway.query.result import ResultEnd, decode_end, encode_end

KEY = b"k" * 32


def planned(type: FieldType, *, bridge: str = "sqlite", cursor: str | None = None) -> PlannedRows:
    fields = {"key": Field(name="key", column="key", type=type, primary_key=True)}
    lens = LensDefinition(name="l", table="t", fields=fields)
    return plan_rows(lens, QueryRequest(cursor=cursor), capabilities_of(bridge), cursor_key=KEY, environment="e")


def end(value: object, **more: object) -> ResultEnd:
    # As it comes from where it was executed.
    made = ResultEnd(rows=1, bytes=1, has_more=True, last_key=(value,), **more)  # type: ignore[arg-type]
    return decode_end(encode_end(made))


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (FieldType.TEXT, ""),
        (FieldType.TEXT, "a\0b\0"),
        (FieldType.TEXT, "\U0001f600\ud7ff\uffff"),
        (FieldType.TEXT, "é" * (limits.CURSOR_BYTES_MAX // 3)),
        (FieldType.INTEGER, -(2**63)),
        (FieldType.NUMBER, -math.inf),
        (FieldType.NUMBER, -0.0),
        (FieldType.NUMBER, 2**63 - 1),
        (FieldType.DECIMAL, "9" * 10_000),
        (FieldType.BYTES, bytes(range(256)) * 40),
        (FieldType.DATE, "4713-01-01 BC"),
        (FieldType.TIME, "24:00:00.000000"),
        (FieldType.TIMESTAMP, "-infinity"),
        (FieldType.BOOLEAN, False),
        (FieldType.TEXT, None),
    ],
)
def test_a_value_comes_back_from_its_cursor_as_it_was(type: FieldType, value: object) -> None:
    first = planned(type)
    cursor = first.next_cursor(end(value))
    assert cursor is not None
    assert len(cursor) <= limits.CURSOR_BYTES_MAX
    second = planned(type, cursor=cursor).plan
    assert Plan.decode(second.encode()).params == (() if value is None else (value,))
    with_row_id = first.next_cursor(end(value, row_id=-(2**63)))
    third = planned(type, cursor=with_row_id).plan
    assert Plan.decode(third.encode()).params[-1] == -(2**63)


def test_nan_comes_back_too() -> None:
    cursor = planned(FieldType.NUMBER).next_cursor(end(math.nan))
    (value,) = planned(FieldType.NUMBER, cursor=cursor).plan.params
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("value", ["x" * limits.CURSOR_BYTES_MAX, "é" * (limits.CURSOR_BYTES_MAX // 2), b"x" * 10**6])
def test_a_value_that_no_cursor_can_hold_is_an_error_that_says_what_to_do(value: str | bytes) -> None:
    type = FieldType.BYTES if isinstance(value, bytes) else FieldType.TEXT
    with pytest.raises(LenswayError) as caught:
        planned(type).next_cursor(end(value))
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED
    assert "export" in (caught.value.failure.hint or "")


@pytest.mark.parametrize(("by_runner", "code"), [(True, ErrorCode.RUNNER_FAILED), (False, ErrorCode.INTERNAL)])
def test_only_a_runner_is_blamed_as_one(by_runner: bool, code: ErrorCode) -> None:
    with pytest.raises(LenswayError) as caught:
        planned(FieldType.INTEGER).next_cursor(end("no integer"), by_runner=by_runner)
    assert caught.value.code is code
    assert ("runner" in str(caught.value.failure.hint)) is by_runner
    with pytest.raises(LenswayError) as caught:
        decode_end(b"\xc1", by_runner=by_runner)
    assert caught.value.code is code


def test_a_text_with_a_nul_character_never_reaches_postgres() -> None:
    cursor = planned(FieldType.TEXT, bridge="postgres").next_cursor(end("a\0"))
    plan = planned(FieldType.TEXT, bridge="postgres", cursor=cursor).plan
    with pytest.raises(LenswayError) as caught:
        compile_shape(plan.shape, "postgres").bind(plan)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_a_row_id_of_a_table_that_has_none_any_more_is_an_invalid_cursor() -> None:
    plan = planned(FieldType.TEXT, cursor=planned(FieldType.TEXT).next_cursor(end("a", row_id=7))).plan
    assert assumed(decode_shape(plan.shape)).row_id == "rowid"
    assert compile_shape(plan.shape, "sqlite", Ordering((True,), "oid")).bind(plan)[-2:] == [7, 101]
    for ordering in (Ordering(), Ordering((True,), None, True)):
        with pytest.raises(LenswayError) as caught:
            compile_shape(plan.shape, "sqlite", ordering)
        assert caught.value.code is ErrorCode.INVALID_CURSOR
