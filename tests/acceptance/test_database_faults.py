"""A runner loses its database: callers wait a moment at most, the status says so, and it serves again by itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import time
import urllib.parse
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.chaos.proxy import ChaosProxy
from lensway.testing.deployment import paused, wait_until
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance
FIELDS = {"id": {"type": "integer", "primaryKey": True}}
MOVED_SECONDS = 4.0
"""What the loss of a database may cost a query is three seconds; some for a busy machine."""
SHOWN_SECONDS = 7.0
"""The status is right within five."""


def through(database: Database, port: int) -> str:
    parts = urllib.parse.urlsplit(database.reader_url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


@pytest.fixture
def proxy(orders: Database) -> Iterator[ChaosProxy]:
    with ChaosProxy(("127.0.0.1", orders.cluster.port)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def endless(orders: Database) -> str:
    """A view that takes a minute."""
    asyncio.run(
        orders.execute(
            "CREATE OR REPLACE VIEW endless_orders AS SELECT o.* FROM orders o, (SELECT pg_sleep(60)) s",
            "GRANT SELECT ON endless_orders TO orders_reader",
        )
    )
    return "public.endless_orders"


def statements(database: Database, marker: str) -> int:
    sql = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()"
    return len(asyncio.run(database.fetch(sql, f"%{marker}%")))


def health(stage, runner: str) -> str:
    return stage.status_of(runner)["sources"][0]["health"]


def pair(stage, proxy: ChaosProxy) -> None:
    """Two runners; the first one reaches the database through the proxy."""
    name = f"LENSWAY_SOURCE_{stage.source.upper()}_URL"
    stage.runner("alpha", environment={name: through(stage.database, proxy.port)})
    stage.runner("beta")
    for each in ("alpha", "beta"):
        stage.assign(each)
    used: set[str] = set()
    wait_until(lambda: used.add(asked(stage)[0]) or len(used) == 2, seconds=10, what="both to serve")


def asked(stage) -> tuple[str, int, float]:
    """One query: who served it, in how many attempts, after how many seconds. It must not fail."""
    started = time.monotonic()
    answer = stage.query()
    assert answer.status_code == 200, answer.text
    route = answer.json()["meta"]["route"]
    return route["runner"], route["attempts"], time.monotonic() - started


@pytest.mark.parametrize("fault", ["stall", "swallow", "refuse"])
def test_a_lost_database_costs_a_moment_and_is_known_at_once_afterwards(stage, proxy, fault: str) -> None:
    pair(stage, proxy)
    getattr(proxy, fault)()
    if fault == "refuse":
        proxy.cut()
    lost_at = time.monotonic()
    for _ in range(12):
        _, attempts, seconds = asked(stage)
        assert seconds < MOVED_SECONDS
        assert attempts <= 2
    wait_until(lambda: health(stage, "alpha") == "unreachable", seconds=SHOWN_SECONDS, what="alpha to be unreachable")
    assert time.monotonic() - lost_at < SHOWN_SECONDS + MOVED_SECONDS
    status = stage.status_of("alpha")
    assert status["status"] == "degraded"
    assert status["hint"]
    assert {asked(stage)[:2] for _ in range(10)} == {(stage.name("beta"), 1)}, "nobody is sent there any more"
    proxy.cut()
    proxy.heal()
    wait_until(lambda: health(stage, "alpha") == "ready", seconds=SHOWN_SECONDS, what="alpha to be ready")
    wait_until(lambda: asked(stage)[0] == stage.name("alpha"), seconds=10, what="alpha to serve again")


def test_the_status_says_so_without_any_query(stage, proxy) -> None:
    pair(stage, proxy)
    proxy.stall()
    wait_until(lambda: health(stage, "alpha") == "unreachable", seconds=SHOWN_SECONDS, what="alpha to be unreachable")
    assert asked(stage)[:2] == (stage.name("beta"), 1)


@pytest.mark.parametrize("end", ["stopped", "revoked"])
def test_an_export_finds_a_silent_database_and_leaves_nothing_that_keeps_the_process(stage, proxy, end: str) -> None:
    name = f"LENSWAY_SOURCE_{stage.source.upper()}_URL"
    process = stage.runner("alpha", environment={name: through(stage.database, proxy.port)})
    stage.assign("alpha")
    path, lines = f"/v1/query/{stage.lens}/export", {"Accept": "application/x-ndjson; end=record"}
    assert stage.client.post(path, json={}, headers=lines).text.endswith('{"$end":{"rows":5000}}\n')
    proxy.swallow()
    started = time.monotonic()
    answer = stage.client.post(path, json={}, headers=lines)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "SOURCE_UNREACHABLE")
    assert time.monotonic() - started < MOVED_SECONDS
    if end == "stopped":
        assert process.stop(seconds=15) == 0
    else:
        assert stage.client.post(f"/v1/runners/{stage.name('alpha')}/revoke").status_code == 200
        assert process.wait(seconds=15) == 1


def test_i7_the_database_ends_what_nobody_waits_for_any_more(stage, endless: str) -> None:
    stage.client.put(f"/v1/lenses/{stage.slow_lens}", json={"source": stage.source, "table": endless, "fields": FIELDS})
    process = stage.runner("alpha")
    stage.assign("alpha")

    def ask(milliseconds: int) -> httpx2.Response:
        return stage.query({"timeoutMs": milliseconds}, lens=stage.slow_lens, client=stage.deployment.client())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, 2_000)
        deadline = time.monotonic() + 2.0
        wait_until(lambda: statements(stage.database, "endless_orders") == 1, seconds=2, what="the statement")
        with paused(process):
            answer = asking.result()
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "QUERY_TIMEOUT")
            assert time.monotonic() < deadline + 1.5
            wait_until(lambda: statements(stage.database, "endless_orders") == 0, seconds=2.5, what="the end of it")
            assert time.monotonic() < deadline + 2.5
        wait_until(lambda: stage.status_of("alpha")["status"] == "healthy", seconds=15, what="alpha to be back")
        asking = pool.submit(ask, 20_000)
        wait_until(lambda: statements(stage.database, "endless_orders") == 1, seconds=5, what="the statement")
        process.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: statements(stage.database, "endless_orders") == 0, seconds=3, what="the end of it")
        assert time.monotonic() - killed_at < 2.0
        assert asking.result().json()["error"]["code"] == "no_runners_online"


def test_i7_the_loss_of_the_link_ends_the_statement(stage, endless: str) -> None:
    stage.client.put(f"/v1/lenses/{stage.slow_lens}", json={"source": stage.source, "table": endless, "fields": FIELDS})
    with ChaosProxy(("127.0.0.1", stage.deployment.gateway_port)) as link:
        identity = stage.deployment.create_runner(f"{stage.source}-alpha")
        stage.identities["alpha"] = identity
        url = f"ws://127.0.0.1:{link.port}/connect"
        stage.started.append(stage.deployment.start_runner(identity, gateway_url=url))
        stage.assign("alpha")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asking = pool.submit(
                stage.query, {"timeoutMs": 20_000}, lens=stage.slow_lens, client=stage.deployment.client()
            )
            wait_until(lambda: statements(stage.database, "endless_orders") == 1, seconds=5, what="the statement")
            link.refuse()
            link.cut()
            took = wait_until(lambda: statements(stage.database, "endless_orders") == 0, seconds=3, what="its end")
            assert took < 1.0
            assert asking.result().json()["error"]["code"] == "no_runners_online"


@pytest.mark.parametrize("place", ["runner", "inline"])
def test_i7_a_request_that_is_cancelled_by_its_id_ends_with_its_statement(stage, endless: str, place: str) -> None:
    stage.client.put(f"/v1/lenses/{stage.slow_lens}", json={"source": stage.source, "table": endless, "fields": FIELDS})
    if place == "runner":
        stage.runner("alpha")
        stage.assign("alpha")
    owner, stranger = (
        stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "sk", "name": name}).json()["key"])
        for name in ("owner", "stranger")
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(stage.query, {"timeoutMs": 20_000}, lens=stage.slow_lens, client=owner)
        wait_until(lambda: statements(stage.database, "endless_orders") == 1, seconds=5, what="the statement")
        (running,) = [
            each
            for each in stage.client.get("/v1/requests").json()["requests"]
            if each["outcome"] == "running" and each["lens"] == stage.slow_lens
        ]
        id, (attempt,) = running["id"], running["attempts"]
        assert (running["source"], running["durationMs"]) == (stage.source, None)
        assert (attempt["runner"], attempt["outcome"]) == (
            stage.name("alpha") if place == "runner" else None, "running",
        )  # fmt: skip
        assert stranger.post(f"/v1/requests/{id}/cancel").status_code == 404, "another key does not know of it"
        cancelled = owner.post(f"/v1/requests/{id}/cancel")
        assert (cancelled.status_code, cancelled.json()["outcome"]) == (200, "cancelled")
        took = wait_until(lambda: statements(stage.database, "endless_orders") == 0, seconds=3, what="its end")
        assert took < 1.0
        answer = asking.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (499, "cancelled")
    again = stage.deployment.cli("requests", id, "--cancel", "--json")
    assert again.returncode == 0, again.stderr
    assert '"cancelled"' in again.stdout, "to cancel what is over changes nothing"
    audit = stage.client.get("/v1/audit").json()["entries"]
    assert [each["object"] for each in audit if each["action"] == "cancel_request"][:2] == [id, id]


def test_i7_callers_who_hang_up_never_end_the_statement_of_another(stage) -> None:
    stage.runner("alpha")
    stage.assign("alpha")

    def impatient(number: int) -> None:
        with pytest.raises(httpx2.TimeoutException):
            stage.deployment.client().post(
                f"/v1/query/{stage.slow_lens}", json={"limit": 1}, timeout=0.02 + number % 7 * 0.01
            )

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        gone = [pool.submit(impatient, number) for number in range(80)]
        for _ in range(60):
            assert asked(stage)[0] == stage.name("alpha")
        for each in gone:
            each.result()
    wait_until(lambda: statements(stage.database, "slow_orders") == 0, seconds=1.5, what="the end of what nobody wants")
