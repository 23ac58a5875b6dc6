"""What is promised beyond the rules: lost pushes, gone callers, deadlines, restarts, streams."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import socket
import time

import asyncpg
import httpx2
import pytest

from lensway.testing.deployment import Deployment, paused, wait_until

pytestmark = pytest.mark.acceptance
FIELDS = {"id": {"type": "integer", "primaryKey": True}}


def running_statements(database, marker: str) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(database.owner_url)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()",
                f"%{marker}%",
            )
        finally:
            await connection.close()

    return asyncio.run(count())


def test_r10_a_lost_push_is_made_good_by_the_next_heartbeat(orders, tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path, environment={"LENSWAY_FAULT_LOSE_PUSHES": "1"}) as deployment:
        client = deployment.client()
        client.post("/v1/sources", json={"name": "main", "bridge": "postgres", "config": {"url": orders.reader_url}})
        deployment.start_runner(deployment.create_runner("alpha"))
        started = time.monotonic()
        wanted = deployment.assign("alpha", "main")["revision"]
        wait_until(
            lambda: client.get("/v1/runners/alpha").json()["instances"][0]["revision"] == wanted,
            seconds=20,
            what="in force",
        )
        assert 0.0 < time.monotonic() - started < 4.5, "two heartbeats of two seconds at most"


def test_i7_a_gone_caller_ends_the_statement_in_the_database(stage) -> None:
    for place in ("inline", "runner"):
        if place == "runner":
            stage.runner("alpha")
            stage.assign("alpha")
        body = b'{"where": {"id": 1}}'
        with socket.create_connection(("127.0.0.1", stage.deployment.http_port)) as caller:
            head = (
                f"POST /v1/query/{stage.slow_lens} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                f"Content-Type: application/json\r\nAuthorization: Bearer {stage.deployment.admin_key}\r\n\r\n"
            )
            caller.sendall(head.encode() + body)
            wait_until(lambda: running_statements(stage.database, "slow_orders") == 1, seconds=2, what="the statement")
        wait_until(lambda: running_statements(stage.database, "slow_orders") == 0, seconds=1.0, what="its end")


def test_i2_a_deadline_gives_query_timeout_and_ends_the_statement(stage) -> None:
    stage.runner("alpha")
    for place in ("inline", "runner"):
        if place == "runner":
            stage.assign("alpha")
        started = time.monotonic()
        answer = stage.query({"timeoutMs": 400}, lens=stage.slow_lens)
        took = time.monotonic() - started
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "QUERY_TIMEOUT")
        assert 0.35 < took < 1.4
        wait_until(lambda: running_statements(stage.database, "slow_orders") == 0, seconds=1.0, what="its end")


def test_i4_a_runner_that_stands_still_costs_the_caller_a_moment_and_no_error(stage) -> None:
    processes = {name: stage.runner(name) for name in ("alpha", "beta")}
    for name in processes:
        stage.assign(name)
    for _ in range(20):
        assert stage.query().status_code == 200
    with paused(processes["alpha"]):
        for number in range(30):
            started = time.monotonic()
            answer = stage.query({"where": {"id": number + 1}})
            assert answer.status_code == 200, answer.text
            assert answer.json()["meta"]["route"]["runner"] == stage.name("beta")
            assert time.monotonic() - started < 1.5
        wait_until(lambda: stage.status_of("alpha")["status"] in ("suspect", "offline"), seconds=3, what="suspect")
    wait_until(
        lambda: stage.status_of("alpha")["status"] in ("healthy", "degraded"), seconds=15, what="alpha to be back"
    )


def test_a_restarted_server_has_everything_and_its_runners_come_back(orders, tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        client.post("/v1/sources", json={"name": "main", "bridge": "postgres", "config": {"url": orders.reader_url}})
        client.put("/v1/lenses/orders", json={"source": "main", "table": "public.orders", "fields": FIELDS})
        deployment.start_runner(deployment.create_runner("alpha"))
        revision = deployment.assign("alpha", "main")["revision"]
        deployment.start_runner(deployment.create_runner("beta")).stop()
        wait_until(lambda: client.get("/v1/runners/beta").json()["status"] == "offline", seconds=5, what="offline")
        before = client.get("/v1/runners/beta").json()
        deployment.server.signal(signal.SIGKILL)
        deployment.server.wait()
        deployment.start_server()
        after = client.get("/v1/runners/beta").json()
        assert (after["status"], after["cause"], after["since"][:19]) == (
            "offline",
            before["cause"],
            before["since"][:19],
        )
        # The caller need not know: within the first seconds a query waits for the runner.
        answer = client.post("/v1/query/orders", json={"limit": 1})
        assert answer.status_code == 200, answer.text
        assert answer.json()["meta"]["route"]["runner"] == "alpha"
        assert client.get("/v1/runners/alpha").json()["revision"] == revision
        assert deployment.server.stop() == 0


def test_exports_stream_every_row_and_say_so_at_their_end(stage) -> None:
    stage.runner("alpha")
    for place in ("inline", "runner"):
        if place == "runner":
            stage.assign("alpha")
        path = f"/v1/query/{stage.lens}/export"
        lines = stage.client.post(
            path, json={}, headers={"Accept": "application/x-ndjson; end=record"}
        ).text.splitlines()
        assert len(lines) == 5001
        assert lines[-1] == '{"$end":{"rows":5000}}'
        table = stage.client.post(
            path, json={"select": ["id", "note"]}, headers={"Accept": "text/csv"}
        ).text.splitlines()
        assert table[0] == "id,note"
        assert len(table) == 5001


def test_a_killed_runner_never_makes_a_short_export_look_complete(stage) -> None:
    process = stage.runner("alpha")
    stage.assign("alpha")

    def export() -> str:
        reader = stage.deployment.client()
        rows = 0
        try:
            with reader.stream(
                "POST", f"/v1/query/{stage.lens}/export", json={}, headers={"Accept": "application/x-ndjson"}
            ) as answer:
                if answer.status_code != 200:
                    return "refused"
                for _line in answer.iter_lines():
                    rows += 1
                    if rows == 10:
                        process.kill()
        except httpx2.HTTPError:
            return "cut"
        return "complete" if rows == 5000 else "short"

    # What had left the runner already may arrive; what did not is visibly missing.
    assert export() in ("complete", "cut", "refused")
    rows = stage.client.get("/v1/requests", params={"limit": 1}).json()["requests"][0]
    assert rows["outcome"] in ("completed", "runner_failed")


def test_what_happens_is_told_live_and_what_became_of_a_request_is_remembered(stage) -> None:
    watcher = stage.deployment.client()
    with watcher.stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == ": watching"
        stage.runner("alpha")
        stage.assign("alpha")
        seen = ""
        while "event: assignment" not in seen:
            seen += next(lines) + "\n"
        seen += next(lines)
    assert "event: session" in seen
    assert stage.name("alpha") in seen
    answer = stage.query()
    kept = stage.client.get(f"/v1/requests/{answer.headers['X-Request-Id']}").json()
    assert kept["outcome"] == "completed"
    assert kept["route"] == {"via": "runner", "runner": stage.name("alpha"), "attempts": 1}
    attempt = kept["attempts"][0]
    assert (attempt["runner"], attempt["outcome"]) == (stage.name("alpha"), "ended")
    assert attempt["candidates"][0]["verdict"] == "chosen"
    wrong = stage.query({"where": {"id": 1}, "timeoutMs": 1}, lens=stage.slow_lens)
    assert stage.client.get(f"/v1/requests/{wrong.headers['X-Request-Id']}").json()["outcome"] == "QUERY_TIMEOUT"


def test_the_health_of_a_source_is_told_when_it_changes(stage) -> None:
    local = f"{stage.source}-local"
    stage.client.post("/v1/sources", json={"name": local, "bridge": "postgres", "credentials": "runner-local"})
    stage.runner("alpha")
    with stage.deployment.client().stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == ": watching"
        stage.deployment.assign(stage.name("alpha"), local)
        for line in lines:
            if line == "event: health" and local in (data := next(lines)):
                break
    told = json.loads(data.removeprefix("data: "))
    assert (told["runner"], told["source"], told["health"]) == (stage.name("alpha"), local, "no_credentials")


def test_who_watches_is_cut_off_when_its_key_is_deleted(stage) -> None:
    made = stage.client.post("/v1/keys", json={"kind": "ak", "name": "watcher", "role": "viewer"}).json()
    with stage.deployment.client(made["key"]).stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == ": watching"
        assert stage.client.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert not [line for line in lines if line.startswith("data:")], "the last it hears is the end"


def test_metrics_count_requests_and_show_runners(stage) -> None:
    stage.runner("alpha")
    stage.query()
    stage.query(lens="no-such-lens")
    text = stage.client.get("/metrics").text
    assert 'lensway_requests_total{code="ok"}' in text
    assert 'lensway_requests_total{code="not_found"}' in text
    assert f'lensway_runner_up{{environment="default",runner="{stage.name("alpha")}"}} 1.0' in text
    assert "lensway_dispatch_seconds_bucket" in text
    public = stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "sk", "name": "x"}).json()["key"])
    assert public.get("/metrics").status_code == 403
