"""Patterns that a database compares for long: bounded in the planner, interrupted on SQLite, and counted on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from pathlib import Path

import asyncpg
import pytest

from lensway import limits
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.bridges.postgres.connecting import connect
from lensway.bridges.postgres.pool import Pool, PooledConnection
from lensway.bridges.postgres.settings import read_settings
from lensway.dialects.registry import capabilities_of
from lensway.dialects.sqlite_patterns import matches
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.patterns import Transform, bind_text
from lensway.query.planner import plan_count
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.postgres import Database

LENS = LensDefinition(
    name="notes",
    table="notes",
    fields={
        "id": Field(name="id", column="id", type=FieldType.INTEGER, nullable=False, primary_key=True),
        "body": Field(name="body", column="body", type=FieldType.TEXT),
    },
)
BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("where", "bound"),
    [
        *[({"body": {f"${each}": "a" * 501}}, "patternCharacters") for each in ("like", "ilike", "contains")],
        *[({"body": {f"${each}": "a" * 501}}, "patternCharacters") for each in ("startsWith", "endsWith")],
        ({"body": {"$like": "%a" * 101}}, "patternWildcards"),
        ({"body": {"$ilike": "%a" * 101}}, "patternWildcards"),
        ({"$or": [{"body": {"$contains": "a" * 400}}] * 3}, "patternsCharacters"),
        ({"$not": {"$or": [{"body": {"$contains": ""}}] * 101}}, "patterns"),
    ],
)
def test_a_pattern_beyond_a_bound_is_refused_by_the_name_of_the_bound(dialect: str, where: object, bound: str) -> None:
    with pytest.raises(LenswayError) as caught:
        plan_count(LENS, where, capabilities_of(dialect))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.failure.details["bound"] == bound
    assert "body" in caught.value.failure.message


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_patterns_up_to_the_bounds_are_taken(dialect: str) -> None:
    for where in (
        {"body": {"$contains": "%" * 500}},
        {"body": {"$like": "%a" * 100}},
        {"$or": [{"body": {"$contains": "x" * 10}}] * 100},
    ):
        plan_count(LENS, where, capabilities_of(dialect))


class Sink:
    data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class Notes:
    """A table of texts in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
        connection.close()
        self.library = ExecutionLibrary(AddressPolicy(source_dirs=(str(path.parent),)))

    def add(self, *bodies: str | None) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.executemany("INSERT INTO notes (body) VALUES (?)", [(body,) for body in bodies])
        connection.close()

    async def count(self, where: object, seconds: float = 20.0) -> int:
        plan, sink = plan_count(LENS, where, capabilities_of("sqlite")), Sink()
        execution = Execution(
            deadline=time.monotonic() + seconds,
            format=RowFormat.JSON,
            limits=ResultLimits(rows_max=10, bytes_max=10**6, row_bytes_max=2**26),
            tag="test/1",
        )
        await self.library.perform(
            "key",
            "sqlite",
            {"path": str(self.path)},
            kind="rows",
            payload=plan.encode(),
            execution=execution,
            sink=sink,
        )
        return int(json.loads(b"[" + sink.data + b"]")[0]["count"])


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes.db")


HEAVY = "a" * 300 + "_" + "a" * 180 + "b"
"""Compared with a text of a alone, this takes SQLite pattern times text."""


