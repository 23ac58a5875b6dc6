"""Each page of the Console by each role: what is shown, what is allowed, and the same answer as the API's in both."""

from __future__ import annotations

import contextlib
import html
import json
import pathlib
import re
import sqlite3
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance
ROLES = ("viewer", "operator", "admin", "instance-wide")
PAGES = (
    "overview", "runners", "runner/alpha", "sources", "source/shop", "matrix", "lenses", "lens/items", "requests",
    "request/{request}", "events", "audit", "audit-row/{row}", "keys", "settings",
)  # fmt: skip
CHANGES = (
    ("assign", {"action": "add", "runner": "alpha", "source": "shop"}, "operator"),
    ("test", {"source": "shop"}, "operator"),
    ("resume", {"runner": "alpha"}, "operator"),
    ("request/{request}/cancel", {}, "operator"),
    ("lens/items/rows", {"limit": "1"}, "operator"),
    ("runner/alpha/act", {"act": "drain"}, "operator"),
    ("runner/alpha/act", {"act": "rotate"}, "admin"),
    ("runner/alpha/act", {"act": "revoke"}, "admin"),
    ("runner/alpha/act", {"act": "delete"}, "admin"),
    ("runners/create", {}, "admin"),
    ("sources/create", {}, "admin"),
    ("source/shop/delete", {}, "admin"),
    ("source/shop/scaffold", {"table": "items", "confirm": "yes"}, "admin"),
    ("keys/create", {}, "admin"),
    ("keys/delete", {"key": "key_none"}, "admin"),
    ("settings/end-sign-in", {"id": "none"}, "admin"),
    ("settings/end-sign-ins", {}, "admin"),
    ("settings/create-environment", {}, "instance-wide"),
    ("settings/delete-environment", {"environment": "staging"}, "instance-wide"),
    ("audit/verify", {}, "instance-wide"),
)
DIALOGS = (
    ("runners/new", "admin"),
    ("sources/new", "admin"),
    ("keys/new", "admin"),
    ("settings/new-environment", "instance-wide"),
)


class Visitor:
    """One role, signed in."""

    def __init__(self, browser: httpx2.Client, role: str, names: dict[str, object]) -> None:
        self.browser = browser
        self.role = role
        self.names = names
        page = self.get("runners")
        self.token = json.loads(html.unescape(re.search(r'data-live="([^"]+)"', page.text)[1]))["token"]

    def get(self, path: str, *, environment: str = "default") -> httpx2.Response:
        return self.browser.get(f"/console/e/{environment}/{path.format(**self.names)}")

    def post(self, path: str, form: dict[str, str], *, environment: str = "default") -> httpx2.Response:
        return self.browser.post(
            f"/console/e/{environment}/{path.format(**self.names)}",
            data=form,
            headers={"X-Form-Token": self.token, "X-Requested-With": "console"},
        )

    def may(self, least: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(least)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory: pathlib.Path = tmp_path_factory.mktemp("roles")
    with contextlib.closing(sqlite3.connect(directory / "shop.db")) as database:
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute("INSERT INTO items VALUES (1, 'row-of-the-table')")
        database.commit()
    with Deployment(directory, serve_options=("--source-dir", str(directory))) as deployment:
        client = deployment.client()
        lens = {
            "source": "shop",
            "table": "items",
            "fields": {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}},
        }
        config = {"path": str(directory / "shop.db")}
        for path, body in (
            ("/v1/environments", {"name": "staging"}),
            ("/v1/sources", {"name": "shop", "bridge": "sqlite", "config": config}),
            ("/v1/runners", {"name": "alpha"}),
        ):
            assert client.post(path, json=body).status_code == 201
        client.put("/v1/lenses/items", json=lens).raise_for_status()
        yield deployment


@pytest.fixture(scope="module")
def visitors(deployment: Deployment) -> Iterator[dict[str, Visitor]]:
    client = deployment.client()
    entries = client.get("/v1/audit").json()["entries"]
    names = {
        "request": client.post("/v1/query/items", json={}).json()["meta"]["requestId"],
        "row": next(entry["sequence"] for entry in entries if entry["action"] == "source.create"),
    }
    keys = {"instance-wide": deployment.admin_key}
    for role in ROLES[:3]:
        made = deployment.client().post("/v1/keys", json={"kind": "ak", "name": role, "role": role})
        keys[role] = made.json()["key"]
    with contextlib.ExitStack() as stack:
        found = {}
        for role, key in keys.items():
            browser = stack.enter_context(httpx2.Client(base_url=deployment.url, trust_env=False, timeout=30))
            assert browser.post("/console/login", data={"key": key}).status_code == 303
            found[role] = Visitor(browser, role, names)
        yield found


@pytest.mark.parametrize("role", ROLES)
def test_every_role_sees_every_page_of_its_environment_and_none_of_another(
    visitors: dict[str, Visitor], role: str
) -> None:
    visitor = visitors[role]
    for path in PAGES:
        assert visitor.get(path).status_code == 200, path
        for part in ("/rows", ""):
            abroad = visitor.get(path + part, environment="staging")
            expected = 404 if "/" in path or role != "instance-wide" else 200
            assert abroad.status_code == expected, (path, abroad.status_code)


