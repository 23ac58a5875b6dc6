"""Pictures of the Console's pages of requests, lenses, keys, records and settings, with what they need to be filled with."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable

from playwright.sync_api import Page, expect

from lensway.testing.deployment import Deployment

_LENSES = ("orders", "customers", "items")


def fill(deployment: Deployment, directory: pathlib.Path) -> None:
    """A shop with rows, requests that completed and failed, and a key of each kind."""
    path = directory / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total TEXT, placed TEXT)")
        rows = [(n, f"customer {n % 97}", f"{n * 1.25:.2f}", "2026-11-01 12:00:00") for n in range(1, 200)]
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
        database.commit()
    fields = {
        "id": {"type": "integer", "primaryKey": True},
        "customer": {"type": "text"},
        "total": {"type": "decimal"},
        "placed": {"type": "timestamp"},
    }
    lens = {"source": "shop", "table": "orders", "fields": fields, "grants": {"query": "public"}}
    away = {"source": "warehouse", "table": "public.stock", "fields": {"id": {"type": "integer", "primaryKey": True}}}
    body = {
        "sources": {
            "shop": {"bridge": "sqlite", "config": {"path": str(path)}},
            "warehouse": {"bridge": "postgres", "config": {"url": "postgresql://reader:x@127.0.0.1:1/stock"}},
        },
        "lenses": {**dict.fromkeys(_LENSES, lens), "stock": away},
    }
    client = deployment.client()
    client.post("/v1/push", json=body).raise_for_status()
    for number in range(30):
        client.post(f"/v1/query/{_LENSES[number % len(_LENSES)]}", json={"limit": 5})
    for _ in range(3):
        client.post("/v1/query/stock", json={})
    for kind, name, extra in (
        ("sk", "orders service", {"limits": {"concurrentRequests": 20}}),
        ("pk", "web shop", {"origins": ["https://shop.example.org"], "limits": {"requestsPerMinute": 600}}),
        ("ak", "night watch", {"role": "viewer", "expiresAt": "2099-01-31"}),
    ):
        client.post("/v1/keys", json={"kind": kind, "name": name, **extra}).raise_for_status()


def pictures(
    page: Page, deployment: Deployment, shoot: Callable[[str], None], open_page: Callable[[str], None]
) -> None:
    """Details, dialogs, and lists that are filtered or empty; the lists themselves are taken with the other tabs."""
    base = f"{deployment.url}/console/e/default"
    requests = deployment.client().get("/v1/requests").json()["requests"]
    failed = next(each["id"] for each in requests if each["outcome"] == "SOURCE_UNREACHABLE")
    for name in (f"request/{failed}", "lens/orders", "audit-row/3", "requests?lens=nothing", "events?kind=warning"):
        open_page(f"{base}/{name}")
        shoot(name.partition("/req_")[0].replace("/", "-").replace("?", "-").replace("=", "-"))
    open_page(f"{base}/lens/orders")
    page.get_by_role("textbox", name="where").fill('{"total": {"$gt": 100}}')
    page.get_by_role("button", name="Show rows").click()
    page.get_by_role("region", name="Rows").wait_for()
    shoot("lens-rows")
    open_page(f"{base}/audit")
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator("#verified")).to_contain_text("unaltered")
    shoot("audit-verified")
    open_page(f"{base}/keys")
    page.get_by_role("button", name="Create key").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_text("Limits", exact=True).click()
    shoot("key-new")
    dialog.get_by_label("Name").fill("a picture")
    dialog.get_by_role("button", name="Create", exact=True).click()
    dialog.locator("#secret").wait_for()
    shoot("key-created")
    dialog.get_by_role("button", name="I have stored it").click()
    page.locator("tbody[data-row]").filter(has_text="a picture").get_by_role("button", name="Delete").first.click()
    dialog.get_by_role("button", name="Delete").wait_for()
    shoot("key-delete")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_be_hidden()
    for kind in ("requests", "lenses", "events"):
        open_page(f"{deployment.url}/console/e/staging/{kind}")
        shoot(f"{kind}-empty")
    page.goto(f"{base}/nothing")
    shoot("no-such-page")
