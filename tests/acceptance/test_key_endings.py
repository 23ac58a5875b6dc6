"""What ends with a key: its queries, streams, pages on their way, tests, watches and Console sessions, within a second.

And a first admin key that was deleted does not come back with the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import asyncpg
import httpx2
import pytest

from lensway.testing.deployment import Deployment, wait_until
from lensway.testing.http_caller import Caller

pytestmark = pytest.mark.acceptance

WITHIN_SECONDS = 1.0
BODY = {"id": {"type": "integer", "primaryKey": True}, "body": {"type": "text"}}
VIEWS = (
    "CREATE OR REPLACE VIEW ending_asleep AS SELECT 1 AS id, 'x' AS body FROM pg_sleep(20)",
    "CREATE OR REPLACE VIEW ending_endless AS"
    " SELECT i AS id, repeat('x', 1000) AS body FROM (SELECT generate_series(1, 1000000000) AS i) s",
    "CREATE OR REPLACE VIEW ending_bulky AS SELECT i AS id, repeat('y', 1000) AS body FROM generate_series(1, 7000) i",
    "GRANT SELECT ON ending_asleep, ending_endless, ending_bulky TO orders_reader",
)
PLACES = ("inline", "runner")


@pytest.fixture(scope="module")
def site(shared, orders, stage_of) -> Iterator:
    """A source that the service executes and one that a runner serves, with lenses that take long on both."""
    asyncio.run(orders.execute(*VIEWS))
    with stage_of(shared, orders) as inline, stage_of(shared, orders) as far:
        far.runner("alpha")
        far.assign("alpha")
        for place, stage in (("inline", inline), ("runner", far)):
            for table in ("asleep", "endless", "bulky"):
                body = {"source": stage.source, "table": f"public.ending_{table}", "fields": BODY}
                assert stage.client.put(f"/v1/lenses/ending-{table}-{place}", json=body).status_code == 200
        inline.identities["far source"] = dataclasses.replace(far.identities["alpha"], name=far.source)
        yield inline


@pytest.fixture
def key(site) -> dict:
    """A service key of its own for each test."""
    return made(site, kind="sk")


def made(site, **body: object) -> dict:
    answer = site.client.post("/v1/keys", json={"name": "ending", **body})
    assert answer.status_code == 201, answer.text
    created = answer.json()
    site.deployment.secrets[created["id"]] = created["key"]
    return created


def shown(site, key: dict) -> dict:
    return next(each for each in site.client.get("/v1/keys").json()["keys"] if each["id"] == key["id"])


def in_seconds(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def active(site, needle: str) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(site.database.owner_url)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'orders_reader'"
                " AND query LIKE $1",
                f"%{needle}%",
            )
        finally:
            await connection.close()

    return asyncio.run(count())


@contextlib.contextmanager
def locked(site, view: str) -> Iterator[None]:
    """Whatever reads the view waits for the length of the block."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(site.database.owner_url))
    try:
        loop.run_until_complete(connection.execute(f"BEGIN; LOCK TABLE {view} IN ACCESS EXCLUSIVE MODE"))
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def delete(site, key: dict) -> float:
    assert site.client.delete(f"/v1/keys/{key['id']}").status_code == 204
    return time.monotonic()


@contextlib.contextmanager
def under_way(work: Callable[[], object]) -> Iterator[Future]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: (work(), time.monotonic()))


def test_an_ended_query_is_unauthenticated_and_its_statement_gone(site, key) -> None:
    for place in PLACES:
        own = key if place == "inline" else made(site, kind="sk")
        client = site.deployment.client(own["key"])
        path = f"/v1/query/ending-asleep-{place}"
        with under_way(lambda path=path, client=client: client.post(path, json={"limit": 1})) as asked:
            wait_until(lambda: active(site, "ending_asleep") == 1, seconds=10, what="the statement")
            deleted = delete(site, own)
            answer, at = asked.result(timeout=20)
        assert at - deleted < WITHIN_SECONDS
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert answer.json()["error"]["details"]["reason"] == "key_ended"
        wait_until(lambda: active(site, "ending_asleep") == 0, seconds=WITHIN_SECONDS, what="the end of the statement")
        kept = site.client.get(f"/v1/requests/{answer.headers['X-Request-Id']}").json()
        assert kept["outcome"] == "unauthenticated"
        assert kept["attempts"][-1]["outcome"] == "stopped:key_ended"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_reading", [True, False], ids=["reading", "stalled"])
