"""The checker of chaos runs finds each broken promise in a forged history, and nothing in an honest one."""

from __future__ import annotations

import dataclasses

import pytest

from lensway.testing.chaos.checker import CUT, NEVER, POISON, RESTART, check
from lensway.testing.chaos.history import INLINE, Attempt, Call, Disturbance, History, Request, Statement

EXECUTORS = {"login_alpha": "alpha", "login_beta": "beta", "login_gamma": "gamma", "login_inline": INLINE}


def attempt(number: int, runner: str, begin: float, end: float, outcome: str = "ended", **more) -> Attempt:
    return Attempt(
        number=number,
        runner=runner,
        offered_at=begin,
        **{"accepted_at": begin + 0.01, "ended_at": end, "outcome": outcome, **more},
    )


def call(id: str, **more) -> Call:
    values = {
        "kind": "page", "sent_at": 100.0, "ended_at": 103.0, "status": 200, "rows": 10, "rows_wanted": 10, "backends": (7,),
    }  # fmt: skip
    return Call(id=id, **(values | more))


def statement(id: str, number: int, runner: str, at: float, backend: int = 7) -> Statement:
    return Statement(request=id, attempt=number, user=f"login_{runner}", backend=backend, at=at)


def honest() -> History:
    """One request that lost its first runner to a kill, and one that needed nothing."""
    history = History(executors=EXECUTORS)
    history.disturbances.append(Disturbance(kind="kill", runner="alpha", began_at=101.0, ended_at=104.0))
    history.calls += [call("a", kind="export", has_end=True), call("b", backends=(8,))]
    history.requests["a"] = Request(
        id="a",
        outcome="completed",
        attempts=(attempt(1, "alpha", 100.0, 101.0, "lost:closed"), attempt(2, "beta", 101.0, 103.0)),
    )
    history.requests["b"] = Request(id="b", outcome="completed", attempts=(attempt(1, "gamma", 100.0, 100.5),))
    history.statements += [
        statement("a", 1, "alpha", 100.1, 6),
        statement("a", 2, "beta", 101.1),
        statement("b", 1, "gamma", 100.1, 8),
    ]
    return history


def change_call(history: History, which: str, **changes) -> None:
    history.calls = [dataclasses.replace(each, **changes) if each.id == which else each for each in history.calls]


def change_attempts(history: History, id: str, *attempts: Attempt, outcome: str = "completed") -> None:
    history.requests[id] = Request(id=id, outcome=outcome, attempts=attempts)


def test_an_honest_history_has_no_violation() -> None:
    verdict = check(honest())
    assert verdict.violations == []
    assert verdict.calls == 2
    assert verdict.seen["whole after a lost attempt"] == 1
    assert sum(verdict.summary.values()) == 0


def no_answer(history: History) -> None:
    change_call(history, "b", id="", status=0, code="silence", sent_at=10.0, ended_at=20.0)


def no_trace(history: History) -> None:
    del history.requests["b"]


def too_late(history: History) -> None:
    change_call(history, "b", ended_at=100.0 + 30.0 + 2.5)


def answered_twice(history: History) -> None:
    history.calls.append(call("b", backends=(8,)))


def changed_its_mind(history: History) -> None:
    entry = {"id": "b", "at": "1970-01-01T00:01:40+00:00", "outcome": "runner_failed", "attempts": []}
    history.note_request(entry)
    history.note_request(entry | {"outcome": "completed"})


def another_outcome(history: History) -> None:
    change_attempts(history, "b", attempt(1, "gamma", 100.0, 100.5), outcome="cancelled")


def rows_of_two_attempts(history: History) -> None:
    change_call(history, "a", backends=(6, 7))


def rows_of_the_loser(history: History) -> None:
    change_call(history, "a", backends=(6,))


def fewer_rows(history: History) -> None:
    change_call(history, "b", rows=9)


def no_end_mark(history: History) -> None:
    change_call(history, "a", has_end=False)


def other_rows(history: History) -> None:
    change_call(history, "b", is_right=False)


def more_rows(history: History) -> None:
    change_call(history, "b", rows=11)


def never_executed(history: History) -> None:
    history.statements = [each for each in history.statements if each.request != "b"]


def failed_for_no_reason(history: History) -> None:
    change_call(history, "b", status=502, code="runner_failed")
    change_attempts(history, "b", attempt(1, "gamma", 100.0, 100.5, "lost:closed"), outcome="runner_failed")


def one_loss_is_not_poison(history: History) -> None:
    change_call(history, "a", status=502, code="runner_failed")
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 101.0, "lost:closed"), outcome="runner_failed")


def broken_only_afterwards(history: History) -> None:
    change_call(history, "a", status=502, code="runner_failed", may_retry=False, kind="never")
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 100.5, "lost:closed"), outcome="runner_failed")
    history.statements = [each for each in history.statements if each.attempt == 1]


def an_answer_other_than_the_losses(history: History) -> None:
    change_call(history, "a", status=503, code="no_runners_online", may_retry=False)
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 101.0, "lost:closed"), outcome="no_runners_online")


def offered_while_executed(history: History) -> None:
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 101.5, "lost:closed"), attempt(2, "beta", 101.0, 103.0))


