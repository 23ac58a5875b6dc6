"""PgBouncer between Lensway and the database: the right rows, and nothing of ours for other clients of the pool."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import http.client
import json
import pathlib
import tempfile
import threading
from typing import Final

import asyncpg

from lensway.testing.deployment import Deployment
from lensway.testing.fixtures import let_pass
from lensway.testing.pgbouncer import pgbouncer_before
from lensway.testing.postgres import PostgresCluster
from proofs.report import Report

_DATABASE: Final = "shop"
_READER: Final = "reader"
_PASSWORD: Final = "reader-of-the-shop"
_TABLES: Final = ("ta", "tb")
_ROWS: Final = 5_000
_THREADS: Final = 8
_PAUSE_SECONDS: Final = 0.5
"""Between two exports, so that the pages are not only waiting for a core."""
_WATCHED: Final = (
    "default_transaction_read_only", "statement_timeout", "timezone", "datestyle", "intervalstyle", "jit",
    "extra_float_digits", "bytea_output", "search_path", "application_name", "idle_in_transaction_session_timeout",
    "client_connection_check_interval",
)  # fmt: skip


def poolers(report: Report, *, pages: int = 10_000) -> None:
    """Eight callers on two lenses through two runners, in both modes of the pool; exports and another client beside them."""
    report.title(
        "poolers", f"PgBouncer, {_THREADS} callers × {pages:,} pages of alternating lenses, exports beside them"
    )
    with tempfile.TemporaryDirectory(prefix="lensway-poolers-") as name:
        directory = pathlib.Path(name)
        let_pass(directory)
        with PostgresCluster(directory / "cluster") as cluster:
            asyncio.run(_fill(cluster))
            for mode, size in (("transaction", 4), ("session", 80)):
                (directory / mode).mkdir(mode=0o755)
                logins = {_READER: _PASSWORD}
                with pgbouncer_before(cluster, directory / mode, pool_mode=mode, logins=logins, pool_size=size) as port:
                    _judge(report, mode, _Run(directory / mode, port, pages))


async def _fill(cluster: PostgresCluster) -> None:
    await cluster.create_role_and_database(_READER, _PASSWORD, _DATABASE)
    for table in _TABLES:
        await cluster.execute(
            f"CREATE TABLE {table} AS SELECT i::bigint AS id, '{table}-' || i AS s FROM generate_series(1, {_ROWS}) i;"
            f"ALTER TABLE {table} ADD PRIMARY KEY (id); CREATE VIEW {table}_view AS SELECT * FROM {table};"
            f"GRANT SELECT ON {table}_view TO PUBLIC",
            database=_DATABASE,
        )


class _Run:
    """One deployment behind one pool, and what its callers saw."""

    def __init__(self, directory: pathlib.Path, pool: int, pages: int) -> None:
        self.pages = 0
        self.exports = 0
        self.looks = 0
        self.wrong: list[str] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.untyped: list[str] = []
        self.leaked: list[str] = []
        self._pool = pool
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        with Deployment(directory) as deployment:
            self._port, self._key = deployment.http_port, deployment.admin_key
            self._declare(deployment)
            with concurrent.futures.ThreadPoolExecutor(_THREADS + 2) as threads:
                beside = [threads.submit(self._export_for_ever), threads.submit(asyncio.run, self._watch())]
                callers = [threads.submit(self._call, number, pages) for number in range(_THREADS)]
                concurrent.futures.wait(callers)
                self._is_over.set()
                for future in (*callers, *beside):
                    future.result()

    def _declare(self, deployment: Deployment) -> None:
        client = deployment.client()
        config = {
            "host": "127.0.0.1", "port": self._pool, "user": _READER, "password": _PASSWORD, "database": _DATABASE,
        }  # fmt: skip
        source = {"name": "main", "bridge": "postgres", "credentials": "managed", "config": config}
        client.post("/v1/sources", json=source).raise_for_status()
        for lens in (*_TABLES, *(f"{table}_view" for table in _TABLES)):
            fields = {"id": {"type": "integer", "primaryKey": True}, "s": {"type": "text"}}
            body = {"source": "main", "table": f"public.{lens}", "fields": fields}
            client.put(f"/v1/lenses/{lens}", json=body).raise_for_status()
        # Two processes: names that only one of them keeps apart would collide.
        for name in ("alpha", "beta"):
            deployment.start_runner(deployment.create_runner(name))
            deployment.assign(name, "main")

    def _call(self, number: int, pages: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for turn in range(pages):
            table = _TABLES[(turn + number) % 2]
            lens = table if turn % 5 else f"{table}_view"
            status, body = self._ask(connection, f"/v1/query/{lens}", {"limit": 3})
            rows = json.loads(body).get("rows")
            with self._lock:
                self.pages += 1
                if status == 200 and rows != [{"id": each, "s": f"{table}-{each}"} for each in (1, 2, 3)]:
                    self.wrong.append(f"{lens}: {body[:200]!r}")
                elif status != 200:
                    self._note_failure(status, body)

    def _export_for_ever(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        formats = ("application/x-ndjson", "text/csv", "application/json")
        while not self._is_over.is_set():
            table, accept = _TABLES[self.exports % 2], formats[self.exports % 3]
            status, body = self._ask(connection, f"/v1/query/{table}/export", {}, accept)
            self.exports += 1
            self._is_over.wait(_PAUSE_SECONDS)
            found = body.count(f"{table}-".encode())
            with self._lock:
                if status == 200 and (found != _ROWS or body.count(b"-") != _ROWS):
                    self.wrong.append(f"export of {table}: {found} of its rows")
                elif status != 200:
                    self._note_failure(status, body)

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, body: object, accept: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Accept": accept}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _note_failure(self, status: int, body: bytes) -> None:
        try:
            error = json.loads(body)["error"]
            self.failures[f"{error['code']} {error.get('details', {}).get('class', '')}".strip()] += 1
            if error["code"] == "internal":
                self.untyped.append(body[:200].decode(errors="replace"))
        except (ValueError, KeyError, TypeError):
            self.untyped.append(f"{status} {body[:200]!r}")

    async def _watch(self) -> None:
        """Another client of the pool, which looks at the settings that it is given."""
        url = f"postgresql://{_READER}:{_PASSWORD}@127.0.0.1:{self._pool}/{_DATABASE}"
        wanted = ", ".join(f"current_setting('{name}', true) AS {name}" for name in _WATCHED)
        expected: tuple[object, ...] | None = None
        while not self._is_over.is_set():
            client = await asyncpg.connect(url, statement_cache_size=0)
            for _ in range(20):
                found = tuple((await client.fetchrow(f"SELECT {wanted}")).values())
                expected = expected or ("off", "0", *found[2:])
                self.looks += 1
                if found != expected:
                    self.leaked.append(
                        str([pair for pair in zip(_WATCHED, found, strict=True) if pair[1] not in expected])
                    )
                await asyncio.sleep(0.05)
            await client.close()


def _judge(report: Report, mode: str, run: _Run) -> None:
    report.none(f"{mode} pooling: wrong rows", len(run.wrong), run.pages + run.exports)
    report.details(run.wrong)
    report.none(f"{mode} pooling: failures without a typed cause", len(run.untyped), run.pages + run.exports)
    report.details(run.untyped)
    failed = ", ".join(f"{count} × {what}" for what, count in run.failures.most_common()) or "none"
    report.add(f"{mode} pooling: typed failures", failed)
    report.none(f"{mode} pooling: looks of another client that saw a setting of ours", len(run.leaked), run.looks)
    report.details(run.leaked)
    report.add(f"{mode} pooling: exports beside", f"{run.exports:,}", "≥ 1", run.exports >= 1)
