"""The conformance suite through dispatch, a gateway on a socket and a runner process, for every built-in kind."""

from __future__ import annotations

from lensway.testing.bridges.stage import stage_classes
from lensway.testing.bridges.through_runner import ThroughRunnerSuite

for _name, _stage_class in stage_classes().items():
    _class_name = f"Test{_name.title()}ThroughRunner"
    globals()[_class_name] = type(
        _class_name, (ThroughRunnerSuite,), {"stage_class": _stage_class, "__module__": __name__}
    )
