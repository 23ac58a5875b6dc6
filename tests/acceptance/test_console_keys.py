"""The Keys and Settings pages in a real browser: a secret that is shown once, deletions that ask, sign-ins that end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from lensway.testing.deployment import Deployment
from tests.acceptance.browser import is_live, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
HERE = "/console/e/default/keys"
ODD = "<img src=x onerror=alert(1)> & \"co\" 'x'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    problems: list[str] = []
    context = browser.new_context()
    yield watched(context, problems)
    context.close()
    assert [each for each in problems if "401" not in each] == []


def new_page(browser: Browser) -> Page:
    return browser.new_context().new_page()


def test_the_secret_of_a_new_key_is_shown_once_and_is_in_no_address(page: Page, shared: Deployment) -> None:
    sign_in(page, shared, path=HERE)
    page.get_by_role("button", name="Create key").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("Name").fill(ODD)
    dialog.get_by_text("Limits", exact=True).click()
    dialog.get_by_label("rows in one answer").fill("1000")
    dialog.get_by_label("requests a minute").fill("12")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    with page.expect_response(lambda response: response.url.endswith("/keys/create")) as created:
        dialog.get_by_role("button", name="Create", exact=True).click()
    secret = dialog.locator("#secret").inner_text()
    assert re.fullmatch(r"sk_[A-Za-z0-9_-]{32,}", secret)
    assert created.value.headers["cache-control"] == "no-store"
    assert shared.client(secret).get("/v1/lenses").status_code == 200
    # Escape does not throw it away; the button does, and then it is nowhere.
    page.keyboard.press("Escape")
    expect(dialog.locator("#secret")).to_be_visible()
    dialog.get_by_role("button", name="I have stored it").click()
    row = page.locator("tbody[data-row]").filter(has_text=ODD)
    expect(row).to_contain_text("1,000 rows in one answer")
    expect(row).to_contain_text("12 requests a minute")
    expect(row).to_contain_text(re.compile(r"\d+ s ago"), timeout=6_000)
    assert secret not in page.content()
    page.reload()
    is_live(page)
    assert secret not in page.content()
    assert secret not in "".join(addresses)
    # Deleting asks first, and says what will happen.
    row.get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("unauthenticated")
    dialog.get_by_role("button", name="Cancel").click()
    assert shared.client(secret).get("/v1/lenses").status_code == 200
    row.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    expect(page.locator("#rows")).to_be_focused()
    assert shared.client(secret).get("/v1/lenses").status_code == 401


def test_a_form_that_is_refused_keeps_what_was_typed_and_makes_no_key(page: Page, shared: Deployment) -> None:
    sign_in(page, shared, path=HERE)
    page.get_by_role("button", name="Create key").click()
    dialog = page.locator("dialog")
    for field, wrong, right, said in (
        ("Expires", "tomorrow", "2001-01-01", "expiresAt"),
        ("Expires", "2001-01-01", "2099-12-31", "in the past"),
        ("bytes in one answer", "many", "5000000", "maxBytes"),
    ):
        dialog.get_by_label("Name").fill("refused-first")
        dialog.get_by_label("Kind").select_option("ak")
        dialog.get_by_label("Role").select_option("operator")
        if not dialog.get_by_label("bytes in one answer").is_visible():
            dialog.get_by_text("Limits", exact=True).click()
        dialog.get_by_label(field).fill(wrong)
        dialog.get_by_role("button", name="Create", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text(said)
        expect(dialog.get_by_label("Name")).to_have_value("refused-first")
        expect(dialog.get_by_label("Role")).to_have_value("operator")
        expect(dialog.get_by_label(field)).to_have_value(wrong)
        dialog.get_by_label(field).fill(right)
    dialog.get_by_role("button", name="Create", exact=True).click()
    dialog.get_by_role("button", name="I have stored it").click()
    row = page.locator("tbody[data-row]").filter(has_text="refused-first")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("operator")
    expect(row).to_contain_text("2099-12-31")
    expect(row).to_contain_text("4.8 MiB in one answer")


def test_keys_are_filtered_and_paged_on_the_server(page: Page, shared: Deployment) -> None:
    client = shared.client()
    for number in range(45):
        created = client.post("/v1/keys", json={"kind": "sk" if number else "pk", "name": f"many {number:02}"})
        assert created.status_code == 201
    sign_in(page, shared, path=f"{HERE}?q=many")
    expect(page.locator("tbody[data-row]")).to_have_count(40)
    page.get_by_role("link", name="Next").click()
    expect(page.locator("tbody[data-row]")).to_have_count(5)
    page.get_by_label("Kind").select_option("pk")
    expect(page.locator("tbody[data-row]")).to_have_count(1)
    expect(page.locator("tbody[data-row]")).to_contain_text("publishable")


def test_deleting_the_own_key_warns_and_signs_out(page: Page, shared: Deployment) -> None:
    own = shared.client().post("/v1/keys", json={"kind": "ak", "name": "own", "role": "admin"}).json()
    sign_in(page, shared, path=f"{HERE}?q={own['id']}", key=own["key"])
    row = page.locator("tbody[data-row]")
    expect(row).to_contain_text("you are signed in with it")
    row.get_by_role("button", name="Delete").click()
    expect(page.locator("dialog")).to_contain_text("you will be signed out")
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#link")).to_contain_text("signed out")


def test_environments_and_sign_ins_in_settings(page: Page, browser: Browser, shared: Deployment) -> None:
    sign_in(page, shared, path="/console/e/default/settings")
    expect(page.locator("#about")).to_contain_text("Apache-2.0")
    expect(page.locator("#about")).to_contain_text(shared.url)
    dialog = page.locator("dialog")
    page.get_by_role("button", name="Create environment").click()
    dialog.get_by_label("Name").fill("Not A Name")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Name").fill("of-settings")
    dialog.get_by_role("button", name="Create").click()
    row = page.locator("tbody[data-row]").filter(has_text="of-settings")
    expect(row).to_be_visible()
    row.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    # Someone else's sign-in ends while its page is open.
    guest = shared.client().post("/v1/keys", json={"kind": "ak", "name": "a guest", "role": "viewer"}).json()
    other = new_page(browser)
    sign_in(other, shared, path="/console/e/default/runners", key=guest["key"])
    theirs = page.locator("#sign-in-table tbody").filter(has_text="a guest")
    theirs.get_by_role("button", name="End").click()
    dialog.get_by_role("button", name="End it").click()
    expect(theirs).to_have_count(0)
    expect(other.locator("#link")).to_contain_text("signed out", timeout=6_000)
    other.context.close()
