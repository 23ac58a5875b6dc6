"""A runner installs and starts without the server's dependencies."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER_ONLY = (
    "alembic",
    "httpx2",
    "jinja2",
    "prometheus_client",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "python_multipart",
)
_PROGRAM = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import lensway.compose.runner, lensway.cli.runner, lensway.runner.doctor, lensway.runner.status
print("imported")
"""


def test_the_runner_imports_nothing_of_the_server() -> None:
    program = _PROGRAM.format(names=SERVER_ONLY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr


@pytest.mark.parametrize("driver", ["asyncpg"])
def test_a_runner_without_a_driver_starts_and_says_which_bridges_it_has(driver: str) -> None:
    lines = (
        f"import sys; sys.modules[{driver!r}] = None",
        "from lensway.bridges import work",
        "print(sorted(work.installed()))",
    )
    program = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['sqlite']", done.stderr
