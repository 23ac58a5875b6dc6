"""I11: two places that execute give the same bytes, in every format; and a value looks the same in pages and exports.

Queries and values are generated: nothing but their number is chosen by hand.
"""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import RowFormat
from lensway.testing import odd_values
from lensway.testing.bridges.stage import Stage, stage_classes
from lensway.testing.digests import DigestJob, OtherPlace, digest, result_of

SEED = 20_261_124
QUERIES_PER_BRIDGE = 130
ROWS = 40
PAGES = (RowFormat.JSON, RowFormat.CSV, RowFormat.ARROW)
EXPORTS = (RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW, RowFormat.PARQUET)


class Query:
    """One generated question, as plans for a page and for an export of the same rows in the same order."""

    def __init__(self, bridge: str, definition: LensDefinition, chance: random.Random) -> None:
        self.bridge = bridge
        names = list(definition.fields)
        select = chance.sample(names, chance.randrange(1, min(9, len(names))))
        where = condition(definition, chance)
        order = [{"field": "id", "dir": chance.choice(("asc", "desc"))}]
        capabilities = capabilities_of(bridge)
        page = QueryRequest(select=select, where=where, order_by=order, limit=ROWS, total=chance.random() < 0.2)
        self.page: Plan = plan_rows(definition, page, capabilities, cursor_key=b"k" * 32, environment="e").plan
        self.export = plan_export(definition, ExportRequest(select=select, where=where, order_by=order), capabilities)

    def jobs(self) -> list[DigestJob]:
        pages = [DigestJob(self.bridge, self.page.encode(), format.value, False) for format in PAGES]
        return pages + [DigestJob(self.bridge, self.export.encode(), format.value, True) for format in EXPORTS]


def condition(definition: LensDefinition, chance: random.Random) -> Any:
    """A condition whose values are odd too, so that they go the way of parameters."""
    choices: list[Any] = [
        None,
        {"id": {"$in": chance.sample(range(ROWS), 20)}},
        {"id": {"$gte": chance.randrange(ROWS)}},
        {"words": {"$nin": ["", "null", None if chance.random() < 0.1 else "'; DROP TABLE odd; --"]}},
        {"words": {"$contains": chance.choice(("\\", "'", '"', "%", "é", "$1", "\n"))}},
        {"words": {"$in": [odd_values.text(chance) for _ in range(5)]}},
        {"$or": [{"words": {"$exists": False}}, {"big": {"$lt": 2**63 - 1}}]},
        {"$not": {"flag": True}},
        {"double": {"$lte": chance.choice((1e300, 0.1, -0.0))}},
        {"exact": {"$gt": chance.choice(("0", "12345678901234567890.12345678", "-1e20"))}},
        {"moment": {"$lt": "2013-01-31T17:05:00.5Z"}},
    ]
    if "short" in definition.fields:
        choices += [{"short": {"$eq": odd_values.text(chance)[:40]}}, {"padded": {"$ne": 'a\\b"'}}]
    return chance.choice(choices)


@pytest.fixture
def stages(tmp_path: pathlib.Path) -> Iterator[dict[str, Stage]]:
    chance = random.Random(SEED)
    started = {kind: stage_class() for kind, stage_class in stage_classes().items()}
    for kind, stage in started.items():
        (tmp_path / kind).mkdir()
        asyncio.run(stage.start(tmp_path / kind))
        asyncio.run(stage.execute(*odd_values.statements(stage, "odd", ROWS, chance)))
    yield started
    for stage in started.values():
        asyncio.run(stage.stop())


def test_i11_two_places_give_the_same_bytes_in_every_format(stages: dict[str, Stage]) -> None:
    chance = random.Random(SEED)
    lenses = {kind: odd_values.lens_of(stage, "odd") for kind, stage in stages.items()}
    configs = {kind: dict(stage.config) for kind, stage in stages.items()}
    queries = [Query(bridge, lens, chance) for bridge, lens in lenses.items() for _ in range(QUERIES_PER_BRIDGE)]
    jobs = [job for query in queries for job in query.jobs()]
    assert len(jobs) >= 2_000
    other = OtherPlace(configs, jobs)
    results = asyncio.run(results_of(configs, jobs))
    elsewhere = other.digests()
    different = [
        (job.bridge, job.format, here[0][:300])
        for job, here, there in zip(jobs, results, elsewhere, strict=True)
        if digest(*here) != there
    ]
    assert not different
    failed = {rows[:40] for rows, end in results if end.startswith(b"{")}  # the details of an error, no end mark
    assert not failed, "every generated value can be held by every format"

    # The same rows look the same on a page and in an export, whichever way they come.
    width = len(PAGES) + len(EXPORTS)
    for number, query in enumerate(queries):
        page, page_csv, _, document, lines, lines_csv = (rows for rows, _ in results[number * width :][:6])
        assert page == document, (query.bridge, query.export)
        assert page_csv == lines_csv, (query.bridge, query.export)
        assert page + b"\n" * bool(page) == lines.replace(b"}\n{", b"},{"), (query.bridge, query.export)


async def results_of(configs: dict[str, dict[str, Any]], jobs: list[DigestJob]) -> list[tuple[bytes, bytes]]:
    library = ExecutionLibrary(AddressPolicy())
    results = [await result_of(library, configs[job.bridge], job) for job in jobs]
    await library.close()
    return results


@pytest.mark.parametrize("stage_class", stage_classes().values(), ids=stage_classes())
def test_the_odd_values_are_of_every_type_with_nulls_in_every_column(stage_class: type[Stage]) -> None:
    assert {odd.type for odd in stage_class.odd_columns.values()} == stage_class.types
    stage = stage_class()
    _, *inserts = odd_values.statements(stage, "odd", 200, random.Random(SEED))
    assert len(inserts) == 200
    assert sum("NULL" in insert for insert in inserts) > 100
