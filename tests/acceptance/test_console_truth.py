"""A page of the Console never shows an old state as the present one, and acts in no environment but its own."""

from __future__ import annotations

import contextlib
import http.server
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from lensway.testing.deployment import Deployment, paused
from tests.acceptance.browser import is_live, is_stale, row_of, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
HERE = "/console/e/default/runners"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server of this module's own: its tests stop it. Sources are small files, `one` and `two` in both environments."""
    directory = tmp_path_factory.mktemp("console")
    with contextlib.closing(sqlite3.connect(directory / "shop.db")) as database:
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
    with Deployment(directory, serve_options=("--source-dir", str(directory))) as deployment:
        assert deployment.client().post("/v1/environments", json={"name": "staging"}).status_code == 201
        for environment in ("default", "staging"):
            client = deployment.client(environment=environment)
            for name in ("one", "two"):
                config = {"path": str(directory / "shop.db")}
                answer = client.post("/v1/sources", json={"name": name, "bridge": "sqlite", "config": config})
                assert answer.status_code == 201, answer.text
        for environment, name in (("default", "alpha"), ("staging", "omega")):
            client = deployment.client(environment=environment)
            assert client.post("/v1/runners", json={"name": name}).status_code == 201
            assert client.put(f"/v1/runners/{name}/sources/one").status_code == 200
        yield deployment


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, deployment: Deployment) -> Page:
    page = context.new_page()
    sign_in(page, deployment, path=HERE)
    return page


def new_runner(deployment: Deployment, name: str):
    identity = deployment.create_runner(name)
    return deployment.start_runner(identity)


def status_of(deployment: Deployment, name: str) -> str:
    return deployment.client().get(f"/v1/runners/{name}").json()["status"]


# --- no state of the page delays the truth -----------------------------------------------------------------------------------


def test_a_focused_field_an_open_list_and_a_dialog_delay_no_news(page: Page, deployment: Deployment) -> None:
    held: list[tuple[str, Callable[[Page], None]]] = [
        ("focus", lambda page: row_of(page, "alpha").get_by_role("combobox").focus()),
        ("list", lambda page: row_of(page, "alpha").get_by_role("combobox").press("ArrowDown")),
        ("dialog", lambda page: row_of(page, "alpha").get_by_role("button", name="Remove one").click()),
    ]
    for what, hold in held:
        process = new_runner(deployment, f"victim-{what}")
        row = row_of(page, f"victim-{what}")
        expect(row.locator(".state").first).to_have_text("healthy")
        hold(page)
        own = row.get_by_role("combobox")
        if what == "focus":
            own.focus()
        process.kill()
        expect(row.locator(".state").first).to_have_text("offline", timeout=3000)
        assert status_of(deployment, f"victim-{what}") == "offline"
        if what == "focus":
            expect(own).to_be_focused()
        if what == "dialog":
            expect(page.locator("dialog")).to_be_visible()


def test_focus_text_open_details_and_a_result_survive_an_update(page: Page, deployment: Deployment) -> None:
    row = row_of(page, "alpha")
    row.locator("summary").first.click()
    field = row.get_by_role("combobox")
    field.press_sequentially("tw")
    expect(row.get_by_role("option", name="two")).to_be_visible()
    process = new_runner(deployment, "bystander")
    expect(row_of(page, "bystander").locator(".state").first).to_have_text("healthy")
    expect(field).to_be_focused()
    expect(field).to_have_value("tw")
    expect(row.get_by_role("option", name="two")).to_be_visible()
    expect(row.locator(".warnings").first).to_be_visible()
    process.kill()
    # The focus on a button stays where it is too.
    remove = row.get_by_role("button", name="Remove one")
    remove.focus()
    expect(row_of(page, "bystander").locator(".state").first).to_have_text("offline")
    expect(remove).to_be_focused()


# --- the environment of a page -----------------------------------------------------------------------------------------------


def test_a_page_stays_in_its_environment_whatever_other_tabs_show(page: Page, deployment: Deployment) -> None:
    other = page.context.new_page()
    other.goto(f"{deployment.url}/console/e/staging/runners")
    is_live(other)
    expect(other.locator("#environment")).to_have_text("staging")
    expect(row_of(other, "omega").locator(".chip")).to_contain_text("one")
    new_runner(deployment, "witness").kill()
    expect(row_of(page, "witness").locator(".state").first).to_have_text("offline")
    expect(row_of(page, "omega")).to_have_count(0)
    expect(page.locator("#environment")).to_have_text("default")
    row_of(page, "alpha").get_by_role("button", name="Remove one").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    expect(row_of(page, "alpha").locator(".chip")).to_have_count(0)
    staging = deployment.client(environment="staging")
    assert staging.get("/v1/runners/omega/sources").json()["sources"] == ["one"]
    assert deployment.client().get("/v1/runners/alpha/sources").json()["sources"] == []
    deployment.assign("alpha", "one")


