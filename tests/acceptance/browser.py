"""What the tests of the Console share: a browser that fails the test on errors of its own, and signing in."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def watched(context: BrowserContext, problems: list[str]) -> Page:
    """A new page whose errors, also those of its policy, are written down."""
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    return page


def sign_in(page: Page, deployment, *, path: str = "/console/", key: str = "") -> None:
    """Sign in, by way of the page that was asked for."""
    page.goto(deployment.url + path)
    page.get_by_label("Admin key").fill(key or deployment.admin_key)
    page.get_by_role("button", name="Sign in").click()
    is_live(page)


def is_live(page: Page, *, seconds: float = 6.0) -> None:
    """Return once the page says that it is live."""
    expect(page.locator("#link")).to_have_text(re.compile(r"^live, updated \d+ s ago$"), timeout=seconds * 1000)


def is_stale(page: Page, *, seconds: float = 6.0) -> None:
    """Return once the page says that it is stale."""
    expect(page.locator("#link")).to_have_text(re.compile("^stale, updated"), timeout=seconds * 1000)


def row_of(page: Page, runner: str):
    """The row of a runner."""
    return page.locator(f'[data-runner="{runner}"].runner')
