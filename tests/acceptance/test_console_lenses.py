"""The Lenses pages in a real browser: what is declared, a few rows, and a query that runs as it was copied."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from playwright.sync_api import Browser, Page, expect

from lensway.testing.deployment import wait_until
from tests.acceptance.browser import is_live, running_browser, sign_in, watched

pytestmark = [pytest.mark.acceptance, pytest.mark.browser]


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


def ran(command: Sequence[str], key: str) -> str:
    """The output of a program that has nothing but the key and this environment's programs."""
    programs = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={"PATH": programs, "LENSWAY_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ids_of_three(page: Page, key: str) -> list[list[int]]:
    """What the three texts on the page give, each run literally."""
    curl = json.loads(ran(["bash", "-c", page.locator("#text-curl").inner_text()], key))
    command = json.loads(ran(["bash", "-c", page.locator("#text-command").inner_text()], key))
    python = ran([sys.executable, "-c", page.locator("#text-python").inner_text()], key).splitlines()
    return [
        [row["id"] for row in curl["rows"]],
        [row["id"] for row in command["rows"]],
        [ast.literal_eval(line)["id"] for line in python],
    ]


def test_a_lens_is_found_and_shows_all_that_is_declared(page: Page, stage) -> None:
    stage.client.put(
        f"/v1/lenses/{stage.lens}",
        json={
            "source": stage.source,
            "table": "public.orders",
            "fields": {
                "id": {"type": "integer", "primaryKey": True},
                "total": {"type": "decimal", "column": "total_amount"},
                "parts": {"type": "text", "list": True, "nullable": False},
            },
            "grants": {"query": "public"},
            "limits": {"maxRows": 1234567},
            "retry": "never",
        },
    ).raise_for_status()
    sign_in(page, stage.deployment, path=f"/console/e/default/lenses?q={stage.source}")
    rows = page.locator("tbody[data-row]")
    expect(rows).to_have_count(2)
    page.get_by_label("Open to").select_option("public")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("inline")
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    expect(rows).to_contain_text("0 of 1 runner live")
    rows.get_by_role("link", name=stage.lens).click()
    is_live(page)
    fields = page.locator("#fields tbody tr")
    expect(fields.nth(0)).to_contain_text("primary key")
    expect(fields.nth(1)).to_contain_text(re.compile(r"total\s*decimal\s*total_amount\s*possible"))
    expect(fields.nth(2)).to_contain_text(re.compile(r"parts\s*list of text\s*parts\s*never\s*\$exists"))
    expect(page.locator("#facts")).to_contain_text("publishable ones too")
    expect(page.locator("#facts")).to_contain_text("never repeats a query")
    expect(page.locator("#limits")).to_contain_text("1,234,567")
    expect(page.locator("#limits")).to_contain_text("(default)")


def test_rows_are_shown_and_the_same_query_runs_as_copied_in_three_ways(page: Page, stage) -> None:
    key = stage.client.post("/v1/keys", json={"kind": "sk", "name": "app"}).json()["key"]
    sign_in(page, stage.deployment, path=f"/console/e/default/lens/{stage.lens}")
    assert ids_of_three(page, key) == [list(range(1, 11))] * 3, "the first query, before anything was asked"
    page.get_by_role("textbox", name="where").fill(
        '{"customer": {"$ne": "it\'s \\"quoted\\" $HOME `x`"}, "total": {"$gt": 100.10}, "note": null}'
    )
    page.get_by_role("textbox", name="order by").fill("placed:desc, id")
    page.get_by_role("textbox", name="fields").fill("id, customer, note, total")
    page.get_by_role("spinbutton", name="rows").fill("4")
    page.get_by_role("button", name="Show rows").click()
    table = page.get_by_role("region", name="Rows").locator("table")
    expect(table.locator("tbody tr")).to_have_count(4)
    expect(table.locator("thead th")).to_have_text(["id", "customer", "note", "total"])
    shown = [int(text) for text in table.locator("tbody tr td:first-child").all_inner_texts()]
    assert shown == [4998, 4995, 4992, 4989]
    expect(table.locator("tbody tr").first).to_contain_text("6247.50")
    expect(table.locator("tbody tr td:nth-child(3)").first).to_have_text("NULL")
    assert ids_of_three(page, key) == [shown] * 3
    # An update of the page takes away neither the rows nor what was typed.
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    expect(page.locator("#facts")).to_contain_text("0 of 1 runner live")
    expect(table.locator("tbody tr")).to_have_count(4)
    expect(page.get_by_role("textbox", name="fields")).to_have_value("id, customer, note, total")
    # A failure is said where the rows would be; the form keeps what was typed.
    page.get_by_role("button", name="Show rows").click()
    expect(page.locator("#answer")).to_contain_text("no_runners_online")


def test_a_query_that_cannot_be_read_says_why_and_where(page: Page, stage) -> None:
    sign_in(page, stage.deployment, path=f"/console/e/default/lens/{stage.lens}")
    for where, said in (
        ("{", "must be a JSON object"),
        ("[1]", "must be a JSON object"),
        ("[" * 5000, "must be a JSON object"),
        ('{"totl": 1}', "total"),
        ('{"total": {"$near": 1}}', "$near"),
    ):
        page.get_by_role("textbox", name="where").fill(where)
        page.get_by_role("button", name="Show rows").click()
        expect(page.locator("#answer [role=alert]")).to_contain_text(said)
        expect(page.get_by_role("textbox", name="where")).to_have_value(where)


def test_a_viewer_reads_definitions_and_no_rows(page: Page, stage) -> None:
    viewer = stage.client.post("/v1/keys", json={"kind": "ak", "name": "looks", "role": "viewer"}).json()
    sign_in(page, stage.deployment, path=f"/console/e/default/lens/{stage.lens}", key=viewer["key"])
    expect(page.locator("#fields tbody tr")).to_have_count(5)
    expect(page.locator("#query")).to_contain_text("not rows")
    expect(page.get_by_role("button", name="Show rows")).to_have_count(0)
    token = json.loads(page.locator("#live").get_attribute("data-live") or "")["token"]
    path = f"{stage.deployment.url}/console/e/default/lens/{stage.lens}/rows"
    refused = page.request.post(path, headers={"X-Form-Token": token}, form={"limit": "1"})
    assert refused.status == 403
    assert "customer 1" not in refused.text()


def test_a_query_ends_with_the_page_that_asked_it(page: Page, stage) -> None:
    stage.hold_slow_lens()
    sign_in(page, stage.deployment, path=f"/console/e/default/lens/{stage.slow_lens}")
    page.get_by_role("button", name="Show rows").click()

    def outcomes() -> list[str]:
        found = stage.client.get("/v1/requests").json()["requests"]
        return [each["outcome"] for each in found if each["lens"] == stage.slow_lens]

    wait_until(lambda: outcomes() == ["running"], seconds=5, what="the query to run")
    page.close()
    wait_until(lambda: outcomes() == ["cancelled"], seconds=5, what="the end of the query")


def test_a_lens_with_many_fields_stays_a_small_page(page: Page, stage) -> None:
    fields = {f"f{number}": {"type": "integer", "column": "id", "primaryKey": not number} for number in range(900)}
    name = f"{stage.lens}wide"
    declared = {"source": stage.source, "table": "public.orders", "fields": fields}
    assert stage.client.put(f"/v1/lenses/{name}", json=declared).status_code in (200, 201)
    sign_in(page, stage.deployment, path=f"/console/e/default/lens/{name}")
    assert page.evaluate("document.querySelectorAll('*').length") < 3_000
    expect(page.locator("#fields tbody tr")).to_have_count(200)
    page.get_by_role("button", name="Show rows").click()
    region = page.get_by_role("region", name="Rows")
    expect(region.locator("thead th")).to_have_count(40)
    expect(page.locator("#answer")).to_contain_text("40 of 900 fields")
    page.get_by_role("textbox", name="fields").fill("f0, f899")
    page.get_by_role("button", name="Show rows").click()
    expect(region.locator("thead th")).to_have_text(["f0", "f899"])
    page.get_by_role("link", name="Show all 900 fields").click()
    expect(page.locator("#fields tbody tr")).to_have_count(900)
    expect(region.locator("thead th")).to_have_count(2)
