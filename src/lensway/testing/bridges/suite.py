"""The conformance suite: what every bridge promises (`lensway.bridges.contract`), on a real database.

A package with a bridge of its own subclasses `BridgeSuite` in its tests::

    class TestMyBridge(BridgeSuite):
        stage_class = MyStage

Nothing is skipped: a case that a database does not have is declared by its stage (`Stage.lacks`, `Stage.types`, `Stage.cells`,
the capabilities of the dialect), and what is not declared must be refused.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

for _part in ("bench", "rows", "running", "telling"):
    if f"lensway.testing.bridges.{_part}" not in sys.modules:
        pytest.register_assert_rewrite(f"lensway.testing.bridges.{_part}")

from lensway.bridges.contract import AddressPolicy, Bridge, OpenSource  # noqa: E402  # the parts are registered first
from lensway.bridges.library import bridge_of  # noqa: E402
from lensway.testing.bridges.bench import Bench  # noqa: E402
from lensway.testing.bridges.cells import CELLS  # noqa: E402
from lensway.testing.bridges.rows import RowTests  # noqa: E402
from lensway.testing.bridges.running import RunningTests  # noqa: E402
from lensway.testing.bridges.stage import Situation, Stage  # noqa: E402
from lensway.testing.bridges.telling import TellingTests  # noqa: E402


class BridgeSuite(RowTests, RunningTests, TellingTests):
    """Every test of the suite, for the bridge of one stage. Subclass it and set ``stage_class``."""

    stage_class: ClassVar[type[Stage]]

    @classmethod
    def bridge(cls) -> Bridge:
        """The bridge of the stage's kind."""
        found = bridge_of(cls.stage_class.kind)
        assert found is not None, "the driver is installed where the suite runs"
        return found

    @classmethod
    async def open_source(cls, config: Mapping[str, object]) -> OpenSource:
        """The source that is tested. Override it to put something between the tests and the bridge."""
        return await cls.bridge().open(config, policy=AddressPolicy())

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """The started stage with an open source, one for all tests of the class."""
        stage = cls.stage_class()
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.run_until_complete(stage.start(tmp_path_factory.mktemp(stage.kind.name)))
            bench = Bench(stage, loop.run_until_complete(cls.open_source(stage.config)), loop)
            yield bench
            bench.run(bench.source.close())
            loop.run_until_complete(stage.stop())

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """The cells and the situations that the stage declares."""
        if "cell" in metafunc.fixturenames:
            cells = [cell for cell in CELLS if cell.key in self.stage_class.cells]
            metafunc.parametrize("cell", cells, ids=[cell.key for cell in cells])
        if "situation" in metafunc.fixturenames:
            situations = [each for each in Situation if each not in self.stage_class.lacks]
            metafunc.parametrize("situation", situations, ids=[each.value for each in situations])
