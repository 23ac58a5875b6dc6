"""What an earlier process of this node knew of a runner goes on in this one."""

from __future__ import annotations

from lensway import limits
from lensway.fleet import Fleet
from lensway.fleet.status import RunnerState
from tests.fleet.test_status import RUNNER, SOURCE, connected, shown

READY = {SOURCE: ("ready", "")}


def test_a_runner_that_is_back_soon_is_healthy_since_before_the_restart() -> None:
    fleet = Fleet()
    fleet.recall_connected(RUNNER, -3600.0, 5.0)
    assert shown(fleet, 6.0) == (RunnerState.OFFLINE, 5.0), "lost when the server ended, not when it had connected"
    session = connected(fleet, 7.0)
    fleet.report(session, 1, {}, 7.5, is_draining=False)
    assert shown(fleet, 7.5) == (RunnerState.HEALTHY, -3600.0)
    fleet.report(session, 1, READY, 9.0, is_draining=False)
    assert shown(fleet, 9.0) == (RunnerState.HEALTHY, -3600.0)
    # What happens from here on counts from when it happens.
    fleet.report(session, 1, {SOURCE: ("unreachable", "tcp")}, 20.0, is_draining=False)
    fleet.report(session, 1, READY, 30.0, is_draining=False)
    assert shown(fleet, 31.0) == (RunnerState.HEALTHY, 30.0)
    fleet.lose(session, "closed", 40.0)
    assert shown(fleet, 41.0) == (RunnerState.OFFLINE, 40.0)


def test_a_runner_that_comes_late_or_again_is_healthy_since_then() -> None:
    fleet = Fleet()
    fleet.recall_connected(RUNNER, -3600.0, 5.0)
    late = 5.0 + limits.RUNNER_RETURN_SECONDS
    session = connected(fleet, late)
    fleet.report(session, 1, READY, late + 1, is_draining=False)
    assert shown(fleet, late + 2) == (RunnerState.HEALTHY, late + 1)


def test_a_session_that_is_open_already_is_not_touched() -> None:
    fleet = Fleet()
    session = connected(fleet, 1.0)
    fleet.recall_connected(RUNNER, -3600.0, 2.0)
    fleet.report(session, 1, READY, 3.0, is_draining=False)
    assert shown(fleet, 4.0) == (RunnerState.HEALTHY, 3.0)
    fleet.recall(RUNNER, -1.0, "closed")
    fleet.lose(session, "closed", 9.0)
    assert shown(fleet, 10.0) == (RunnerState.OFFLINE, 9.0)
