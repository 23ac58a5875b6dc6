"""Web pages of other origins: what a publishable key lists is readable in Chromium, everything else is not."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import pathlib
import sqlite3
import threading
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment
from tests.acceptance.browser import running_browser

pytestmark = pytest.mark.acceptance

ROWS = 250
SHOP, OTHER = "https://shop.example", "https://other.example"
ALLOW, EXPOSE = "access-control-allow-origin", "access-control-expose-headers"
ASK = """async ([url, key, init]) => {
  try {
    const answer = await fetch(url, {method: 'POST', body: '{}', ...init,
      headers: {'Authorization': 'Bearer ' + key, 'Content-Type': 'application/json', ...(init.headers || {})}});
    const text = await answer.text();
    return {status: answer.status, text, id: answer.headers.get('X-Request-Id'), wait: answer.headers.get('Retry-After'),
            route: answer.headers.get('Lensway-Route')};
  } catch (error) { return {error: String(error)}; }
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server of its own, so that no other test's key lists an origin."""
    folder = tmp_path_factory.mktemp("cors")
    data = folder / "files"
    data.mkdir()
    with contextlib.closing(sqlite3.connect(data / "shop.db")) as file:
        file.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        file.executemany("INSERT INTO items VALUES (?, ?)", [(n, "x" * 50) for n in range(ROWS)])
        file.commit()
    with Deployment(folder, serve_options=["--source-dir", str(data)]) as deployment:
        client = deployment.client()
        source = {
            "name": "shop",
            "bridge": "sqlite",
            "credentials": "managed",
            "config": {"path": str(data / "shop.db")},
        }
        assert client.post("/v1/sources", json=source).status_code == 201
        lens = {
            "source": "shop",
            "table": "items",
            "grants": {"query": "public"},
            "fields": {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}},
        }
        assert client.put("/v1/lenses/items", json=lens).status_code == 200
        yield deployment


def made(site: Deployment, *origins: str, kind: str = "pk", **more: object) -> str:
    body = {"kind": kind, "name": "web", **({"origins": origins} if origins else {}), **more}
    answer = site.client().post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json().get("origins", []) == list(origins)
    return answer.json()["key"]


def preflight(site: Deployment, origin: str, path: str = "/v1/query/items", method: str = "POST") -> httpx2.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return httpx2.request("OPTIONS", site.url + path, headers=headers)


def asked(
    site: Deployment, key: str, origin: str | None, path: str = "/v1/query/items", **headers: str
) -> httpx2.Response:
    said = {"Origin": origin} if origin else {}
    return site.client(key).post(path, json={}, headers=said | headers)


def test_a_preflight_allows_what_some_key_lists_and_a_request_what_its_own_key_lists(site) -> None:
    key, elsewhere, without = made(site, SHOP), made(site, OTHER), made(site)
    for origin in (SHOP, OTHER):
        for path in ("/v1/query/items", "/v1/nothing", "/v1/lenses"):
            allowed = preflight(site, origin, path)
            assert (allowed.status_code, allowed.headers[ALLOW], allowed.content) == (204, origin, b"")
            assert allowed.headers["vary"] == "Origin"
            assert "POST" in allowed.headers["access-control-allow-methods"]
            assert {"authorization", "content-type"} <= set(
                allowed.headers["access-control-allow-headers"].lower().split(", ")
            )
            assert int(allowed.headers["access-control-max-age"]) > 0
    for origin in ("https://evil.example", "http://shop.example", "https://shop.example:444", "null", "*", ""):
        refused = preflight(site, origin)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), origin
        assert ALLOW not in refused.headers
        assert refused.headers["vary"] == "Origin"
    for bearer, origin in ((key, SHOP), (elsewhere, OTHER)):
        answer = asked(site, bearer, origin)
        assert (answer.status_code, answer.headers[ALLOW]) == (200, origin)
        assert "Origin" in answer.headers.get_list("vary", split_commas=True)
        exposed = answer.headers[EXPOSE]
        for name in ("X-Request-Id", "Retry-After", "Lensway-Route", "Lensway-Request", "Lensway-Next-Cursor"):
            assert name in exposed
        assert "*" not in exposed
        assert "access-control-allow-credentials" not in answer.headers
    service = made(site, kind="sk")
    for bearer, origin in ((key, OTHER), (without, SHOP), (service, SHOP), (site.admin_key, SHOP)):
        answer = asked(site, bearer, origin)
        assert (answer.status_code, ALLOW in answer.headers) == (200, False)
        assert "Origin" in answer.headers.get_list("vary", split_commas=True)
    plain = asked(site, key, None)
    assert not [name for name in plain.headers if name.startswith("access-control")]


