"""Bounds of lenses and of keys hold on every path, in every format, here and behind a runner; the stricter one counts."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from lensway.limits import MIB
from lensway.testing.deployment import wait_until
from lensway.testing.http_caller import Caller

pytestmark = pytest.mark.acceptance
PLACES = ("near", "far")
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
PAGE = ("application/json", "application/x-ndjson", "text/csv", ARROW)
WAYS = (*(("", accept) for accept in PAGE), *(("/export", accept) for accept in (*PAGE, PARQUET)))
BOUNDS = {
    "maxRows": ("items", 50, "limit_exceeded"),
    "maxBytes": ("wide", 3000, "limit_exceeded"),
    "maxRowBytes": ("wide", 200, "row_too_large"),
    "timeoutMs": ("slow_orders", 100, "QUERY_TIMEOUT"),
}
FIELDS = {
    "items": {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}},
    "wide": {"id": {"type": "integer", "primaryKey": True}, "body": {"type": "text"}},
    "slow_orders": {"id": {"type": "integer", "primaryKey": True}},
}
_numbers = itertools.count(1)


@contextlib.contextmanager
def lens_of(site, place: str, table: str, limits: dict) -> Iterator[str]:
    """A lens of its own on this table."""
    name = f"bounded-{next(_numbers)}"
    body = {"source": place, "table": f"public.{table}", "fields": FIELDS[table], "limits": limits}
    answer = site.client.put(f"/v1/lenses/{name}", json=body)
    assert answer.status_code == 200, answer.text
    yield name
    site.client.delete(f"/v1/lenses/{name}")


def outcome(site, lens: str, path: str, accept: str, key: str) -> str:
    """The code that a request ended with: answered, or that of a stream that was cut."""
    with Caller(site.deployment.http_port, key=key) as caller:
        body = {} if path else {"limit": 100}
        caller.post(f"/v1/query/{lens}{path}", body, headers={"Accept": accept})
        answer = caller.answer()
    if answer.status != 200:
        return json.loads(answer.body)["error"]["code"]
    kept = site.client.get(f"/v1/requests/{answer.headers['x-request-id']}").json()["outcome"]
    assert answer.is_complete == (kept == "completed")
    return kept


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_lens_bounds_every_request_in_every_format(site, place: str, bound: str) -> None:
    table, value, code = BOUNDS[bound]
    with lens_of(site, place, table, {bound: value}) as lens:
        for path, accept in WAYS:
            assert outcome(site, lens, path, accept, site.deployment.admin_key) == code, (path, accept)
    if bound == "maxRows":
        with lens_of(site, place, table, {bound: 3000}) as lens:
            for path, accept in WAYS:
                assert outcome(site, lens, path, accept, site.deployment.admin_key) == "completed", (path, accept)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_key_bounds_its_requests_and_the_stricter_bound_holds(site, place: str, bound: str) -> None:
    table, value, code = BOUNDS[bound]
    strict = new_key(site, {bound: value})
    loose = new_key(site, {bound: 10_000})
    with lens_of(site, place, table, {}) as free, lens_of(site, place, table, {bound: value}) as bounded:
        for path, accept in WAYS[:2] + WAYS[-2:]:
            assert outcome(site, free, path, accept, strict) == code, (path, accept)
            assert outcome(site, bounded, path, accept, loose) == code, (path, accept)
    if bound == "maxRows":
        rows = site.deployment.client(strict).post(f"/v1/query/{place}-items", json={}).json()["rows"]
        assert len(rows) == value, "the size of a page that was not said fits"


@pytest.mark.parametrize("place", PLACES)
def test_a_bound_that_is_met_on_the_way_cuts_the_stream(site, place: str) -> None:
    bounds = {"maxRows": (8000, "limit_exceeded"), "maxBytes": (3_000_000, "limit_exceeded")}
    for bound, (value, code) in bounds.items():
        key = new_key(site, {bound: value})
        for accept in ("application/json", "application/x-ndjson", "text/csv", ARROW):
            assert outcome(site, f"{place}-wide", "/export", accept, key) == code
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
        caller.post(f"/v1/query/{place}-endless/export", {"timeoutMs": 3000}, headers={"Accept": "text/csv"})
        answer = caller.answer()
    assert (answer.status, answer.is_complete) == (200, False)
    assert site.last_request()["outcome"] == "QUERY_TIMEOUT"


def new_key(site, limits: dict) -> str:
    answer = site.client.post("/v1/keys", json={"kind": "sk", "name": "bounded", "limits": limits})
    assert answer.status_code == 201, answer.text
    assert answer.json()["limits"] == limits
    return answer.json()["key"]


def test_a_key_asks_so_often_and_so_much_at_once(site) -> None:
    often = site.deployment.client(new_key(site, {"requestsPerMinute": 3}))
    answers = [often.post("/v1/query/near-items", json={"limit": 1}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert often.get("/v1/lenses").status_code == 200, "only what asks a database counts"

    key = new_key(site, {"concurrentRequests": 1})
    one = site.deployment.client(key)
    for place in PLACES:
        with Caller(site.deployment.http_port, key=key, receive_buffer_bytes=32_768) as caller:
            caller.post(f"/v1/query/{place}-endless/export", {}, headers={"Accept": "text/csv"})
            assert caller.read(100)
            assert one.post(f"/v1/query/{place}-items", json={"limit": 1}).status_code == 429
        wait_free(one, place)


def wait_free(client: httpx2.Client, place: str) -> None:
    wait_until(
        lambda: client.post(f"/v1/query/{place}-items", json={"limit": 1}).status_code == 200,
        seconds=3,
        what="the request that ended to be counted no more",
    )


def test_limits_of_keys_are_checked_and_shown(site) -> None:
    for wrong in ({"maxRows": 0}, {"maxRow": 1}, {"requestsPerMinute": "1"}, []):
        answer = site.client.post("/v1/keys", json={"kind": "sk", "name": "x", "limits": wrong})
        assert answer.json()["error"]["code"] == "invalid_request", wrong
    made = site.deployment.cli(
        "keys", "create", "sk", "app", "--max-rows", "7", "--requests-per-minute", "600", "--json"
    )
    given = {"maxRows": 7, "requestsPerMinute": 600}
    assert json.loads(made.stdout)["limits"] == given
    keys = site.client.get("/v1/keys").json()["keys"]
    assert next(key for key in keys if key["name"] == "app")["limits"] == given
    assert all("limits" not in key for key in keys if key["kind"] == "ak")


@pytest.mark.parametrize("place", PLACES)
def test_one_enormous_value_is_row_too_large_and_nothing_more(site, place: str) -> None:
    processes = (site.deployment.server, site.runner)
    for path, accept in WAYS:
        assert outcome(site, f"{place}-items", path, accept, site.deployment.admin_key) == "completed"
    before = [psutil.Process(process.pid).memory_info().rss for process in processes]
    for process in processes:
        pathlib.Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    for path, accept in WAYS:
        assert outcome(site, f"{place}-enormous", path, accept, site.deployment.admin_key) == "row_too_large"
        assert site.client.post(f"/v1/query/{place}-items", json={"limit": 1}).status_code == 200
    assert site.client.post(f"/v1/count/{place}-enormous", json={}).json() == {"count": 1}
    grown = [peak(process.pid) - rss for process, rss in zip(processes, before, strict=True)]
    assert max(grown) < 48 * MIB, grown


def peak(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
