"""Rows inside rows, in every format that can say them."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from lensway.bridges.encoding.arrow import ArrowRows
from lensway.bridges.encoding.text import CsvLines, JsonLines, JsonPage
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType, PlanColumn, TableName
from lensway.query.plan import Relation, RelationKind
from lensway.query.result import RowFormat

ID = PlanColumn("id", "id", FieldType.INTEGER)
RATE = PlanColumn("rate", "rate", FieldType.NUMBER)
NAME = PlanColumn("name", "name", FieldType.TEXT)
SEAL = PlanColumn("seal", "seal", FieldType.BYTES)


def relation(name: str, kind: RelationKind, *output: PlanColumn, below: tuple[Relation, ...] = ()) -> Relation:
    table = TableName(None, name)
    return Relation(name=name, lens=name, table=table, kind=kind, on=((ID, ID),), output=output, relations=below)


CUSTOMER = relation("customer", RelationKind.ONE, NAME, SEAL)
PARTS = relation("parts", RelationKind.MANY, ID, RATE)
ITEMS = relation("items", RelationKind.MANY, RATE, below=(CUSTOMER, PARTS))
COLUMNS = (ID, CUSTOMER.column, ITEMS.column, RATE)
ROWS: list[tuple[Any, ...]] = [
    (1, ("Ann", b"\x00\x01"), [(math.inf, ("Bo", None), [(2, math.nan), (3, 0.5)]), (1.5, None, [])], -math.inf),
    (2, None, [], None),
]
DOCUMENTS = [
    {
        "id": 1,
        "customer": {"name": "Ann", "seal": "AAE="},
        "items": [
            {
                "rate": "Infinity",
                "customer": {"name": "Bo", "seal": None},
                "parts": [{"id": 2, "rate": "NaN"}, {"id": 3, "rate": 0.5}],
            },
            {"rate": 1.5, "customer": None, "parts": []},
        ],
        "rate": "-Infinity",
    },
    {"id": 2, "customer": None, "items": [], "rate": None},
]


def test_json_holds_a_row_as_an_object_and_rows_as_a_list() -> None:
    page = JsonPage(COLUMNS)
    encoded = page.rows(ROWS[:1], 10_000) + page.rows(ROWS[1:], 10_000) + page.end()
    assert json.loads(b"[" + encoded + b"]") == DOCUMENTS
    assert list(json.loads(b"[" + encoded + b"]")[0]) == ["id", "customer", "items", "rate"]


def test_ndjson_holds_one_outer_row_on_each_line() -> None:
    lines = JsonLines(COLUMNS)
    encoded = lines.rows(ROWS, 10_000) + lines.end()
    assert [json.loads(line) for line in encoded.splitlines()] == DOCUMENTS


def test_csv_holds_them_as_json_in_one_cell() -> None:
    lines = CsvLines(COLUMNS)
    [header, first, second] = csv.reader(io.StringIO((lines.rows(ROWS, 10_000) + lines.end()).decode()))
    assert header == ["id", "customer", "items", "rate"]
    assert (json.loads(first[1]), json.loads(first[2])) == (DOCUMENTS[0]["customer"], DOCUMENTS[0]["items"])
    assert second == ["2", "", "[]", ""]


def test_the_limit_of_a_row_counts_the_rows_inside_it() -> None:
    for encoder in (JsonPage(COLUMNS), JsonLines(COLUMNS), CsvLines(COLUMNS)):
        with pytest.raises(LenswayError) as caught:
            encoder.rows(ROWS, 100)
        assert caught.value.code is ErrorCode.ROW_TOO_LARGE


@pytest.mark.parametrize("format", [RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET])
def test_formats_without_rows_inside_rows_say_so(format: RowFormat) -> None:
    with pytest.raises(LenswayError) as caught:
        ArrowRows(COLUMNS, format)
    assert caught.value.code is ErrorCode.NOT_ACCEPTABLE
    assert "'customer'" in caught.value.message
