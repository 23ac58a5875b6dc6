"""Statements, compiled from plans: their texts are pinned, so that a change of the plan's form shows what it does to SQL."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Final

import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.dialects.compile import compile_shape
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.ordering import DECLARED, Ordering
from lensway.query.plan import Plan
from lensway.query.planner import plan_count, plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd

STATEMENTS: Final = pathlib.Path(__file__).parent / "statements.json"
"""The statements of every case, by dialect. To change one on purpose, call `written_anew`."""
KEY: Final = b"k" * 32
ORDERS: Final = LensDefinition(
    name="orders",
    table="public.orders",
    fields={
        field.name: field
        for field in (
            Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True),
            Field(name="region", type=FieldType.TEXT, column="Region"),
            Field(name="total", type=FieldType.DECIMAL, column="total_amount"),
            Field(name="rate", type=FieldType.NUMBER, column="rate"),
            Field(name="opens", type=FieldType.TIME, column="opens"),
            Field(name="placed", type=FieldType.TIMESTAMP, column="created_at", nullable=False),
            Field(name="owner", type=FieldType.UUID, column="owner"),
            Field(name="extra", type=FieldType.JSON, column="extra"),
            Field(name="tags", type=FieldType.TEXT, column="tags", is_list=True),
            Field(name="seal", type=FieldType.BYTES, column='se"al'),
        )
    },
)
BY_ROW_ID: Final = Ordering(nullable=(True,), row_id="ctid")
RANKED: Final = Ordering(nullable=(True,), is_ranked=True)
WHERES: Final[Mapping[str, object]] = {
    "equal": {"region": "north"},
    "ranges": {"total": {"$gte": "1.5", "$lt": 100}, "rate": {"$gt": 0.5}},
    "lists": {"id": [1, 2, 3], "region": {"$nin": ["a", None]}},
    "patterns": {"$or": [{"region": {"$like": "n%"}}, {"region": {"$ilike": "N_"}}, {"region": {"$contains": "or"}}]},
    "edges": {"region": {"$startsWith": "n", "$endsWith": "h"}},
    "nulls": {"$not": {"$or": [{"extra": None}, {"tags": {"$exists": False}}, {"total": {"$ne": 7}}]}},
    "times": {"opens": {"$lte": "17:05:00"}, "placed": {"$gt": "2024-01-01T00:00:00Z"}},
    "others": {"owner": "00000000-0000-0000-0000-000000000001", "seal": "AAE="},
}


def rows(**asked: object) -> Callable[[str], Plan]:
    def plan(bridge: str) -> Plan:
        request = QueryRequest(**asked)
        return plan_rows(ORDERS, request, capabilities_of(bridge), cursor_key=KEY, environment="env").plan

    return plan


def behind(*last: object, row_id: int | None = None, **asked: object) -> Callable[[str], Plan]:
    def plan(bridge: str) -> Plan:
        request, capabilities = QueryRequest(**asked), capabilities_of(bridge)
        first = plan_rows(ORDERS, request, capabilities, cursor_key=KEY, environment="env")
        cursor = first.next_cursor(ResultEnd(rows=1, bytes=1, has_more=True, last_key=last, row_id=row_id))
        return rows(cursor=cursor, **asked)(bridge)

    return plan


CASES: Final[Mapping[str, tuple[Callable[[str], Plan], Ordering]]] = {
    "page": (rows(), DECLARED),
    "page with a total": (rows(total=True, where=WHERES["equal"]), DECLARED),
    "offset": (rows(offset=10, select=["region", "id"]), DECLARED),
    "ordered": (rows(order_by=[{"field": "total", "dir": "desc"}, {"field": "region"}]), DECLARED),
    "behind a key": (behind(7), DECLARED),
    "behind a text": (behind("north", 7, order_by={"field": "region"}), DECLARED),
    "behind a NULL": (behind(None, 7, order_by={"field": "total", "dir": "desc"}), DECLARED),
    "behind a whole decimal": (behind("12", 7, order_by={"field": "total"}, where=WHERES["ranges"]), DECLARED),
    "by row id": (rows(), BY_ROW_ID),
    "behind a row id": (behind(7, row_id=3), BY_ROW_ID),
    "ranked": (rows(), RANKED),
    "ranked, offset": (rows(offset=10), RANKED),
    "export": (lambda bridge: plan_export(ORDERS, ExportRequest(), capabilities_of(bridge)), DECLARED),
    "export unordered": (
        lambda bridge: plan_export(ORDERS, ExportRequest(order_by=[]), capabilities_of(bridge)),
        DECLARED,
    ),
    "count": (lambda bridge: plan_count(ORDERS, None, capabilities_of(bridge)), DECLARED),
    "count where": (lambda bridge: plan_count(ORDERS, WHERES["lists"], capabilities_of(bridge)), DECLARED),
    "probe": (lambda _bridge: plan_probe(ORDERS), DECLARED),
    **{f"where {name}": (rows(where=where, select=["id"]), DECLARED) for name, where in WHERES.items()},
}


def compiled(case: str, bridge: str) -> list[str]:
    make, ordering = CASES[case]
    statement = compile_shape(make(bridge).shape, bridge, ordering)
    return [each for each in (statement.sql, statement.rest_sql, statement.count_sql) if each is not None]


def written_anew() -> None:
    """Write `statements.json`: call it from a Python shell."""
    found = {bridge: {case: compiled(case, bridge) for case in CASES} for bridge in ("postgres", "sqlite")}
    STATEMENTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@pytest.mark.parametrize("bridge", ["postgres", "sqlite"])
@pytest.mark.parametrize("case", CASES)
def test_the_statement_of_a_plan_is_the_pinned_one(case: str, bridge: str) -> None:
    pinned = json.loads(STATEMENTS.read_text(encoding="utf-8"))
    assert compiled(case, bridge) == pinned[bridge][case]
