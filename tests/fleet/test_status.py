"""The status of a runner: what it is, and since when that is so."""

from __future__ import annotations

from lensway.fleet import Fleet, RunnerFlags, SessionFacts, runner_status
from lensway.fleet.status import RunnerState
from lensway.ids import EnvironmentId, InstanceId, RunnerId, SessionId, SourceId

RUNNER, SOURCE, INSTANCE = RunnerId("run_a"), SourceId("src_a"), InstanceId("ins_a")
FLAGS = RunnerFlags(is_revoked=False, is_draining=False, wanted_revision=1, sources=(SOURCE,))


def connected(fleet: Fleet, now: float, *, number: int = 1, instance: InstanceId = INSTANCE):
    facts = SessionFacts(
        session=SessionId(number),
        environment=EnvironmentId("env"),
        runner=RUNNER,
        runner_name="alpha",
        instance=instance,
        bridges={"postgres": "1"},
        capacity=1,
        software="",
        hostname="",
        address="",
        version=1,
    )
    return fleet.open(facts, now)


def shown(fleet: Fleet, now: float, flags: RunnerFlags = FLAGS) -> tuple[RunnerState, float | None]:
    status = runner_status(flags, list(fleet.sessions_of(RUNNER)), fleet.last_loss(RUNNER), now)
    return status.state, status.since


def test_each_state_counts_from_what_made_it() -> None:
    fleet = Fleet()
    assert shown(fleet, 1.0) == (RunnerState.NEVER_CONNECTED, None)
    session = connected(fleet, 10.0)
    assert shown(fleet, 10.0) == (RunnerState.CONNECTING, 10.0)
    fleet.report(session, 1, {}, 10.5, is_draining=False)
    assert shown(fleet, 10.5) == (RunnerState.HEALTHY, 10.0), "nothing is known of its sources"
    fleet.report(session, 1, {SOURCE: ("ready", "")}, 11.0, is_draining=False)
    assert shown(fleet, 12.0) == (RunnerState.HEALTHY, 11.0)
    for now in (20.0, 22.0):
        fleet.report(session, 1, {SOURCE: ("unreachable", "tcp timeout")}, now, is_draining=False)
    assert shown(fleet, 25.0) == (RunnerState.DEGRADED, 20.0), "since the database is gone, not since the last report"
    fleet.report(session, 1, {SOURCE: ("ready", "")}, 30.0, is_draining=False)
    assert shown(fleet, 31.0) == (RunnerState.HEALTHY, 30.0)
    assert fleet.offer_unanswered(session, 40.0)
    assert shown(fleet, 41.0) == (RunnerState.SUSPECT, 40.0)
    fleet.lose(session, "heartbeat_lost", 50.0)
    assert shown(fleet, 60.0) == (RunnerState.OFFLINE, 50.0)


def test_a_runner_is_well_since_its_broken_source_was_taken_away() -> None:
    fleet = Fleet()
    other = SourceId("src_b")
    session = connected(fleet, 10.0)
    fleet.report(session, 1, {SOURCE: ("unreachable", "tcp"), other: ("ready", "")}, 11.0, is_draining=False)
    assert shown(fleet, 12.0) == (RunnerState.DEGRADED, 11.0)
    assert session.forget_others(frozenset({other}), 60.0)
    only = RunnerFlags(is_revoked=False, is_draining=False, wanted_revision=1, sources=(other,))
    assert shown(fleet, 61.0, only) == (RunnerState.HEALTHY, 60.0)
    # Assigned again, it is what the runner says of it from now on.
    assert shown(fleet, 62.0) == (RunnerState.HEALTHY, 60.0)
    fleet.report(session, 1, {SOURCE: ("unreachable", "tcp")}, 63.0, is_draining=False)
    assert shown(fleet, 64.0) == (RunnerState.DEGRADED, 63.0)
    assert not session.forget_others(frozenset({SOURCE}), 70.0), "a ready one takes nothing with it"
    assert shown(fleet, 71.0) == (RunnerState.DEGRADED, 63.0)
