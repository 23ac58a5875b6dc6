"""What an earlier process of this node knew of a runner goes on in this one."""

from __future__ import annotations

import math

from lensway import limits
from lensway.fleet import Fleet, Standing
from lensway.fleet.status import RunnerState
from lensway.ids import InstanceId, SourceId
from tests.fleet.test_status import FLAGS, INSTANCE, RUNNER, SOURCE, connected, shown

READY = {SOURCE: ("ready", "")}
GONE = {SOURCE: ("unreachable", "tcp refused")}


def standing(*, since: float, is_draining: bool = False, ready_since: float | None = None, **sources) -> Standing:
    return Standing(
        is_draining=is_draining,
        since=since,
        marked_at=since,
        ready_since=since if ready_since is None else ready_since,
        sources={SourceId(id): state for id, state in sources.items()},
    )


def restarted(before: Fleet, now: float) -> Fleet:
    """The fleet of the next process, which begins now and has a monotonic clock of its own."""
    fleet = Fleet()
    kept = {instance: each.moved(-1000.0, latest=now) for instance, each in before.standings_of(RUNNER).items()}
    fleet.recall_connected(RUNNER, kept, now)
    return fleet


def test_a_runner_that_is_back_soon_is_healthy_since_before_the_restart() -> None:
    fleet = Fleet()
    fleet.recall_connected(RUNNER, {INSTANCE: standing(since=-3600.0, ready_since=-3000.0)}, 5.0)
    assert shown(fleet, 6.0) == (RunnerState.OFFLINE, 5.0), "lost when the server ended, not when it had connected"
    session = connected(fleet, 7.0)
    fleet.report(session, 1, {}, 7.5, is_draining=False)
    assert shown(fleet, 7.5) == (RunnerState.HEALTHY, -3600.0)
    fleet.report(session, 1, READY, 9.0, is_draining=False)
    assert shown(fleet, 9.0) == (RunnerState.HEALTHY, -3000.0), "since its source was ready again"
    # What happens from here on counts from when it happens.
    fleet.report(session, 1, GONE, 20.0, is_draining=False)
    fleet.report(session, 1, READY, 30.0, is_draining=False)
    assert shown(fleet, 31.0) == (RunnerState.HEALTHY, 30.0)
    fleet.lose(session, "closed", 40.0)
    assert shown(fleet, 41.0) == (RunnerState.OFFLINE, 40.0)


def test_a_resumed_runner_is_healthy_since_it_was_resumed() -> None:
    before = Fleet()
    session = connected(before, 10.0)
    before.report(session, 1, READY, 11.0, is_draining=False)
    before.report(session, 1, {}, 500.0, is_draining=True)
    before.report(session, 1, {}, 600.0, is_draining=False)
    assert shown(before, 601.0) == (RunnerState.HEALTHY, 600.0)
    fleet = restarted(before, 5.0)
    session = connected(fleet, 6.0)
    fleet.report(session, 1, READY, 7.0, is_draining=False)
    assert shown(fleet, 8.0) == (RunnerState.HEALTHY, 600.0 - 1000.0)


def test_a_drained_runner_is_draining_since_it_was_drained() -> None:
    before = Fleet()
    session = connected(before, 10.0)
    before.report(session, 1, READY, 11.0, is_draining=False)
    before.report(session, 1, {}, 500.0, is_draining=True)
    fleet = restarted(before, 5.0)
    session = connected(fleet, 6.0)
    ordered = FLAGS.__class__(is_revoked=False, is_draining=True, wanted_revision=1, sources=(SOURCE,))
    assert shown(fleet, 6.5, ordered)[0] is RunnerState.DRAINING
    fleet.report(session, 1, READY, 7.0, is_draining=True)
    assert shown(fleet, 8.0) == shown(fleet, 8.0, ordered) == (RunnerState.DRAINING, 500.0 - 1000.0)
    fleet.report(session, 1, {}, 9.0, is_draining=False)
    assert shown(fleet, 9.5) == (RunnerState.HEALTHY, 9.0)


def test_a_source_out_of_reach_is_so_since_before_the_restart() -> None:
    before = Fleet()
    session = connected(before, 10.0)
    before.report(session, 1, READY, 11.0, is_draining=False)
    before.report(session, 1, GONE, 400.0, is_draining=False)
    for said, expected in (
        (GONE, (RunnerState.DEGRADED, 400.0 - 1000.0)),
        ({SOURCE: ("unreachable", "login")}, (RunnerState.DEGRADED, 7.0)),
        (READY, (RunnerState.HEALTHY, 7.0)),
    ):
        fleet = restarted(before, 5.0)
        session = connected(fleet, 6.0)
        fleet.report(session, 1, said, 7.0, is_draining=False)
        assert shown(fleet, 8.0) == expected
        if said is GONE:
            fleet.report(session, 1, READY, 9.0, is_draining=False)
            assert shown(fleet, 9.5) == (RunnerState.HEALTHY, 9.0)


