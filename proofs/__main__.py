"""`make prove`: seeds, kills and flips at full length; `make chaos`: faults on real processes for a few minutes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import datetime
import os
import pathlib
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from lensway.testing.deployment import Deployment, Process, paused, wait_until
from lensway.testing.postgres import PostgresCluster
from proofs.seeds import seeds

PAGE = pathlib.Path("docs/proofs.md")
ROWS = 5000
FIELDS = {"id": {"type": "integer", "primaryKey": True}, "total": {"type": "decimal"}}


@dataclasses.dataclass
class Tally:
    """What callers saw."""

    answered: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    taken: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """(sent at, milliseconds) of every answer."""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    in_flight: int = 0

    def note(self, answer: httpx2.Response, right: Callable[[Any], bool], sent: float) -> None:
        """Count one answer."""
        took = (time.monotonic() - sent) * 1000
        with self.lock:
            self.taken.append((sent, took))
            if answer.status_code != 200 or not right(answer.json()["rows"]):
                self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                return
            route = answer.json()["meta"]["route"]
            self.answered[route["runner"] or route["via"]] += 1


class Site:
    """A database, a server, and callers."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.chmod(0o711)
        (directory / "server").mkdir()
        self.cluster = PostgresCluster(directory / "postgres")
        self.deployment = Deployment(directory / "server")
        self.running: dict[str, Process] = {}
        self.identities: dict[str, Any] = {}

    def __enter__(self) -> Site:
        self.cluster.start()
        asyncio.run(self.cluster.create_role_and_database("reader", "secret", "proof"))
        asyncio.run(self._fill())
        self.deployment.start_server()
        client = self.deployment.client()
        config = {
            "host": "127.0.0.1",
            "port": self.cluster.port,
            "user": "reader",
            "password": "secret",
            "database": "proof",
        }
        client.post("/v1/sources", json={"name": "main", "bridge": "postgres", "config": config})
        for lens in ("orders", "slow"):
            client.put(f"/v1/lenses/{lens}", json={"source": "main", "table": f"public.{lens}", "fields": FIELDS})
        return self

    def __exit__(self, *exc: object) -> None:
        self.deployment.__exit__(*exc)
        self.cluster.stop("immediate")

    async def _fill(self) -> None:
        import asyncpg  # noqa: PLC0415 - only here

        connection = await asyncpg.connect(self.cluster.superuser_dsn("proof"))
        await connection.execute(
            f"CREATE TABLE orders AS SELECT i AS id, i * 1.25 AS total FROM generate_series(1, {ROWS}) i;"
            "ALTER TABLE orders ALTER id TYPE bigint, ADD PRIMARY KEY (id);"
            "CREATE VIEW slow AS SELECT o.* FROM orders o, (SELECT pg_sleep(2)) s; GRANT SELECT ON orders, slow TO PUBLIC"
        )
        await connection.close()

    def runner(self, name: str, **environment: str) -> None:
        """Register (once) and start a runner."""
        if name not in self.identities:
            self.identities[name] = self.deployment.create_runner(name)
        self.running[name] = self.deployment.start_runner(self.identities[name], environment=environment)

    def in_force(self, name: str) -> bool:
        """True when an instance of the runner has the wanted set."""
        instances = self.deployment.client().get(f"/v1/runners/{name}").json()["instances"]
        return any(each["revision"] == each["wantedRevision"] and each["state"] == "live" for each in instances)

    def points(self, tally: Tally, over: threading.Event, number: int, pause: float = 0.0) -> None:
        """One caller of point queries."""
        client = self.deployment.client()
        while not over.wait(pause):
            number = (number * 31 + 7) % ROWS
            with tally.lock:
                tally.in_flight += 1
            sent = time.monotonic()
            answer = client.post("/v1/query/orders", json={"where": {"id": number + 1}})
            with tally.lock:
                tally.in_flight -= 1
            wanted = f"{(number + 1) * 1.25:.2f}"
            tally.note(answer, lambda rows, wanted=wanted: [row["total"] for row in rows] == [wanted], sent)

    def slow(self, tally: Tally, over: threading.Event, number: int) -> None:
        """One caller of queries of two seconds."""
        client = self.deployment.client()
        while not over.is_set():
            with tally.lock:
                tally.in_flight += 1
            sent = time.monotonic()
            answer = client.post("/v1/query/slow", json={"where": {"id": number + 1}})
            with tally.lock:
                tally.in_flight -= 1
            tally.note(answer, lambda rows: [row["id"] for row in rows] == [number + 1], sent)


