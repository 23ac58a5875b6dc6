"""What is remembered of requests."""

from __future__ import annotations

import datetime

from lensway.dispatch.core.records import AttemptRecord, Cause, EndKind, JobRecord
from lensway.errors import ErrorCode, Failure
from lensway.fleet import CandidateNote
from lensway.fleet.choice import Verdict
from lensway.ids import (
    EnvironmentId,
    InstanceId,
    JobId,
    KeyId,
    RequestId,
    RunnerId,
    SessionId,
    SourceId,
    new_request_id,
)
from lensway.usecases.requests import RequestEntry, RequestRing, request_document

HERE, ELSEWHERE = EnvironmentId("env_here"), EnvironmentId("env_elsewhere")


def entry(environment: EnvironmentId = HERE) -> RequestEntry:
    return RequestEntry(
        id=new_request_id(),
        environment=environment,
        key=KeyId("key"),
        kind="rows",
        lens="orders",
        source="main",
        at=datetime.datetime(2026, 11, 27, 8, 30, 0, 125_000, tzinfo=datetime.UTC),
    )


def record(of: RequestEntry) -> JobRecord:
    note = CandidateNote(RunnerId("run_a"), "alpha", SessionId(7), Verdict.WORSE, 0.25)
    attempt = AttemptRecord(
        number=1,
        session=SessionId(7),
        runner=RunnerId("run_a"),
        runner_name="alpha",
        instance=InstanceId("ins_a"),
        candidates=(note,),
        offered_at=10.5,
        accepted_at=10.75,
        ended_at=11.0,
        cause=Cause(EndKind.FAILED, "QUERY_TIMEOUT"),
    )
    return JobRecord(
        request=RequestId(of.id),
        job=JobId(3),
        environment=of.environment,
        source=SourceId("src"),
        kind="rows",
        submitted_at=10.25,
        deadline=40.0,
        attempts=[attempt],
        executed=1,
        ended_at=11.5,
        outcome="QUERY_TIMEOUT",
        failure=Failure(
            code=ErrorCode.QUERY_TIMEOUT,
            message="too late",
            hint="ask for less",
            details={"class": ["a", {"b": 10**40}]},
        ),
    )


def test_what_is_over_is_shown_as_it_was_when_it_ended() -> None:
    ring = RequestRing()
    asked = entry()
    ring.add(asked)
    assert ring.get(asked.id) is asked
    ended = record(asked)
    ring.over(ended)
    found = ring.get(asked.id)
    assert found is not None
    assert found.record is not None
    assert found.record.attempts == ended.attempts
    assert found.record.failure is not None
    assert found.record.failure.code is ErrorCode.QUERY_TIMEOUT
    assert request_document(found, {}) == request_document(asked, {RequestId(asked.id): ended})
    assert request_document(found, {})["attempts"][0]["candidates"] == [
        {"runner": "alpha", "verdict": "worse", "session": 7, "score": 0.25}
    ]


def test_those_that_run_come_first_and_others_see_none_of_it() -> None:
    ring = RequestRing()
    asked = [entry(), entry(ELSEWHERE), entry(), entry()]
    for each in asked:
        ring.add(each)
    for each in (asked[1], asked[3], asked[0]):
        ring.over(record(each))
    assert [each.id for each in ring.newest(HERE)] == [asked[2].id, asked[0].id, asked[3].id]
    assert [each.id for each in ring.newest(ELSEWHERE)] == [asked[1].id]


def test_only_the_latest_are_remembered_and_none_that_runs_is_forgotten() -> None:
    ring = RequestRing(entries_max=2)
    runs, *asked = [entry() for _ in range(4)]
    ring.add(runs)
    for each in asked:
        ring.add(each)
        ring.over(record(each))
    assert [each.id for each in ring.newest(HERE)] == [runs.id, asked[2].id, asked[1].id]
    assert ring.get(asked[0].id) is None


def test_a_job_that_is_no_requests_and_an_id_that_is_none_are_nothing() -> None:
    ring = RequestRing()
    asked = entry()
    ring.over(record(asked))
    ring.add(asked)
    ring.over(record(asked))
    for id in ("", "req_", asked.id[:-1], asked.id + "x", "é" * 12, "\ud800" * 24, "x" * 100_000):
        assert ring.get(id) is None
