"""A wrong `orderBy` is answered with the right form of what was probably meant."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from lensway.errors import LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.order_terms import order_term

FIELDS = {
    name: Field(name=name, type=type, column=name, nullable=True, primary_key=False, is_list=False)
    for name, type in (("id", FieldType.INTEGER), ("placed", FieldType.DATE), ("total", FieldType.DECIMAL))
}
LENS = LensDefinition(name="orders", table="t", fields=FIELDS)
DESC = 'Write {"field": "total", "dir": "desc"}, on the command line total:desc.'
ASC = DESC.replace("desc", "asc")


def refusal(item: object) -> LenswayError:
    with pytest.raises(LenswayError) as error:
        order_term(LENS, item, "orderBy")
    return error.value


@pytest.mark.parametrize(
    "item",
    [
        "total desc",
        "total DESC",
        "total  descending",
        "total:desc",
        "total,desc",
        "-total",
        "- total",
        "totl desc",
        ["total", "desc"],
        ["total", -1],
        {"total": "desc"},
        {"total": "DESC"},
        {"total": -1},
        {"field": "total", "dir": "DESC"},
        {"field": "total", "dir": -1},
        {"field": "total", "direction": "desc"},
        {"field": "total", "order": "descending"},
        {"field": "total desc"},
        {"field": "-total"},
        {"field": "total", "dir": "down"},
        {"field": "-total", "dir": "asc"},
    ],
    ids=repr,
)
def test_what_was_to_descend(item: object) -> None:
    assert refusal(item).failure.hint == DESC


@pytest.mark.parametrize(
    "item",
    [
        "total",
        "total asc",
        "+total",
        ["total"],
        {"total": "asc"},
        {"total": 1},
        {"total": None},
        {"fields": "total"},
        {"column": "total"},
        {"field": "total", "dir": None},
        {"field": "total", "dir": True},
        {"field": "total ASC"},
    ],
    ids=repr,
)
def test_what_was_to_ascend(item: object) -> None:
    assert refusal(item).failure.hint == ASC


@pytest.mark.parametrize("item", [5, None, [], {}, "", "nosuchthing desc", {"field": 5}, {"field": "desc"}], ids=repr)
def test_what_names_no_field(item: object) -> None:
    error = refusal(item)
    assert error.failure.hint.startswith(
        'Write {"field": FIELD, "dir": "asc"}, on the command line FIELD or FIELD:desc.'
    )
    assert "id, placed, total" in error.failure.hint


def test_a_misspelt_field_is_what_it_was() -> None:
    assert refusal({"field": "totl", "dir": "desc"}).failure.hint == "did you mean 'total'?"
    assert order_term(LENS, {"field": "total", "dir": "desc"}, "orderBy") == (FIELDS["total"], True)
    assert order_term(LENS, {"field": "id"}, "orderBy") == (FIELDS["id"], False)


@hypothesis.given(
    strategies.recursive(
        strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
        lambda each: strategies.lists(each, max_size=3) | strategies.dictionaries(strategies.text(), each, max_size=3),
    )
)
def test_anything_is_a_term_or_a_typed_error_with_a_short_hint(item: object) -> None:
    hint = "none"
    try:
        order_term(LENS, item, "orderBy")
    except LenswayError as error:
        hint = error.failure.hint
    assert 0 < len(hint or "") < 400
