"""`make screenshots`: pages of the Console in their states, wide and narrow, light and dark, outside the project."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

from playwright.sync_api import Browser, Page, expect, sync_playwright

from lensway.testing.deployment import Deployment, Process, RunnerIdentity, paused
from lensway.testing.hostile_runner import HostileRunner
from tools import screenshot_records

_NETWORKS = ("ams", "fra", "nyc")
_SOURCES = [f"{subject}-{part}" for subject in ("orders", "billing", "stock", "events") for part in ("main", "archive")]
_SIZES = ((1600, 1000), (1024, 900), (390, 900))


def main() -> int:
    """Write the pictures and say where."""
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()) / "lensway-screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as directory, _fleet(pathlib.Path(directory)) as deployment:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for theme in ("light", "dark"):
                for width, height in _SIZES:
                    _pictures(browser, deployment, folder, theme, (width, height))
            browser.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")
    return 0


@contextlib.contextmanager
def _fleet(directory: pathlib.Path) -> Iterator[Deployment]:
    """A server with runners in every state."""
    options = ("--source-dir", str(directory))
    with Deployment(directory, serve_options=options) as deployment, contextlib.ExitStack() as stack:
        client = deployment.client()
        client.post("/v1/environments", json={"name": "staging"})
        runners = [
            deployment.create_runner(f"{network}-{number}", network=network)
            for network in _NETWORKS
            for number in range(1, 5)
        ]
        body = {
            "sources": {name: {"bridge": "postgres", "credentials": "runner-local"} for name in _SOURCES},
            "assignments": {
                name: [runners[(place * 3 + each) % len(runners)].name for each in range(1 + place % 6)]
                for place, name in enumerate(_SOURCES)
            },
        }
        client.post("/v1/push", json=body).raise_for_status()
        for number, runner in enumerate(runners):
            if number % 4 != 1:
                stack.enter_context(_connected(deployment, runner))
        with _connected(deployment, runners[1]):
            pass  # was here, and is gone
        client.post(f"/v1/runners/{runners[2].name}/drain").raise_for_status()
        client.post(f"/v1/runners/{runners[3].name}/revoke").raise_for_status()
        screenshot_records.fill(deployment, directory)
        yield deployment


def _connected(deployment: Deployment, runner: RunnerIdentity) -> HostileRunner:
    return HostileRunner(
        deployment.gateway_url, runner.id, runner.token, software="lensway 0.1.0", instance=f"ins_{runner.name}"
    )


def _pictures(
    browser: Browser, deployment: Deployment, folder: pathlib.Path, theme: str, size: tuple[int, int]
) -> None:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light"
    )
    page = context.new_page()

    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"{name}-{theme}-{width}.png")

    page.goto(f"{deployment.url}/console/")
    shoot("sign-in")
    page.get_by_label("Admin key").fill(deployment.admin_key)
    page.get_by_role("button", name="Sign in").click()
    _wait(page, "live")
    base = f"{deployment.url}/console/e/default"
    tabs = page.get_by_role("navigation").get_by_role("link")
    for path in [tab.get_attribute("href") or "" for tab in tabs.all()]:
        _open(page, deployment.url + path)
        shoot(path.rsplit("/", 1)[-1])
    for name in ("runner/ams-1", "runner/ams-2", "source/stock-main", "matrix"):
        _open(page, f"{base}/{name}")
        shoot(name.replace("/", "-"))
    _runner_dialogs(page, base, shoot)
    _open(page, f"{base}/runners")
    with paused(_server(deployment)):
        _wait(page, "stale")
        shoot("runners-stale")
    _wait(page, "live")
    _open(page, f"{base}/sources")
    page.get_by_role("button", name="Test connection").first.click()
    page.locator(".tested").first.wait_for()
    shoot("sources-tested")
    page.get_by_role("button", name="Connect source").click()
    _dialog(page, shoot, "source-new")
    for kind in ("overview", "runners", "sources"):
        _open(page, f"{deployment.url}/console/e/staging/{kind}")
        shoot(f"{kind}-empty")
    screenshot_records.pictures(page, deployment, shoot, lambda url: _open(page, url))
    page.goto(f"{base}/runner/nobody")
    shoot("no-such-runner")
    page.goto(f"{deployment.url}/console/e/nowhere/runners")
    shoot("no-such-environment")
    context.close()


def _runner_dialogs(page: Page, base: str, shoot: Callable[[str], None]) -> None:
    """The list of choices, and the dialogs of the page Runners."""
    _open(page, f"{base}/runners")
    page.get_by_role("combobox").first.press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    shoot("runners-adding")
    page.get_by_role("option").first.click()
    _dialog(page, shoot, "runners-question")
    page.get_by_role("button", name="Add runner").click()
    _dialog(page, shoot, "runner-new")
    page.get_by_role("button", name="Actions on ams-1").click()
    page.locator("dialog[open]").get_by_role("button", name="Revoke").click()
    expect(page.locator("dialog[open]")).to_contain_text("Revoke ams-1?")
    _dialog(page, shoot, "runner-revoke")
    page.locator("summary .cause", has_text="replicas differ").first.click()
    page.get_by_role("button", name="Make them equal").first.click()
    _dialog(page, shoot, "runner-remedy")


def _dialog(page: Page, shoot: Callable[[str], None], name: str) -> None:
    page.locator("dialog[open]").wait_for()
    shoot(name)
    page.keyboard.press("Escape")


def _open(page: Page, url: str) -> None:
    page.goto(url)
    _wait(page, "live")


def _wait(page: Page, state: str) -> None:
    expect(page.locator("#link")).to_have_text(re.compile(f"^{state}, updated"), timeout=20_000)


def _server(deployment: Deployment) -> Process:
    assert deployment.server is not None
    return deployment.server


if __name__ == "__main__":
    sys.exit(main())
