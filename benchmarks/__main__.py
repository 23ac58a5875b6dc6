"""`make bench`: what dispatching adds to inline execution, and what stands around it. `quick` takes less than two minutes."""

from __future__ import annotations

import asyncio
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time

import asyncpg
import httpx2

from benchmarks.load import LeanClient, steady
from lensway.testing.deployment import Deployment
from lensway.testing.postgres import PostgresCluster

RATE = 500
ROWS = 400_000
FIELDS = {"id": {"type": "integer", "primaryKey": True}, "note": {"type": "text"}}


async def point_queries(deployment: Deployment, seconds: float) -> list[float]:
    """Point queries at a steady rate; the milliseconds of each."""
    client = LeanClient("127.0.0.1", deployment.http_port, deployment.admin_key)
    try:
        return await steady(client, RATE, seconds, ROWS)
    finally:
        client.close()


def describe(values: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]


def main() -> int:
    """Print the figures."""
    is_quick = "quick" in sys.argv[1:]
    rounds, seconds = (4, 5.0) if is_quick else (10, 10.0)
    print(
        f"machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    directory = pathlib.Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    (directory / "server").mkdir()
    with PostgresCluster(directory / "postgres") as cluster, Deployment(directory / "server") as deployment:
        asyncio.run(cluster.create_role_and_database("reader", "secret", "bench"))
        asyncio.run(prepare(cluster.superuser_dsn("bench")))
        client = deployment.client()
        client.post(
            "/v1/sources",
            json={"name": "main", "bridge": "postgres", "config": {"url": cluster.url("reader", "secret", "bench")}},
        )
        client.put("/v1/lenses/orders", json={"source": "main", "table": "public.orders", "fields": FIELDS})
        deployment.start_runner(deployment.create_runner("alpha"))
        inline: list[float] = []
        dispatched: list[float] = []
        for number in range(rounds):
            # Pairs, in turns: a slow moment of the machine meets both.
            for place, values in (
                ((False, inline), (True, dispatched)) if number % 2 else ((True, dispatched), (False, inline))
            ):
                (deployment.assign if place else deployment.unassign)("alpha", "main")
                asyncio.run(point_queries(deployment, 0.5))
                values += asyncio.run(point_queries(deployment, seconds))
                print(f"  round {number + 1}/{rounds} {'runner' if place else 'inline'}", end="\r", flush=True)
        report(inline, dispatched)
        export(deployment, client)
    return 0


async def prepare(dsn: str) -> None:
    """The table."""

    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
    await connection.execute(
        "INSERT INTO orders SELECT i, repeat('note ', 8) || i FROM generate_series(1, $1::int) i", ROWS
    )
    await connection.execute("GRANT SELECT ON orders TO PUBLIC")
    await connection.close()


def report(inline: list[float], dispatched: list[float]) -> None:
    """The table of the main figure."""
    reference, here = describe(inline), describe(dispatched)
    print(f"\npoint queries at {RATE}/s, {len(inline)} of each, HTTP round trip in ms       p50     p99")
    print(f"  inline (reference, same run)                          {reference[0]:10.2f} {reference[1]:7.2f}")
    print(f"  through a runner                                      {here[0]:10.2f} {here[1]:7.2f}")
    print(
        f"  added by dispatch (bar: 1.5 and 8)                    {here[0] - reference[0]:10.2f} {here[1] - reference[1]:7.2f}"
    )


def export(deployment: Deployment, client: httpx2.Client) -> None:
    """Streaming, inline and dispatched."""
    for place in (True, False):
        (deployment.assign if place else deployment.unassign)("alpha", "main")
        started = time.perf_counter()
        size = 0
        with client.stream("POST", "/v1/query/orders/export", json={}) as answer:
            for chunk in answer.iter_bytes():
                size += len(chunk)
        took = time.perf_counter() - started
        where = "through a runner" if place else "inline (reference)"
        print(f"export of {ROWS:,} rows, {size / 2**20:.0f} MiB, {where:<20} {ROWS / took:12,.0f} rows/s")


if __name__ == "__main__":
    sys.exit(main())
