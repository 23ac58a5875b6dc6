"""The conformance suite for every built-in kind: one class for each stage that is found."""

from __future__ import annotations

from lensway.kinds import BUILT_IN
from lensway.testing.bridges.stage import stage_classes
from lensway.testing.bridges.suite import BridgeSuite

for _name, _stage_class in stage_classes().items():
    _class_name = f"Test{_name.title()}"
    globals()[_class_name] = type(_class_name, (BridgeSuite,), {"stage_class": _stage_class, "__module__": __name__})


def test_every_kind_that_is_served_has_a_stage() -> None:
    assert list(stage_classes()) == [kind.name for kind in BUILT_IN.served]
    assert all(stage_class.kind.name == name for name, stage_class in stage_classes().items())