def flips(site: Site) -> Iterator[str]:
    """R7: a source flips between inline and a runner, under load, the two with different database addresses."""
    tally, over = Tally(), threading.Event()
    site.runner("alpha", LENSWAY_SOURCE_MAIN_HOST="localhost")
    across: list[int] = []
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(80) as pool:
        for number in range(56):
            pool.submit(site.points, tally, over, number)
        for number in range(8):
            pool.submit(site.slow, tally, over, number)
        try:
            for _ in range(50):
                for change in (site.deployment.assign, site.deployment.unassign):
                    change("alpha", "main")
                    across.append(tally.in_flight)
                    time.sleep(0.35)
            while sum(tally.answered.values()) < 20_000 and not tally.failures:
                time.sleep(0.1)
        finally:
            over.set()
    total = sum(tally.answered.values())
    shares = ", ".join(f"{place} {count / total:.0%}" for place, count in sorted(tally.answered.items()))
    yield (
        f"R7: {total:,} queries by 64 callers, 100 flips, {len(tally.failures)} failed; {shares}; "
        f"in flight across a flip: least {min(across)}, most {max(across)}; {time.monotonic() - started:.0f} s"
    )
    yield from tally.failures[:3]
    site.running["alpha"].stop()


def kills(site: Site, count: int) -> Iterator[str]:
    """R6: one of two runners killed with SIGKILL, again and again, under 200 queries a second."""
    tally, over = Tally(), threading.Event()
    killed_at: list[float] = []
    for name in ("alpha", "beta"):
        site.runner(name)
        site.deployment.assign(name, "main")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        for number in range(20):
            pool.submit(site.points, tally, over, number, 0.1)
        try:
            time.sleep(3.0)
            calm = time.monotonic()
            for kill in range(count):
                name = ("alpha", "beta")[kill % 2]
                killed_at.append(time.monotonic())
                site.running[name].kill()
                site.runner(name)
                wait_until(lambda name=name: site.in_force(name), seconds=15, what=f"{name} in force")
                time.sleep(1.0)
        finally:
            over.set()
    before = sorted(took for sent, took in tally.taken if sent < calm)
    near = sorted(took for sent, took in tally.taken if any(-0.5 <= sent - at <= 1.0 for at in killed_at))
    rate = len(tally.taken) / (time.monotonic() - calm + 3)
    yield (
        f"R6: {count} kills under {rate:.0f} queries/s, {len(tally.failures)} failed; "
        f"p99 within 1 s of a kill {_p99(near):.0f} ms, before the first {_p99(before):.0f} ms"
    )
    yield from tally.failures[:3]


def _p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99)] if values else 0.0


def chaos(site: Site, seconds: float) -> Iterator[str]:
    """Kills, pauses, drains and flips in random order; callers must not notice while one runner is left."""
    tally, over, rng = Tally(), threading.Event(), random.Random()
    for name in ("alpha", "beta"):
        site.runner(name)
        site.deployment.assign(name, "main")
    until, faults = time.monotonic() + seconds, Counter[str]()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for number in range(16):
            pool.submit(site.points, tally, over, number, 0.05)
        try:
            while time.monotonic() < until:
                name = rng.choice(("alpha", "beta"))
                fault = rng.choice(("kill", "pause", "drain"))
                faults[fault] += 1
                if fault == "pause":
                    with paused(site.running[name]):
                        time.sleep(rng.uniform(0.2, 4.0))
                else:
                    site.running[name].kill() if fault == "kill" else site.running[name].stop()
                    site.runner(name)
                wait_until(lambda name=name: site.in_force(name), seconds=30, what=f"{name} in force")
                print(
                    f"  {fault:<6} {name:<6} {sum(tally.answered.values()):>7,} answered, {len(tally.failures)} failed",
                    flush=True,
                )
        finally:
            over.set()
    what = ", ".join(f"{count} {fault}s" for fault, count in sorted(faults.items()))
    yield f"chaos: {seconds:.0f} s, {what}: {sum(tally.answered.values()):,} answered, {len(tally.failures)} failed"
    yield from tally.failures[:3]


def main() -> int:
    """Run, print, append. 1 when something failed."""
    arguments = sys.argv[1:]
    lines: list[str] = []

    def say(made: Iterator[str]) -> None:
        for line in made:
            print(line, flush=True)
            lines.append(line)

    with tempfile.TemporaryDirectory() as directory, Site(pathlib.Path(directory)) as site:
        if arguments[:1] == ["chaos"]:
            say(chaos(site, float(arguments[1]) if len(arguments) > 1 else 180.0))
        else:
            say(flips(site))
            say(kills(site, 30))
    if arguments[:1] != ["chaos"]:
        say(seeds(int(arguments[0]) if arguments else 20_000))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    entry = (
        f"\n## {when}, {machine}\n\n`make {'chaos' if arguments[:1] == ['chaos'] else 'prove'}`\n\n```\n"
        + "\n".join(lines)
        + "\n```\n"
    )
    PAGE.write_text(
        (PAGE.read_text() if PAGE.exists() else "# Proofs\n\nWhat the long proofs found, newest last.\n") + entry
    )
    return int(
        any("VIOLATED" in line for line in lines) or any(" 0 failed" not in line for line in lines if "failed" in line)
    )


if __name__ == "__main__":
    sys.exit(main())
