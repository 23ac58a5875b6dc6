"""The Events and Audit pages in a real browser: filters, pause, an address for each record, and a verification that tells."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from lensway.testing.deployment import Deployment
from tests.acceptance.browser import is_live, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
BASE = "/console/e/default"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server of this module's own: a test alters its audit."""
    with Deployment(tmp_path_factory.mktemp("records")) as deployment:
        assert deployment.client().post("/v1/environments", json={"name": "staging"}).status_code == 201
        yield deployment


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    problems: list[str] = []
    context = browser.new_context()
    yield watched(context, problems)
    context.close()
    assert problems == []


def records(page: Page):
    return page.locator("tbody[data-row]")


def test_events_are_filtered_paused_paged_and_have_addresses(page: Page, deployment: Deployment) -> None:
    client = deployment.client()
    for number in range(45):
        client.post("/v1/runners", json={"name": f"r{number:02}"}).raise_for_status()
    client.post("/v1/runners/r00/drain").raise_for_status()
    sign_in(page, deployment, path=f"{BASE}/events")
    expect(records(page)).to_have_count(40)
    expect(records(page).first).to_contain_text(re.compile(r"drain[\s\S]*r00"))
    page.get_by_role("link", name="Older").click()
    expect(records(page)).to_have_count(6)
    page.get_by_role("link", name="Newest").click()
    page.get_by_role("link", name=re.compile(r"^\d+ drain")).click()
    expect(records(page)).to_have_count(1)
    page.get_by_role("link", name="show all").click()
    page.get_by_label("Filter events").fill("r07")
    expect(records(page)).to_have_count(1)
    page.get_by_label("Filter events").fill("")
    expect(records(page)).to_have_count(40)
    # Paused, new events stay out, also after a reload; followed again, they are there.
    page.get_by_role("link", name="pause").click()
    assert "through=" in page.url
    client.post("/v1/runners/r01/drain").raise_for_status()
    page.reload()
    is_live(page)
    expect(records(page).first).to_contain_text("r00")
    page.get_by_role("link", name="follow new ones").click()
    expect(records(page).first).to_contain_text("r01")
    client.post("/v1/runners/r02/drain").raise_for_status()
    expect(records(page).first).to_contain_text("r02")
    # The address of one event works elsewhere, and not for another environment.
    page.locator("tbody[data-row] th a").first.click()
    is_live(page)
    expect(page.locator("#facts")).to_contain_text("r02")
    elsewhere = page.request.get(page.url.replace("/e/default/", "/e/staging/"))
    assert elsewhere.status == 404
    assert page.request.get(page.url.replace("at=20", "at=19")).status == 404, "numbers begin anew after a restart"


def test_an_event_that_a_runner_names_oddly_stays_text(page: Page, deployment: Deployment) -> None:
    odd = "</script><img src=x onerror=alert(1)>"
    viewer = deployment.client().post("/v1/keys", json={"kind": "ak", "name": odd, "role": "operator"}).json()
    actor = deployment.client(viewer["key"])
    assert actor.post("/v1/runners/r03/drain").status_code == 200
    assert actor.put(f"/v1/runners/{odd}/sources/{odd}").status_code in (400, 404)
    sign_in(page, deployment, path=f"{BASE}/audit?q=img", key=viewer["key"])
    expect(records(page).first).to_contain_text(odd)
    expect(page.locator("img[src=x]")).to_have_count(0)


