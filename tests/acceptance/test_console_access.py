"""Every page of the fleet, in its states, for people who use a keyboard, a screen reader, a phone or colours of their own."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from lensway.testing.deployment import Deployment, paused
from lensway.testing.hostile_runner import HostileRunner
from tests.acceptance.browser import is_live, is_stale, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
AXE = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
WIDTHS = (390, 1024, 1600)
TOO_WIDE = """document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('*')].filter((each) =>
    each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server with runners in several states, one of them connected."""
    with Deployment(tmp_path_factory.mktemp("access")) as deployment:
        client = deployment.client()
        client.post("/v1/environments", json={"name": "staging"})
        runners = [deployment.create_runner(f"fra-{number}", network="fra") for number in range(4)]
        sources = {f"orders-{number}": {"bridge": "postgres", "credentials": "runner-local"} for number in range(9)}
        assignments = {name: [runners[0].name, *([runners[1].name] if name != "orders-8" else [])] for name in sources}
        client.post("/v1/push", json={"sources": sources, "assignments": assignments}).raise_for_status()
        client.post(f"/v1/runners/{runners[2].name}/revoke").raise_for_status()
        with HostileRunner(deployment.gateway_url, runners[0].id, runners[0].token):
            yield deployment


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


def check(page: Page, what: str) -> None:
    """Axe finds nothing, and nothing makes the page wider than the window."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    said = [(each["id"], [node["html"][:140] for node in each["nodes"]][:3]) for each in found]
    assert not said, (what, said)
    wide = page.evaluate(TOO_WIDE)
    assert not wide, (what, wide)


def context_of(browser: Browser, width: int, theme: str, *, forced: bool = False) -> BrowserContext:
    return browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        forced_colors="active" if forced else "none",
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page_at_any_width(browser: Browser, fleet: Deployment, theme: str) -> None:
    problems: list[str] = []
    context = context_of(browser, 1600, theme)
    page = watched(context, problems)
    sign_in(page, fleet)
    tabs = page.get_by_role("navigation").get_by_role("link")
    paths = [tab.get_attribute("href") for tab in tabs.all()]
    base = "/console/e/default"
    assert {f"{base}/overview", f"{base}/runners", f"{base}/sources"} <= set(paths)
    details = [f"{base}/runner/fra-0", f"{base}/source/orders-1", f"{base}/matrix", "/console/e/staging/runners"]
    for path in (*paths, *details):
        page.goto(fleet.url + str(path))
        is_live(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            check(page, f"{path} at {width}")
    context.close()
    assert not problems


def test_axe_finds_nothing_in_dialogs_lists_and_bad_states(browser: Browser, fleet: Deployment) -> None:
    context = context_of(browser, 1024, "light")
    page = context.new_page()
    page.goto(f"{fleet.url}/console/login")
    check(page, "sign-in")
    sign_in(page, fleet, path="/console/e/default/runners")
    dialog = page.locator("dialog[open]")

    def look(what: str) -> None:
        expect(dialog.locator("#dialog-title")).to_be_visible()
        check(page, what)
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()

    for details in page.locator("details:not(.menu)").all()[:4]:
        details.locator("summary").click()
    check(page, "open details")
    page.get_by_role("combobox").nth(3).press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    check(page, "an open list")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Actions on fra-0").click()
    look("acts")
    page.get_by_role("button", name="Actions on fra-0").click()
    dialog.get_by_role("button", name="Drain").click()
    expect(dialog).to_contain_text("Drain fra-0?")
    look("effects")
    page.get_by_role("button", name="Add runner").click()
    look("add runner")
    for label in ("Assign a second runner", "How to start it", "Make them equal"):
        page.get_by_role("button", name=label).first.click()
        look(label)
    page.goto(f"{fleet.url}/console/e/default/sources")
    is_live(page)
    page.get_by_role("button", name="Connect source").click()
    look("connect source")
    page.get_by_role("button", name="Test connection").first.click()
    expect(page.locator(".tested").first).to_be_visible(timeout=20_000)
    check(page, "results of a test")
    assert fleet.server is not None
    with paused(fleet.server):
        is_stale(page)
        check(page, "stale")
    is_live(page)
    for path in ("/console/e/default/runner/nobody", "/console/e/nowhere/runners"):
        page.goto(fleet.url + path)
        check(page, path)
    context.close()


def test_states_are_told_apart_in_forced_colours_and_greyscale(browser: Browser, fleet: Deployment) -> None:
    context = context_of(browser, 1024, "light", forced=True)
    page = context.new_page()
    sign_in(page, fleet, path="/console/e/default/runners")
    for state in page.locator("main .state, main .chip").all():
        sign = state.evaluate("element => getComputedStyle(element, '::before').content")
        assert re.match(r'"\S', sign), "a sign of its own stands beside the word"
        assert state.evaluate("element => getComputedStyle(element).borderTopStyle") != "none"
        assert state.inner_text().strip()
    context.close()


def test_every_action_of_a_row_is_reached_with_the_keyboard(browser: Browser, fleet: Deployment) -> None:
    context = context_of(browser, 1024, "light")
    page = context.new_page()
    sign_in(page, fleet, path="/console/e/default/runners?q=fra-3")
    page.get_by_role("checkbox").focus()
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    kinds = [re.sub("-run_.*", "", each) for each in reached]
    assert "add-runner" in kinds
    assert kinds.index("fra-3") < kinds.index("add") < kinds.index("acts")
    page.get_by_role("button", name="Actions on fra-3").press("Enter")
    dialog = page.locator("dialog[open]")
    expect(dialog.get_by_role("button", name="Drain")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Actions on fra-3")).to_be_focused()
    context.close()
