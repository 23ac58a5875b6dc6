"""Runners that can encode different formats, and what a database says that no runner is to blame for."""

from __future__ import annotations

import pytest

from lensway.dispatch.core.events import Fail
from lensway.errors import CANCELLED_BY_DATABASE, ErrorCode, Failure
from lensway.fleet import Verdict
from tests.dispatch.bench import Bench

PLAIN = ("json", "ndjson", "csv")
EVERY = (*PLAIN, "arrow", "parquet")


def test_only_a_runner_that_can_encode_the_format_is_offered_the_job() -> None:
    bench = Bench("a", "b")
    bench.connect("a", encodings=PLAIN)
    able = bench.connect("b", encodings=EVERY)
    jobs = [bench.submit(format="arrow") for _ in range(20)]
    assert {bench.offer_of(job).session for job in jobs} == {able}
    bench.end(bench.accept(bench.offer_of(jobs[0])))
    outcome = bench.outcome(jobs[0])
    assert outcome is not None
    verdicts = {note.runner: note.verdict for note in outcome.record.attempts[0].candidates}
    assert verdicts["a"] is Verdict.NO_ENCODING


def test_other_formats_go_to_both() -> None:
    bench = Bench("a", "b")
    sessions = {bench.connect("a", encodings=PLAIN), bench.connect("b", encodings=EVERY)}
    assert {bench.offer_of(bench.submit()).session for _ in range(20)} == sessions


def test_an_older_runner_that_names_no_format_is_offered_every_one() -> None:
    bench = Bench("a")
    session = bench.connect("a")
    assert bench.offer_of(bench.submit(format="arrow")).session == session


@pytest.mark.parametrize("others", [(), ("b",)])
def test_without_any_runner_that_can_the_answer_says_what_to_install(others: tuple[str, ...]) -> None:
    bench = Bench("a", *others)
    bench.connect("a", encodings=PLAIN)
    end = bench.outcome(bench.submit(format="parquet"))
    assert isinstance(end, Fail)
    assert end.failure.code is ErrorCode.NOT_ACCEPTABLE
    assert "pip install 'lensway[arrow]'" in (end.failure.hint or "")
    assert end.failure.details["runners"] == ["a"]


def test_a_statement_that_an_administrator_cancelled_is_not_repeated_and_no_runner_is_lost() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job = bench.submit()
    said = Failure(code=ErrorCode.CANCELLED, message="an administrator", details={"reason": CANCELLED_BY_DATABASE})
    bench.fail(bench.accept(bench.offer_of(job)), said)
    end = bench.outcome(job)
    assert isinstance(end, Fail)
    assert end.failure == said
    assert len(bench.offers(job)) == 1
