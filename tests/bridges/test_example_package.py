"""A bridge in a package of its own passes the conformance suite and is found by its entry point, without any change here."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import sys
import time
import tomllib
from collections.abc import Mapping
from typing import ClassVar

import psutil
import pytest

from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.compose.kinds import installed_kinds
from lensway.kinds import Kind
from lensway.query.result import ResultLimits, RowFormat
from lensway.testing.bridges.sqlite import SqliteStage
from lensway.testing.bridges.stage import Failure, Situation
from lensway.testing.bridges.suite import BridgeSuite

EXAMPLE = pathlib.Path(__file__).parent / "example"
sys.path.insert(0, str(EXAMPLE))
from lensway_shelf import KIND  # noqa: E402 - as if the package were installed


class ShelfStage(SqliteStage):
    """The files of SQLite's stage, as books on a shelf."""

    kind: ClassVar[Kind] = KIND
    title = "Shelf"

    @property
    def config(self) -> Mapping[str, object]:
        return _book(pathlib.Path(str(super().config["path"])))

    async def is_connected(self) -> bool:
        path = pathlib.Path(str(super().config["path"])).resolve()
        return any(pathlib.Path(each.path) == path for each in psutil.Process().open_files())

    async def failure(self, situation: Situation) -> Failure:
        found = await super().failure(situation)
        if found.config is None:
            return found
        return dataclasses.replace(found, config=_book(pathlib.Path(str(found.config["path"]))))


def _book(path: pathlib.Path) -> Mapping[str, object]:
    return {"shelf": str(path.parent), "book": path.stem}


class TestShelf(BridgeSuite):
    stage_class = ShelfStage


@pytest.fixture
def installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip writes when it installs the package."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made = tmp_path / "lensway_shelf-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["lensway.bridges"]
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (made / "entry_points.txt").write_text(f"[lensway.bridges]\n{lines}\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_an_installed_package_serves_its_kind(installed: None, tmp_path: pathlib.Path) -> None:
    kinds = installed_kinds()
    assert kinds.get("shelf") is KIND

    async def ask() -> bytes:
        stage = ShelfStage()
        await stage.start(tmp_path)
        library = ExecutionLibrary(AddressPolicy(), kinds)
        assert library.installed()["shelf"]
        written: list[bytes] = []

        class Sink:
            async def write(self, chunk: bytes) -> None:
                written.append(chunk)

        execution = Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat.DOCUMENT,
            limits=ResultLimits(rows_max=1, bytes_max=10**6, row_bytes_max=10**6),
            tag="example/1",
        )
        await library.perform(
            "key", "shelf", stage.config, kind="tables", payload=b"", execution=execution, sink=Sink()
        )
        await library.close()
        return b"".join(written)

    assert asyncio.run(ask()) == b'[{"name":"held","kind":"table"}]'
