"""R12: the Runners page in a real browser lists every runner with what it covers, and adds and removes in place, live."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.browser import is_live, row_of, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


@pytest.fixture
def page() -> Iterator[Page]:
    with running_browser() as browser:
        problems: list[str] = []
        yield watched(browser.new_context(), problems)
        refused = [text for text in problems if "401" in text]
        assert len(problems) == len(refused) <= 1, problems


def pick(page: Page, row: Locator, source: str) -> None:
    """Choose a source to add in the row of a runner."""
    row.get_by_role("combobox", name=re.compile("^Add a source")).fill(source)
    page.get_by_role("option", name=source, exact=True).click()


def test_r12_the_runners_page_shows_and_edits_what_each_runner_covers(page: Page, stage) -> None:
    process = stage.runner("alpha")
    sign_in(page, stage.deployment)
    assert page.url.endswith("/console/e/default/overview")
    page.get_by_role("navigation").get_by_role("link", name="Runners").click()
    is_live(page)
    page.get_by_label("Filter runners").fill(stage.source)
    row = row_of(page, stage.name("alpha"))
    expect(row.locator(".state").first).to_have_text("healthy")
    # Adding shows the warnings of the change before it is made.
    pick(page, row, stage.source)
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("single_runner")
    assert stage.query().json()["meta"]["route"]["via"] == "inline", "nothing was changed yet"
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert stage.query().json()["meta"]["route"]["via"] == "inline"
    pick(page, row, stage.source)
    dialog.get_by_role("button", name="Assign").click()
    expect(row.locator(".chip")).to_contain_text(stage.source)
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha")
    # What happens elsewhere appears by itself.
    process.kill()
    expect(row.locator(".state").first).to_have_text("offline")
    row.get_by_role("button", name=f"Remove {stage.source}").click()
    expect(dialog).to_contain_text("goes_inline")
    dialog.get_by_role("button", name="Remove").click()
    expect(row.locator(".chip")).to_have_count(0)
    assert stage.query().json()["meta"]["route"]["via"] == "inline"


def test_r12_a_change_that_is_tested_and_adds_no_warning_takes_one_click(page: Page, stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"/console/e/default/runners?q={stage.source}")
    row = row_of(page, stage.name("beta"))
    pick(page, row, stage.source)
    expect(row.locator(".chip.good")).to_contain_text(stage.source)
    expect(page.locator("dialog")).to_be_hidden()
    # A runner that cannot reach the database is a question, with the reason.
    stage.runner("gamma", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_URL": "postgresql://a:b@127.0.0.1:1/c"})
    row = row_of(page, stage.name("gamma"))
    pick(page, row, stage.source)
    expect(page.locator("dialog")).to_contain_text(f"{stage.name('gamma')} cannot reach {stage.source}: TCP: refused")
    page.get_by_role("button", name="Assign anyway").click()
    expect(row.locator(".chip")).to_contain_text(stage.source)


def test_r9_test_connection_on_a_source_row_shows_every_stage_of_every_runner(page: Page, stage) -> None:
    process = stage.runner("alpha")
    stage.assign("alpha")
    stage.runner("beta", start=False)
    stage.assign("beta")
    sign_in(page, stage.deployment, path=f"/console/e/default/sources?q={stage.source}")
    row = page.locator(f'[data-source="{stage.source}"].source')
    row.get_by_role("button", name="Test connection").click()
    expect(row.locator(".test.passed h3")).to_contain_text(stage.name("alpha"))
    expect(row.locator(".test.passed .stages li")).to_have_count(7)
    expect(row.locator(".test.failed h3")).to_contain_text(stage.name("beta"))
    expect(row.locator(".test.failed")).to_contain_text("never connected")
    expect(row.locator(".tested")).to_contain_text(re.compile(r"tested \d+ s ago"))
    process.kill()
    expect(row.locator(".chip.bad")).to_contain_text(stage.name("alpha"))
    expect(row.locator(".test.passed .stages li")).to_have_count(7)


def test_r13_the_row_of_a_runner_names_each_bad_pattern_once_with_all_its_sources(page: Page, stage) -> None:
    names = [f"{stage.source}x{number}" for number in range(7)]
    stage.runner("alpha")
    for name in names:
        config = {"url": stage.database.reader_url}
        stage.client.post("/v1/sources", json={"name": name, "bridge": "postgres", "config": config})
        stage.deployment.assign(stage.name("alpha"), name)
    sign_in(page, stage.deployment, path=f"/console/e/default/runners?q={stage.source}")
    row = row_of(page, stage.name("alpha"))
    expect(row.locator(".warnings li")).to_have_count(1)
    expect(row.locator(".warnings li")).to_contain_text("single_runner")
    expect(row.locator(".warnings li")).to_contain_text("7: ")
    # The first five sources stand in the row, the rest one click away, also while the row changes.
    expect(row.locator(".chip")).to_have_count(5)
    row.get_by_role("link", name="+2 more").click()
    expect(row.locator(".chip")).to_have_count(7)
    stage.deployment.unassign(stage.name("alpha"), names[0])
    expect(row.locator(".chip")).to_have_count(6)


def test_a_drained_runner_is_neither_green_nor_offline_and_is_resumed_in_place(page: Page, stage) -> None:
    stage.runner("alpha")
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"/console/e/default/runners?q={stage.source}")
    row = row_of(page, stage.name("alpha"))
    expect(row.locator(".chip.good")).to_contain_text(stage.source)
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/drain")
    expect(row.locator(".state").first).to_have_text("draining")
    expect(row.locator(".state").first).to_have_attribute("data-icon", "‖")
    expect(row.locator(".chip.good")).to_have_count(0)
    expect(row.locator("summary").first).to_contain_text("runner draining")
    expect(row).not_to_contain_text("runner offline")
    other = page.context.new_page()
    other.goto(f"{stage.deployment.url}/console/e/default/sources?q={stage.source}")
    of_source = other.locator(f'[data-source="{stage.source}"].source')
    expect(of_source.locator("summary")).to_contain_text("runner draining")
    expect(of_source).not_to_contain_text("runner offline")
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".state").first).to_have_text("healthy")
    assert stage.status_of("alpha")["status"] == "healthy"


def form_token(page: httpx2.Response) -> str:
    """The token that a page's script sends with each form."""
    return json.loads(html.unescape(re.search(r'data-live="([^"]+)"', page.text)[1]))["token"]


