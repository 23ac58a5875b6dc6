"""The pages of the fleet in a real browser: adding a runner, acting on it, connecting a source, the matrix, the overview."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lensway.testing.deployment import clean_environment, paused
from tests.acceptance.browser import is_live, is_stale, row_of, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]
RUNNERS, SOURCES = "/console/e/default/runners", "/console/e/default/sources"


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


@pytest.fixture
def clicks(page: Page) -> list[str]:
    """The clicks on the page, as they come."""
    made: list[str] = []
    page.expose_function("clicked", lambda html: made.append(html))  # noqa: PLW0108 - it takes no built-in function
    page.add_init_script("addEventListener('click', (event) => clicked(event.target.outerHTML.slice(0, 80)), true)")
    return made


def dialog_of(page: Page) -> Locator:
    return page.locator("dialog[open]")


def test_r12_a_runner_is_added_started_and_assigned_in_three_clicks(page: Page, stage, clicks: list[str]) -> None:
    beta = stage.runner("beta")
    assert beta is not None
    stage.assign("beta")
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    page.get_by_role("button", name="Add runner").click()
    dialog = dialog_of(page)
    dialog.get_by_label("Name").fill("Not A Name")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Not A Name")
    name = f"{stage.source}-new"
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Network").fill("somewhere")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.locator("#pulse")).to_contain_text("never connected")
    block = dialog.locator("#way-shell").inner_text()
    for way in ("systemd", "Compose", "Kubernetes"):
        dialog.get_by_text(way, exact=True).click()
        expect(dialog.locator(f"#way-{way.lower()}")).to_contain_text("LENSWAY_GATEWAY_URL")
    token = re.search(r"rk_[\w-]+", block)
    assert token is not None
    stage.deployment.secrets[f"token of {name}"] = token[0]
    process = subprocess.Popen(
        ["/bin/sh", "-c", block.replace("lensway runner start", "exec lensway runner start")],
        env={**clean_environment(), "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        expect(dialog.locator("#pulse .state.good")).to_have_text("healthy", timeout=15_000)
        dialog.get_by_role("button", name="Done").click()
        row = row_of(page, name)
        expect(row.locator(".state").first).to_have_text("healthy")
        expect(page.locator("main")).not_to_contain_text(token[0])
        clicks.clear()
        row.get_by_role("combobox").click()
        page.keyboard.type(stage.source)
        page.get_by_role("option", name=stage.source, exact=True).click()
        expect(row.locator(".chip.good")).to_contain_text(stage.source)
        expect(page.locator("dialog")).to_be_hidden()
        assert 2 <= len(clicks) <= 3, clicks
        beta.kill()
        expect(row_of(page, stage.name("beta")).locator(".state").first).to_have_text("offline")
        assert stage.query().json()["meta"]["route"]["runner"] == name
    finally:
        process.terminate()
        process.wait(20)


def test_r12_acts_on_a_runner_say_first_what_happens_to_its_sources(page: Page, stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
        stage.assign(name)
    alpha = stage.name("alpha")
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    row, dialog = row_of(page, alpha), dialog_of(page)

    def ask(act: str) -> None:
        page.get_by_role("button", name=f"Actions on {alpha}").click()
        dialog.get_by_role("button", name=act).click()

    ask("Drain")
    expect(dialog).to_contain_text("1 source will depend on one runner")
    expect(dialog.locator("tbody tr")).to_have_text(
        re.compile(f"{stage.source}\\s*{alpha}, {stage.name('beta')}\\s*{stage.name('beta')}")
    )
    dialog.get_by_role("button", name="Cancel").click()
    assert stage.status_of("alpha")["status"] == "healthy"
    ask("Drain")
    dialog.get_by_role("button", name="Drain").click()
    expect(row.locator(".state").first).to_have_text("draining")
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".state").first).to_have_text("healthy")
    stage.unassign("beta")
    ask("Revoke")
    expect(dialog.get_by_role("alert")).to_contain_text(
        "1 source will have no live runner: queries on 2 lenses will fail"
    )
    dialog.get_by_role("button", name="Revoke").click()
    expect(row.locator(".state").first).to_have_text("revoked")
    ask("Rotate token")
    dialog.get_by_role("button", name="Rotate token").click()
    token = re.search(r"rk_[\w-]+", dialog.locator("#way-shell").inner_text())
    assert token is not None
    stage.deployment.secrets["rotated token"] = token[0]
    dialog.get_by_role("button", name="Done").click()
    row.get_by_role("link", name=alpha).click()
    is_live(page)
    expect(page.locator("#rows")).to_contain_text("runner.revoke")
    expect(page.locator("#rows")).to_contain_text("runner.rotate")
    page.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("alert")).to_contain_text("1 source will go inline")
    dialog.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(f"{RUNNERS}$"))
    assert stage.client.get(f"/v1/runners/{alpha}").status_code == 404
    assert stage.query().json()["meta"]["route"]["via"] == "inline"


def test_r12_the_page_of_a_runner_shows_its_instances_sources_events_and_audit(page: Page, stage) -> None:
    process = stage.runner("alpha")
    stage.start("alpha")
    stage.assign("alpha")
    sign_in(page, stage.deployment, path=f"/console/e/default/runner/{stage.name('alpha')}")
    rows = page.locator("#rows")
    expect(rows).to_contain_text("127.0.0.1")
    instances = page.locator("section").filter(has=page.get_by_role("heading", name=re.compile("^Instances")))
    expect(instances.locator("tbody tr")).to_have_count(2)
    expect(instances.locator("tbody tr").first).to_contain_text("postgres")
    expect(instances.locator("tbody tr").first).to_contain_text("in force")
    expect(rows).to_contain_text(f"{stage.source} assigned to {stage.name('alpha')} by first admin key")
    expect(rows).to_contain_text("runner.create")
    process.kill()
    expect(instances.locator("tbody tr")).to_have_count(1)
    expect(rows).to_contain_text("connection lost")
    page.get_by_role("button", name="Remove", exact=True).click()
    dialog_of(page).get_by_role("button", name="Remove").click()
    expect(rows).to_contain_text("No source is assigned")


def test_a_source_is_connected_looked_into_and_made_into_lenses(page: Page, stage) -> None:
    name = f"{stage.source}new"
    sign_in(page, stage.deployment, path=SOURCES)
    page.get_by_role("button", name="Connect source").click()
    dialog = dialog_of(page)
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("URL").fill("postgresql://a:b@127.0.0.1:1/c")
    dialog.get_by_role("button", name="Test and save").click()
    expect(dialog).to_contain_text("refused")
    expect(dialog).to_contain_text("Nothing was saved")
    expect(dialog).not_to_contain_text("a:b@")
    assert stage.client.get(f"/v1/sources/{name}").status_code == 404
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Connect source").click()
    # A form that is refused keeps what was typed, and the server does not repeat the address.
    dialog.get_by_label("Name").fill("Not A Name")
    dialog.get_by_label("URL").fill("postgresql://a:secret@127.0.0.1:1/c")
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        dialog.get_by_role("button", name="Test and save").click()
    assert "secret" not in answer.value.text()
    expect(dialog.get_by_role("alert")).to_contain_text("Not A Name")
    expect(dialog.get_by_label("URL")).to_have_value("postgresql://a:secret@127.0.0.1:1/c")
    dialog.get_by_label("Database").select_option("sqlite")
    expect(dialog.get_by_label("URL")).to_be_hidden()
    dialog.get_by_label("Database").select_option("postgres")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("URL").fill(stage.database.reader_url)
    dialog.get_by_role("button", name="Test and save").click()
    expect(page).to_have_url(re.compile(f"/source/{name}$"))
    is_live(page)
    expect(page.locator("#rows")).to_contain_text("passed from 1 of 1")
    page.get_by_role("button", name="Tables and lenses").click()
    item = dialog.get_by_role("listitem").filter(has_text=re.compile("^\\s*(public\\.)?orders"))
    item.get_by_text("columns").click()
    expect(item).to_contain_text("total_amount")
    item.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Make lenses").click()
    expect(dialog).to_contain_text("Make these lenses")
    dialog.get_by_role("button", name="Make 1 lens").click()
    lenses = page.locator("section").filter(has=page.get_by_role("heading", name=re.compile("^Lenses")))
    expect(lenses.locator("tbody tr")).to_have_count(1)
    lens = lenses.locator("tbody th").inner_text()
    assert stage.client.post(f"/v1/query/{lens}", json={"limit": 1}).status_code == 200
    page.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("alert")).to_contain_text("1 lens uses it")
    assert dialog.get_by_role("button", name="Delete").count() == 0
    dialog.get_by_role("button", name="Cancel").click()
    stage.client.delete(f"/v1/lenses/{lens}")
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(f"{SOURCES}$"))


def test_r9_a_source_is_tested_from_each_runner_and_from_one_that_may_be_assigned(page: Page, stage) -> None:
    stage.runner("alpha")
    stage.assign("alpha")
    stage.runner("beta", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_URL": "postgresql://a:b@127.0.0.1:1/c"})
    sign_in(page, stage.deployment, path=f"/console/e/default/source/{stage.source}")
    result = page.locator(".result")
    page.get_by_role("button", name="Test connection").click()
    expect(result.locator(".test.passed h3")).to_contain_text(stage.name("alpha"))
    page.get_by_label("Another runner").select_option(stage.name("beta"))
    page.get_by_role("button", name="Test from it").click()
    expect(result.locator(".test.failed h3")).to_contain_text(stage.name("beta"))
    expect(result).to_contain_text("refused")
    history = page.locator(".history")
    expect(history).to_have_count(2)
    expect(history.first).to_contain_text(f"failed from {stage.name('beta')}")
    page.get_by_role("button", name="Assign", exact=True).click()
    expect(dialog_of(page)).to_contain_text("cannot reach")
    dialog_of(page).get_by_role("button", name="Assign anyway").click()
    expect(page.locator(f"#place-{stage.name('beta')}")).to_be_visible()


def test_the_matrix_is_moved_through_with_arrow_keys_and_stays_true(page: Page, stage) -> None:
    other = f"{stage.source}b"
    stage.client.post(
        "/v1/sources", json={"name": other, "bridge": "postgres", "config": {"url": stage.database.reader_url}}
    )
    process = stage.runner("alpha")
    stage.runner("beta", start=False)
    for runner, source in (("alpha", stage.source), ("beta", stage.source), ("alpha", other)):
        stage.deployment.assign(stage.name(runner), source)
    sign_in(page, stage.deployment, path=f"/console/e/default/matrix?q={stage.source}")
    cell = page.locator(f"#cell-{stage.source}-1")
    expect(cell).to_have_class("good")
    expect(cell).to_contain_text("✓ R")
    expect(cell.locator("time")).to_have_text(re.compile(r"^\d+ s$"))
    expect(page.locator(f"#cell-{other}-2")).to_have_attribute("aria-label", "not assigned")
    cell.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"#cell-{stage.source}-2")).to_be_focused()
    expect(page.locator(f"#cell-{stage.source}-2")).to_contain_text("✗ O")
    page.keyboard.press("ArrowDown")
    expect(page.locator(f"#cell-{other}-2")).to_be_focused()
    process.kill()
    expect(page.locator(f"#cell-{other}-1")).to_have_class("bad")
    expect(page.locator(f"#cell-{other}-2")).to_be_focused()
    assert page.locator("#matrix td[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/source/{other}$"))


def test_the_overview_has_one_line_for_a_cause_and_its_remedy_works(page: Page, stage) -> None:
    names = [f"{stage.source}y{number}" for number in range(4)]
    process = stage.runner("alpha")
    stage.runner("beta")
    for name in names:
        stage.client.post(
            "/v1/sources", json={"name": name, "bridge": "postgres", "config": {"url": stage.database.reader_url}}
        )
        stage.deployment.assign(stage.name("alpha"), name)
    stage.deployment.assign(stage.name("beta"), names[0])
    sign_in(page, stage.deployment)
    expect(page.locator(f"#problem-runner-{stage.name('alpha')}")).to_have_count(0)
    process.kill()
    line = page.locator(f"#problem-runner-{stage.name('alpha')}")
    expect(line).to_contain_text("offline")
    expect(line).to_contain_text("1 source lost redundancy, 3 are down")
    expect(page.locator(".problem").first).to_have_class(re.compile("bad"))
    line.get_by_role("button", name="Assign another runner").click()
    dialog_of(page).get_by_role("button", name=stage.name("beta")).click()
    # Three sources that were down are served by one runner now: the new warnings are shown first.
    dialog = dialog_of(page)
    if dialog.get_by_role("button", name="Assign").count():
        dialog.get_by_role("button", name="Assign").click()
    expect(line).to_contain_text("4 sources lost redundancy, none is down")


def test_what_acts_is_off_while_the_page_is_stale_also_outside_the_list(page: Page, stage) -> None:
    stage.runner("alpha", start=False)
    sign_in(page, stage.deployment, path=f"{RUNNERS}?q={stage.source}")
    add = page.get_by_role("button", name="Add runner")
    add.click()
    create = dialog_of(page).get_by_role("button", name="Create")
    expect(create).to_be_enabled()
    with paused(stage.deployment.server):
        is_stale(page)
        expect(create).to_be_disabled()
        expect(add).to_be_disabled()
    is_live(page)
    expect(create).to_be_enabled()
    expect(add).to_be_enabled()


def test_a_viewer_looks_at_every_page_and_changes_nothing(browser: Browser, stage) -> None:
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    viewer = stage.client.post("/v1/keys", json={"kind": "ak", "name": "looker", "role": "viewer"}).json()
    problems: list[str] = []
    context = browser.new_context()
    page = watched(context, problems)
    sign_in(page, stage.deployment, key=viewer["key"])
    pages = ("overview", "runners", f"runner/{stage.name('alpha')}", "sources", f"source/{stage.source}", "matrix")
    for path in pages:
        page.goto(f"{stage.deployment.url}/console/e/default/{path}")
        is_live(page)
        names = page.locator("main button, main input[role=combobox]").all_inner_texts()
        assert set(names) <= {"Filter"}, (path, names)
    assert not problems
    page.goto(f"{stage.deployment.url}/console/e/default/runner/nobody")
    expect(page.get_by_role("alert")).to_contain_text("nobody")
    expect(page.get_by_role("navigation").get_by_role("link", name="Runners")).to_be_visible()
    context.close()
