"""An error's hint fits its reason: how each absent runner comes back, what a publishable key lacks, which deadline passed."""

from __future__ import annotations

import re

import pytest

from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance


def refusal(stage, **options) -> dict:
    answer = stage.query(**options)
    assert answer.status_code >= 400, answer.text
    return answer.json()["error"]


def test_the_hint_says_how_each_absent_runner_comes_back(stage) -> None:
    act = lambda name, action: stage.client.post(f"/v1/runners/{stage.name(name)}/{action}")  # noqa: E731
    stage.runner("never", start=False)
    stage.assign("never")
    error = refusal(stage)
    assert error["code"] == "no_runners_online"
    assert f"Start {stage.name('never')} with `lensway runner start` and the variables" in error["hint"]
    assert (
        f"`lensway runners assign RUNNER {stage.source}`; without any, the source is executed inline" in error["hint"]
    )
    assert set(error["details"]["runners"][0]) == {"name", "state"}
    assert act("never", "revoke").json()["warnings"], "it says what that means"
    error = refusal(stage)
    assert f"`lensway runners rotate {stage.name('never')}`" in error["hint"]
    assert "runner start`." not in error["hint"].replace("start `", "")
    # The way that takes the least effort comes first.
    process = stage.runner("other")
    stage.assign("other")
    assert act("other", "drain").status_code == 200
    assert f"Resume {stage.name('other')} with `lensway runners resume {stage.name('other')}`" in refusal(stage)["hint"]
    assert act("other", "resume").status_code == 200
    assert process.stop() == 0
    wait_until(lambda: stage.status_of("other")["status"] == "offline", seconds=5, what="offline")
    assert f"Start {stage.name('other')} with `lensway runner start`; its log" in refusal(stage)["hint"]
    stage.client.patch(f"/v1/sources/{stage.source}", json={"execution": "runner_required"})
    assert "inline" not in refusal(stage)["hint"]
    public = stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "pk", "name": "w"}).json()["key"])
    definition = stage.client.get("/v1/config").json()["lenses"][stage.lens]
    granted = stage.client.put(f"/v1/lenses/{stage.lens}", json=definition | {"grants": {"query": "public"}})
    assert granted.status_code == 200, granted.text
    answer = stage.query(client=public)
    assert answer.status_code == 503
    assert stage.name("never") not in answer.text
    assert stage.name("other") not in answer.text


def test_revoking_the_last_runner_warns_of_what_it_leaves(stage) -> None:
    stage.runner("only", start=False)
    stage.assign("only")
    answer = stage.client.post(f"/v1/runners/{stage.name('only')}/revoke").json()
    codes = [warning["code"] for warning in answer["warnings"]]
    assert codes == ["no_live_runner_left", "runner_offline"]
    assert "rotate its token" in answer["warnings"][1]["message"]


def test_a_publishable_key_learns_of_grants_and_not_of_lenses(stage) -> None:
    public = stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "pk", "name": "w"}).json()["key"])
    texts = []
    for lens in (stage.lens, "nosuchlens"):
        for path in (f"/v1/query/{lens}", f"/v1/query/{lens}/export", f"/v1/count/{lens}", f"/v1/query/{lens}/explain"):
            answer = public.post(path, json={})
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert 'grants.query = "public"' in error["hint"]
            texts.append(_without_names(error, lens))
        answer = public.get(f"/v1/lenses/{lens}")
        assert answer.status_code == 404
        texts.append(_without_names(answer.json()["error"], lens))
    assert texts[:5] == texts[5:], "the same answers, whether or not the lens exists"
    assert "grants" not in stage.client.post("/v1/query/nosuchlens", json={}).json()["error"]["hint"]


def _without_names(error: dict, lens: str) -> str:
    """All that the answer says but for its id, the name that was asked for, and a granted lens with a similar name."""
    error.pop("requestId")
    error["details"].pop("nearest", None)
    error["hint"] = re.sub(r"Did you mean '\w+'\? ", "", error["hint"])
    return repr(error).replace(lens, "LENS")


@pytest.mark.parametrize(("milliseconds", "text"), [(250, "250 ms"), (1000, "1 s"), (1500, "1.5 s")])
def test_the_deadline_that_passed_is_the_one_that_was_set(stage, milliseconds: int, text: str) -> None:
    error = refusal(stage, body={"limit": 1, "timeoutMs": milliseconds}, lens=stage.slow_lens)
    assert error["code"] == "QUERY_TIMEOUT"
    assert f"The deadline passed after {text} (" in error["message"]
