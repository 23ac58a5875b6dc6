"""Callers that do not read: the database stops, memory stays, they are cancelled in the end, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import time

import psutil
import pytest

from lensway.limits import EXPORT_CONNECTIONS_PER_SOURCE_MAX, MIB
from lensway.testing.deployment import wait_until
from lensway.testing.http_caller import Caller

pytestmark = pytest.mark.acceptance
STALL_SECONDS = 2.0
NDJSON = {"Accept": "application/x-ndjson"}


def stalled_caller(site, path: str, body: dict | None = None, **headers: str) -> Caller:
    """A caller that took the beginning of an answer, and reads no more."""
    caller = Caller(site.deployment.http_port, key=site.deployment.admin_key, receive_buffer_bytes=32_768)
    caller.post(path, body, headers=headers)
    assert caller.read(100)
    return caller


@pytest.mark.parametrize("place", ["near", "far"])
def test_a_caller_that_stops_reading_stops_the_database_and_is_cancelled_in_the_end(site, place: str) -> None:
    with stalled_caller(site, f"/v1/query/{place}-endless/export", **NDJSON) as caller:
        wait_until(lambda: site.standing() == 1, seconds=2 * STALL_SECONDS, what="the export to stand still")
        request = site.last_request()
        assert request["outcome"] == "running"
        wait_until(lambda: site.backends() == 0, seconds=STALL_SECONDS + 3, what="the end of the statement")
        kept = site.client.get(f"/v1/requests/{request['id']}").json()
        assert kept["outcome"] == "cancelled"
        assert kept["attempts"][-1]["outcome"] == "stopped:stalled"
        assert b"\r\n0\r\n" not in caller.rest()


def test_stalled_callers_cost_little_and_keep_nobody_waiting(site) -> None:
    processes = [psutil.Process(site.deployment.server.pid), psutil.Process(site.runner.pid)]
    for place in ("near", "far"):
        assert site.client.post(f"/v1/query/{place}-items", json={"limit": 100}).status_code == 200
    before = [process.memory_info().rss for process in processes]
    with contextlib.ExitStack() as stack:
        for place in ("near", "far"):
            for _ in range(EXPORT_CONNECTIONS_PER_SOURCE_MAX):
                stack.enter_context(stalled_caller(site, f"/v1/query/{place}-endless/export", **NDJSON))
        wait_until(lambda: site.standing() >= 2, seconds=2 * STALL_SECONDS, what="exports to stand still")
        for place in ("near", "far"):
            for _ in range(20):
                started = time.monotonic()
                assert site.client.post(f"/v1/query/{place}-items", json={"limit": 100}).status_code == 200
                assert time.monotonic() - started < 1.0
        growth = [process.memory_info().rss - was for process, was in zip(processes, before, strict=True)]
        assert max(growth) < 40 * MIB
        # All export connections are taken; when the stalled ones are cancelled, the next one is served.
        answer = site.ask("/v1/query/far-items/export", accept="application/x-ndjson")
        assert (answer.status, answer.trailers["lensway-rows"]) == (200, "3000")
    wait_until(lambda: site.backends() == 0, seconds=STALL_SECONDS + 3, what="the end of all statements")


@pytest.mark.parametrize("place", ["near", "far"])
def test_a_large_page_that_nobody_takes_is_dropped(site, place: str) -> None:
    with stalled_caller(site, f"/v1/query/{place}-wide", {"limit": 10_000}) as caller:
        connection = site.connection_of(caller)
        wait_until(lambda: not connection(), seconds=STALL_SECONDS + 3, what="the connection to be dropped")
        assert len(caller.rest()) < 5_000_000
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as reader:
        reader.post(f"/v1/query/{place}-wide", {"limit": 10_000})
        answer = reader.answer()
        assert answer.is_complete
        assert len(json.loads(answer.body)["rows"]) == 10_000


def test_a_caller_that_goes_away_ends_its_stream(site) -> None:
    for place in ("near", "far"):
        with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
            caller.post(f"/v1/query/{place}-endless/export", {}, headers=NDJSON)
            assert caller.read()
            assert site.backends() == 1
        wait_until(lambda: site.backends() == 0, seconds=1.0, what="the end of the statement")
        assert site.last_request()["outcome"] == "cancelled"


def test_a_slow_caller_that_keeps_reading_is_served(site) -> None:
    with Caller(site.deployment.http_port, key=site.deployment.admin_key, receive_buffer_bytes=32_768) as caller:
        caller.post("/v1/query/far-endless/export", {}, headers=NDJSON)
        started = time.monotonic()
        taken = 0
        while time.monotonic() - started < 2 * STALL_SECONDS:
            taken += len(caller.read(4096))
            assert site.client.get("/healthz").status_code == 200, "a pause of some milliseconds"
        assert site.last_request()["outcome"] == "running"
        assert taken > 100_000
