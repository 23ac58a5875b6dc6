"""Measures: which columns a function takes, and the type of its result."""

from __future__ import annotations

import pytest

from lensway.query.fields import FieldType, PlanColumn
from lensway.query.measures import COUNT_OF_ROWS, Measure, MeasureFunction

AVG, COUNT, DISTINCT, MAX, MIN, SUM = (
    MeasureFunction[name] for name in ("AVG", "COUNT", "COUNT_DISTINCT", "MAX", "MIN", "SUM")
)


def column(type: FieldType, *, is_list: bool = False) -> PlanColumn:
    return PlanColumn("c", "c", type, is_list)


@pytest.mark.parametrize(
    ("function", "type", "result"),
    [
        (SUM, FieldType.INTEGER, FieldType.DECIMAL),
        (AVG, FieldType.INTEGER, FieldType.DECIMAL),
        (SUM, FieldType.DECIMAL, FieldType.DECIMAL),
        (AVG, FieldType.NUMBER, FieldType.NUMBER),
        (MIN, FieldType.DATE, FieldType.DATE),
        (MAX, FieldType.TEXT, FieldType.TEXT),
        (COUNT, FieldType.JSON, FieldType.INTEGER),
        (DISTINCT, FieldType.UUID, FieldType.INTEGER),
    ],
)
def test_the_result_has_the_type_of_the_function(function: MeasureFunction, type: FieldType, result: FieldType) -> None:
    measure = Measure("m", function, column(type))
    assert measure.is_sound()
    assert not measure.counts_rows
    counts = function in (COUNT, DISTINCT)
    assert measure.result == PlanColumn("m", "m", result, nullable=not counts)


@pytest.mark.parametrize(
    "measure",
    [
        *(Measure("m", function) for function in MeasureFunction if function is not COUNT),
        *(Measure("m", function, column(FieldType.TEXT)) for function in (SUM, AVG)),
        *(
            Measure("m", function, column(FieldType.INTEGER, is_list=True))
            for function in (SUM, AVG, MIN, MAX, DISTINCT)
        ),
        *(Measure("m", function, column(FieldType.JSON)) for function in (SUM, AVG, MIN, MAX, DISTINCT)),
    ],
)
def test_a_function_takes_only_columns_that_it_can_compute_of(measure: Measure) -> None:
    assert not measure.is_sound()


def test_a_count_of_rows_is_a_measure_as_others_are() -> None:
    assert COUNT_OF_ROWS.counts_rows
    assert COUNT_OF_ROWS.is_sound()
    assert COUNT_OF_ROWS.result == PlanColumn("count", "count", FieldType.INTEGER, nullable=False)
