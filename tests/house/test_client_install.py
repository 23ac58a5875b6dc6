"""The client installs and works without the server's dependencies, and without any Arrow library until one is wanted."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest

ABSENT = (
    "adbc_driver_manager",
    "alembic",
    "asyncpg",
    "jinja2",
    "nanoarrow",
    "pandas",
    "polars",
    "prometheus_client",
    "pyarrow",
    "sqlalchemy",
    "sqlglot",
    "starlette",
    "uvicorn",
    "websockets",
)
_PROGRAM = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import asyncio
import lensway, lensway.client
assert lensway.connect.__module__ == "lensway.client.blocking"
client = lensway.connect("http://127.0.0.1:1", "sk_x", repeats=False)
try:
    client.count("orders")
except lensway.client.UnreachableError as error:
    print(error)
client.close()
try:
    lensway.client.ArrowRows([]).__arrow_c_stream__()
except ImportError as error:
    print(error)
import lensway.cli.main, lensway.cli.query, lensway.cli.export
"""


def test_the_client_needs_nothing_of_the_server_nor_of_arrow() -> None:
    program = _PROGRAM.format(names=ABSENT)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No program listens at 127.0.0.1:1, the address of the server",
        "reading Arrow needs nanoarrow: pip install 'lensway[client-arrow]'",
    ]


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["serve"], "uvicorn", "server"),
        (["runner", "status"], "structlog", "runner"),
        (["query", "x"], "httpx2", "cli"),
    ],
)
def test_a_command_that_is_not_installed_says_what_to_install(command: list[str], missing: str, extra: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from lensway.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"lensway: this command needs {missing}, which is not installed", f"  pip install 'lensway[{extra}]'"],
    )


def test_the_client_is_two_packages() -> None:
    wanted = [line for line in importlib.metadata.requires("lensway") or () if "extra ==" not in line]
    assert [re.split(r"[^\w-]", line)[0] for line in wanted] == ["httpx2", "msgspec"]
