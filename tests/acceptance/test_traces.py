"""One trace from the caller to the database, and nothing of it that could hurt a query."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import secrets
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from opentelemetry import trace as api

import lensway.client
from lensway import limits
from lensway.observe.trace import Attribute, Moment
from lensway.testing.canaries import leaks
from lensway.testing.deployment import Deployment, free_ports, wait_until
from lensway.testing.otlp_collector import CollectedSpan, Collector

pytestmark = pytest.mark.acceptance

INTERNAL, SERVER, CLIENT = 1, 2, 3
OFF = {"OTEL_SDK_DISABLED": "true"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("traced"), environment=collector.environment) as deployment:
        yield deployment


@pytest.fixture
def stage(stage_of, traced, orders):
    with stage_of(traced, orders) as stage:
        yield stage


def caller(*, is_sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    """A trace and a span of the caller's, and the headers that say so."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-0{int(is_sampled)}", "tracestate": "vendor=1"}


def ask(stage, path: str, headers: dict[str, str], body: dict | None = None) -> httpx2.Response:
    return stage.client.post(path, json=body or {}, headers=headers)


def of(spans: list[CollectedSpan], name: str) -> CollectedSpan:
    found = [span for span in spans if span.name.startswith(name)]
    assert len(found) == 1, [span.name for span in spans]
    return found[0]


def test_a_query_is_one_trace_from_the_caller_to_the_database(stage, collector) -> None:
    stage.runner("alpha", environment=collector.environment)
    stage.assign("alpha")
    trace, span, headers = caller()
    answer = ask(stage, f"/v1/query/{stage.lens}", headers, {"where": {"customer": "customer 7"}, "limit": 5})
    assert answer.json()["meta"]["route"]["runner"] == stage.name("alpha")
    spans = collector.wait_for(trace, 5)
    chain = [of(spans, name) for name in ("POST ", "dispatch", "attempt", "job", "SELECT")]
    assert len(spans) == 5
    assert [each.parent for each in chain] == [span, *(each.id for each in chain[:-1])]
    assert [each.kind for each in chain] == [SERVER, INTERNAL, CLIENT, SERVER, CLIENT]
    assert [each.service for each in chain] == ["lensway-server"] * 3 + ["lensway-runner"] * 2
    assert {each.state for each in spans} == {"vendor=1"}
    request, dispatch, attempt, job, statement = chain
    assert request.name == "POST /v1/query/{lens}"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["lensway.request"] == answer.headers["X-Request-Id"] == job.attributes["lensway.request"]
    assert request.attributes["lensway.lens"] == stage.lens
    assert dispatch.attributes["lensway.outcome"] == "completed"
    assert attempt.attributes["lensway.runner"] == stage.name("alpha")
    assert attempt.attributes["lensway.attempt"] == job.attributes["lensway.attempt"] == 1
    assert "accepted" in attempt.events
    assert statement.name == "SELECT public.orders"
    assert statement.attributes == {
        "db.system.name": "postgresql",
        "db.operation.name": "SELECT",
        "db.collection.name": "public.orders",
        "db.response.returned_rows": 5,
    }
    assert not any(each.is_error for each in spans)
    # Both processes have the same clock here, so that what lies below also lies within.
    for outer, inner in itertools.pairwise(chain):
        assert outer.started_at - 0.002 <= inner.started_at <= inner.ended_at <= outer.ended_at + 0.002, inner.name
    stage.unassign("alpha")


def test_inline_the_statement_lies_below_the_attempt(stage, collector) -> None:
    trace, span, headers = caller()
    assert ask(stage, f"/v1/count/{stage.lens}", headers).json() == {"count": 5000}
    spans = collector.wait_for(trace, 4)
    chain = [of(spans, name) for name in ("POST ", "dispatch", "attempt", "SELECT")]
    assert [each.parent for each in chain] == [span, *(each.id for each in chain[:-1])]
    assert chain[2].kind == INTERNAL
    assert chain[2].attributes["lensway.via"] == "inline"


def test_a_lost_runner_and_its_successor_are_two_attempts(stage, collector) -> None:
    lost = stage.runner("alpha", environment=collector.environment)
    stage.runner("beta", environment=collector.environment)
    stage.assign("alpha")
    trace, _, headers = caller()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answering = pool.submit(ask, stage, f"/v1/query/{stage.slow_lens}", headers, {"limit": 1})
        running = (
            "SELECT FROM pg_stat_activity WHERE state = 'active' AND usename = 'orders_reader' AND query LIKE '%slow%'"
        )
        wait_until(lambda: bool(asyncio.run(stage.database.fetch(running))), seconds=10, what="the statement to run")
        stage.assign("beta")
        lost.kill()
        answer = answering.result()
    assert answer.json()["meta"]["route"]["runner"] == stage.name("beta")
    spans = collector.wait_for(trace, 6)
    first, second = sorted((each for each in spans if each.name == "attempt"), key=lambda each: each.started_at)
    assert (first.attributes["lensway.runner"], second.attributes["lensway.runner"]) == (
        stage.name("alpha"),
        stage.name("beta"),
    )
    assert first.attributes["lensway.outcome"].startswith("lost:")
    assert (first.is_error, second.is_error) == (True, False)
    assert first.parent == second.parent == of(spans, "dispatch").id
    assert of(spans, "job").parent == second.id


