"""The demo tells its story as it stands, on this machine, and leaves nothing behind."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from lensway.testing.deployment import clean_environment

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(280)]

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A directory that the user whom PostgreSQL runs as can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="lensway-test-demo-", ignore_cleanup_errors=True) as directory:
        path = pathlib.Path(directory)
        path.chmod(0o755)
        yield path


def test_make_demo_once_tells_every_chapter_and_exits_0(place: pathlib.Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "demo", "--once"],
        cwd=REPOSITORY,
        env=clean_environment() | {"TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    chapters = [line for line in told.stdout.splitlines() if line.startswith("— ")]
    assert len(chapters) >= 11, chapters
    for said in (
        "flights    336,776 rows",
        '"via": "inline"',
        '"runner": "alpha"',
        "kill -9",
        "; 0 failed;",
        "no_runners_online",
        "SOURCE_UNREACHABLE",
        "source_requires_runner",
        "goes_inline",
    ):
        assert said in told.stdout, said
    assert not list(place.glob("lensway-demo-*")), "what it made for itself is gone"
