"""A list of a large fleet stays small: rows by the page, sources by the handful, warnings by their cause."""

from __future__ import annotations

import gzip
import pathlib
import re
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance
RUNNERS, SOURCES = 45, 60
HERE = "/console/e/default/runners"
PACKED_BYTES_MAX, ELEMENTS_MAX = 150_000, 3_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Signed in to a server whose runners, all away, are each assigned every source."""
    directory: pathlib.Path = tmp_path_factory.mktemp("large")
    with Deployment(directory) as deployment:
        client = deployment.client()
        names = [f"runner-{number}" for number in range(RUNNERS)]
        for name in names:
            assert client.post("/v1/runners", json={"name": name}).status_code == 201
        sources = [f"source-{number}" for number in range(SOURCES)]
        body = {
            "sources": {name: {"bridge": "postgres", "credentials": "runner-local"} for name in sources},
            "assignments": dict.fromkeys(sources, names),
        }
        assert client.post("/v1/push", json=body).status_code == 200
        with httpx2.Client(base_url=deployment.url, trust_env=False, timeout=60) as browser:
            browser.post("/console/login", data={"key": deployment.admin_key})
            yield browser


def test_a_page_of_a_large_fleet_is_small(browser: httpx2.Client) -> None:
    base = "/console/e/default"
    lists = (HERE, f"{base}/sources", f"{base}/matrix", f"{HERE}?problems=1&page=2", f"{HERE}/rows?q=source-7")
    for path in (*lists, f"{base}/overview", f"{base}/runner/runner-7", f"{base}/source/source-7"):
        page = browser.get(path)
        assert page.headers["Content-Encoding"] == "gzip", path
        assert int(page.headers["Content-Length"]) < PACKED_BYTES_MAX, path
        assert len(re.findall(r"<[a-z]", page.text)) < ELEMENTS_MAX, path
    plain = browser.get(f"{HERE}/rows", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in plain.headers
    assert len(gzip.compress(plain.content)) < PACKED_BYTES_MAX


def test_every_row_is_on_one_page_and_names_sixty_warnings_in_one_line(browser: httpx2.Client) -> None:
    pages = [browser.get(f"{HERE}/rows", params={"page": number}).text for number in (1, 2, 3)]
    rows = [re.findall(r'data-runner="([\w-]+)">\s*<tr>', page) for page in pages]
    assert [len(each) for each in rows] == [40, 5, 0]
    assert [*rows[0], *rows[1]] == [f"runner-{number}" for number in range(RUNNERS)], "2 comes before 10"
    assert pages[0].count("<code>runner_offline</code>") == 40
    assert "60: source-0, source-1, source-10 and 57 more" in pages[0]


def test_rows_that_are_on_show_are_not_sent_again(browser: httpx2.Client) -> None:
    rows = browser.get(f"{HERE}/rows")
    again = browser.get(f"{HERE}/rows", headers={"If-None-Match": rows.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
