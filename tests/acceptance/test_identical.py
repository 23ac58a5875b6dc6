"""I11 on real processes: one assignment turns inline execution into dispatch, and no byte of any format changes."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from lensway.testing import odd_values
from lensway.testing.bridges.postgres import PostgresStage

pytestmark = pytest.mark.acceptance
ROWS = 60
QUERIES = 18
ARROW = "application/vnd.apache.arrow.stream"
FORMATS = (
    ("", "application/json"),
    ("", "text/csv"),
    ("", ARROW),
    ("/export", "application/x-ndjson"),
    ("/export", "text/csv"),
    ("/export", ARROW),
    ("/export", f"{ARROW}; codec=zstd"),
    ("/export", "application/vnd.apache.parquet"),
)


def test_i11_assigning_a_runner_changes_no_byte_of_any_format(stage) -> None:
    chance = random.Random(11)
    table = f"odd_{stage.source}"
    asyncio.run(stage.database.execute(*odd_values.statements(PostgresStage(), table, ROWS, chance)))
    definition = odd_values.lens_of(PostgresStage(), table)
    fields = {
        name: {"type": field.type.value, "list": field.is_list, "primaryKey": field.primary_key}
        for name, field in definition.fields.items()
    }
    lens = {"source": stage.source, "table": f"public.{table}", "fields": fields}
    assert stage.client.put(f"/v1/lenses/{table}", json=lens).status_code == 200
    bodies = [
        {
            "select": chance.sample(list(fields), chance.randrange(1, 8)),
            "where": {"id": {"$in": chance.sample(range(ROWS), chance.randrange(1, ROWS))}},
            "orderBy": {"field": "id", "dir": chance.choice(("asc", "desc"))},
        }
        for _ in range(QUERIES)
    ]
    inline = everything(stage, table, bodies)
    stage.runner("alpha")
    stage.assign("alpha")
    dispatched = everything(stage, table, bodies)
    assert stage.query(bodies[0], lens=table).json()["meta"]["route"]["via"] == "runner"
    assert [each for each in inline if inline[each] != dispatched[each]] == []
    assert len(inline) == QUERIES * len(FORMATS)


def everything(stage, lens: str, bodies: list[dict]) -> dict[tuple[int, str, str], str]:
    """The digest of the rows for every body in every format."""
    found = {}
    for number, body in enumerate(bodies):
        for path, accept in FORMATS:
            answer = stage.client.post(f"/v1/query/{lens}{path}", json=body, headers={"Accept": accept})
            assert answer.status_code == 200, answer.text
            content = answer.content
            if accept == "application/json":
                # Behind the rows stand the time it took and the route.
                content = content[: content.rindex(b'],"meta":')]
            assert content
            found[number, path, accept] = hashlib.sha256(content).hexdigest()
    return found