def test_an_export_is_cut_and_its_statement_gone(site, key, place: str, is_reading: bool) -> None:
    with Caller(site.deployment.http_port, key=key["key"], receive_buffer_bytes=32_768) as caller:
        caller.post(f"/v1/query/ending-endless-{place}/export", {"orderBy": []}, headers={"Accept": "text/csv"})
        assert caller.read(1000).startswith(b"HTTP/1.1 200")
        if not is_reading:
            delete(site, key)
            # A look at the database takes part of the second.
            wait_until(
                lambda: active(site, "ending_endless") == 0, seconds=2 * WITHIN_SECONDS, what="the end of the statement"
            )
            assert not caller.rest().endswith(b"0\r\n\r\n")
            return
        ended: list[float] = []

        def read_on() -> bytes:
            tail = b""
            with contextlib.suppress(ConnectionError):
                while part := caller.read():
                    tail = (tail + part)[-100:]
            ended.append(time.monotonic())
            return tail

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_on)
            deleted = delete(site, key)
            tail = reading.result(timeout=20)
    assert ended[0] - deleted < WITHIN_SECONDS
    assert b"Lensway-Rows" not in tail
    assert not tail.endswith(b"0\r\n\r\n")
    wait_until(lambda: active(site, "ending_endless") == 0, seconds=WITHIN_SECONDS, what="the end of the statement")


@pytest.mark.parametrize(
    ("place", "path", "body"),
    [("inline", "", {"limit": 7000}), ("runner", "/export", {"where": {"id": {"$lte": 400}}})],
    ids=["page", "export"],
)
def test_a_complete_result_that_is_still_being_taken_is_cut(site, key, place: str, path: str, body: dict) -> None:
    lens = f"ending-bulky-{place}"

    def is_complete() -> bool:
        newest = site.client.get("/v1/requests", params={"limit": 1}).json()["requests"][0]
        return (newest["lens"], newest["outcome"]) == (lens, "completed")

    with Caller(site.deployment.http_port, key=key["key"], receive_buffer_bytes=32_768) as caller:
        caller.post(f"/v1/query/{lens}{path}", body)
        wait_until(is_complete, seconds=10, what="the result")
        delete(site, key)
        answer = caller.answer()
        assert (answer.status, answer.is_complete) == (200, False)


def test_a_body_that_comes_after_the_end_of_its_key_asks_nothing(site, key) -> None:
    body = json.dumps({"limit": 1}).encode()
    head = (
        f"POST /v1/query/{site.lens} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key['key']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.deployment.http_port)) as caller:
        caller.sendall(head.encode() + body[:3])
        wait_until(lambda: "lastUsedAt" in shown(site, key), seconds=5, what="the head to be read")
        delete(site, key)
        caller.sendall(body[3:])
        assert b" 401 " in caller.recv(4096).partition(b"\r\n")[0]


def test_watches_end_at_once(site) -> None:
    viewer = made(site, kind="ak", role="viewer")
    over: list[float] = []
    started = threading.Barrier(3)

    def watch(client: httpx2.Client, path: str, first: str) -> None:
        with client.stream("GET", path) as events:
            assert events.status_code == 200
            lines = events.iter_lines()
            assert first in lines
            started.wait(10)
            rest = list(lines)
            over.append(time.monotonic())
            # The Console's beats go on until the key ends; the stream of events has nothing to say.
            assert path.startswith("/console/") or not [line for line in rest if line.startswith("data:")]

    with httpx2.Client(base_url=site.deployment.url, trust_env=False, timeout=30.0) as browser:
        assert browser.post("/console/login", data={"key": viewer["key"]}).status_code == 303
        with ThreadPoolExecutor(2) as pool:
            watching = [
                pool.submit(watch, site.deployment.client(viewer["key"]), "/v1/events", ": watching"),
                pool.submit(watch, browser, "/console/e/default/runners/stream", "event: beat"),
            ]
            started.wait(10)
            deleted = delete(site, viewer)
            for each in watching:
                each.result(timeout=20)
        assert max(over) - deleted < WITHIN_SECONDS
        assert browser.get("/console/runners").headers["location"].partition("?")[0] == "/console/login"


def test_a_watch_ends_with_its_environment(site) -> None:
    assert site.client.post("/v1/environments", json={"name": "passing"}).status_code == 201
    with site.deployment.client(environment="passing").stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == ": watching"
        assert site.client.delete("/v1/environments/passing").status_code == 204
        deleted = time.monotonic()
        assert not [line for line in lines if line.startswith("data:")]
    assert time.monotonic() - deleted < WITHIN_SECONDS


@pytest.mark.parametrize("place", PLACES)
def test_a_connection_test_ends_with_its_key(site, place: str) -> None:
    operator = made(site, kind="ak", role="operator")
    source = site.source if place == "inline" else site.identities["far source"].name
    client = site.deployment.client(operator["key"])
    with locked(site, "ending_asleep"), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: (client.post(f"/v1/sources/{source}/test"), time.monotonic()))
        wait_until(lambda: active(site, "ending_asleep") >= 1, seconds=14, what="the test of the locked lens")
        deleted = delete(site, operator)
        answer, at = asked.result(timeout=20)
        wait_until(lambda: active(site, "ending_asleep") == 0, seconds=WITHIN_SECONDS, what="the end of the statement")
    assert (answer.status_code, at - deleted < WITHIN_SECONDS) == (401, True), answer.text