@pytest.mark.parametrize("role", ROLES)
def test_a_change_is_allowed_to_the_roles_that_the_api_allows_it(visitors: dict[str, Visitor], role: str) -> None:
    visitor = visitors[role]
    for path, form, least in CHANGES:
        answer = visitor.post(path, form)
        assert (answer.status_code == 403) is not visitor.may(least), (path, form, answer.status_code, answer.text)
        assert visitor.may(least) or "row-of-the-table" not in answer.text
        if role != "instance-wide":
            assert visitor.post(path, form, environment="staging").status_code == 404, path
    for path, least in DIALOGS:
        assert (visitor.get(path).status_code == 403) is not visitor.may(least), path


def offers(text: str) -> Iterator[dict[str, str]]:
    """What the buttons and forms of a page or dialog would send."""
    for button in re.findall(r"<(?:button|form)\b[^>]*\bdata-(?:action|post|rows)=[^>]*>", text):
        yield {name: html.unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', button)}


@pytest.mark.parametrize("role", ROLES)
def test_no_page_and_no_dialog_offers_what_its_reader_may_not_do(visitors: dict[str, Visitor], role: str) -> None:
    visitor, offered = visitors[role], set()
    texts, opened = [visitor.get(path).text for path in PAGES], set()
    while texts:
        for found in offers(texts.pop()):
            action = found.get("action", "")
            offered.add(found.get("path", found.get("post", found.get("rows", action))))
            if action == "open" and found["path"] not in opened:
                opened.add(found["path"])
                dialog = visitor.browser.get(f"/console/e/default/{found['path']}")
                assert dialog.status_code == 200, found
                texts.append(dialog.text)
            elif action == "post":
                answer = visitor.post(found["path"], json.loads(found["values"]))
                assert answer.status_code != 403, found
            elif "rows" in found:
                assert visitor.may("operator")
            elif action and action not in ("copy", "close", "open"):
                assert visitor.may("operator"), found
    assert ("keys/new" in offered) is visitor.may("admin")
    assert ("settings/new-environment" in offered) is visitor.may("instance-wide")
    assert ("test" in offered) is visitor.may("operator")
    assert any(path.endswith("/acts") for path in opened) is visitor.may("operator")
    assert "operators" not in visitor.get("sources").text


def test_refusals_are_audited_and_other_kinds_of_keys_cannot_sign_in(
    deployment: Deployment, visitors: dict[str, Visitor]
) -> None:
    assert visitors["viewer"].post("keys/create", {}).status_code == 403
    entries = deployment.client().get("/v1/audit", params={"limit": "200"}).json()["entries"]
    refused = [entry for entry in entries if entry["outcome"] == "forbidden" and entry["actor"].startswith("viewer")]
    assert any(entry["action"].endswith("/keys/create") for entry in refused)
    for kind in ("sk", "pk"):
        key = deployment.client().post("/v1/keys", json={"kind": kind, "name": kind}).json()["key"]
        with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
            assert browser.post("/console/login", data={"key": key}).status_code == 403


def test_instance_wide_facts_are_not_shared_with_keys_of_the_environment(visitors: dict[str, Visitor]) -> None:
    """Both are admins; a page is rendered once for equal readers, and these are not equal."""
    wide, scoped = visitors["instance-wide"], visitors["admin"]
    for path, fact in (("keys", "first admin key"), ("settings", "staging"), ("audit", "environment.create")):
        assert fact in wide.get(path).text, path
        assert fact not in re.sub(r"<header.*?</header>", "", scoped.get(path).text, flags=re.DOTALL), path
        assert fact in wide.get(path).text, path


def test_a_page_that_does_not_exist_says_so_within_the_console(visitors: dict[str, Visitor]) -> None:
    browser = visitors["viewer"].browser
    for path in (
        "/console/foo",
        "/console/e/default/foo",
        "/console/e/default/foo/bar",
        "/console/e/default/lens/nothing",
        "/console/e/default/audit-row/x",
    ):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert 'aria-label="Pages"' in answer.text, path
    assert "<b>x" not in browser.get("/console/e/default/%3Cb%3Ex").text
    assert browser.get("/console/e/default/assign").status_code == 404
    assert browser.get("/console/static/nothing.css").status_code == 404
    with httpx2.Client(base_url=browser.base_url, trust_env=False) as stranger:
        assert stranger.get("/console/e/default/foo").status_code == 303


def test_a_list_that_is_filtered_counts_in_the_plural(visitors: dict[str, Visitor], deployment: Deployment) -> None:
    client = deployment.client()
    for name in ("warehouse", "depot"):
        client.post("/v1/sources", json={"name": name, "bridge": "postgres", "credentials": "runner-local"})
    assert "1 of 3 sources" in visitors["viewer"].get("sources?q=shop").text
    assert re.search(r"<span>1 lens</span>", visitors["viewer"].get("lenses").text)