def numbers_go_back(history: History) -> None:
    change_attempts(history, "a", attempt(2, "alpha", 100.0, 101.0, "lost:closed"), attempt(1, "beta", 101.0, 103.0))


def four_attempts(history: History) -> None:
    lost = [attempt(n, "alpha", 100.0 + n / 4, 100.2 + n / 4, "lost:closed") for n in (1, 2, 3)]
    change_attempts(history, "a", *lost, attempt(4, "beta", 101.2, 103.0))


def executed_elsewhere(history: History) -> None:
    history.statements.append(statement("b", 1, "beta", 100.2, 9))


def never_offered(history: History) -> None:
    history.statements.append(statement("b", 5, "gamma", 100.2, 9))


def nobody_asked(history: History) -> None:
    history.statements.append(statement("z", 1, "gamma", 90.0, 9))


def begun_after_it_was_over(history: History) -> None:
    history.statements.append(statement("b", 1, "gamma", 101.0, 8))


def repeated_although_never(history: History) -> None:
    change_call(history, "a", may_retry=False)


@pytest.mark.parametrize(
    ("forge", "invariant"),
    [
        (no_answer, "I1 lost"),
        (no_trace, "I1 lost"),
        (too_late, "I2 late"),
        (answered_twice, "I1 twice"),
        (changed_its_mind, "I1 twice"),
        (another_outcome, "I1 twice"),
        (rows_of_two_attempts, "I3 mixed"),
        (rows_of_the_loser, "I3 mixed"),
        (fewer_rows, "I3 truncated"),
        (no_end_mark, "I3 truncated"),
        (other_rows, "I3 rows"),
        (more_rows, "I3 rows"),
        (never_executed, "I3 rows"),
        (failed_for_no_reason, "I4 failed"),
        (one_loss_is_not_poison, "I4 failed"),
        (broken_only_afterwards, "I4 failed"),
        (an_answer_other_than_the_losses, "I4 failed"),
        (repeated_although_never, "I4 repeated"),
        (offered_while_executed, "I5 overlap"),
        (numbers_go_back, "I5 fence"),
        (four_attempts, "I5 attempts"),
        (executed_elsewhere, "I5 executor"),
        (never_offered, "I6 unasked"),
        (nobody_asked, "I6 unasked"),
        (begun_after_it_was_over, "I6 late"),
    ],
)
def test_each_broken_promise_is_found(forge, invariant: str) -> None:
    history = honest()
    forge(history)
    assert invariant in {each.invariant for each in check(history).violations}


def lens_that_never_repeats(history: History) -> None:
    change_call(history, "a", status=502, code="runner_failed", may_retry=False, kind="never")
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 101.0, "lost:closed"), outcome="runner_failed")


def reset_that_was_noticed_a_moment_later(history: History) -> None:
    lens_that_never_repeats(history)
    history.disturbances[:] = [Disturbance(kind="cut link", runner="alpha", began_at=99.9, ended_at=99.99)]


def lens_that_never_repeats_before_the_log_was_lost(history: History) -> None:
    lens_that_never_repeats(history)
    change_call(history, "a", ended_at=101.1)
    history.disturbances.append(Disturbance(kind="restart", runner=None, began_at=104.0, ended_at=105.0))
    del history.requests["a"]
    history.statements = [each for each in history.statements if each.request == "b"]


def two_lost(history: History) -> None:
    history.disturbances.append(Disturbance(kind="kill", runner="beta", began_at=102.0, ended_at=104.0))
    change_call(history, "a", status=502, code="runner_failed")
    change_attempts(
        history,
        "a",
        attempt(1, "alpha", 100.0, 101.0, "lost:closed"),
        attempt(2, "beta", 101.0, 102.5, "lost:closed"),
        outcome="runner_failed",
    )


def cut_stream(history: History) -> None:
    change_call(history, "a", is_cut=True, has_end=False, rows=4)
    change_attempts(history, "a", attempt(1, "alpha", 100.0, 101.0, "lost:closed"), outcome="runner_failed")


def restarted_server(history: History) -> None:
    history.disturbances.append(Disturbance(kind="restart", runner=None, began_at=99.0, ended_at=105.0))
    change_call(history, "b", id="", status=0, code="refused")


@pytest.mark.parametrize(
    ("forge", "kind"),
    [
        (lens_that_never_repeats, NEVER),
        (lens_that_never_repeats_before_the_log_was_lost, NEVER),
        (reset_that_was_noticed_a_moment_later, NEVER),
        (two_lost, POISON),
        (cut_stream, CUT),
        (restarted_server, RESTART),
    ],
)
def test_failures_with_a_known_cause_are_allowed_and_counted_and_without_it_they_are_not(forge, kind: str) -> None:
    history = honest()
    forge(history)
    # Statements of attempts that this history does not have any more are not the point here.
    numbers = {each.number for each in history.requests["a"].attempts} if "a" in history.requests else set()
    history.statements = [each for each in history.statements if each.request != "a" or each.attempt in numbers]
    verdict = check(history)
    assert verdict.violations == []
    assert verdict.failed == {kind: 1}
    history.disturbances.clear()
    assert check(history).violations != []


def test_a_runner_that_was_broken_may_begin_late_what_was_given_to_another() -> None:
    history = honest()
    history.statements.append(statement("a", 1, "alpha", 103.5, 6))
    assert check(history).violations == []