def test_errors_and_streams_are_readable_too(site) -> None:
    key = made(site, SHOP)
    slow = made(site, SHOP, limits={"requestsPerMinute": 1})
    assert asked(site, slow, SHOP).status_code == 200
    limited = asked(site, slow, SHOP)
    assert (limited.status_code, limited.headers[ALLOW]) == (429, SHOP)
    assert limited.headers["retry-after"]
    for bearer, path, status in (
        ("pk_wrong", "/v1/query/items", 401),
        (key, "/v1/query/nothing", 404),
        (key, "/v1/nowhere", 404),
        (key, "/v1/keys", 403),
        (key, "/v1/query/items?x=1", 400),
        (key, "/healthz", 405),
    ):
        answer = asked(site, bearer, SHOP, path)
        assert (answer.status_code, answer.headers.get(ALLOW)) == (status, SHOP), path
        assert ALLOW not in asked(site, bearer, "https://evil.example", path).headers
    for media in ("application/x-ndjson", "text/csv"):
        answer = asked(site, key, SHOP, "/v1/query/items/export", Accept=media)
        assert (answer.status_code, answer.headers.get(ALLOW)) == (200, SHOP)


def test_origins_are_checked_listed_kept_over_a_restart_and_end_with_their_key(site) -> None:
    client = site.client()
    for body in (
        {"kind": "pk", "origins": ["https://a.example/"]},
        {"kind": "pk", "origins": ["*"]},
        {"kind": "sk", "origins": [SHOP]},
        {"kind": "ak", "origins": [SHOP]},
    ):
        refused = client.post("/v1/keys", json={"name": "web", **body})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request"), body
    own = "https://restarted.example"
    done = site.cli("keys", "create", "pk", "web", "--origin", own, "--origin", "HTTP://LOCALHOST:3000", "--json")
    assert done.returncode == 0, done.stderr
    created = json.loads(done.stdout)
    assert created["origins"] == [own, "http://localhost:3000"]
    assert site.server is not None
    site.server.kill()
    site.start_server()
    listed = {key["id"]: key.get("origins") for key in json.loads(site.cli("keys", "list").stdout)}
    assert listed[created["id"]] == created["origins"]
    assert asked(site, created["key"], own).headers[ALLOW] == own
    assert client.delete(f"/v1/keys/{created['id']}").status_code == 204
    assert preflight(site, own).status_code == 403


def test_the_console_is_no_part_of_it(site) -> None:
    made(site, SHOP)
    assert ALLOW not in preflight(site, SHOP, "/console/").headers
    assert ALLOW not in httpx2.get(site.url + "/console/login", headers={"Origin": SHOP}).headers


def test_the_root_leads_a_browser_to_the_console(site) -> None:
    page = httpx2.get(site.url + "/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status_code, page.headers["location"]) == (303, "/console/")
    for accept in ("*/*", "application/json", ""):
        answer = httpx2.get(site.url + "/", headers={"Accept": accept})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert httpx2.post(site.url + "/", headers={"Accept": "text/html"}).status_code == 404


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """The origin of a web server on loopback."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_chromium_reads_what_the_key_lists(site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>shop</title>")
    with served(tmp_path) as listed, served(tmp_path) as stranger, running_browser() as browser:
        key, slow = made(site, listed), made(site, listed, limits={"requestsPerMinute": 1})
        page = browser.new_page()
        page.goto(listed)
        url = site.url + "/v1/query/items"

        def ask(url: str, key: str, **init: object) -> dict:
            return page.evaluate(ASK, [url, key, init])

        rows = ask(url, key)
        assert rows["status"] == 200
        assert len(json.loads(rows["text"])["rows"]) == 100
        assert rows["id"].startswith("req_")
        export = ask(url + "/export", key, headers={"Accept": "application/x-ndjson; end=record"})
        assert json.loads(export["text"].splitlines()[-1]) == {"$end": {"rows": ROWS}}
        assert json.loads(export["route"])["via"] == "inline"
        assert ask(url, "pk_wrong")["status"] == 401
        assert ask(site.url + "/v1/query/nothing", key)["status"] == 404
        assert ask(site.url + "/v1/nowhere", key)["status"] == 404
        assert ask(url, slow)["status"] == 200
        limited = ask(url, slow)
        assert (limited["status"], json.loads(limited["text"])["error"]["code"]) == (429, "rate_limited")
        assert int(limited["wait"]) >= 1
        page.goto(stranger)
        assert "error" in ask(url, key)
        made(site, stranger)  # now the preflight passes, and the answer to the other key stays closed
        assert "error" in ask(url, key)
        page.close()


def test_what_this_version_does_not_have_is_refused_by_name(site) -> None:
    client = site.client()
    for path in ("/v1/query/items", "/v1/query/items/export", "/v1/query/items/explain", "/v1/count/items"):
        for key in ("include", "groupBy", "measures", "having"):
            answer = client.post(path, json={key: {"x": {}}})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["details"]["path"]) == (400, "invalid_request", key)
            assert "view" in error["hint"]
    answer = client.post("/v1/aggregate/items", json={})
    assert (answer.status_code, "aggregates" in answer.json()["error"]["hint"]) == (404, True)