def test_the_audit_is_filtered_paged_and_each_row_has_an_address(page: Page, deployment: Deployment) -> None:
    client = deployment.client()
    for number in range(45):
        client.post("/v1/sources", json={"name": f"a{number:02}", "bridge": "postgres", "credentials": "runner-local"})
    assert client.post("/v1/sources", json={"name": "a00", "bridge": "postgres"}).status_code in (400, 409)
    sign_in(page, deployment, path=f"{BASE}/audit?action=source")
    expect(records(page)).to_have_count(40)
    page.get_by_role("link", name="Older").click()
    expect(records(page).first).to_be_visible()
    page.get_by_role("link", name="Newest").click()
    page.get_by_label("Filter audit").fill("a44")
    expect(records(page)).to_have_count(1)
    page.get_by_label("Filter audit").fill("")
    expect(records(page)).to_have_count(40)
    page.get_by_role("link", name="pause").click()
    client.post("/v1/sources", json={"name": "later", "bridge": "postgres", "credentials": "runner-local"})
    page.reload()
    is_live(page)
    expect(records(page).first).not_to_contain_text("later")
    page.get_by_role("link", name="follow new ones").click()
    expect(records(page).first).to_contain_text("later")
    page.locator("tbody[data-row] th a").first.click()
    is_live(page)
    expect(page.locator("#facts")).to_contain_text("source.create")
    expect(page.locator("#facts")).to_contain_text("first admin key")
    staging = deployment.client().post("/v1/keys", json={"kind": "ak", "name": "x", "role": "admin"}).json()
    assert staging["environment"] == "default"
    assert page.request.get(page.url.replace("/e/default/", "/e/staging/")).status == 404
    # Refusals alone.
    client.delete("/v1/sources/nothing")
    page.goto(f"{deployment.url}{BASE}/audit?action=source")
    page.get_by_role("link", name="refused").click()
    expect(records(page).first).to_contain_text("not_found")
    expect(records(page).filter(has_text="✓")).to_have_count(0)


def test_an_open_page_of_the_audit_adds_no_rows_to_it(page: Page, deployment: Deployment) -> None:
    client, stranger = deployment.client(), deployment.client("ak_" + "x" * 40)
    sign_in(page, deployment, path=f"{BASE}/audit?q=authenticate")
    row = records(page)
    for _ in range(3):
        assert stranger.get("/v1/sources").status_code == 401
        client.post("/v1/runners/r04/drain")
        client.post("/v1/runners/r04/resume")
        page.reload()
        is_live(page)
    assert row.count() <= 1, "repetitions within a minute are counted, not written one by one"


def test_a_verification_says_what_it_found_and_who_may_start_one(page: Page, deployment: Deployment) -> None:
    client = deployment.client()
    scoped = client.post("/v1/keys", json={"kind": "ak", "name": "scoped", "role": "admin"}).json()
    sign_in(page, deployment, path=f"{BASE}/audit", key=scoped["key"])
    expect(page.locator("#verified")).to_contain_text("not verified")
    expect(page.get_by_role("button", name="Verify now")).to_have_count(0)
    token = json.loads(page.locator("#live").get_attribute("data-live") or "")["token"]
    refused = page.request.post(f"{deployment.url}{BASE}/audit/verify", headers={"X-Form-Token": token}, form={})
    assert refused.status == 403
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, deployment, path=f"{BASE}/audit")
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator("#verified")).to_contain_text("unaltered")
    head = page.locator("#verified code").inner_text()
    assert client.get("/v1/audit/verify", params={"head": head}).json()["ok"] is True
    path = deployment.directory / "data" / "lensway.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("UPDATE audit SET entry = replace(entry, 'r00', 'r99') WHERE entry LIKE '%r00%'")
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator("#verified")).to_contain_text(re.compile(r"altered\s*Row \d+"))


def test_a_page_with_a_defect_is_answered_in_the_console(page: Page, deployment: Deployment) -> None:
    sign_in(page, deployment, path=f"{BASE}/events")
    path = deployment.directory / "data" / "lensway.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("UPDATE audit SET entry = '{' WHERE sequence = (SELECT max(sequence) FROM audit)")
    answer = page.request.get(f"{deployment.url}{BASE}/audit?q=anything")
    assert (answer.status, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert answer.headers["x-request-id"] in answer.text()
    assert "Traceback" not in answer.text()
    # The other pages go on.
    assert page.request.get(f"{deployment.url}{BASE}/keys").status == 200
