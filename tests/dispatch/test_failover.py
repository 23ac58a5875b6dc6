"""What dispatch does about places that fail: the rules of counting, health, liveness and patience, one at a time."""

from __future__ import annotations

import pytest

from lensway import limits
from lensway.dispatch.core.events import (
    INLINE,
    CallerGone,
    CancelWanted,
    Consumed,
    RefusalKind,
    Release,
    SendOffer,
    SessionDraining,
    SessionHeard,
    SessionLost,
    SessionReported,
    StatusChanged,
)
from lensway.errors import ErrorCode, Failure
from lensway.ids import JobId, SessionId
from tests.dispatch.bench import SOURCE, Bench

QUERY_FAILED = Failure(code=ErrorCode.SOURCE_QUERY_FAILED, message="no such column")
TIMED_OUT = Failure(code=ErrorCode.QUERY_TIMEOUT, message="the deadline passed")


def lose(bench: Bench, offer: SendOffer) -> None:
    bench.give(SessionLost(offer.session, "reset"))


def test_a_job_that_is_over_wakes_nobody() -> None:
    bench = Bench()
    for _ in range(3):
        job = bench.submit()
        bench.end(bench.accept(bench.offer_of(job)))
        assert bench.code(job) == "completed"
    assert bench.core.next_wake() is None


# --- counting ---------------------------------------------------------------------------------------------------------------


def test_two_runners_lost_while_executing_are_enough() -> None:
    bench = Bench("a", "b", "c")
    for name in "abc":
        bench.connect(name)
    job = bench.submit()
    for _ in range(2):
        lose(bench, bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "runner_failed"
    assert len(bench.offers(job)) == 2


def test_runners_lost_before_they_accepted_do_not_count() -> None:
    bench = Bench("a", "b", "c")
    for name in "abc":
        bench.connect(name)
    job = bench.submit()
    for _ in range(2):
        lose(bench, bench.offer_of(job))
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"
    assert bench.outcome(job).record.executed == 1


def test_rows_held_of_a_lost_attempt_are_never_delivered() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit(release=Release.STREAM)
    first = bench.accept(bench.offer_of(job))
    bench.rows(first, b"of the first;")
    lose(bench, first)
    second = bench.accept(bench.offer_of(job))
    assert second.session != first.session
    bench.rows(second, b"of the second;")
    bench.end(second, len(b"of the second;"))
    assert bench.outcome(job).chunks == (b"of the second;",)


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        ("refused", "completed"),
        ("unwritten", "completed"),
        ("unanswered", "runner_failed"),
        ("lost before accept", "runner_failed"),
        ("lost", "runner_failed"),
        ("handed back", "runner_failed"),
        ("unreachable", "SOURCE_UNREACHABLE"),
    ],
)
def test_a_lens_that_is_never_retried_is_offered_again_only_when_nothing_can_have_begun(
    what: str, outcome: str
) -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit(may_retry=False)
    offer = bench.offer_of(job)
    match what:
        case "refused":
            bench.refuse(offer, RefusalKind.STALE)
        case "unwritten":
            bench.refuse(offer, RefusalKind.UNWRITTEN)
        case "unanswered":
            bench.wait(limits.OFFER_TIMEOUT_SECONDS)
        case "lost before accept":
            lose(bench, offer)
        case "lost":
            lose(bench, bench.accept(offer))
        case "handed back":
            bench.fail(bench.accept(offer), QUERY_FAILED, handed_back=True)
        case "unreachable":
            bench.fail(bench.accept(offer), retryable=True)
    if outcome == "completed":
        bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == outcome
    assert len(bench.offers(job)) == (2 if outcome == "completed" else 1)


def test_hand_backs_are_not_attempts() -> None:
    names = "abcdef"
    bench = Bench(*names)
    for name in names:
        bench.connect(name)
    job = bench.submit()
    for _ in range(limits.ATTEMPTS_MAX + 2):
        bench.fail(bench.accept(bench.offer_of(job)), QUERY_FAILED, handed_back=True)
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.outcome(job).record.executed == 1