def test_a_caller_that_is_not_sampled_makes_no_spans_and_a_broken_header_begins_a_new_trace(stage, collector) -> None:
    unsampled, _, headers = caller(is_sampled=False)
    assert ask(stage, f"/v1/query/{stage.lens}", headers).status_code == 200
    known = {span.trace for span in collector.spans()}
    requests = {}
    for broken in (
        "nonsense",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "é" * 900,
    ):
        answer = ask(
            stage, f"/v1/query/{stage.lens}", {"traceparent": broken.encode("latin-1"), "tracestate": "=,\t=="}
        )
        assert answer.status_code == 200
        requests[answer.headers["X-Request-Id"]] = broken

    def roots() -> list[CollectedSpan]:
        return [span for span in collector.spans() if span.attributes.get("lensway.request") in requests]

    wait_until(lambda: len(roots()) == len(requests), seconds=10, what="the requests to be traced")
    assert {span.parent for span in roots()} == {""}
    assert len({span.trace for span in roots()} - known) == len(requests)
    assert collector.spans(unsampled) == []


def test_a_failure_and_a_cut_stream_say_so(stage, collector) -> None:
    trace, _, headers = caller()
    assert ask(stage, f"/v1/query/{stage.lens}", headers, {"unknown": 1}).status_code == 400
    request = of(collector.wait_for(trace, 1), "POST ")
    assert (request.attributes["error.type"], request.attributes["http.response.status_code"]) == (
        "invalid_request",
        400,
    )
    assert request.is_error
    trace, _, headers = caller()
    fields = {"id": {"type": "integer", "primaryKey": True}}
    lens = {"source": stage.source, "table": "public.nowhere", "fields": fields}
    assert stage.client.put(f"/v1/lenses/{stage.lens}-lost", json=lens).status_code == 200
    assert ask(stage, f"/v1/query/{stage.lens}-lost", headers).status_code == 422
    spans = collector.wait_for(trace, 4)
    assert {span.attributes.get("error.type") for span in spans} >= {"SOURCE_QUERY_FAILED"}
    assert of(spans, "SELECT").attributes["db.response.status_code"] == "42P01"
    assert all(span.is_error for span in spans)


def test_a_stream_is_over_with_its_last_row(stage, collector) -> None:
    trace, _, headers = caller()
    answer = ask(stage, f"/v1/query/{stage.lens}/export", {**headers, "Accept": "text/csv"})
    assert answer.text.count("\n") == 5001
    spans = collector.wait_for(trace, 4)
    assert of(spans, "POST ").attributes["lensway.outcome"] == "ok"
    assert of(spans, "SELECT").attributes["db.response.returned_rows"] == 5000
    assert "released" in of(spans, "dispatch").events


def test_the_clients_own_span_is_the_parent(traced, stage, collector) -> None:
    context = api.SpanContext(secrets.randbits(128), secrets.randbits(64), False, api.TraceFlags(1))
    with api.use_span(api.NonRecordingSpan(context)), lensway.client.connect(traced.url, traced.admin_key) as client:
        assert client.count(stage.lens) == 5000
    spans = collector.wait_for(f"{context.trace_id:032x}", 4)
    assert of(spans, "POST ").parent == f"{context.span_id:016x}"


def test_no_collector_and_one_that_hangs_cost_no_query_anything(tmp_path, orders, stage_of) -> None:
    def sending_to(port: int) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "20"}

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Deployment(tmp_path, environment=sending_to(silent.getsockname()[1])) as deployment,
        stage_of(deployment, orders) as stage,
    ):
        runner = stage.runner("alpha", environment=sending_to(free_ports(1)[0]))
        stage.assign("alpha")
        started = time.monotonic()
        for _ in range(100):
            assert stage.query().status_code == 200
        assert time.monotonic() - started < 5
        started = time.monotonic()
        assert runner.stop() == 0
        assert deployment.server.stop() == 0
        assert time.monotonic() - started < 2 * limits.TRACE_FLUSH_SECONDS + 6


def test_a_runner_for_which_it_is_off_sends_nothing(stage, collector) -> None:
    stage.runner("alpha", environment=collector.environment | OFF)
    stage.assign("alpha")
    trace, _, headers = caller()
    assert ask(stage, f"/v1/query/{stage.lens}", headers).status_code == 200
    collector.wait_for(trace, 3)
    assert [span.service for span in collector.spans(trace)] == ["lensway-server"] * 3


def test_what_was_sent_has_known_names_and_no_secret(traced, stage, collector, canary) -> None:
    def ask_everything(spans_of_a_job: int) -> None:
        expected = {}
        for path, body, count in (
            (f"query/{stage.lens}", {"where": {"customer": "customer 7"}}, spans_of_a_job),
            (f"query/{stage.lens}", {"where": {"customer": canary}}, spans_of_a_job),
            (f"query/{stage.lens}/export", {}, spans_of_a_job),
            (f"query/{stage.lens}", {"where": {canary: 1}}, 1),
        ):
            trace, _, headers = caller()
            ask(stage, f"/v1/{path}", headers, body)
            expected[trace] = count
        for trace, count in expected.items():
            collector.wait_for(trace, count)

    ask_everything(4)
    stage.runner("alpha", environment=collector.environment)
    stage.assign("alpha")
    ask_everything(5)
    stage.unassign("alpha")
    spans = collector.spans()
    assert {span.service for span in spans} == {"lensway-server", "lensway-runner"}
    assert {name for span in spans for name in span.attributes} <= {each.value for each in Attribute}
    assert {name for span in spans for name in span.events} <= {each.value for each in Moment}
    assert leaks({"spans": collector.received()}, {"password": canary, "admin key": traced.admin_key}) == []
    assert b"customer 7" not in collector.received()
