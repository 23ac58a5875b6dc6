"""R12: the Runners page in a real browser lists every runner with what it covers, and adds and removes in place, live."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


@pytest.fixture
def page() -> Iterator[Page]:
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context()
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        yield page
        browser.close()
        refused = [text for text in problems if "401" in text]
        assert len(problems) == len(refused) <= 1, problems


def sign_in(page: Page, stage) -> None:
    page.goto(f"{stage.deployment.url}/console/")
    page.get_by_label("Admin key").fill(stage.deployment.admin_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Runners")).to_be_visible()
    expect(page.locator("#link")).to_have_text("live")


def test_r12_the_runners_page_shows_and_edits_what_each_runner_covers(page: Page, stage) -> None:
    process = stage.runner("alpha")
    sign_in(page, stage)
    row = page.locator(f'[data-runner="{stage.name("alpha")}"]').first
    expect(row.locator(".state").first).to_have_text("healthy")
    # Adding shows the warnings of the change before it is made.
    row.get_by_label(re.compile("^Add a source")).select_option(stage.source)
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("single_runner")
    assert stage.query().json()["meta"]["route"]["via"] == "inline", "nothing was changed yet"
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert stage.query().json()["meta"]["route"]["via"] == "inline"
    row.get_by_label(re.compile("^Add a source")).select_option(stage.source)
    dialog.get_by_role("button", name="Assign").click()
    expect(row.locator(".chip")).to_contain_text(stage.source)
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha")
    # Test connection shows every stage, from the runner.
    source = page.locator(f'[data-source="{stage.source}"].source')
    source.get_by_role("button", name="Test connection").click()
    expect(source.locator(".stages li")).to_have_count(7)
    expect(source.locator(".test.passed h3")).to_contain_text(stage.name("alpha"))
    # What happens elsewhere appears by itself.
    process.kill()
    expect(row.locator(".state").first).to_have_text("offline")
    expect(source.locator(".stages li")).to_have_count(7)
    row.get_by_role("button", name=f"Remove {stage.source}").click()
    expect(dialog).to_contain_text("goes_inline")
    dialog.get_by_role("button", name="Remove").click()
    expect(row.locator(".chip")).to_have_count(0)
    assert stage.query().json()["meta"]["route"]["via"] == "inline"


def test_a_wrong_key_is_refused_and_a_forged_session_is_none(page: Page, stage) -> None:
    page.goto(f"{stage.deployment.url}/console/login")
    page.get_by_label("Admin key").fill("ak_" + "x" * 43)
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        page.get_by_role("button", name="Sign in").click()
    assert answer.value.status == 401
    anonymous = stage.deployment.client()
    anonymous.headers.pop("Authorization")
    anonymous.cookies.set("lensway_session", "forged", path="/console")
    assert anonymous.get("/console/runners").headers["location"] == "/console/login"
    assert anonymous.post("/console/assign", data={"runner": "a", "source": "b"}).status_code == 303


def test_forms_of_others_odd_ones_and_large_ones_change_nothing(stage) -> None:
    stage.runner("alpha", start=False)
    change = {"action": "add", "runner": stage.name("alpha"), "source": stage.source}
    with httpx2.Client(base_url=stage.deployment.url, trust_env=False) as browser:
        assert browser.post("/console/assign", data=change).status_code == 303, "signed out: to the sign-in page"
        assert browser.get("/console/runners/rows", headers={"X-Requested-With": "console"}).status_code == 401
        browser.post("/console/login", data={"key": stage.deployment.admin_key})
        page = browser.get("/console/runners")
        for path in ("", "/", "/login", "/runners", "/static/console.css", "/static/nothing", "/nothing"):
            assert browser.get("/console" + path).headers["X-Request-Id"].startswith("req_"), path
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        token = {"X-Form-Token": re.search(r'name="form-token" content="(\w+)"', page.text)[1]}
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
            assert browser.post("/console/assign", data=change, headers=sent).status_code == 403, headers
        odd = [
            ({"action": "add", "runner": "nobody", "source": stage.source}, 404),
            ({"action": "add", "runner": stage.name("alpha"), "source": "../../etc"}, 404),
            ({"action": "add", "runner": "\x00" * 1000, "source": ""}, 404),
            ({}, 404),
            ({f"f{number}": "x" for number in range(100)}, 400),
            ({"runner": "x" * 20_000}, 413),
        ]
        for form, status in odd:
            answer = browser.post("/console/assign", data=form, headers=token)
            assert answer.status_code == status, (str(form)[:80], answer.text)
        assert browser.post("/console/assign", content=b"\xff\xfe=%", headers=token).status_code in (400, 404)
        assert browser.get("/console/preview", params={"runner": "<b>", "source": "<script>"}).status_code == 404
        assert "<script>" not in browser.get("/console/preview", params={"runner": "<script>", "source": "x"}).text
        assert browser.get("/console/static/../pages.py").status_code == 404
        assert not stage.client.get(f"/v1/runners/{stage.name('alpha')}/sources").json()["sources"]
        viewer = stage.client.post("/v1/keys", json={"kind": "ak", "name": "v", "role": "viewer"}).json()
    with httpx2.Client(base_url=stage.deployment.url, trust_env=False) as browser:
        browser.post("/console/login", data={"key": viewer["key"]})
        page = browser.get("/console/runners")
        token = {"X-Form-Token": re.search(r'name="form-token" content="(\w+)"', page.text)[1]}
        assert browser.post("/console/assign", data=change, headers=token).status_code == 403
        stage.client.delete(f"/v1/keys/{viewer['id']}")
        assert browser.get("/console/runners").status_code == 303, "its key is gone, so is its session"