@pytest.mark.parametrize("where", [{"$like": f"%{HEAVY}%"}, {"$ilike": f"%{HEAVY}%c"}, {"$contains": HEAVY}])
def test_sqlite_ends_a_pattern_on_a_huge_text_by_its_deadline(notes: Notes, where: object) -> None:
    notes.add(*["a" * 4_000_000] * 12)

    async def run() -> None:
        started = time.monotonic()
        late = {"$or": [{"body": where}, {"body": where}]}
        found = await asyncio.gather(notes.count(late, seconds=0.5), return_exceptions=True)
        assert found == [0] or (isinstance(found[0], LenswayError) and found[0].code is ErrorCode.QUERY_TIMEOUT)
        assert time.monotonic() - started < 1.5
        started = time.monotonic()
        task = asyncio.create_task(notes.count({"body": where}))
        await asyncio.wait({task}, timeout=0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - started < 0.6, "a caller who goes away ends it too"
        await notes.library.close()

    asyncio.run(run())


def test_sqlite_finds_in_large_texts_what_it_finds_in_small_ones(notes: Notes) -> None:
    pad = "x" * (2 * limits.PATTERN_NATIVE_BYTES_MAX)
    ends = ("100% Sure_ [a]*?\\", "100% sure_ [a]*?\\", "äÄ", "", None)
    notes.add(*[None if end is None else f"Begin{end}" for end in ends])
    notes.add(*[None if end is None else f"Begin{pad}{end}" for end in ends])
    patterns = [
        {"$like": "B%Sure_ [a]*?\\"},
        {"$like": "%100% s___\\_ %"},
        {"$like": "%sure_ [_]%"},
        {"$ilike": "b%SURE_ [a]%"},
        {"$ilike": "%_Ä"},
        {"$contains": "% SURE_"},
        {"$contains": "Ä"},
        {"$endsWith": "?\\"},
        {"$startsWith": "bEGIN"},
        {"$like": "Begin%"},
        {"$like": "%"},
        {"$like": "Begin"},
    ]

    async def run() -> None:
        for each in patterns:
            small = await notes.count({"body": each, "id": {"$lte": 5}})
            large = await notes.count({"body": each, "id": {"$gt": 5}})
            without = await notes.count({"$not": {"body": each}, "id": {"$gt": 5}})
            expected = 0 if each == {"$like": "Begin"} else small
            assert large == expected, each
            assert large + without == 4, "a NULL is neither"
        await notes.library.close()

    asyncio.run(run())


def test_lensways_matching_agrees_with_sqlites() -> None:
    dice = random.Random(5)
    with sqlite3.connect(":memory:") as connection:
        for _ in range(3_000):
            text = "".join(dice.choices("abAB%_\\é", k=dice.randrange(12)))
            wanted = "".join(dice.choices("abAB%%__\\é", k=dice.randrange(7)))
            folding = bind_text(wanted, Transform.LIKE)
            minding = bind_text(wanted, Transform.GLOB)
            for own, theirs in (
                (True, connection.execute("SELECT ? LIKE ? ESCAPE '\\'", (text, folding))),
                (False, connection.execute("SELECT ? GLOB ?", (text, minding))),
            ):
                found = matches(folding, text.encode(), folds_case=own, must_end=lambda: False)
                assert found == theirs.fetchone()[0], (text, wanted, own)
    connection.close()


def test_an_index_serves_the_beginning_of_a_pattern(notes: Notes) -> None:
    from lensway.bridges.sqlite.guard import GuardedConnection
    from lensway.dialects.compile import compile_shape

    with sqlite3.connect(notes.path) as connection:
        connection.execute("CREATE INDEX by_body ON notes (body)")
    connection.close()
    connection = sqlite3.connect(notes.path, factory=GuardedConnection)
    connection.add_functions()
    plan = plan_count(LENS, {"body": {"$like": "abc%d"}}, capabilities_of("sqlite"))
    compiled = compile_shape(plan.shape, "sqlite")
    steps = connection.execute("EXPLAIN QUERY PLAN " + compiled.sql, compiled.bind(plan)).fetchall()
    assert any("SEARCH" in step[3] and "by_body" in step[3] for step in steps), steps
    connection.close()


def test_a_backend_that_ignores_its_cancel_keeps_its_place_in_the_pool(database: Database) -> None:
    size = 2
    settings = read_settings({"url": database.reader_url})
    heavy = "SELECT repeat('a', 100000) LIKE '%' || repeat('a', 30000) || 'b%'"

    async def run() -> None:
        observer = await asyncpg.connect(database.owner_url)
        pool: Pool[PooledConnection] = Pool(settings, AddressPolicy(), size=size, connect=connect)
        most = 0
        for _ in range(3):
            started = time.monotonic()
            tasks = [asyncio.create_task(attempt(pool)) for _ in range(2 * size)]
            pending = set(tasks)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=0.05)
                most = max(most, await observer.fetchval(BACKENDS, settings.user))
            assert time.monotonic() - started < 0.2 + limits.CANCEL_SECONDS + 1.5, "the caller has an answer in time"
        assert most == size
        async with asyncio.timeout(30):
            connection = await pool.acquire()
        assert await connection.driver.fetchval("SELECT 1") == 1, "and serves again when they are gone"
        pool.release(connection)
        await pool.close()
        await observer.close()

    async def attempt(pool: Pool[PooledConnection]) -> None:
        try:
            async with asyncio.timeout(0.2):
                connection = await pool.acquire()
        except TimeoutError:
            return
        try:
            async with asyncio.timeout(0.2):
                await connection.driver.fetchval(heavy)
        except TimeoutError:
            await pool.discard(connection)
        else:
            raise AssertionError("PostgreSQL matched it in time: make the pattern longer")

    asyncio.run(run())
