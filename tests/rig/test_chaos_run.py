"""The chaos rig on real processes, for seconds: what is broken costs no caller anything, and what is not right would be seen."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import pytest

from lensway.testing.chaos.callers import KINDS
from lensway.testing.chaos.checker import ALLOWED, check
from lensway.testing.chaos.nemesis import Nemesis
from lensway.testing.chaos.run import run_chaos
from lensway.testing.chaos.site import Site
from lensway.testing.fixtures import let_pass

pytestmark = pytest.mark.acceptance

SCRIPT = (
    ("SIGKILL", "alpha"),
    ("cut link", "beta"),
    ("link cut at a byte", "alpha"),
    ("database refused", "beta"),
    ("operator drain and resume", "alpha"),
    ("rotate", "beta"),
    ("SIGTERM", "beta"),
)


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Iterator[Site]:
    let_pass(tmp_path)
    with Site(tmp_path, is_witnessed=True) as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        yield site


def test_chaos_of_seven_kinds_breaks_no_promise_and_the_three_logs_agree(site: Site) -> None:
    done: list[Nemesis] = []

    def disturb(nemesis: Nemesis) -> None:
        done.append(nemesis)
        nemesis.follow(SCRIPT)

    outcome = run_chaos(
        site,
        seed=5,
        is_enough=lambda _calls, seconds, _kinds: sum(done[0].done.values()) == len(SCRIPT) or seconds > 90,
        shares=[(kind, 2) for kind in KINDS],
        disturb=disturb,
    )
    assert outcome.problems == []
    assert sum(outcome.faults.values()) == len(SCRIPT)
    assert outcome.verdict.violations == []
    assert set(outcome.verdict.failed) <= set(ALLOWED)
    # The witnesses were really heard: nearly every request left a statement, and each kind was answered.
    history = outcome.history
    assert {each.kind for each in history.calls if each.is_whole} == {kind.name for kind in KINDS}
    assert len({each.request for each in history.statements}) > 0.9 * len(history.calls)
    # What really happened, with one row from another process: that must not pass.
    last = max((each for each in history.calls if each.is_whole), key=lambda each: each.ended_at)
    history.calls[history.calls.index(last)] = dataclasses.replace(last, backends=(last.backends[0] + 1,))
    assert [each.invariant for each in check(history).violations] == ["I3 mixed"]
