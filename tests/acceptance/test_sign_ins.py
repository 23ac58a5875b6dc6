"""Sign-ins to the Console: a copy of a cookie dies with its sign-in, and no address carries a token."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import pathlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from lensway import limits
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import SignIn
from lensway.clock import SystemClock
from lensway.ids import KeyId, new_sign_in_id
from lensway.store.sqlite import SqliteStore
from lensway.testing.deployment import Deployment, clean_environment
from lensway.testing.memory_store import MemoryStore

RUNNERS = "/console/e/default/runners"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("sign-ins")) as deployment:
        yield deployment


@contextlib.contextmanager
def browser(deployment: Deployment, key: str | None = None) -> Iterator[httpx2.Client]:
    """A browser that has signed in."""
    with httpx2.Client(base_url=deployment.url, trust_env=False) as made:
        answer = made.post("/console/login", data={"key": key or deployment.admin_key})
        assert answer.status_code == 303, answer.text
        yield made


def is_in(browser: httpx2.Client) -> bool:
    return browser.get(RUNNERS).status_code == 200


def copy_of(browser: httpx2.Client) -> httpx2.Client:
    made = httpx2.Client(base_url=browser.base_url, trust_env=False)
    made.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return made


def form_token(browser: httpx2.Client) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', browser.get(RUNNERS).text)
    assert found is not None
    return found[1]


def test_a_copy_of_a_cookie_opens_nothing_after_the_sign_out(deployment: Deployment) -> None:
    with browser(deployment) as one, browser(deployment) as other, copy_of(one) as copy:
        assert is_in(copy)
        rows = f"{RUNNERS}/rows"
        parts = {"X-Requested-With": "console", "X-Form-Token": form_token(one)}
        assert copy.get(rows, headers=parts).status_code == 200
        for wrong in ({}, {"form_token": "0" * 64}):
            assert one.post("/console/logout", data=wrong).status_code == 403
        assert one.post(f"/console/logout?form_token={form_token(one)}").status_code == 403, "not in an address"
        assert is_in(one)
        answer = one.post("/console/logout", data={"form_token": form_token(one)})
        assert answer.headers["location"] == "/console/login"
        assert not is_in(one)
        assert not is_in(copy)
        assert copy.get(rows, headers=parts).status_code == 401, "an open tab follows"
        assert is_in(other), "another browser's sign-in is its own"


def test_a_new_sign_in_ends_the_one_before_in_the_same_browser(deployment: Deployment) -> None:
    with browser(deployment) as one, browser(deployment) as other, copy_of(one) as copy:
        old = dict(one.cookies)
        assert one.post("/console/login", data={"key": "ak_" + "x" * 40}).status_code == 401
        assert is_in(copy), "a wrong key ends nothing"
        assert one.post("/console/login", data={"key": deployment.admin_key}).status_code == 303
        assert dict(one.cookies) != old
        assert is_in(one)
        assert not is_in(copy), "the cookie from before opens nothing"
        assert is_in(other)


def test_an_administrator_lists_sign_ins_and_ends_one_or_all(deployment: Deployment) -> None:
    api = deployment.client()
    viewer = api.post("/v1/keys", json={"kind": "ak", "name": "guest", "role": "viewer"}).json()
    assert api.delete("/v1/sign-ins").status_code == 200
    with browser(deployment) as one, browser(deployment, viewer["key"]) as guest:
        listed = api.get("/v1/sign-ins").json()["signIns"]
        assert [each["role"] for each in listed] == ["viewer", "admin"]
        assert listed[0]["keyName"] == "guest"
        assert listed[0]["address"] == "127.0.0.1"
        secret = next(iter(guest.cookies.values()))
        assert secret not in json.dumps(listed)
        assert api.delete("/v1/sign-ins/sin_nothing").status_code == 404
        as_guest = {"Authorization": f"Bearer {viewer['key']}"}
        assert api.delete(f"/v1/sign-ins/{listed[1]['id']}", headers=as_guest).status_code == 403
        assert api.delete(f"/v1/sign-ins/{listed[0]['id']}").status_code == 204
        assert not is_in(guest)
        assert is_in(one)
        assert lensway(deployment, "sign-ins", "list", "--json")[0]["role"] == "admin"
        lensway(deployment, "sign-ins", "end", "--all")
        assert not is_in(one)
        assert api.get("/v1/sign-ins").json()["signIns"] == []
    actions = {row["action"] for row in api.get("/v1/audit").json()["entries"]}
    assert {"sign-in.create", "sign-in.end", "sign-in.end-all"} <= actions


def lensway(deployment: Deployment, *arguments: str):
    environment = {"LENSWAY_URL": deployment.url, "LENSWAY_API_KEY": deployment.admin_key}
    done = subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", *arguments],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def test_sign_ins_outlive_a_restart_and_the_store_holds_no_cookie(deployment: Deployment) -> None:
    with browser(deployment) as one, browser(deployment) as other:
        other.post("/console/logout", data={"form_token": form_token(other)})
        ended = copy_of(other)
        deployment.server.stop()
        secret = next(iter(one.cookies.values())).encode()
        files = [path for path in deployment.directory.rglob("*") if path.is_file() and "lensway.db" in path.name]
        assert files
        assert not any(secret in path.read_bytes() for path in files)
        deployment.start_server()
        assert is_in(one)
        assert not is_in(ended)
        ended.close()


def sign_in(now: datetime.datetime, **changes: str) -> SignIn:
    facts = {"used_at": moment_text(now), "expires_at": moment_text(now + datetime.timedelta(hours=1)), **changes}
    return SignIn(
        id=new_sign_in_id(),
        key=KeyId("key_x"),
        environment=None,
        hash=b"h" * 32,
        role="admin",
        address="",
        created_at=moment_text(now),
        **facts,
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_store_keeps_uses_and_forgets_what_ended(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    store = MemoryStore() if kind == "memory" else SqliteStore.open(path, master_key=b"m" * 32, clock=SystemClock())
    one = sign_in(SystemClock().wall())

    async def run() -> None:
        await store.write_sign_ins(put=(one,))
        await store.note_sign_in(one, "2099-01-01T00:00:00.000+00:00")
        assert store.sign_ins()[one.hash].used_at.startswith("2099")
        await store.write_sign_ins(ended=(one,))
        await store.note_sign_in(one, "2099-01-01T00:00:00.000+00:00")
        assert store.sign_ins() == {}, "a late note of a use brings nothing back"

    asyncio.run(run())
    if isinstance(store, SqliteStore):
        store.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*) FROM sign_ins").fetchone() == (0,)
        connection.close()


def test_an_idle_or_old_sign_in_is_over_and_an_open_page_is_no_use(deployment: Deployment) -> None:
    with browser(deployment) as one:
        deployment.server.stop()
        database = next(deployment.directory.rglob("lensway.db"))
        idle = SystemClock().wall() - datetime.timedelta(seconds=limits.CONSOLE_IDLE_SECONDS - 20)
        set_used(database, moment_text(idle))
        deployment.start_server()
        parts = {"X-Requested-With": "console", "X-Form-Token": "x"}
        assert one.get(f"{RUNNERS}/rows", headers=parts).status_code in (200, 409), "still good"
        deployment.server.stop()
        assert used_of(database) == moment_text(idle), "what a page fetches by itself is no use"
        set_used(database, moment_text(idle - datetime.timedelta(seconds=30)))
        deployment.start_server()
        assert not is_in(one)


def set_used(database: pathlib.Path, at: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE sign_ins SET entry = json_set(entry, '$.used_at', ?)", (at,))
    connection.close()


def used_of(database: pathlib.Path) -> str:
    with sqlite3.connect(database) as connection:
        found: str = connection.execute("SELECT max(json_extract(entry, '$.used_at')) FROM sign_ins").fetchone()[0]
    connection.close()
    return found


def test_under_tls_the_cookie_belongs_to_this_host_alone(tmp_path_factory) -> None:
    arguments = ("--public-url", "https://lensway.example")
    with Deployment(tmp_path_factory.mktemp("tls"), serve_options=arguments) as deployment:
        with httpx2.Client(base_url=deployment.url, trust_env=False) as made:
            answer = made.post("/console/login", data={"key": deployment.admin_key})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"path=/", "secure", "httponly", "samesite=strict"} <= parts
        assert not any(part.startswith("domain") for part in parts)
