"""JSON pages that are more than may be held: whole as streams, here and behind a runner, bounded, and cut when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import time

import psutil
import pytest

import lensway
from lensway.limits import EXPORT_CONNECTIONS_PER_SOURCE_MAX, MIB, PAGE_BYTES_MAX
from lensway.testing.deployment import wait_until
from lensway.testing.http_caller import Answer, Caller, judged
from tests.acceptance.streams.test_streams import zstd

pytestmark = pytest.mark.acceptance
PLACES = ("near", "far")
STALL_SECONDS = 2.0
SHAPES = {"many": (6_000, 125, 5_000), "broad": (1_000, 640, 900)}
"""Rows, repetitions of a digest in each, and rows of the page: 20 MB read in pieces, and 18 MB that are first read at once."""
FIELDS = {"id": {"type": "integer", "primaryKey": True}, "body": {"type": "text"}}


@pytest.fixture(scope="module")
def large(site):
    """The site, with lenses on large rows."""
    for name, (rows, repetitions, _) in SHAPES.items():
        view = (
            f"CREATE OR REPLACE VIEW {name} AS SELECT id, repeat(md5(id::text), {repetitions}) AS body"
            f" FROM (SELECT generate_series(1::bigint, {rows}) AS id) s"
        )
        asyncio.run(site.database.execute(view, f"GRANT SELECT ON {name} TO orders_reader"))
        for place in PLACES:
            put_lens(site, f"{place}-{name}", place, name)
    return site


def put_lens(site, name: str, source: str, table: str, **limits: int) -> None:
    qualified = table if source.startswith("file") else f"public.{table}"
    body = {"source": source, "table": qualified, "fields": FIELDS, "limits": limits}
    answer = site.client.put(f"/v1/lenses/{name}", json=body)
    assert answer.status_code == 200, answer.text


def digest(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def rows_of(body: bytes, shape: str) -> bytes:
    """The encoded rows of a page, after a look at all of it."""
    document = json.loads(body)
    total, repetitions, limit = SHAPES[shape]
    assert [row["id"] for row in document["rows"]] == list(range(1, limit + 1))
    assert all(row["body"] == digest(row["id"]) * repetitions for row in document["rows"])
    meta = document["meta"]
    assert (meta["count"], meta["hasMore"], meta["total"]) == (limit, True, total)
    assert meta["nextCursor"]
    rows, _, _ = body.rpartition(b'],"meta":')
    assert len(rows) > 2 * PAGE_BYTES_MAX
    return rows


def page(site, lens: str, shape: str, **headers: str) -> Answer:
    return site.ask(f"/v1/query/{lens}", {"limit": SHAPES[shape][2], "total": True}, **headers)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_of_any_size_arrives_whole_and_is_the_same_here_and_behind_a_runner(large, shape: str) -> None:
    near, far = (page(large, f"{place}-{shape}", shape) for place in PLACES)
    assert (near.status, near.is_complete, far.status, far.is_complete) == (200, True, 200, True)
    assert rows_of(near.body, shape) == rows_of(far.body, shape)
    for place, answer in zip(PLACES, (near, far), strict=True):
        meta = json.loads(answer.body)["meta"]
        assert meta["route"] == json.loads(answer.headers["lensway-route"])
        assert answer.headers["content-type"] == "application/json"
        assert answer.trailers["lensway-next-cursor"] == meta["nextCursor"]
        after = {"limit": 1, "cursor": meta["nextCursor"]}
        following = large.client.post(f"/v1/query/{place}-{shape}", json=after).json()
        assert following["rows"][0]["id"] == SHAPES[shape][2] + 1
    coded = page(large, f"far-{shape}", shape, Accept_Encoding="zstd")
    assert coded.headers["content-encoding"] == "zstd"
    assert rows_of(zstd.decompress(coded.body), shape) == rows_of(near.body, shape)


def test_the_client_reads_one_as_any_page(large) -> None:
    with lensway.connect(large.deployment.url, key=large.deployment.admin_key) as client:
        page = client.query("far-many", limit=SHAPES["many"][2])
    assert [row["id"] for row in page.rows] == list(range(1, SHAPES["many"][2] + 1))
    assert (page.has_more, page.meta.route.via) == (True, "runner")


def test_a_page_of_a_sqlite_file_may_be_as_large(large) -> None:
    path = large.deployment.directory / "files" / "many.db"
    rows, repetitions, _ = SHAPES["many"]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE many (id INTEGER PRIMARY KEY, body TEXT)")
        made = ((number, digest(number) * repetitions) for number in range(1, rows + 1))
        connection.executemany("INSERT INTO many VALUES (?, ?)", made)
    source = {"name": "file-near", "bridge": "sqlite", "config": {"path": str(path)}}
    answer = large.client.post("/v1/sources", json=source)
    assert answer.status_code == 201, answer.text
    put_lens(large, "file-many", "file-near", "many")
    answer = page(large, "file-many", "many")
    assert (answer.status, answer.is_complete) == (200, True)
    assert rows_of(answer.body, "many") == rows_of(page(large, "far-many", "many").body, "many")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_limits_of_the_lens_hold_for_them(large, place: str, shape: str) -> None:
    lens = f"bounded-{place}-{shape}"
    put_lens(large, lens, place, shape, maxBytes=3_000_000)
    answer = page(large, lens, shape)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (422, "limit_exceeded")
    put_lens(large, lens, place, shape, maxBytes=12_000_000)
    answer = page(large, lens, shape)
    assert not (answer.status == 200 and answer.is_complete)
    assert large.last_request()["outcome"] == "limit_exceeded"
    put_lens(large, lens, place, shape, maxRowBytes=3_000)
    answer = page(large, lens, shape)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (422, "row_too_large")


@pytest.mark.parametrize("place", PLACES)
def test_http_1_0_gets_pages_and_a_refusal_of_large_ones(large, place: str) -> None:
    small = large.ask(f"/v1/query/{place}-many", {"limit": 100}, version="1.0")
    assert (small.status, len(json.loads(small.body)["rows"])) == (200, 100)
    for shape in SHAPES:
        answer = page(large, f"{place}-{shape}", shape, version="1.0")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (422, "limit_exceeded")


def test_a_runner_killed_in_the_middle_of_a_page_cuts_it_visibly(large) -> None:
    with Caller(large.deployment.http_port, key=large.deployment.admin_key, receive_buffer_bytes=32_768) as caller:
        caller.post("/v1/query/far-many", {"limit": 5_000})
        taken = caller.read()
        large.runner.kill()
        answer = judged(taken + caller.rest())
    assert (answer.status, answer.is_complete) == (200, False)
    assert large.last_request()["outcome"] == "runner_failed"
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(answer.body)
    large.start_runner()


@pytest.mark.parametrize("place", PLACES)
def test_stalled_ones_cost_little_and_keep_no_query_waiting(large, place: str) -> None:
    processes = [psutil.Process(large.deployment.server.pid), psutil.Process(large.runner.pid)]
    assert page(large, f"{place}-broad", "broad").is_complete
    before = [process.memory_info().rss for process in processes]
    with contextlib.ExitStack() as stack:
        for number in range(EXPORT_CONNECTIONS_PER_SOURCE_MAX):
            caller = Caller(large.deployment.http_port, key=large.deployment.admin_key, receive_buffer_bytes=32_768)
            stack.enter_context(caller)
            shape = ("many", "broad")[number % 2]
            caller.post(f"/v1/query/{place}-{shape}", {"limit": SHAPES[shape][2]})
            assert caller.read(100).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            started = time.monotonic()
            assert large.client.post(f"/v1/query/{place}-items", json={"limit": 100}).status_code == 200
            assert time.monotonic() - started < 1.0
        growth = [process.memory_info().rss - was for process, was in zip(processes, before, strict=True)]
        assert max(growth) < EXPORT_CONNECTIONS_PER_SOURCE_MAX * 5 * PAGE_BYTES_MAX, [size // MIB for size in growth]
        wait_until(lambda: large.backends() == 0, seconds=STALL_SECONDS + 8, what="the end of all statements")
    assert page(large, f"{place}-many", "many").is_complete
