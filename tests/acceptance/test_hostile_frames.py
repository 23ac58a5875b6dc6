"""A runner with a good token floods, lies and sends garbage: nobody else notices, and what it says is bounded."""

from __future__ import annotations

import pathlib

import httpx2
import msgspec
import pytest

from lensway.protocol.frames import Accept, AnyFrame, Data, End, Offer, Refuse, RefuseReason
from lensway.query.result import ResultEnd, encode_end
from lensway.testing.deployment import wait_until
from lensway.testing.hostile_run import run_hostile
from lensway.testing.hostile_runner import HostileRunner

pytestmark = pytest.mark.acceptance


def test_a_hostile_runner_holds_neither_the_loop_nor_memory_and_harms_no_other_query(tmp_path: pathlib.Path) -> None:
    outcome = run_hostile(tmp_path, seconds=14)
    assert outcome.is_up
    assert outcome.tracebacks == 0, outcome.unanswered
    assert not outcome.wrong
    assert not outcome.unanswered
    assert len(outcome.played) >= 10
    assert outcome.longest_turns[0] <= 50, outcome.longest_turns
    assert outcome.grown_mib <= 64


@pytest.fixture
def answering(stage):
    """Gives a function that connects a runner which answers every offer with these frames."""
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    identity = stage.identities["alpha"]

    def make(answers) -> HostileRunner:
        return HostileRunner(stage.deployment.gateway_url, identity.id, identity.token, answers=answers)

    return make


def rows(payload: bytes, count: int = 1):
    """Accepts every offer and sends these rows, some of them as data."""
    pieces = [payload[at : at + 60_000] for at in range(0, len(payload), 60_000)] or [b""]

    def answers(offer: Offer) -> list[AnyFrame]:
        key = {"job": offer.job, "attempt": offer.attempt}
        result = encode_end(ResultEnd(rows=count, bytes=len(payload)))
        data = [Data(**key, payload=piece, offset=60_000 * number) for number, piece in enumerate(pieces[:-1])]
        return [Accept(**key), *data, End(**key, result=result, sent_bytes=len(payload), tail=pieces[-1])]

    return answers


def connected(stage) -> None:
    wait_until(lambda: bool(stage.status_of("alpha")["instances"]), seconds=5, what="the hostile runner")


@pytest.mark.parametrize("payload", [b'{"id":1]}', b"<script>", b'{"id":1}],"meta":{},"x":[{}', b'{"id":"\xff"}', b""])
def test_rows_that_are_no_rows_reach_no_caller(stage, answering, payload: bytes) -> None:
    with answering(rows(payload)):
        connected(stage)
        answer = stage.query()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "runner_failed"), answer.text
        assert b"script" not in answer.content
        count = stage.client.post(f"/v1/count/{stage.lens}", json={})
        assert (count.status_code, count.json()["error"]["code"]) == (502, "runner_failed"), count.text


def test_lines_that_are_no_rows_cut_their_stream(stage, answering) -> None:
    with answering(rows(b'{"id":1}\n' * 100 + b"<script>\n", 101)):
        connected(stage)
        with pytest.raises(httpx2.RemoteProtocolError):
            stage.client.post(f"/v1/query/{stage.lens}/export", json={}, headers={"Accept": "application/x-ndjson"})


def test_a_refusal_of_200_kilobytes_is_cut_before_it_reaches_a_caller(stage, answering) -> None:
    def answers(offer: Offer) -> list[AnyFrame]:
        reason = RefuseReason.POLICY
        return [Refuse(job=offer.job, attempt=offer.attempt, reason=reason, revision=0, message="x" * 200_000)]

    with answering(answers):
        connected(stage)
        answer = stage.query()
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "refused_by_runner")
        assert len(answer.content) < 5_000


def test_a_report_of_a_test_is_bounded_and_its_texts_are_cut(stage, answering) -> None:
    stages = [
        {"stage": name, "ok": True, "ms": 1.0, "error": "e" * 5_000, "hint": "h" * 5_000}
        for name in ("dns", "tcp", "tls", "login", "query", "read_only", "lenses")
    ]
    report = {"ok": True, "stages": stages, "warnings": [{"code": "x", "message": "m", "evil": "e"}] * 500}
    for more, is_ok in ({"serverVersion": "v" * 5_000}, True), ({"serverVersion": "v" * 400_000}, False):
        with answering(rows(msgspec.json.encode({**report, **more}))):
            connected(stage)
            answer = stage.client.post(f"/v1/sources/{stage.source}/test")
            [result] = answer.json()["results"]
            assert result["ok"] is is_ok, answer.text[:500]
            assert len(answer.content) < 20_000
