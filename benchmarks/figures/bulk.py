"""Large results: to Arrow beside ADBC straight to the database, to NDJSON beside the driver's fastest text path."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import adbc_driver_postgresql.dbapi
import asyncpg
import pyarrow

from benchmarks.report import Line
from benchmarks.stage import Stage

COLUMNS = {
    "id": ("bigint", "integer", "i"),
    "small": ("integer", "integer", "i % 1000"),
    "ratio": ("float8", "number", "i / 7.0"),
    "amount": ("numeric(14,2)", "decimal", "i / 3.0"),
    "name": ("text", "text", "'name ' || i % 5003"),
    "note": ("text", "text", "'a note of some length, number ' || i"),
    "good": ("boolean", "boolean", "i % 3 = 0"),
    "day": ("date", "date", "date '2020-01-01' + i % 2000"),
    "placed": ("timestamptz", "timestamp", "timestamptz '2026-01-01' + i * interval '1 second'"),
    "tag": ("uuid", "uuid", "md5(i::text)::uuid"),
}
_ORDERS = {" ORDER BY id": "by key", "": "as found"}
"""Asked of both sides alike: the order of the primary key, which an export has unless told otherwise, and none."""


def arrow(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Every row as Arrow, in the hands of the caller."""
    what = f"rows × {len(COLUMNS)} to Arrow"
    return _lines(stage, what, _our_arrow, _adbc, 1.35, "ADBC straight", is_quick=is_quick)


def ndjson(stage: Stage, *, is_quick: bool) -> Sequence[Line]:
    """Every row as NDJSON, every byte taken by the caller."""
    return _lines(stage, "rows to NDJSON", _our_ndjson, _copied, 1.5, "COPY of row_to_json", is_quick=is_quick)


def _lines(
    stage: Stage,
    what: str,
    ours: Callable[[Stage, str], int],
    reference: Callable[[Stage, str], int],
    bar: float,
    name: str,
    *,
    is_quick: bool,
) -> Sequence[Line]:
    rows = facts(stage, is_quick=is_quick)
    lines: list[Line] = []
    for order, how in _ORDERS.items():
        asked = functools.partial(ours, stage, order), functools.partial(reference, stage, order)
        lines += _line(f"{rows:,} {what}, {how}, via runner", *asked, bar, rows, name)
    return lines


def facts(stage: Stage, *, is_quick: bool) -> int:
    """The table of a million rows with its lens, executed by the runner; how many rows it has."""
    rows = 200_000 if is_quick else 1_000_000
    if "facts" not in stage.made:
        stage.made.add("facts")
        declared = ", ".join(f"{name} {kind}" for name, (kind, _, _) in COLUMNS.items())
        selected = ", ".join(expression for _, _, expression in COLUMNS.values())
        stage.execute(
            f"CREATE TABLE facts ({declared}, PRIMARY KEY (id))",
            f"INSERT INTO facts SELECT {selected} FROM generate_series(1, {rows}) i",
            "VACUUM ANALYZE facts",
            "GRANT SELECT ON facts TO PUBLIC",
        )
        fields: dict[str, Any] = {name: {"type": type} for name, (_, type, _) in COLUMNS.items()}
        stage.add_lens("facts", "public.facts", fields | {"id": {"type": "integer", "primaryKey": True}})
    stage.place("runner")
    return rows


def _line(
    figure: str, ours: Callable[[], int], reference: Callable[[], int], bar: float, rows: int, name: str
) -> Sequence[Line]:
    taken: dict[str, list[float]] = {"ours": [], "reference": []}
    for number in range(4):
        pair = (("ours", ours), ("reference", reference))
        for who, run in pair if number % 2 else reversed(pair):
            started = time.perf_counter()
            found = run()
            assert found == rows, f"{found} of {rows} rows"
            if number:  # the first one opens connections and fills caches
                taken[who].append(time.perf_counter() - started)
    mine, its = (statistics.median(taken[who]) for who in ("ours", "reference"))
    ratios = [mine / its for mine, its in zip(taken["ours"], taken["reference"], strict=True)]
    return [
        Line(
            figure=figure,
            measured=f"{mine:.2f} s, {rows / mine:,.0f} rows/s",
            reference=f"{name} {its:.2f} s, {rows / its:,.0f} rows/s",
            value=statistics.median(ratios),
            bar=bar,
        )
    ]


def _export(stage: Stage, accept: str, order: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", stage.deployment.http_port)
    headers = {"Authorization": f"Bearer {stage.key}", "Content-Type": "application/json", "Accept": accept}
    connection.request("POST", "/v1/query/facts/export", json.dumps({} if order else {"orderBy": []}), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer


def _our_arrow(stage: Stage, order: str) -> int:
    with _export(stage, "application/vnd.apache.arrow.stream", order) as answer:
        reader = pyarrow.ipc.open_stream(pyarrow.PythonFile(answer, "r"))
        return sum(batch.num_rows for batch in reader)


def _adbc(stage: Stage, order: str) -> int:
    with adbc_driver_postgresql.dbapi.connect(stage.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM facts{order}")
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def _our_ndjson(stage: Stage, order: str) -> int:
    rows = 0
    with _export(stage, "application/x-ndjson", order) as answer:
        while chunk := answer.read1(1 << 20):
            rows += chunk.count(b"\n")
    return rows


def _copied(stage: Stage, order: str) -> int:
    return asyncio.run(_copy(stage, order))


async def _copy(stage: Stage, order: str) -> int:
    rows = 0

    async def take(data: bytes) -> None:
        nonlocal rows
        rows += data.count(b"\n")

    connection = cast(Any, await asyncpg.connect(stage.dsn))
    await connection.copy_from_query(f"SELECT row_to_json(facts) FROM facts{order}", output=take)
    await connection.close()
    return rows