def test_a_key_of_one_environment_finds_no_other(browser: Browser, deployment: Deployment) -> None:
    staging = deployment.client(environment="staging")
    made = staging.post("/v1/keys", json={"kind": "ak", "name": "local", "role": "operator"}).json()
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, deployment, key=made["key"])
    assert page.url == f"{deployment.url}/console/e/staging/overview", "the start leads to the key's own environment"
    token = page.evaluate("JSON.parse(document.getElementById('live').dataset.live).token")
    for kind in ("runners", "sources", "runners/rows", "runners/stream", "sources/rows", "choices?runner=alpha"):
        assert page.request.get(f"{deployment.url}/console/e/default/{kind}").status == 404, kind
    for path in ("assign", "test", "resume"):
        form = {"runner": "alpha", "source": "one", "action": "remove", "confirm": "yes"}
        answer = page.request.post(
            f"{deployment.url}/console/e/default/{path}", form=form, headers={"X-Form-Token": token}
        )
        assert (answer.status, "not_found" in answer.text()) == (404, True), path
    assert deployment.client().get("/v1/runners/alpha/sources").json()["sources"] == ["one"]
    page.goto(f"{deployment.url}/console/e/default/runners")
    expect(page.get_by_role("alert")).to_contain_text("default")
    context.close()


# --- how fresh a page is -----------------------------------------------------------------------------------------------------


def test_a_page_without_scripts_never_says_that_it_is_live(browser: Browser, deployment: Deployment) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(deployment.url + HERE)
    page.get_by_label("Admin key").fill(deployment.admin_key)
    page.get_by_role("button", name="Sign in").click()
    expect(row_of(page, "alpha")).to_be_visible()
    expect(page.locator("#link")).to_have_text(re.compile(r"^as of \d{4}-"))
    expect(row_of(page, "alpha").get_by_role("button", name="Remove one")).to_be_disabled()
    context.close()


def test_a_page_of_a_stopped_server_is_stale_within_six_seconds_and_recovers(
    page: Page, deployment: Deployment
) -> None:
    remove = row_of(page, "alpha").get_by_role("button", name="Remove one")
    expect(remove).to_be_enabled()
    remove.focus()
    with paused(deployment.server):
        started = time.monotonic()
        is_stale(page, seconds=6)
        assert time.monotonic() - started < 6
        expect(remove).to_be_disabled()
        expect(page.locator("#notice")).to_be_visible()
        expect(page.locator("#link")).to_have_text(re.compile(r"^stale, updated (?:[7-9]|\d\d) s ago$"), timeout=6000)
    is_live(page)
    expect(remove).to_be_enabled()
    expect(remove).to_be_focused()
    expect(page.locator("#notice")).to_be_hidden()


def test_a_restarted_server_makes_the_page_stale_and_then_live_again(page: Page, deployment: Deployment) -> None:
    deployment.server.signal(signal.SIGKILL)
    deployment.server.wait()
    is_stale(page, seconds=6)
    expect(page.locator("#notice")).to_contain_text("cannot be reached")
    # A change that cannot be sent says so, and leaves a way on.
    page.evaluate("document.getElementById('actions').disabled = false")
    row_of(page, "alpha").get_by_role("button", name="Remove one").click()
    expect(page.locator("dialog")).to_contain_text("did not answer")
    page.locator("dialog").get_by_role("button", name="Close").click()
    expect(page.locator("dialog")).to_be_hidden()
    deployment.start_server()
    is_live(page)
    deployment.client().delete("/v1/runners/alpha/sources/one")
    expect(row_of(page, "alpha").locator(".chip")).to_have_count(0)
    deployment.assign("alpha", "one")


def test_a_page_whose_stream_is_held_back_polls(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    page.route("**/stream*", lambda _route: None)
    sign_in(page, deployment, path=HERE)
    new_runner(deployment, "polled").kill()
    expect(row_of(page, "polled").locator(".state").first).to_have_text("offline", timeout=6000)
    is_live(page)
    page.unroute_all(behavior="ignoreErrors")


def test_a_deleted_key_signs_the_page_out_and_it_stops_asking(browser: Browser, deployment: Deployment) -> None:
    made = deployment.client().post("/v1/keys", json={"kind": "ak", "name": "gone", "role": "operator"}).json()
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, deployment, path=f"{HERE}?q=alpha", key=made["key"])
    deployment.client().delete(f"/v1/keys/{made['id']}")
    expect(page.locator("#link")).to_have_text(re.compile("^signed out"), timeout=6000)
    expect(row_of(page, "alpha").get_by_role("button", name="Remove one")).to_be_disabled()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4000)
    assert not asked
    page.get_by_role("link", name="Sign in again").click()
    page.get_by_label("Admin key").fill(deployment.admin_key)
    page.get_by_role("button", name="Sign in").click()
    is_live(page)
    assert page.url == f"{deployment.url}{HERE}?q=alpha"
    context.close()


