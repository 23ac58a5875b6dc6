"""The pages of requests, lenses, keys, records and settings with data in them, their dialogs and bad states, for everyone."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from lensway.testing.deployment import Deployment, paused
from tests.acceptance.browser import is_live, is_stale, running_browser, sign_in, watched
from tests.acceptance.test_console_access import check, context_of

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
BASE = "/console/e/default"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server with requests that completed and failed, keys of every kind, and long names."""
    directory: pathlib.Path = tmp_path_factory.mktemp("record-access")
    with contextlib.closing(sqlite3.connect(directory / "shop.db")) as database:
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        database.executemany("INSERT INTO items VALUES (?, ?)", [(1, "x" * 5_000), (2, None), (3, "<b>bold</b>")])
        database.commit()
    with Deployment(directory, serve_options=("--source-dir", str(directory))) as deployment:
        client = deployment.client()
        fields = {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}}
        lens = {"table": "items", "fields": fields, "grants": {"query": "public"}}
        body = {
            "sources": {
                "shop": {"bridge": "sqlite", "config": {"path": str(directory / "shop.db")}},
                "a" * 63: {"bridge": "postgres", "config": {"url": "postgresql://a:b@127.0.0.1:1/c"}},
            },
            "lenses": {"items": {"source": "shop", **lens}, "b" * 63: {"source": "a" * 63, **lens}},
        }
        client.post("/v1/push", json=body).raise_for_status()
        client.post("/v1/environments", json={"name": "staging"}).raise_for_status()
        for _ in range(3):
            assert client.post("/v1/query/items", json={}).status_code == 200
            assert client.post(f"/v1/query/{'b' * 63}", json={}).status_code == 502
        limits = {"maxRows": 1000, "maxBytes": 5_000_000, "requestsPerMinute": 60}
        for kind, extra in (("sk", {}), ("pk", {"origins": ["https://www.example.org"]}), ("ak", {"role": "viewer"})):
            made = client.post("/v1/keys", json={"kind": kind, "name": f"{kind} {'c' * 50}", "limits": limits, **extra})
            assert made.status_code == 201, made.text
        yield deployment


def paths_of(deployment: Deployment) -> list[str]:
    """Every page with something in it."""
    requests = deployment.client().get("/v1/requests").json()["requests"]
    failed = next(each["id"] for each in requests if each["outcome"] != "completed")
    lists = ["requests", "lenses", "events", "audit", "keys", "settings", "requests?lens=none"]
    details = [f"request/{failed}", "lens/items", f"lens/{'b' * 63}", "audit-row/2"]
    return [f"{BASE}/{path}" for path in (*lists, *details)] + ["/console/e/staging/lenses"]


@pytest.mark.parametrize(("theme", "widths"), [("light", (390, 1600)), ("dark", (1024,))])
def test_axe_finds_nothing_and_nothing_is_too_wide(
    browser: Browser, deployment: Deployment, theme: str, widths: tuple[int, ...]
) -> None:
    problems: list[str] = []
    context = context_of(browser, 1600, theme)
    page = watched(context, problems)
    sign_in(page, deployment)
    for path in paths_of(deployment):
        page.goto(deployment.url + path)
        is_live(page)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            check(page, f"{path} at {width}")
    page.goto(f"{deployment.url}{BASE}/lens/items")
    page.get_by_role("button", name="Show rows").click()
    expect(page.get_by_role("region", name="Rows")).to_contain_text("(5,002 bytes)")
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        check(page, f"rows at {width}")
    page.get_by_role("textbox", name="where").fill("{")
    page.get_by_role("button", name="Show rows").click()
    expect(page.locator("#answer [role=alert]")).to_be_visible()
    check(page, "a query that cannot be read")
    context.close()
    assert not problems


def test_axe_finds_nothing_in_dialogs_and_bad_states(browser: Browser, deployment: Deployment) -> None:
    context = context_of(browser, 390, "dark")
    page = context.new_page()
    sign_in(page, deployment, path=f"{BASE}/keys")
    dialog = page.locator("dialog[open]")

    def look(what: str, leave: Callable[[], None]) -> None:
        expect(dialog.locator("#dialog-title")).to_be_visible()
        check(page, what)
        leave()
        expect(dialog).to_be_hidden()

    page.get_by_role("button", name="Create key").click()
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_text("Limits", exact=True).click()
    look("create a key", lambda: page.keyboard.press("Escape"))
    expect(page.get_by_role("button", name="Create key")).to_be_focused()
    page.get_by_role("button", name="Create key").click()
    dialog.get_by_label("Name").fill("seen")
    dialog.get_by_label("Name").press("Enter")
    expect(dialog.locator("#secret")).to_be_visible()
    expect(dialog.get_by_role("button", name="I have stored it")).to_be_focused()
    look("a secret", lambda: page.keyboard.press("Enter"))
    page.get_by_role("button", name="Delete").first.click()
    look("delete a key", lambda: page.keyboard.press("Escape"))
    page.goto(f"{deployment.url}{BASE}/settings")
    is_live(page)
    page.get_by_role("button", name="Create environment").click()
    look("create an environment", lambda: page.keyboard.press("Escape"))
    page.get_by_role("button", name="End all").click()
    look("end all sign-ins", lambda: page.keyboard.press("Escape"))
    assert deployment.server is not None
    page.goto(f"{deployment.url}{BASE}/audit")
    is_live(page)
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator("#verified")).to_contain_text("unaltered")
    check(page, "verified")
    with paused(deployment.server):
        is_stale(page)
        expect(page.get_by_role("button", name="Verify now")).to_be_disabled()
        check(page, "stale")
    is_live(page)
    for path in (f"{BASE}/lens/nobody", f"{BASE}/nothing", f"{BASE}/request/none"):
        page.goto(deployment.url + path)
        check(page, path)
    context.close()


def test_states_are_told_apart_without_colours(browser: Browser, deployment: Deployment) -> None:
    context = context_of(browser, 1024, "light", forced=True)
    page = context.new_page()
    sign_in(page, deployment, path=f"{BASE}/requests")
    for path in ("requests", "lenses", "keys", "events", "audit"):
        page.goto(f"{deployment.url}{BASE}/{path}")
        is_live(page)
        found = page.locator("main .state").all()[:8]
        assert found or path == "keys", path
        for state in found:
            sign = state.evaluate("element => getComputedStyle(element, '::before').content")
            assert re.match(r'"\S', sign), "a sign of its own stands beside the word"
            assert state.evaluate("element => getComputedStyle(element).borderTopStyle") != "none"
            assert state.inner_text().strip()
    context.close()


def test_a_filter_and_a_row_are_reached_with_the_keyboard(browser: Browser, deployment: Deployment) -> None:
    context = context_of(browser, 1024, "light")
    page = context.new_page()
    sign_in(page, deployment, path=f"{BASE}/requests")
    page.get_by_label("Lens").focus()
    page.keyboard.type("items")
    expect(page.locator("tbody[data-row]").filter(has_text="b" * 63)).to_have_count(0)
    expect(page.locator("tbody[data-row]").first).to_contain_text("items")
    expect(page.get_by_label("Lens")).to_be_focused()
    seen: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        if seen[-1].startswith("req_"):
            break
    assert seen[-1].startswith("req_"), seen
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(seen[-1])
    context.close()
