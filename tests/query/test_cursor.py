"""Cursors: what one was made for reads it, and nothing else does."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.conditions import Compare, Operator
from lensway.query.cursor import CursorBinding, is_short
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.plan import OrderBy

ID = PlanColumn("id", "id", FieldType.INTEGER, nullable=False)
NAME = PlanColumn("name", "name", FieldType.TEXT)
ORDER = (OrderBy(NAME, descending=True), OrderBy(ID))
ASKED: dict[str, Any] = {
    "environment": "env_1",
    "lens": "orders",
    "where": Compare(Operator.GT, ID, 0),
    "params": (7,),
    "order": ORDER,
}


def binding(key: bytes = b"k" * 32, **changed: Any) -> CursorBinding:
    return CursorBinding.of(key, **{**ASKED, **changed})


def refused(cursor: object, by: CursorBinding | None = None, order: tuple[OrderBy, ...] = ORDER) -> str:
    with pytest.raises(LenswayError) as caught:
        (by or binding()).read(cursor, order)
    assert caught.value.code is ErrorCode.INVALID_CURSOR
    return caught.value.message


@pytest.mark.parametrize("last", [("north", 7), (None, 0), ("", -(2**63)), ("ü\U0001f600", 2**63 - 1)])
def test_a_cursor_says_the_key_it_was_made_of(last: tuple[object, ...]) -> None:
    assert binding().read(binding().sign(last), ORDER) == last
    assert binding().read(binding().sign(last, 12), ORDER) == (*last, 12)


def test_a_cursor_is_text_for_a_url() -> None:
    cursor = binding().sign(("north", 7))
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "changed",
    [
        {"key": b"x" * 32},
        {"environment": "env_2"},
        {"lens": "invoices"},
        {"where": Compare(Operator.GTE, ID, 0)},
        {"where": None, "params": ()},
        {"params": (8,)},
        {"order": (OrderBy(NAME), OrderBy(ID))},
        {"order": (OrderBy(ID), OrderBy(NAME, descending=True))},
    ],
    ids=str,
)
def test_a_cursor_is_bound_to_everything_that_was_asked(changed: dict[str, Any]) -> None:
    assert "belongs to another" in refused(binding().sign(("north", 7)), binding(**changed))


def test_no_bit_of_a_cursor_can_change() -> None:
    cursor = binding().sign(("north", 7))
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for bit in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        refused(base64.urlsafe_b64encode(altered).decode().rstrip("="))


@pytest.mark.parametrize(
    "rubbish", [None, 7, "", "A", "ü", "*" * 40, "A" * (limits.CURSOR_BYTES_MAX + 1), ["x"], "=" * 8]
)
def test_rubbish_is_no_cursor(rubbish: object) -> None:
    refused(rubbish)


def test_another_spelling_of_the_same_bytes_is_altered() -> None:
    cursor = binding().sign(("north", 7))
    refused(cursor + "=")
    refused(cursor + "==")


@pytest.mark.parametrize(
    "last", [("north",), ("north", 7, 1, 1), (7, 7), ("north", "7"), ("north", 2**63), ("north", 7, "x")]
)
def test_values_that_fit_no_column_are_refused_although_they_are_signed(last: tuple[object, ...]) -> None:
    refused(binding().sign(last))


def test_a_key_that_fits_no_cursor_is_a_typed_error() -> None:
    long = "x" * limits.CURSOR_BYTES_MAX
    assert is_short(("north", 7))
    assert not is_short((long, 7))
    with pytest.raises(LenswayError) as caught:
        binding().sign((long, 7))
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED


def test_every_key_that_is_short_makes_a_cursor_that_can_be_read() -> None:
    low, high = 0, limits.CURSOR_BYTES_MAX
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_short(("x" * middle, 7)) else (low, middle - 1)
    cursor = binding().sign(("x" * low, 7), 2**63 - 1)
    assert len(cursor) <= limits.CURSOR_BYTES_MAX
    assert binding().read(cursor, ORDER)[0] == "x" * low
    assert not is_short(("x" * (low + 1), 7))


def test_equal_questions_give_equal_cursors() -> None:
    other = msgspec.msgpack.decode(msgspec.msgpack.encode(ORDER), type=tuple[OrderBy, ...])
    assert binding(order=other).sign(("north", 7)) == binding().sign(("north", 7))
