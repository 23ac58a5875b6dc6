"""Measures: what a plan computes over the matching rows, and the type of each result. Values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from lensway.query.fields import FieldType, PlanColumn


class MeasureFunction(enum.StrEnum):
    """The closed list of functions; the value is the caller's word."""

    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"


_COUNTING: Final = (MeasureFunction.COUNT, MeasureFunction.COUNT_DISTINCT)
_ADDING: Final = (MeasureFunction.SUM, MeasureFunction.AVG)
_SUMS: Final[Mapping[FieldType, FieldType]] = {
    # A sum of 64-bit integers may need more bits.
    FieldType.INTEGER: FieldType.DECIMAL,
    FieldType.DECIMAL: FieldType.DECIMAL,
    FieldType.NUMBER: FieldType.NUMBER,
}


class Measure(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One function over one column. ``column`` None, only for COUNT, counts rows."""

    name: str
    function: MeasureFunction
    column: PlanColumn | None = None

    @property
    def counts_rows(self) -> bool:
        """True for COUNT over rows."""
        return self.function is MeasureFunction.COUNT and self.column is None

    @property
    def result(self) -> PlanColumn:
        """The column of the result. Counts are never NULL; the others are NULL where no row has a value."""
        type = FieldType.INTEGER
        if self.column is not None and self.function not in _COUNTING:
            type = _SUMS[self.column.type] if self.function in _ADDING else self.column.type
        return PlanColumn(self.name, self.name, type, nullable=self.function not in _COUNTING)

    def is_sound(self) -> bool:
        """True when the function takes a column of this type."""
        column = self.column
        if column is None:
            return self.function is MeasureFunction.COUNT
        if self.function in _ADDING:
            return column.type in _SUMS and not column.is_list
        return self.function is MeasureFunction.COUNT or column.has_order


COUNT_OF_ROWS: Final = Measure("count", MeasureFunction.COUNT)
"""How many rows match, under the name `count`."""
