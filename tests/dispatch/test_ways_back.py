"""no_runners_online: the hint fits the runner that is back with the least effort. Pure."""

from __future__ import annotations

import itertools

import pytest

from lensway.dispatch.core import failures
from lensway.dispatch.core.ports import SourceRoute
from lensway.fleet import Fleet, SessionFacts
from lensway.ids import EnvironmentId, InstanceId, RunnerId, SessionId, SourceId

NOW = 100.0
EXPECTED = {
    "connecting": "Repeat the request in a moment: connecting is getting ready.",
    "draining": "Resume draining with `lensway runners resume draining`.",
    "leaving": "Start leaving again with `lensway runner start`.",
    "suspect": "Check the machine of suspect and its network",
    "offline": "Start offline with `lensway runner start`; its log says why it stopped.",
    "never_connected": "Start never_connected with `lensway runner start` and the variables",
    "revoked": "Create a new token with `lensway runners rotate revoked` and start revoked with it.",
}


def fleet() -> Fleet:
    """A session for each state that has one; runners are named for their states."""
    found = Fleet()
    for number, name in enumerate(("connecting", "leaving", "suspect", "offline"), 1):
        session = found.open(
            SessionFacts(
                session=SessionId(number),
                environment=EnvironmentId("env"),
                runner=RunnerId(name),
                runner_name=name,
                instance=InstanceId(name),
                bridges={},
                capacity=1,
                software="",
                hostname="",
                address="",
                version=1,
            ),
            1.0,
        )
        if name == "leaving":
            found.order_drain(session, 2.0, is_draining=True)
        elif name == "suspect":
            found.offer_unanswered(session, 2.0)
        elif name == "offline":
            found.lose(session, "closed", 2.0)
    return found


def failure(*names: str, needs_runner: bool = False):
    marks = tuple(name if name in ("revoked", "draining") else "" for name in names)
    route = SourceRoute(
        source=SourceId("src"),
        name="main",
        bridge="postgres",
        needs_runner=needs_runner,
        runners=tuple(map(RunnerId, names)),
        runner_names=names,
        wanted=(1,) * len(names),
        marks=marks,
        serving=tuple(not mark for mark in marks),
    )
    return failures.no_runners_online(route, fleet(), NOW)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_reason_has_its_own_way_back(name: str) -> None:
    found = failure(name)
    assert found.hint.startswith(EXPECTED[name])
    assert "`lensway runners assign RUNNER main`" in found.hint
    assert "inline" in found.hint
    assert "inline" not in failure(name, needs_runner=True).hint
    assert "way" not in found.details["runners"][0]


@pytest.mark.parametrize(("easy", "hard"), list(itertools.combinations(EXPECTED, 2)))
def test_the_least_effort_comes_first(easy: str, hard: str) -> None:
    for names in ((easy, hard), (hard, easy)):
        assert failure(*names).hint.startswith(EXPECTED[easy])
