"""The Requests pages in a real browser: filters, failures by cause, one request with its attempts, cancel."""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.browser import is_live, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
HERE = "/console/e/default/requests"


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
    assert problems == []


def row_of(page: Page, id: str):
    return page.locator(f"#row-{id}")


def test_requests_are_filtered_and_failures_are_grouped_by_cause(page: Page, stage) -> None:
    good = [stage.query().json()["meta"]["requestId"] for _ in range(3)]
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    bad = [stage.query({"timeoutMs": 200}).json()["error"]["requestId"] for _ in range(2)]
    sign_in(page, stage.deployment, path=f"{HERE}?lens={stage.lens}")
    expect(page.locator("tbody[data-row]")).to_have_count(5)
    expect(row_of(page, good[0])).to_contain_text("completed")
    expect(row_of(page, good[0])).to_contain_text("inline")
    expect(row_of(page, bad[0])).to_contain_text("no_runners_online")
    expect(row_of(page, bad[0])).not_to_contain_text("inline")
    # Two failures of one cause are one line, which leads to them.
    causes = page.locator("#causes tbody tr")
    expect(causes).to_have_count(1)
    expect(causes).to_contain_text(re.compile(r"2\s+no_runners_online"))
    causes.get_by_role("link", name="2", exact=True).click()
    expect(page.locator("tbody[data-row]")).to_have_count(2)
    # The address is the filter: it can be shared, and a filter that is typed changes it.
    assert "outcome=no_runners_online" in page.url
    page.get_by_role("link", name="show all").click()
    page.get_by_label("Lens").fill(stage.slow_lens)
    expect(page.locator("#empty")).to_contain_text("No recent request matches")
    assert f"lens={stage.slow_lens}" in page.url
    page.get_by_label("Lens").fill(stage.lens)
    expect(page.locator("tbody[data-row]")).to_have_count(5)
    page.get_by_label("To").fill("2001-01-01T00:00:00")
    expect(page.locator("tbody[data-row]")).to_have_count(0)
    page.get_by_label("To").fill("")
    page.get_by_label("From").fill("2001-01-01T00:00:00")
    expect(page.locator("tbody[data-row]")).to_have_count(5)
    # Paused, the list stands still.
    page.get_by_role("link", name="pause").click()
    expect(page.get_by_role("link", name="follow new ones")).to_be_visible()
    later = stage.query({"timeoutMs": 200}).json()["error"]["requestId"]
    page.reload()
    is_live(page)
    expect(row_of(page, later)).to_have_count(0)
    page.get_by_role("link", name="follow new ones").click()
    expect(row_of(page, later)).to_be_visible()


def test_new_requests_appear_by_themselves_in_an_open_page(page: Page, stage) -> None:
    sign_in(page, stage.deployment, path=f"{HERE}?lens={stage.lens}")
    id = stage.query().json()["meta"]["requestId"]
    expect(row_of(page, id)).to_be_visible(timeout=6_000)


def test_one_request_shows_its_attempts_with_times_and_the_verdict_on_each_candidate(page: Page, stage) -> None:
    stage.runner("alpha")
    stage.runner("beta", start=False)
    for name in ("alpha", "beta"):
        stage.assign(name)
    meta = stage.query().json()["meta"]
    sign_in(page, stage.deployment, path=f"/console/e/default/request/{meta['requestId']}")
    facts = page.locator("#facts")
    expect(facts).to_contain_text("completed")
    expect(facts).to_contain_text(stage.source)
    attempt = page.locator("section.card", has=page.get_by_role("heading", name=re.compile(stage.name("alpha"))))
    for word in ("offered", "accepted", "first row", "end"):
        time = attempt.locator("dl.times div", has=page.get_by_text(word, exact=True))
        expect(time).to_contain_text(re.compile(r"\d ms"))
    rows = attempt.locator("table tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text=stage.name("alpha"))).to_contain_text("chosen")
    expect(rows.filter(has_text=stage.name("beta"))).to_contain_text("not connected")
    # Its neighbours are one click away.
    facts.get_by_role("link", name="its other requests").click()
    expect(row_of(page, meta["requestId"])).to_be_visible()
    page.goto(f"{stage.deployment.url}/console/e/default/request/{meta['requestId']}")
    facts.get_by_role("link", name=f"Lens {stage.lens}").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(stage.lens)


def test_a_running_request_is_cancelled_in_its_row_and_a_viewer_cannot(page: Page, stage) -> None:
    viewer = stage.client.post("/v1/keys", json={"kind": "ak", "name": "looks", "role": "viewer"}).json()
    stage.hold_slow_lens()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: stage.query(lens=stage.slow_lens, client=stage.deployment.client()))
        sign_in(page, stage.deployment, path=f"{HERE}?lens={stage.slow_lens}&outcome=running", key=viewer["key"])
        row = page.locator("tbody[data-row]")
        expect(row).to_have_count(1)
        expect(row.get_by_role("button", name="Cancel")).to_have_count(0)
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, stage.deployment, path=f"{HERE}?lens={stage.slow_lens}")
        row.get_by_role("button", name="Cancel").click()
        expect(row).to_contain_text("cancelled")
        answer = waiting.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (499, "cancelled")
    # What is forgotten, foreign or never was is said in the frame of the page.
    forgotten = page.request.get(f"{stage.deployment.url}/console/e/default/request/req_00000000000000000000")
    assert forgotten.status == 404
    assert 'aria-label="Pages"' in forgotten.text()
    assert "req_00000000000000000000" in forgotten.text()
