"""Random walks by cursor and by offset: every row once and in order, or `key_not_unique` at the first cut between equals."""

from __future__ import annotations

import asyncio
import pathlib
import random
import sqlite3
import tempfile
import time

import asyncpg
import pyarrow as pa

from lensway.testing.fixtures import fresh_database, let_pass
from lensway.testing.postgres import PostgresCluster
from lensway.testing.walks import RandomCase, Walker, violations
from proofs.report import Report


def walks(report: Report, *, count: int, seed: int | None) -> None:
    """Tables and views with few values, NULLs, and keys that a lens may call unique wrongly."""
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    report.title(
        "walks", f"{count:,} random tables and views on each database, every one walked six times, seed {seed}"
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        let_pass(directory)
        asyncio.run(_sqlite(report, directory / "walks.db", count, random.Random(seed)))
        with PostgresCluster(directory / "cluster") as cluster:
            asyncio.run(_postgres(report, cluster, count, random.Random(seed)))


def _arrow_ids(body: bytes) -> list[int]:
    found: list[int] = pa.ipc.open_stream(body).read_all().column("id").to_pylist()
    return found


async def _sqlite(report: Report, path: pathlib.Path, count: int, chance: random.Random) -> None:
    owner = sqlite3.connect(path, isolation_level=None)
    walker = Walker("sqlite", {"path": str(path)}, _arrow_ids)
    found: list[str] = []
    started = time.monotonic()
    try:
        for _ in range(count):
            case = RandomCase.made(chance, "r", is_sqlite=True)
            owner.executescript("DROP VIEW IF EXISTS vr; DROP TABLE IF EXISTS r;" + ";".join(case.statements))
            found += await violations(walker, case, owner.execute(case.ranks).fetchall())
            # The catalog of a source that is new is asked at once.
            await walker.close()
            walker = Walker("sqlite", {"path": str(path)}, _arrow_ids)
    finally:
        await walker.close()
        owner.close()
    _report(report, "SQLite", found, count, started)


async def _postgres(report: Report, cluster: PostgresCluster, count: int, chance: random.Random) -> None:
    database = await fresh_database(cluster)
    owner = await asyncpg.connect(database.owner_url)
    walker = Walker("postgres", {"url": database.reader_url}, _arrow_ids)
    found: list[str] = []
    started = time.monotonic()
    try:
        for number in range(count):
            case = RandomCase.made(chance, f"r{number}", is_sqlite=False)
            await owner.execute(";".join(case.statements))
            rows = await owner.fetch(case.ranks)
            found += await violations(walker, case, [(row[0], row[1]) for row in rows])
            await owner.execute(f"DROP TABLE r{number} CASCADE")
    finally:
        await walker.close()
        await owner.close()
    _report(report, "PostgreSQL", found, count, started)


def _report(report: Report, name: str, found: list[str], count: int, started: float) -> None:
    report.none(f"walks on {name} that lost, repeated or misplaced a row, or ended in silence", len(found), 6 * count)
    report.details(found)
    report.note(f"{name}: {time.monotonic() - started:.0f} s")
