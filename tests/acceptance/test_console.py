"""R12: the Runners page in a real browser lists every runner with what it covers, and adds and removes in place, live."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

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