def test_a_wrong_key_is_refused_and_a_forged_session_is_none(page: Page, stage) -> None:
    page.goto(f"{stage.deployment.url}/console/login")
    page.get_by_label("Admin key").fill("ak_" + "x" * 43)
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        page.get_by_role("button", name="Sign in").click()
    assert answer.value.status == 401
    anonymous = stage.deployment.client()
    anonymous.headers.pop("Authorization")
    anonymous.cookies.set("lensway_sign_in", "forged", path="/console")
    here = "/console/e/default/runners"
    assert anonymous.get(here).headers["location"] == "/console/login?next=%2Fconsole%2Fe%2Fdefault%2Frunners"
    assert anonymous.post("/console/e/default/assign", data={"runner": "a", "source": "b"}).status_code == 303


def test_forms_of_others_odd_ones_and_large_ones_change_nothing(stage) -> None:
    stage.runner("alpha", start=False)
    change = {"action": "add", "runner": stage.name("alpha"), "source": stage.source}
    with httpx2.Client(base_url=stage.deployment.url, trust_env=False) as browser:
        assert browser.post("/console/e/default/assign", data=change).status_code == 303, (
            "signed out: to the sign-in page"
        )
        assert (
            browser.get("/console/e/default/runners/rows", headers={"X-Requested-With": "console"}).status_code == 401
        )
        browser.post("/console/login", data={"key": stage.deployment.admin_key})
        page = browser.get("/console/e/default/runners")
        for path in (
            "",
            "/",
            "/login",
            "/e/default/runners",
            "/e/nowhere/runners",
            "/static/console.css",
            "/static/nothing",
            "/nothing",
        ):
            assert browser.get("/console" + path).headers["X-Request-Id"].startswith("req_"), path
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        token = {"X-Form-Token": form_token(page)}
        forged: list[dict[str, str]] = [
            {},
            {"X-Form-Token": "0" * 64},
            {"X-Form-Token": "é".encode().decode("latin-1")},
            {**token, "Sec-Fetch-Site": "cross-site"},
            {**token, "Sec-Fetch-Site": "same-site"},
            {**token, "Origin": "https://evil.example"},
        ]
        for headers in forged:
            sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            assert browser.post("/console/e/default/assign", data=change, headers=sent).status_code == 403, headers
        odd = [
            ({"action": "add", "runner": "nobody", "source": stage.source}, 404),
            ({"action": "add", "runner": stage.name("alpha"), "source": "../../etc"}, 404),
            ({"action": "add", "runner": "\x00" * 1000, "source": ""}, 404),
            ({}, 404),
            ({f"f{number}": "x" for number in range(100)}, 400),
            ({"runner": "x" * 20_000}, 413),
        ]
        for form, status in odd:
            answer = browser.post("/console/e/default/assign", data=form, headers=token)
            assert answer.status_code == status, (str(form)[:80], answer.text)
        assert browser.post("/console/e/default/assign", content=b"\xff\xfe=%", headers=token).status_code in (400, 404)
        choices = "/console/e/default/choices"
        assert browser.get(choices, params={"runner": "<b>", "q": "<script>"}).status_code == 404
        assert "<script>" not in browser.get(choices, params={"runner": "<script>", "q": "x"}).text
        rows = browser.get("/console/e/default/runners", params={"q": "<script>x", "page": "-1", "open": "<b>," * 99})
        assert (rows.status_code, "<script>x" in rows.text) == (200, False)
        assert browser.get("/console/static/../pages.py").status_code == 404
        assert not stage.client.get(f"/v1/runners/{stage.name('alpha')}/sources").json()["sources"]
        viewer = stage.client.post("/v1/keys", json={"kind": "ak", "name": "v", "role": "viewer"}).json()
    with httpx2.Client(base_url=stage.deployment.url, trust_env=False) as browser:
        browser.post("/console/login", data={"key": viewer["key"]})
        page = browser.get("/console/e/default/runners")
        token = {"X-Form-Token": form_token(page)}
        assert browser.post("/console/e/default/assign", data=change, headers=token).status_code == 403
        stage.client.delete(f"/v1/keys/{viewer['id']}")
        assert browser.get("/console/e/default/runners").status_code == 303, "its key is gone, so is its session"
