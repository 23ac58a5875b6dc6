"""The planted bugs still fit the tree; `make mutants` plants them and looks who notices."""

from __future__ import annotations

from tools import mutants
from tools.planted import PLANTED


def test_every_planted_bug_can_be_planted() -> None:
    assert list(mutants.problems()) == []
    assert len({planted.name for planted in PLANTED}) == len(PLANTED) >= 20
    assert all(planted.old != planted.new for planted in PLANTED)