def test_each_instance_goes_on_by_itself_and_another_process_begins_anew() -> None:
    fleet = Fleet()
    other = InstanceId("ins_b")
    fleet.recall_connected(RUNNER, {INSTANCE: standing(since=-3600.0), other: standing(since=-60.0)}, 5.0)
    for number, instance in enumerate((INSTANCE, other), 1):
        session = connected(fleet, 6.0, number=number, instance=instance)
        fleet.report(session, 1, READY, 7.0, is_draining=False)
    assert shown(fleet, 8.0) == (RunnerState.HEALTHY, -60.0)
    fleet = Fleet()
    fleet.recall_connected(RUNNER, {other: standing(since=-3600.0)}, 5.0)
    fleet.report(connected(fleet, 6.0), 1, {}, 7.0, is_draining=False)
    assert shown(fleet, 8.0) == (RunnerState.HEALTHY, 6.0), "its process was started anew"


def test_a_runner_that_comes_late_or_again_is_healthy_since_then() -> None:
    fleet = Fleet()
    fleet.recall_connected(RUNNER, {INSTANCE: standing(since=-3600.0)}, 5.0)
    late = 5.0 + limits.RUNNER_RETURN_SECONDS
    session = connected(fleet, late)
    fleet.report(session, 1, READY, late + 1, is_draining=False)
    assert shown(fleet, late + 2) == (RunnerState.HEALTHY, late + 1)
    fleet = Fleet()
    fleet.recall_connected(RUNNER, {INSTANCE: standing(since=-3600.0)}, 5.0)
    fleet.lose(connected(fleet, 6.0), "closed", 7.0)
    session = connected(fleet, 8.0, number=2)
    fleet.report(session, 1, READY, 9.0, is_draining=False)
    assert shown(fleet, 9.5) == (RunnerState.HEALTHY, 9.0)


def test_a_suspect_instance_is_not_known_to_be_well() -> None:
    fleet = Fleet()
    session = connected(fleet, 1.0)
    assert fleet.standings_of(RUNNER).keys() == {INSTANCE}
    assert fleet.offer_unanswered(session, 2.0)
    assert fleet.standings_of(RUNNER) == {}


def test_no_moment_is_in_the_future_and_a_standing_is_bounded() -> None:
    fleet = Fleet()
    session = connected(fleet, 1.0)
    many = {SourceId(f"src_{number}"): ("unreachable", "tcp") for number in range(2 * limits.SIGHTING_SOURCES_MAX)}
    fleet.report(session, 1, many, 2.0, is_draining=False)
    kept = fleet.standings_of(RUNNER)[INSTANCE]
    assert len(kept.sources) == limits.SIGHTING_SOURCES_MAX
    assert kept.moved(0.0) == kept
    ahead = kept.moved(1e6, latest=50.0)
    assert {ahead.since, ahead.marked_at, ahead.ready_since, *(each[2] for each in ahead.sources.values())} == {50.0}
    assert not math.isinf(kept.moved(5.0).since)


def test_a_session_that_is_open_already_is_not_touched() -> None:
    fleet = Fleet()
    session = connected(fleet, 1.0)
    fleet.recall_connected(RUNNER, {INSTANCE: standing(since=-3600.0)}, 2.0)
    fleet.report(session, 1, READY, 3.0, is_draining=False)
    assert shown(fleet, 4.0) == (RunnerState.HEALTHY, 3.0)
    fleet.recall(RUNNER, -1.0, "closed")
    fleet.lose(session, "closed", 9.0)
    assert shown(fleet, 10.0) == (RunnerState.OFFLINE, 9.0)


def test_a_revoked_runner_is_revoked_since_its_session_ended() -> None:
    revoked = FLAGS.__class__(is_revoked=True, is_draining=False, wanted_revision=1, sources=(SOURCE,))
    fleet = Fleet()
    assert shown(fleet, 1.0, revoked) == (RunnerState.REVOKED, None)
    fleet.lose(connected(fleet, 1.0), "revoked", 9.0)
    assert shown(fleet, 20.0, revoked) == (RunnerState.REVOKED, 9.0)
