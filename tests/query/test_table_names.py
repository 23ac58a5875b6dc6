"""Names of tables: every pair of parts is written in one form that is read back; what is no name is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensway.catalog.definitions import read_lens
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import LensDefinition, TableName
from lensway.query.table_names import parts_of, written

PARTS = st.lists(st.text(st.sampled_from('ab. "é$'), min_size=1, max_size=8), min_size=1, max_size=2)


@given(PARTS)
def test_what_is_written_is_read_back(parts: list[str]) -> None:
    assert parts_of(written(*parts)) == tuple(parts)


@given(PARTS, PARTS)
def test_different_tables_are_written_differently(one: list[str], other: list[str]) -> None:
    assert (written(*one) == written(*other)) == (one == other)


@given(st.text(st.sampled_from('ab."'), max_size=9))
def test_any_text_is_read_or_refused_and_reads_the_same_once_written(text: str) -> None:
    parts = parts_of(text)
    assert parts is None or parts_of(written(*parts)) == parts


@pytest.mark.parametrize(
    ("name", "place", "kept"),
    [
        ("orders", (None, "orders"), "orders"),
        ("public.orders", ("public", "orders"), "public.orders"),
        ('"public"."orders"', ("public", "orders"), "public.orders"),
        ('"my.schema".t', ("my.schema", "t"), '"my.schema".t'),
        ('public."dot.table"', ("public", "dot.table"), 'public."dot.table"'),
        ('"dot.table"', (None, "dot.table"), '"dot.table"'),
        ('"a ""b"""', (None, 'a "b"'), '"a ""b"""'),
        ("Order Items", (None, "Order Items"), "Order Items"),
        ('we"ird', (None, 'we"ird'), '"we""ird"'),
        ("s.größe", ("s", "größe"), "s.größe"),
    ],
)
def test_a_lens_names_tables_so(name: str, place: tuple[str | None, str], kept: str) -> None:
    document = {"source": "s", "table": name, "fields": {"id": {"type": "integer"}}}
    definition = read_lens("lens", document).definition
    assert (definition.place, definition.table) == (place, kept)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "a.b.c", '"a', 'a"."', '""', '"".a', '"a"b', '"a" .b', '"a"."b"."c"', '"', "a\nb"],
)
def test_anything_else_is_refused_with_the_grammar(name: str) -> None:
    with pytest.raises(LenswayError) as refused:
        read_lens("lens", {"source": "s", "table": name, "fields": {"id": {"type": "integer"}}})
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert refused.value.failure.details["path"] == "table"


def test_a_local_policy_sees_which_schema_it_is() -> None:
    """A schema `public.x` is none of the tables `public.*`."""
    definition = LensDefinition(name="l", table='"public.x".secret', fields={})
    schema, table = definition.place
    assert str(TableName(schema, table)) == '"public.x".secret'
