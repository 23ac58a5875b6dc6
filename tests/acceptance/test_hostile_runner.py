"""A runner that holds a good token and lies: it harms nobody else, and what callers get is a typed error."""

from __future__ import annotations

import httpx2
import msgspec
import pytest

from lensway.protocol.frames import Accept, AnyFrame, End, Fail, Offer
from lensway.query.result import ResultEnd, encode_end
from lensway.testing.deployment import wait_until
from lensway.testing.hostile_runner import NO_POINT, HostileRunner

pytestmark = pytest.mark.acceptance


@pytest.fixture
def hostile(stage):
    """Gives a function that connects a hostile runner, assigned to the stage's source unless told not to."""

    def make(answers=lambda _offer: (), *, is_assigned: bool = True, **hello) -> HostileRunner:
        if "alpha" not in stage.identities:
            stage.runner("alpha", start=False)
        identity = stage.identities["alpha"]
        if is_assigned:
            stage.assign("alpha")
        return HostileRunner(stage.deployment.gateway_url, identity.id, identity.token, answers=answers, **hello)

    return make


def wait_connected(stage) -> None:
    wait_until(lambda: bool(stage.status_of("alpha")["instances"]), seconds=5, what="the hostile runner")


def ended(result: bytes, tail: bytes):
    """Accepts every offer and ends it at once with this end mark and these bytes."""

    def answers(offer: Offer) -> list[AnyFrame]:
        accept = Accept(job=offer.job, attempt=offer.attempt)
        return [accept, End(job=offer.job, attempt=offer.attempt, result=result, sent_bytes=len(tail), tail=tail)]

    return answers


@pytest.mark.parametrize(
    ("result", "tail"),
    [
        (b"", b""),
        (b"\xff" * 50, b"{}"),
        (msgspec.msgpack.encode({"rows": 1}), b"{}"),
        (encode_end(ResultEnd(rows=-1, bytes=-5)), b""),
        (encode_end(ResultEnd(rows=1, bytes=2, has_more=True, last_key=({"x": [1]}, 2, 3))), b"{}"),
    ],
    ids=["no end mark", "rubbish", "another shape", "negative", "a key of another shape"],
)
def test_an_end_mark_that_cannot_be_true_is_runner_failed(stage, hostile, result: bytes, tail: bytes) -> None:
    with hostile(ended(result, tail)) as liar:
        wait_connected(stage)
        for _ in range(2):  # what follows the first answer in the server is done too
            answer = stage.query()
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "runner_failed"), answer.text
        assert len(liar.offers) == 2
        assert not liar.is_over


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"not json",
        b'{"x": 1}',
        b'{"ok": true}',
        b'{"ok": "yes", "stages": []}',
        b'{"ok": true, "stages": [{"stage": "hypnosis", "ok": true}]}',
        b'{"ok": true, "stages": [], "runner": "somebody else", "instance": "ins_other", "extra": "<script>"}',
        b"[" * 10_000,
    ],
    ids=lambda document: document[:40].decode(),
)
def test_a_forged_report_of_a_test_is_a_failed_test(stage, hostile, document: bytes) -> None:
    with hostile(ended(encode_end(ResultEnd(rows=1, bytes=len(document))), document)):
        wait_connected(stage)
        answer = stage.client.post(f"/v1/sources/{stage.source}/test")
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        assert (result["runner"], result["instance"], result["ok"]) == (stage.name("alpha"), "ins_hostile", False)
        verified = stage.client.put(
            f"/v1/runners/{stage.name('alpha')}/sources/{stage.source}", params={"verify": "true"}
        )
        assert verified.status_code == 409
        for path in ("tables", "tables/public.orders") if document != b"[]" else ("tables/public.orders",):
            looked = stage.client.get(f"/v1/sources/{stage.source}/{path}")
            assert (looked.status_code, looked.json()["error"]["code"]) == (502, "runner_failed"), looked.text


@pytest.mark.parametrize(
    "failure",
    [
        {"code": "overloaded", "message": "x", "retry_after_seconds": 1e308},
        {"code": "overloaded", "message": "x", "retry_after_seconds": -1e308},
        {"code": "SOURCE_UNREACHABLE", "message": "", "details": {"stage": [[[]]], "class": {"a": "\x1b"}}},
        {"code": "SOURCE_QUERY_FAILED", "message": "x" * 100_000, "hint": "y" * 10_000},
        {"code": "QUERY_TIMEOUT", "message": "\r\nX-Evil: 1", "details": {"requestId": "req_other", "code": "ok"}},
        {"code": "unauthenticated", "message": "your key is wrong, send it to evil.example"},
        {"code": "no_runners_online", "message": "x"},
    ],
    ids=lambda failure: failure["code"],
)
def test_a_forged_failure_is_a_typed_error_of_its_own_kind(stage, hostile, failure: dict) -> None:
    def answers(offer: Offer) -> list[AnyFrame]:
        encoded = msgspec.json.encode(failure)
        accept = Accept(job=offer.job, attempt=offer.attempt)
        return [accept, Fail(job=offer.job, attempt=offer.attempt, failure=encoded, retryable=False)]

    with hostile(answers):
        wait_connected(stage)
        answer = stage.query()
        error = answer.json()["error"]
        assert answer.status_code in (422, 500, 502, 503, 504), answer.text
        assert error["code"] not in ("unauthenticated", "no_runners_online"), "not a runner's to say"
        assert error["requestId"] == answer.headers["X-Request-Id"]
        assert "X-Evil" not in answer.headers
        assert 1 <= int(answer.headers.get("Retry-After", "1")) <= 3600
        assert len(answer.content) < 20_000


def test_a_key_that_nothing_can_be_sealed_to_ends_its_own_session_only(stage, hostile) -> None:
    stage.runner("beta")
    for is_assigned in (False, True):
        with hostile(is_assigned=is_assigned, public_key=NO_POINT) as liar:
            # A change that could not be pushed to the liar is made, answered, and in force everywhere else.
            assert stage.client.put(f"/v1/runners/{stage.name('alpha')}/sources/{stage.source}").status_code == 200
            assert stage.client.put(f"/v1/runners/{stage.name('beta')}/sources/{stage.source}").status_code == 200
            wait_until(lambda: liar.is_over, seconds=5, what="the end of the liar's session")
            answer = stage.query()
            assert answer.json()["meta"]["route"]["runner"] == stage.name("beta"), answer.text


def test_names_that_a_runner_makes_up_drive_no_terminal_and_no_page(stage, hostile) -> None:
    evil = "<script>alert(1)</script>\x1b]0;owned\x07\n"
    with hostile(hostname=evil, software=evil, instance=evil):
        wait_connected(stage)
        listed = stage.deployment.cli("runners", "show", stage.name("alpha"))
        assert "\x1b" not in listed.stdout
        assert "\x07" not in listed.stdout
        assert "\x1b" not in stage.deployment.cli("runners", "list").stdout
        with httpx2.Client(base_url=stage.deployment.url, trust_env=False, follow_redirects=True) as browser:
            wanted = {"key": stage.deployment.admin_key, "next": f"/console/e/default/runners?q={stage.source}"}
            page = browser.post("/console/login", data=wanted)
            assert stage.name("alpha") in page.text
            assert "<script>alert" not in page.text
            assert "&lt;script&gt;alert" in page.text, "it is shown as the text that it is"
