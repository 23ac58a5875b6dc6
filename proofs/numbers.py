"""Numbers of up to 40 digits in `where`: a JSON number finds what the same number as text does, by every operator, everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
import sqlite3
import tempfile
import time
from collections.abc import Sequence

import httpx2

from lensway.testing.deployment import Deployment
from lensway.testing.exact_numbers import holds, literals, stored_decimals
from lensway.testing.fixtures import fresh_database, let_pass
from lensway.testing.postgres import PostgresCluster
from proofs.report import Report

_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
_LENSES = ("near-postgres", "far-postgres", "near-sqlite", "far-sqlite")
_SOME_WRONG = 5


def numbers(report: Report, *, count: int = 10_000, seed: int | None = None) -> None:
    """Each number is compared in both spellings within one query, and by one operator with what arithmetic says."""
    seed = random.randrange(2**32) if seed is None else seed
    report.title("numbers", f"{count:,} random numbers of up to 40 digits in `where`, seed {seed}")
    stored = stored_decimals()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        let_pass(directory)
        with PostgresCluster(directory / "cluster") as cluster, Deployment(directory) as deployment:
            _set_up(deployment, directory, asyncio.run(_filled(cluster, stored)), stored)
            started = time.monotonic()
            differing, wrong = _asked(deployment, stored, literals(random.Random(seed), count, near=stored))
    per = f"{(time.monotonic() - started) / count * 1000:.1f} ms each"
    report.none(
        f"numbers that found other rows than their text, by some of {len(_OPERATORS) + 2} operators",
        len(differing),
        count,
    )
    report.details(differing)
    report.none("numbers that found other rows than arithmetic", len(wrong), count)
    report.details(wrong)
    report.add("asked of", f"{', '.join(_LENSES)}; {per}")


async def _filled(cluster: PostgresCluster, stored: Sequence[str]) -> str:
    database = await fresh_database(cluster)
    lines = ", ".join(f"({number}, '{value}')" for number, value in enumerate(stored))
    await database.execute(
        "CREATE TABLE numbers (id int PRIMARY KEY, n numeric)",
        f"INSERT INTO numbers VALUES {lines}",
        "GRANT SELECT ON numbers TO PUBLIC",
    )
    return database.reader_url


def _set_up(deployment: Deployment, directory: pathlib.Path, url: str, stored: Sequence[str]) -> None:
    path = directory / "numbers.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, n TEXT)")
        connection.executemany("INSERT INTO numbers VALUES (?, ?)", list(enumerate(stored)))
    policy = directory / "policy.toml"
    policy.write_text(f'source_dirs = ["{directory}"]\n')
    deployment.start_runner(deployment.create_runner("alpha"), environment={"LENSWAY_RUNNER_POLICY": str(policy)})
    client = deployment.client()
    fields = {"id": {"type": "integer", "primaryKey": True}, "n": {"type": "decimal"}}
    for name in _LENSES:
        place, bridge = name.split("-")
        config = {"url": url} if bridge == "postgres" else {"path": str(path)}
        client.post("/v1/sources", json={"name": name, "bridge": bridge, "config": config}).raise_for_status()
        lens = {"source": name, "table": "numbers", "fields": fields}
        client.put(f"/v1/lenses/{name}", json=lens).raise_for_status()
        if place == "far":
            deployment.assign("alpha", name)


def _asked(deployment: Deployment, stored: Sequence[str], values: Sequence[str]) -> tuple[list[str], list[str]]:
    differing, wrong = [], []
    client = deployment.client()
    for number, literal in enumerate(values):
        lens, operator = _LENSES[number % len(_LENSES)], _OPERATORS[number // len(_LENSES) % len(_OPERATORS)]
        if _count(client, lens, _differences(literal)):
            differing.append(f"{lens}: {literal}")
        expected = sum(holds(operator, each, literal) for each in stored)
        if (found := _count(client, lens, f'{{"n": {{"{operator}": {literal}}}}}')) != expected:
            wrong.append(f"{lens}: {operator} {literal} found {found} instead of {expected}")
        if len(differing) + len(wrong) >= _SOME_WRONG:
            break
    return differing, wrong


def _differences(literal: str) -> str:
    """The filter for rows that one spelling finds and the other does not."""
    pairs = [(f'{{"{each}": {literal}}}', f'{{"{each}": "{literal}"}}') for each in _OPERATORS]
    pairs += [(f'{{"{each}": [{literal}, 7]}}', f'{{"{each}": ["{literal}", "7"]}}') for each in ("$in", "$nin")]
    only = '{{"n": {0}, "$not": {{"n": {1}}}}}'
    return '{"$or": [' + ", ".join(only.format(*each) for pair in pairs for each in (pair, pair[::-1])) + "]}"


def _count(client: httpx2.Client, lens: str, where: str) -> int:
    answer = client.post(
        f"/v1/count/{lens}", content=f'{{"where": {where}}}'.encode(), headers={"Content-Type": "application/json"}
    )
    answer.raise_for_status()
    return int(json.loads(answer.content)["count"])
