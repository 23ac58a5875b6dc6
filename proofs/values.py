"""Values of a gigabyte: asked for in every format, here and behind a runner, they give `row_too_large` and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator

import httpx2

from lensway.limits import MIB
from lensway.testing.deployment import Deployment, Process
from lensway.testing.fixtures import fresh_database, let_pass
from lensway.testing.http_caller import Caller
from lensway.testing.postgres import Database, PostgresCluster
from proofs.report import Report

GROWTH_MIB = 64
VALUE_BYTES = 1_000_000_000
_ARROW, _PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
_PAGE = ("application/json", "application/x-ndjson", "text/csv", _ARROW)
_WAYS = (*(("", accept) for accept in _PAGE), *(("/export", accept) for accept in (*_PAGE, _PARQUET)))
_WIDE = 40
_TABLES = {"stored": ["body"], "packed": ["body"], "made": ["body"]}
_FILE_TABLES = {"stored": ["body"], "wide": [f"c{number}" for number in range(_WIDE)]}
_ID = {"id": {"type": "integer", "primaryKey": True}}


def values(report: Report, *, rounds: int = 1) -> None:
    """Stored as it is, compressed, and made by a view; in SQLite one value, and forty that make a row of 600 MB."""
    report.title("values", f"rows of a gigabyte in every format, {rounds} times, beside queries of one row")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        let_pass(directory)
        with PostgresCluster(directory / "cluster") as cluster:
            database = asyncio.run(_filled(cluster))
            with Deployment(directory, serve_options=("--source-dir", name)) as deployment:
                lenses, runner = _set_up(deployment, database, _file(directory))
                found = _asked(deployment, runner, lenses * rounds)
    report.none("answers but `row_too_large`", len(found.others), found.count)
    report.details(found.others)
    for place, grown in found.grown.items():
        report.at_most(f"memory of the {place}, growth at its peak", grown / MIB, GROWTH_MIB, "MiB")
    report.none("other queries on the same runner connection that failed", found.failed, len(found.seconds))
    report.add("the longest of them", f"{max(found.seconds) * 1000:.0f} ms")


@dataclasses.dataclass
class _Found:
    count: int = 0
    others: list[str] = dataclasses.field(default_factory=list)
    grown: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)
    failed: int = 0


async def _filled(cluster: PostgresCluster) -> Database:
    database = await fresh_database(cluster)
    await database.execute(
        "CREATE TABLE small AS SELECT 1::bigint AS id, 'x' AS body",
        "CREATE UNLOGGED TABLE stored (id bigint PRIMARY KEY, body text)",
        "ALTER TABLE stored ALTER body SET STORAGE EXTERNAL",
        f"INSERT INTO stored VALUES (1, repeat('x', {VALUE_BYTES}))",
        "CREATE UNLOGGED TABLE packed (id bigint PRIMARY KEY, body text)",
        f"INSERT INTO packed VALUES (1, repeat('x', {VALUE_BYTES}))",
        f"CREATE VIEW made AS SELECT 1::bigint AS id, repeat('x', {VALUE_BYTES}) AS body",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
    )
    return database


def _file(directory: pathlib.Path) -> pathlib.Path:
    path = directory / "values.db"
    columns = ", ".join(_FILE_TABLES["wide"])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE stored (id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute(f"INSERT INTO stored VALUES (1, zeroblob({VALUE_BYTES - 1000}))")
        connection.execute(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})")
        value = "replace(hex(zeroblob(7500000)), '0', 'x')"
        connection.execute(f"INSERT INTO wide SELECT 1, {', '.join([value] * _WIDE)}")
    return path


def _set_up(deployment: Deployment, database: Database, path: pathlib.Path) -> tuple[list[str], Process]:
    client, lenses = deployment.client(), []
    policy = deployment.directory / "policy.toml"
    policy.write_text(f'source_dirs = ["{path.parent}"]\n')
    runner = deployment.start_runner(
        deployment.create_runner("alpha"), environment={"LENSWAY_RUNNER_POLICY": str(policy)}
    )
    for place in ("far", "near"):
        for bridge, config, tables in (
            ("postgres", {"url": database.reader_url}, {**_TABLES, "small": ["body"]}),
            ("sqlite", {"path": str(path)}, _FILE_TABLES),
        ):
            source = f"{place}-{bridge}"
            answer = client.post("/v1/sources", json={"name": source, "bridge": bridge, "config": config})
            answer.raise_for_status()
            for table, columns in tables.items():
                kind = "bytes" if (bridge, table) == ("sqlite", "stored") else "text"
                fields = _ID | {column: {"type": kind} for column in columns}
                lens = {"source": source, "table": table, "fields": fields}
                client.put(f"/v1/lenses/{source}-{table}", json=lens).raise_for_status()
                if table != "small":
                    lenses.append(f"{source}-{table}")
            if place == "far":
                deployment.assign("alpha", source)
    return lenses, runner


def _asked(deployment: Deployment, runner: Process, lenses: list[str]) -> _Found:
    assert deployment.server is not None
    client, found = deployment.client(), _Found()
    for place in ("far", "near"):
        for path, accept in _WAYS:
            client.post(
                f"/v1/query/{place}-postgres-small{path}", json={}, headers={"Accept": accept}
            ).raise_for_status()
    processes = {"server": deployment.server.pid, "runner": runner.pid}
    before = {name: _memory(pid, "VmRSS") for name, pid in processes.items()}
    for pid in processes.values():
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    with _others(deployment, found):
        for lens in lenses:
            for path, accept in _WAYS:
                outcome = _outcome(deployment, f"/v1/query/{lens}{path}", accept)
                found.count += 1
                if outcome != "row_too_large":
                    found.others.append(f"{lens}{path} {accept}: {outcome}")
    found.grown = {name: _memory(pid, "VmHWM") - before[name] for name, pid in processes.items()}
    return found


@contextlib.contextmanager
def _others(deployment: Deployment, found: _Found) -> Iterator[None]:
    """Queries of one row, one after the other, on the runner that is asked for large ones."""
    is_over = threading.Event()
    client = deployment.client()

    def ask() -> None:
        while not is_over.wait(0.02):
            started = time.monotonic()
            try:
                found.failed += client.post("/v1/query/far-postgres-small", json={}).status_code != 200
            except httpx2.HTTPError:
                found.failed += 1
            found.seconds.append(time.monotonic() - started)

    asking = threading.Thread(target=ask, name="others")
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        asking.join()


def _outcome(deployment: Deployment, path: str, accept: str) -> str:
    with Caller(deployment.http_port, key=deployment.admin_key) as caller:
        caller.post(path, {"timeoutMs": 120_000}, headers={"Accept": accept})
        answer = caller.answer()
    return "rows" if answer.status == 200 else str(json.loads(answer.body)["error"]["code"])


def _memory(pid: int, what: str) -> int:
    """Bytes, as the kernel counts them."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{what}:"))
