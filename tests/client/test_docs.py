"""The client's page stands alone: every example of it runs, in order, against a real server."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from lensway.testing.deployment import Deployment, clean_environment

pytestmark = pytest.mark.acceptance
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def reader_key(server: Deployment) -> str:
    """A key that may only read."""
    return str(server.client().post("/v1/keys", json={"kind": "sk", "name": "reader"}).json()["key"])


def examples(name: str) -> list[str]:
    page = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


@pytest.mark.parametrize("name", ["docs/reference/client.md", "README.md"])
def test_every_example_runs(server: Deployment, reader_key: str, tmp_path: pathlib.Path, name: str) -> None:
    blocks = examples(name)
    assert blocks
    # The first example closes its client; the others go on with one that is open.
    opened = 'client = lensway.connect("http://127.0.0.1:8080", "sk_…")\n'
    program = "\n".join([blocks[0], opened, *blocks[1:], "client.close()"])
    program = program.replace("http://127.0.0.1:8080", server.url).replace("sk_…", reader_key)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if name == "docs/reference/client.md":
        assert done.stdout.startswith("5000 6250.00 2024-01-04T11:20:00.000000Z\n"), done.stdout
        assert {path.name for path in tmp_path.iterdir()} == {"orders.parquet", "orders.csv"}
        assert "totl" in done.stdout