# --- flow -------------------------------------------------------------------------------------------------------------------


def test_a_stream_is_granted_what_its_caller_took_and_nothing_on_arrival() -> None:
    bench = Bench("a")
    bench.connect("a")
    job = bench.submit(release=Release.STREAM, is_export=True)
    offer = bench.accept(bench.offer_of(job))
    frame = bytes(limits.DATA_FRAME_BYTES_MAX)
    for _ in range(limits.CREDIT_WINDOW_BYTES // len(frame)):
        bench.rows(offer, frame)
    assert bench.granted(job) == 0
    bench.give(Consumed(job, limits.CREDIT_GRANT_BYTES_MIN))
    assert bench.granted(job) == limits.CREDIT_GRANT_BYTES_MIN
    bench.rows(offer, frame)
    bench.rows(offer, frame)
    bench.rows(offer, b"one too many")
    assert bench.closed() == [offer.session]
    assert bench.code(job) == "runner_failed"
    assert bench.outcome(job).released


def test_an_end_that_does_not_add_up_ends_the_session_and_is_no_result() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit()
    offer = bench.accept(bench.offer_of(job))
    bench.rows(offer, b"row;")
    bench.end(offer, 8)
    assert bench.closed() == [offer.session]
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"


def test_what_a_runner_gives_up_although_nobody_cancelled_it_is_executed_by_another() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit()
    bench.fail(bench.accept(bench.offer_of(job)), Failure(code=ErrorCode.CANCELLED, message="The session broke"))
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"


@pytest.mark.parametrize(
    ("why", "reason"),
    [("gone", "caller_gone"), ("unwanted", "on_request"), ("late", "deadline"), ("stalled", "stalled")],
)
def test_the_place_is_told_to_stop_and_keeps_its_reservation_until_it_has(why: str, reason: str) -> None:
    bench = Bench("a")
    session = bench.connect("a")
    job = bench.submit(seconds=100.0 if why == "stalled" else 3.0, release=Release.STREAM)
    offer = bench.accept(bench.offer_of(job))
    if why == "gone":
        bench.give(CallerGone(job))
    elif why == "unwanted":
        bench.give(CancelWanted(job))
    elif why == "late":
        bench.wait(3.0)
    else:
        bench.rows(offer, bytes(limits.HOLD_BACK_BYTES // 4))
        for _ in range(30):
            bench.wait(limits.STALL_TIMEOUT_SECONDS / 25)
            bench.alive(session)
    assert [order.reason for order in bench.cancels(job)] == [reason]
    load = bench.core.fleet.sessions[session].load
    assert load.outstanding == 1
    bench.fail(offer, TIMED_OUT)
    assert load.outstanding == 0


# --- the health of a source on a runner -------------------------------------------------------------------------------------


def test_unreachable_is_the_answer_only_after_a_second_candidate_failed_too() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit()
    bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
    assert bench.code(job) == ""
    bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
    assert bench.code(job) == "SOURCE_UNREACHABLE"
    assert [each["name"] for each in bench.outcome(job).failure.details["runners"]] == ["a", "b"]


def test_one_broken_place_among_sound_ones_fails_nobody_however_many_it_breaks_at_once() -> None:
    """The retry budget guards a source that fails; it must not fail queries that another runner can serve."""
    bench = Bench("a", "b")
    broken, sound = bench.connect("a"), bench.connect("b")
    bench.serve(broken)
    bench.serve(sound)
    jobs = [bench.submit() for _ in range(40)]
    at_broken = [job for job in jobs if bench.offer_of(job).session == broken]
    assert len(at_broken) > limits.RETRY_BUDGET_TOKENS_MAX
    for job in at_broken:
        bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
    for job in jobs:
        if bench.offer_of(job).session == sound:
            bench.end(bench.accept(bench.offer_of(job)))
    for job in at_broken:
        if not bench.code(job):
            bench.end(bench.accept(bench.offer_of(job)))
    assert {bench.code(job) for job in jobs} == {"completed"}


def test_a_source_that_always_fails_is_asked_little_more_than_once_per_request() -> None:
    bench = Bench("a", "b", "c")
    for name in "abc":
        bench.serve(bench.connect(name))
    jobs = []
    for _ in range(1_000):
        jobs.append(job := bench.submit())
        while not bench.code(job):
            bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
            bench.wait(0.01)
    asked = sum(len(bench.offers(job)) for job in jobs)
    assert asked <= len(jobs) * (1 + limits.RETRY_BUDGET_RATIO) + limits.RETRY_BUDGET_TOKENS_MAX + 3


def test_a_timeout_does_not_prove_that_the_database_answers() -> None:
    """A silent database makes some queries time out; that must not wipe out what is known of the pair."""
    bench = Bench("a")
    session = bench.connect("a")
    pair = bench.core.fleet.sessions[session].load.pair(SOURCE)
    for failure in (None, TIMED_OUT, None, TIMED_OUT, None):
        offer = bench.accept(bench.offer_of(bench.submit()))
        bench.fail(offer, retryable=True) if failure is None else bench.fail(offer, failure)
    assert pair.is_ejected(bench.now)
    bench.fail(bench.accept(bench.offer_of(bench.submit())), QUERY_FAILED)
    assert not pair.is_ejected(bench.now), "an answer of the database heals the pair"


def test_an_ejected_pair_is_tried_by_one_query_at_a_time_and_for_longer_each_time() -> None:
    bench = Bench("a", "b")
    bad, good = bench.connect("a"), bench.connect("b")
    bench.serve(bad)
    bench.serve(good)
    pair = bench.core.fleet.sessions[bad].load.pair(SOURCE)
    ejections = []
    for _ in range(400):
        job = bench.submit()
        offer = bench.accept(bench.offer_of(job))
        if offer.session == bad:
            before = pair.ejected_until
            bench.fail(offer, retryable=True)
            if pair.ejected_until > before:
                ejections.append(pair.ejected_until - bench.now)
            offer = bench.accept(bench.offer_of(job))
            assert offer.session == good
        bench.rows(offer, b"row;")
        bench.end(offer, 4)
        bench.wait(1.0)
        bench.alive(bad, good)
    assert ejections[:4] == [5.0, 10.0, 20.0, 40.0]
    assert max(ejections) == limits.EJECT_SECONDS_MAX


def test_reports_about_sources_are_believed_only_of_the_newest_set() -> None:
    """What a runner said of a source before it got the newest settings is no reason not to ask it."""
    bench = Bench("a")
    session = bench.connect("a")
    bench.give(SessionReported(session, 0, (), False, {SOURCE: ("no_credentials", "")}))
    bench.end(bench.accept(bench.offer_of(bench.submit())))
    bench.give(SessionReported(session, 1, (), False, {SOURCE: ("no_credentials", "")}))
    job = bench.submit()
    assert bench.code(job) == "SOURCE_UNREACHABLE"
    assert bench.outcome(job).failure.details["class"] == "no_credentials"


def test_the_last_candidate_is_never_ejected() -> None:
    bench = Bench("a")
    bench.connect("a")
    for _ in range(10):
        job = bench.submit()
        bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
        assert len(bench.offers(job)) == 1


# --- liveness ---------------------------------------------------------------------------------------------------------------


def test_rows_keep_a_session_from_being_dead_but_do_not_make_it_live() -> None:
    """One direction is cut: its rows arrive, and no offer reaches it."""
    bench = Bench("a", "b")
    deaf, well = bench.connect("a"), bench.connect("b")
    job = bench.submit()
    assert bench.offer_of(job).session == deaf
    bench.wait(limits.OFFER_TIMEOUT_SECONDS)
    assert bench.offer_of(job).session == well
    for _ in range(30):
        bench.give(SessionHeard(deaf))
        assert bench.core.fleet.sessions[deaf].is_suspect
        bench.wait(0.5)
        bench.alive(well)
        bench.serve(well)
    assert deaf in bench.core.fleet.sessions, "bytes came in: it is not dead"


def test_a_late_answer_to_a_fresh_offer_brings_the_only_runner_back_at_once() -> None:
    bench = Bench("a")
    bench.connect("a")
    job = bench.submit()
    late = bench.offer_of(job)
    bench.wait(limits.OFFER_TIMEOUT_SECONDS + 0.1)
    assert bench.offers(job) == [late]
    bench.refuse(late, RefusalKind.STALE)
    bench.wait(limits.BUSY_BACKOFF_SECONDS)
    assert bench.offer_of(job) != late
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"


def test_an_answer_that_a_network_held_back_is_no_sign_of_life() -> None:
    bench = Bench("a")
    session = bench.connect("a")
    offer = bench.offer_of(bench.submit())
    bench.wait(limits.FRESH_HEARTBEATS * limits.HEARTBEAT_SECONDS + 0.5)
    bench.refuse(offer, RefusalKind.STALE)
    assert bench.core.fleet.sessions[session].is_suspect


def test_a_sole_suspect_is_still_tried() -> None:
    bench = Bench("a")
    session = bench.connect("a")
    bench.wait(limits.SUSPECT_SECONDS + 0.1)
    assert bench.core.fleet.sessions[session].is_suspect
    bench.end(bench.accept(bench.offer_of(bench.submit())))


def test_the_windows_of_a_session_are_those_that_its_welcome_named() -> None:
    """The session that a new one supersedes must not change the windows between the welcome and the opening."""
    bench = Bench("a")
    sessions = [bench.connect("a", instance=f"i{number}") for number in range(limits.FLEET_LARGE_SESSIONS)]
    again = bench.connect("a", instance="i0")
    assert sessions[0] not in bench.core.fleet.sessions
    assert bench.core.fleet.sessions[again].timings.dead_seconds == limits.DEAD_LARGE_SECONDS


def test_who_is_silent_is_suspect_then_dead_and_its_jobs_go_elsewhere() -> None:
    bench = Bench("a", "b")
    silent, well = bench.connect("a"), bench.connect("b")
    job = bench.submit(seconds=60.0)
    assert bench.accept(bench.offer_of(job)).session == silent
    for second in range(1, 12):
        bench.wait(1.0)
        bench.alive(well)
        session = bench.core.fleet.sessions.get(silent)
        assert (session is not None and session.is_suspect) == (limits.SUSPECT_SECONDS <= second < limits.DEAD_SECONDS)
    assert bench.offer_of(job).session == well
    assert bench.closed() == [silent]


def test_nobody_there_is_never_answered_inline() -> None:
    bench = Bench("a")
    assert bench.code(bench.submit()) == "no_runners_online"
    bench.assigned.clear()
    assert bench.offer_of(bench.submit()).session == INLINE


# --- patience ---------------------------------------------------------------------------------------------------------------


def test_a_job_that_waited_once_waits_again_when_its_runner_is_lost() -> None:
    bench = Bench("a")
    job = bench.submit(seconds=30.0)
    assert bench.code(job) == "no_runners_online", "nobody was ever here: no waiting"
    lose_at = bench.connect("a")
    bench.give(SessionLost(lose_at, "reset"))
    job = bench.submit(seconds=30.0)
    bench.wait(1.9)
    bench.connect("a")
    offer = bench.accept(bench.offer_of(job))
    bench.wait(1.0)
    lose(bench, offer)
    bench.wait(1.5)
    assert bench.code(job) == ""
    bench.connect("a")
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"


def test_waiting_is_bounded_by_a_quarter_of_what_remains() -> None:
    bench = Bench("a")
    bench.give(SessionDraining(bench.connect("a")))
    job = bench.submit(seconds=2.0)
    bench.wait(0.49)
    assert bench.code(job) == ""
    bench.wait(0.02)
    assert bench.code(job) == "no_runners_online"


def test_all_busy_is_another_answer_than_nobody_there_and_five_times_too_much_recovers() -> None:
    bench = Bench("a")
    session = bench.connect("a", capacity=2)
    running = [bench.accept(bench.offer_of(bench.submit())) for _ in range(2)]
    waiting = [bench.submit(seconds=30.0) for _ in range(limits.QUEUE_JOBS_MAX)]
    refused = bench.submit()
    assert bench.code(refused) == "overloaded"
    for _ in range(5):
        bench.wait(2.0)
        bench.alive(session)
    assert {bench.code(job) for job in waiting} == {"overloaded"}
    for offer in running:
        bench.end(offer)
    bench.serve(session)
    assert bench.core.jobs_count == 0


def test_waiting_for_a_runner_to_come_back_is_bounded_too() -> None:
    bench = Bench("a")
    bench.give(SessionDraining(session := bench.connect("a")))
    waiting = [bench.submit() for _ in range(limits.QUEUE_JOBS_MAX)]
    assert bench.code(bench.submit()) == "overloaded"
    bench.give(SessionDraining(session, False))
    assert not any(bench.code(job) for job in waiting), "those that wait move to the queue, however full it is"


def test_an_attempt_that_is_still_reported_although_it_was_to_stop_is_told_so_again() -> None:
    """The word to stop was lost: a result that waits for credit would be held by both sides for ever."""
    bench = Bench("a")
    session = bench.connect("a")
    offer = bench.accept(bench.offer_of(job := bench.submit(seconds=1.0)))
    bench.wait(1.0)
    assert bench.code(job) == "QUERY_TIMEOUT"
    assert len(bench.cancels(job)) == 1
    bench.give(SessionReported(session, 1, ((offer.job, offer.attempt),), False, {}))
    assert [(each.session, each.attempt) for each in bench.cancels(job)] == 2 * [(session, offer.attempt)]
    bench.fail(offer)
    bench.give(SessionReported(session, 1, ((offer.job, offer.attempt),), False, {}))
    assert len(bench.cancels(job)) == 2
    assert bench.core.fleet.sessions[session].load.outstanding == 0


def test_what_a_superseded_session_had_goes_to_its_successor_at_once() -> None:
    """However long the query has waited before: the runner is online, and nobody is told otherwise."""
    bench = Bench("a")
    first = bench.connect("a", instance="one")
    job = bench.submit(seconds=30.0)
    bench.give(SessionLost(first, "reset"))
    second = bench.connect("a", instance="one")
    assert bench.offer_of(job).session == second
    bench.now += 11.0  # the server stood still, or was blocked: the patience of the first loss is over
    third = bench.connect("a", instance="one")
    assert bench.code(job) == ""
    assert bench.offer_of(job).session == third
    shown = [(each.session, each.state) for each in bench.orders if isinstance(each, StatusChanged)]
    assert shown[-2:] == [(third, "live"), (second, "lost")]


def test_no_cap_is_ever_passed_and_reports_are_not_counted() -> None:
    bench = Bench("a")
    session = bench.connect("a", capacity=3)
    jobs = [bench.submit() for _ in range(10)]
    bench.give(SessionReported(session, 1, (), False, {}))
    assert sum(bool(bench.offers(job)) for job in jobs) == 3
    bench.end(bench.accept(bench.offer_of(jobs[0])))
    assert sum(bool(bench.offers(job)) for job in jobs) == 4
    assert bench.core.fleet.sessions[SessionId(session)].load.outstanding == 3


def test_ten_seconds_after_five_times_too_much_nobody_waits_longer_than_before() -> None:
    """One runner that ends two queries a second, half of that asked for, then ten a second for half a minute."""
    bench = Bench("a")
    session = bench.connect("a", capacity=2)
    asked: list[JobId] = []
    busy: list[tuple[float, SendOffer]] = []
    begun_after: dict[JobId, float] = {}

    def pass_by(seconds: float, every: float) -> None:
        end, due = bench.now + seconds, bench.now
        while bench.now < end:
            if bench.now >= due:
                due += every
                asked.append(bench.submit(seconds=60.0))
            for until, offer in [each for each in busy if each[0] <= bench.now]:
                busy.remove((until, offer))
                bench.end(offer)
            for order in bench.orders:
                if isinstance(order, SendOffer):
                    bench.accept(order)
                    busy.append((bench.now + 1.0, order))
                    begun_after[order.job] = 60.0 - (order.request.deadline - bench.now)
            bench.orders = [order for order in bench.orders if not isinstance(order, SendOffer)]
            bench.alive(session)
            bench.wait(0.1)

    pass_by(10.0, 1.0)
    pass_by(30.0, 0.1)
    pass_by(10.0, 1.0)
    before = len(asked)
    pass_by(10.0, 1.0)
    assert max(begun_after[job] for job in asked[before:-2]) < 0.5


def test_a_database_that_a_runner_reports_healed_is_sound_there_before_any_query_proves_it() -> None:
    """Ejection grows; a runner that has looked by itself must not stay out for the rest of it."""
    bench = Bench("a", "b")
    healed, other = bench.connect("a"), bench.connect("b")
    for session in (healed, other):
        bench.serve(session)
    pair = bench.core.fleet.sessions[healed].load.pair(SOURCE)
    bench.give(SessionReported(healed, 1, None, False, {SOURCE: ("unreachable", "tcp refused")}))
    while not pair.is_ejected(bench.now):
        pair.record_unreachable(bench.now)
    assert not pair.is_sound
    bench.give(SessionReported(healed, 1, None, False, {SOURCE: ("unreachable", "tcp timeout")}))
    assert pair.is_ejected(bench.now)
    bench.give(SessionReported(healed, 1, None, False, {SOURCE: ("ready", "")}))
    assert pair.is_sound
    assert not pair.is_ejected(bench.now)


def test_a_runner_that_an_operator_drained_may_be_resumed_in_a_moment_so_queries_wait_for_it() -> None:
    bench = Bench("a")
    session = bench.connect("a")
    bench.marks["a"] = "draining"
    bench.give(SessionDraining(session))
    patient, late = bench.submit(), bench.submit(seconds=4.0)
    bench.wait(limits.REVIVAL_SECONDS_MAX / 2 + 0.1)
    assert bench.code(late) == "no_runners_online", "a quarter of what was left is patience enough"
    assert bench.code(patient) == ""
    bench.marks["a"] = ""
    bench.give(SessionDraining(session, is_draining=False))
    bench.end(bench.accept(bench.offer_of(patient)))
    assert bench.code(patient) == "completed"


def test_a_database_out_of_reach_of_one_runner_is_no_outcome_while_another_may_be_back_in_a_moment() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    other = bench.connect("b")
    bench.give(SessionLost(other, "reset"))
    job = bench.submit()
    bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
    assert bench.code(job) == "", "b was there a moment ago"
    bench.connect("b")
    bench.end(bench.accept(bench.offer_of(job)))
    assert bench.code(job) == "completed"

    bench.give(SessionLost(bench.offer_of(job).session, "reset"))
    late = bench.submit(seconds=4.0)
    bench.fail(bench.accept(bench.offer_of(late)), retryable=True)
    bench.wait(1.1)
    assert bench.code(late) == "SOURCE_UNREACHABLE", "its word stands when nobody came"


def test_a_database_out_of_reach_of_the_only_runner_is_told_at_once() -> None:
    bench = Bench("a")
    bench.connect("a")
    job = bench.submit()
    bench.fail(bench.accept(bench.offer_of(job)), retryable=True)
    assert bench.code(job) == "SOURCE_UNREACHABLE"