def test_a_page_of_an_earlier_session_does_not_go_on_under_another_key(page: Page, deployment: Deployment) -> None:
    made = deployment.client().post("/v1/keys", json={"kind": "ak", "name": "other", "role": "viewer"}).json()
    other = page.context.new_page()
    other.goto(f"{deployment.url}/console/login")
    other.get_by_label("Admin key").fill(made["key"])
    other.get_by_role("button", name="Sign in").click()
    is_live(other)
    expect(row_of(other, "alpha").get_by_role("button")).to_have_count(0)
    new_runner(deployment, "newcomer").kill()
    expect(page.locator("#link")).to_have_text(re.compile("^not this session"), timeout=6000)
    expect(row_of(page, "alpha").get_by_role("button", name="Remove one")).to_be_disabled()
    page.get_by_role("link", name="Load it again").click()
    is_live(page)
    expect(page.locator(".who")).to_contain_text("viewer")


def test_eight_tabs_of_one_browser_are_all_live(context: BrowserContext, page: Page, deployment: Deployment) -> None:
    pages = [page, *(context.new_page() for _ in range(7))]
    for each in pages[1:]:
        each.goto(deployment.url + HERE)
    new_runner(deployment, "seen-by-all").kill()
    for each in pages:
        expect(row_of(each, "seen-by-all").locator(".state").first).to_have_text("offline", timeout=6000)
        is_live(each)


def test_a_hidden_page_closes_its_stream_and_catches_up(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    with page.expect_request("**/stream"):
        sign_in(page, deployment, path=HERE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/stream")):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    is_stale(page, seconds=8)
    assert "stream" not in asked
    with page.expect_request("**/stream"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    is_live(page)


# --- links and states --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def other_site(link: str) -> Iterator[str]:
    """A page of another site with a link."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><a href='{link}'>to the Console</a>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def test_a_link_from_another_site_leads_to_the_page_that_it_names(page: Page, deployment: Deployment) -> None:
    wanted = f"{deployment.url}/console/e/staging/sources?q=one"
    with other_site(wanted) as site:
        page.goto(site)
        page.get_by_role("link").click()
        is_live(page)
        assert page.url == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/console/",
        "//evil.example/console/",
        "/\\evil.example",
        "/console/../v1/keys",
        "/console/e/%2e%2e/x",
        "/console/\n/evil",
        "javascript:alert(1)",
        "/v1/keys",
        "/console/e/default/runners#x\r\nSet-Cookie: a=b",
        "x" * 5000,
    ],
)
def test_signing_in_leads_to_pages_of_the_console_only(deployment: Deployment, wanted: str) -> None:
    client = deployment.client()
    client.headers.pop("Authorization")
    form = {"key": deployment.admin_key, "next": wanted}
    assert client.post("/console/login", data=form).headers["location"] == "/console/"
    form["next"] = "/console/e/default/sources?q=a+b%C3%A9&problems=1"
    assert client.post("/console/login", data=form).headers["location"] == form["next"]
    asked = client.get("/console/login", params={"next": wanted})
    assert asked.headers.get("location", "/console/") == "/console/", "signed in already"


def test_the_field_for_sources_works_by_keys_alone(page: Page, deployment: Deployment) -> None:
    deployment.create_runner("keys")
    row = row_of(page, "keys")
    field = row.get_by_role("combobox")
    field.focus()
    expect(field).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowDown")
    expect(row.get_by_role("option")).to_have_text(["one", "two"])
    expect(page.locator("dialog")).to_be_hidden()
    assert deployment.client().get("/v1/runners/keys/sources").json()["sources"] == [], "nothing was chosen yet"
    page.keyboard.press("Escape")
    expect(field).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowDown")
    expect(field).to_have_attribute("aria-activedescendant", re.compile("choice-1"))
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text("keys cannot reach one")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row.locator(".chip")).to_have_count(2)
    assert deployment.client().get("/v1/runners/keys/sources").json()["sources"] == ["one", "two"]


def test_no_page_breaks_its_own_policy_or_logs_an_error(context: BrowserContext, deployment: Deployment) -> None:
    problems: list[str] = []
    page = watched(context, problems)
    sign_in(page, deployment, path=HERE)
    for path in ("/console/e/default/sources", "/console/e/staging/runners?problems=1&page=9", HERE):
        page.goto(deployment.url + path)
        is_live(page)
    row_of(page, "alpha").get_by_role("combobox").click()
    expect(page.get_by_role("option").first).to_be_visible()
    assert not problems
