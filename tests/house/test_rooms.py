"""The room check finds what it is there to find."""

from __future__ import annotations

import pathlib

import pytest

from tools import rooms


@pytest.fixture
def house(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    source = tmp_path / "src" / "lensway"
    source.mkdir(parents=True)
    monkeypatch.setattr(rooms, "SOURCE", source)
    return source


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("query/a.py", "import lensway.store", "query imports store"),
        ("service/a.py", "from lensway import gateway", "service imports gateway"),
        ("runner/a.py", "from lensway.testing import fakes", "runner imports testing"),
        ("store/a.py", "from lensway.cli import main", "store imports cli"),
        ("compose/server.py", "from lensway.compose import runner", "composition roots"),
        ("compose/server.py", "import lensway.compose.runner", "composition roots"),
        ("query/a.py", "from . import b", "relative import"),
        ("query/a.py", "import time", "do not import time"),
        ("dispatch/core/core.py", "async def f(): pass", "do not wait"),
        ("dispatch/core/queue.py", "import asyncio", "do not import asyncio"),
        ("service/a.py", "import asyncpg", "asyncpg belongs to"),
        ("service/a.py", "import sqlite3", "sqlite3 belongs to"),
        ("service/a.py", "x = 'sqlite'", "names the kind 'sqlite'"),
        ("catalog/a.py", "x = {'duckdb': 1}", "names the kind 'duckdb'"),
        ("dialects/postgres.py", "x = 'sqlite'", "names the kind 'sqlite'"),
        ("usecases/a.py", "import starlette", "starlette belongs to"),
        ("usecases/a.py", "import lensway.store.sqlite", "usecases imports store"),
        ("usecases/a.py", "from lensway import client", "usecases imports client"),
        ("misc/a.py", "", "not in the table"),
        ("query/a.py", "x = 1\n" * 601, "hard stop"),
        ("query/a.py", "def f():\n" + "    x = 1\n" * 61, "hard stop"),
    ],
)
def test_a_violation_is_named(house: pathlib.Path, module: str, text: str, complaint: str) -> None:
    path = house / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert [line for line in rooms.violations() if complaint in line]


def test_what_stands_below_may_be_imported(house: pathlib.Path) -> None:
    path = house / "service" / "a.py"
    path.parent.mkdir()
    path.write_text("import starlette\nfrom lensway import dispatch, errors\nfrom lensway.service import b\n")
    assert list(rooms.violations()) == []