# --- expiry ---------------------------------------------------------------------------------------------------------------


def test_a_key_expires_while_it_is_used(site) -> None:
    key = made(site, kind="sk", expiresAt=in_seconds(2.0))
    client = site.deployment.client(key["key"])
    assert client.post(f"/v1/query/{site.lens}", json={"limit": 1}).status_code == 200
    expires = datetime.datetime.fromisoformat(key["expiresAt"])
    answer = client.post("/v1/query/ending-asleep-inline", json={"limit": 1})
    late = (datetime.datetime.now(datetime.UTC) - expires).total_seconds()
    assert answer.status_code == 401
    assert 0 <= late < WITHIN_SECONDS
    # The connection that was authenticated before, and a new one.
    for again in (client, site.deployment.client(key["key"])):
        refused = again.post(f"/v1/query/{site.lens}", json={"limit": 1})
        assert refused.status_code == 401
        assert "expired at" in refused.json()["error"]["message"]
        assert "keys create" in refused.json()["error"]["hint"]
    wrong = site.deployment.client(key["key"][:-1] + ("A" if key["key"][-1] != "A" else "B"))
    assert "expired" not in wrong.post(f"/v1/query/{site.lens}", json={"limit": 1}).text
    audited = site.client.get("/v1/audit", params={"limit": 20}).json()["entries"]
    assert [entry["object"] for entry in audited if entry["action"] == "key.expire"] == [key["id"]]
    assert shown(site, key)["expiresAt"] == key["expiresAt"]
    assert shown(site, key)["lastUsedAt"] <= key["expiresAt"]


@pytest.mark.parametrize(
    ("given", "path"),
    [("2020-01-01", "expiresAt"), ("tomorrow", "expiresAt"), (90, "expiresAt"), ("2030-01-01T00:00:00", "")],
)
def test_a_wrong_expiry_is_refused(site, given: object, path: str) -> None:
    answer = site.client.post("/v1/keys", json={"kind": "sk", "name": "x", "expiresAt": given})
    assert answer.status_code == 400
    assert path in answer.json()["error"]["details"]["path"]


def test_the_command_line_makes_keys_that_expire(site) -> None:
    for given, days in (("90d", 90), ("12h", 0.5), ("2w", 14)):
        done = site.deployment.cli("keys", "create", "sk", "short", "--expires", given, "--json")
        assert done.returncode == 0, done.stderr
        created = json.loads(done.stdout)
        expires = datetime.datetime.fromisoformat(created["expiresAt"])
        left = expires - datetime.datetime.now(datetime.UTC)
        assert abs(left - datetime.timedelta(days=days)) < datetime.timedelta(minutes=2)
    for wrong in ("90", "d", "0d", "-1d", "99999999w", "soon"):
        refused = site.deployment.cli("keys", "create", "sk", "short", f"--expires={wrong}")
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr


# --- starting again -------------------------------------------------------------------------------------------------------


def test_a_deleted_first_key_stays_deleted_and_recovery_makes_another(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        first = deployment.client()
        successor = first.post("/v1/keys", json={"kind": "ak", "name": "next", "instanceWide": True}).json()
        deployment.secrets["successor"] = successor["key"]
        mine = next(key for key in first.get("/v1/keys").json()["keys"] if key["name"] == "first admin key")
        assert first.delete(f"/v1/keys/{mine['id']}").status_code == 204, "a key may delete itself"
        assert first.get("/v1/keys").status_code == 401
        deployment.server.stop()
        deployment.start_server()
        assert first.get("/v1/keys").status_code == 401
        notice = next(line for line in deployment.server.output.text().splitlines() if "was deleted on" in line)
        assert "LENSWAY_ADMIN_KEY" in notice
        assert "keys recover" in notice
        known = deployment.client(successor["key"])
        audited = known.get("/v1/audit").json()["entries"]
        refused = next(entry for entry in audited if entry["outcome"] == "conflict")
        assert (refused["action"], refused["object"], refused["actor"]) == ("key.create", mine["id"], "server")
        data = str(tmp_path / "data")
        running = deployment.cli("keys", "recover", "--data-dir", data)
        assert running.returncode == 2
        assert "Stop the server" in running.stderr
        deployment.server.stop()
        recovered = deployment.cli("keys", "recover", "--data-dir", data)
        assert recovered.returncode == 0, recovered.stderr
        deployment.secrets["recovered"] = recovered.stdout.strip()
        deployment.start_server()
        saved = deployment.client(recovered.stdout.strip())
        newest = saved.get("/v1/audit").json()["entries"]
        assert any(entry["actor"] == "local recovery" for entry in newest)
        used = next(key for key in saved.get("/v1/keys").json()["keys"] if key["id"] == successor["id"])
        assert "lastUsedAt" in used, "it survived the restart"
