"""R13: every warning stands where the bad pattern was made, and its button leads to what helps."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lensway.catalog.warnings import WarningCode
from lensway.testing.hostile_runner import HostileRunner
from tests.acceptance.browser import row_of, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
RUNNERS = "/console/e/default/runners"


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
    assert not problems


def warned(row: Locator, code: WarningCode) -> Locator:
    """The line of one warning in a row, opened; its button is the remedy."""
    details = row.locator("details").filter(has=row.page.locator("summary .cause"))
    expect(details.locator("li", has_text=code.value)).to_have_count(1)
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    return details.locator("li", has_text=code.value)


def remedy(row: Locator, code: WarningCode) -> Locator:
    """The dialog behind the button of a warning."""
    warned(row, code).get_by_role("button").click()
    return row.page.locator("dialog[open]")


def in_network(stage, *names: str) -> None:
    """Label runners as replicas of one network."""
    for name in names:
        path = f"/v1/runners/{stage.name(name)}"
        assert stage.client.patch(path, json={"network": f"net-{stage.source}"}).status_code == 200


def test_r13_missing_redundancy_and_unequal_replicas_are_mended_with_one_click(page: Page, stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
    in_network(stage, "alpha", "beta")
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    alpha, beta = row_of(page, stage.name("alpha")), row_of(page, stage.name("beta"))
    # Replicas: the button lists what is missing where.
    dialog = remedy(alpha, WarningCode.REPLICAS_DIFFER)
    expect(dialog.get_by_role("listitem")).to_contain_text(stage.source)
    page.keyboard.press("Escape")
    dialog = remedy(alpha, WarningCode.SINGLE_RUNNER)
    # The runner of the same network comes first.
    expect(dialog.get_by_role("listitem").first).to_contain_text(stage.name("beta"))
    dialog.get_by_role("button", name=stage.name("beta")).click()
    expect(beta.locator(".chip.good")).to_contain_text(stage.source)
    expect(page.locator("dialog")).to_be_hidden()
    for row in (alpha, beta):
        expect(row.locator(".cause")).to_have_count(0)
    stage.unassign("beta")
    dialog = remedy(beta, WarningCode.REPLICAS_DIFFER)
    dialog.get_by_role("button", name=f"Assign to {stage.name('beta')}").click()
    expect(beta.locator(".chip.good")).to_contain_text(stage.source)
    expect(alpha.locator(".cause")).to_have_count(0)


def test_r13_an_absent_runner_is_told_how_to_start_and_its_sources_find_another(page: Page, stage) -> None:
    alpha_process = stage.runner("alpha")
    stage.runner("beta")
    in_network(stage, "alpha", "beta")
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    alpha = row_of(page, stage.name("alpha"))
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/drain")
    expect(alpha.locator(".cause.fault").filter(has_text="runner draining")).to_have_count(1)
    dialog = remedy(alpha, WarningCode.RUNNER_OFFLINE)
    dialog.get_by_role("button", name="Resume").click()
    expect(alpha.locator(".state").first).to_have_text("healthy")
    alpha_process.kill()
    dialog = remedy(alpha, WarningCode.RUNNER_OFFLINE)
    expect(dialog.locator("pre")).to_contain_text("lensway runner start")
    page.keyboard.press("Escape")
    dialog = remedy(alpha, WarningCode.NO_LIVE_RUNNER_LEFT)
    dialog.get_by_role("button", name=stage.name("beta")).click()
    expect(row_of(page, stage.name("beta")).locator(".chip.good")).to_contain_text(stage.source)
    expect(alpha.locator(".cause", has_text="no live runner")).to_have_count(0)
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("beta")


def test_r13_faults_of_a_runner_name_what_to_set_install_or_test(page: Page, stage) -> None:
    local = f"{stage.source}local"
    body = {"name": local, "bridge": "postgres", "credentials": "runner-local"}
    assert stage.client.post("/v1/sources", json=body).status_code == 201
    stage.runner("gamma", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_URL": "postgresql://a:b@127.0.0.1:1/c"})
    stage.assign("gamma")
    stage.deployment.assign(stage.name("gamma"), local)
    stage.runner("bare", start=False)
    stage.assign("bare")
    bare = stage.identities["bare"]
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    gamma = row_of(page, stage.name("gamma"))
    with HostileRunner(stage.deployment.gateway_url, bare.id, bare.token, bridges={}):
        dialog = remedy(row_of(page, bare.name), WarningCode.BRIDGE_MISSING)
        expect(dialog.locator("pre")).to_contain_text("pip install 'lensway")
        page.keyboard.press("Escape")
    dialog = remedy(gamma, WarningCode.CREDENTIALS_MISSING)
    expect(dialog.locator("pre")).to_have_text(f"LENSWAY_SOURCE_{local.upper()}_URL=")
    page.keyboard.press("Escape")
    expect(gamma.locator(".chip.bad", has_text=stage.source).first).to_be_visible()
    dialog = remedy(gamma, WarningCode.RUNNER_UNREACHABLE)
    dialog.get_by_role("button", name=f"Test {stage.source}").click()
    expect(dialog.locator(".test.failed .stages .failed")).to_contain_text("refused")


def test_r13_a_runner_whose_policy_refuses_a_source_is_tested_from_the_overview(page: Page, stage) -> None:
    local = f"{stage.source}file"
    body = {"name": local, "bridge": "sqlite", "credentials": "runner-local"}
    assert stage.client.post("/v1/sources", json=body).status_code == 201
    stage.runner("alpha", environment={f"LENSWAY_SOURCE_{local.upper()}_PATH": "/nowhere/file.sqlite"})
    stage.deployment.assign(stage.name("alpha"), local)
    sign_in(page, stage.deployment)
    line = page.locator(f"#problem-runner-{stage.name('alpha')}")
    expect(line).to_contain_text(re.compile(r"degraded\s*for \d+ s, refused \(\w+\):\s*1 source assigned"))
    line.get_by_role("button", name="Test its sources").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_role("button", name=f"Test {local}").click()
    expect(dialog.locator(".test.failed .hint")).to_contain_text("policy")


def test_r13_taking_the_last_runner_away_warns_before_and_offers_another(page: Page, stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
    in_network(stage, "alpha", "beta")
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    alpha, beta = row_of(page, stage.name("alpha")), row_of(page, stage.name("beta"))
    alpha.get_by_role("button", name=f"Remove {stage.source}").click()
    dialog = page.locator("dialog[open]")
    expect(dialog.locator(".warnings li")).to_contain_text(WarningCode.GOES_INLINE.value)
    expect(dialog.locator(".moves")).to_have_text(
        re.compile(f"{stage.source}\\s*{stage.name('alpha')} → the service \\(inline\\)")
    )
    dialog.get_by_role("button", name="Assign another runner").click()
    dialog.get_by_role("button", name=stage.name("beta")).click()
    expect(beta.locator(".chip.good")).to_contain_text(stage.source)
    alpha.get_by_role("button", name=f"Remove {stage.source}").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(alpha.locator(".chip")).to_have_count(0)
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("beta")


def test_r13_every_code_has_a_remedy(page: Page, stage) -> None:
    stage.runner("alpha", start=False)
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    base = f"{stage.deployment.url}/console/e/default/overview/remedy"
    for code in WarningCode:
        for subject in (f"runner={stage.name('alpha')}", f"source={stage.source}"):
            answer = page.request.get(f"{base}?code={code.value}&{subject}")
            assert (answer.status, "dialog-title" in answer.text()) == (200, True), (code, subject)
    for query, status in (
        ("code=nonsense&runner=a", 400),
        ("code=single_runner", 400),
        ("code=single_runner&source=no", 404),
    ):
        assert page.request.get(f"{base}?{query}").status == status, query
