"""The faults that `make mutants` plants in bridges name tests of the conformance suite, and stand for every part of it."""

from __future__ import annotations

from lensway.testing.bridges.rows import RowTests
from lensway.testing.bridges.running import RunningTests
from lensway.testing.bridges.suite import BridgeSuite
from lensway.testing.bridges.telling import TellingTests
from tools.planted_bridges import FAULTS


def test_every_fault_names_one_test_of_the_suite() -> None:
    tests = [name for name in dir(BridgeSuite) if name.startswith("test_")]
    for fault in FAULTS:
        assert [name for name in tests if fault.caught_by in name], fault.name
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


def test_every_part_of_the_suite_has_faults_to_notice() -> None:
    for part in (RowTests, RunningTests, TellingTests):
        assert sum(any(fault.caught_by in name for name in vars(part)) for fault in FAULTS) >= 8
