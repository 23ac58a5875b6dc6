"""R9: a connection test names every assigned runner, also those that cannot test: offline, revoked, never connected."""

from __future__ import annotations

import pytest

from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance


def results_of(stage, **params: str) -> dict[str, dict]:
    answer = stage.client.post(f"/v1/sources/{stage.source}/test", params=params)
    assert answer.status_code == 200, answer.text
    return {result["runner"]: result for result in answer.json()["results"]}


def reason(result: dict) -> str:
    assert not result["ok"]
    first, *rest = result["stages"]
    assert (first["stage"], first["ok"]) == ("runner", False)
    assert [each["ok"] for each in rest] == [None] * 7
    assert first["hint"]
    return first["error"]


def test_r9_the_test_lists_assigned_runners_that_are_not_there(stage) -> None:
    stage.runner("alpha")
    stage.runner("beta").kill()
    stage.runner("gamma", start=False)
    stage.runner("delta")
    for name in ("alpha", "beta", "gamma", "delta"):
        stage.assign(name)
    stage.client.post(f"/v1/runners/{stage.name('delta')}/revoke")
    wait_until(lambda: stage.status_of("beta")["status"] == "offline", seconds=5, what="beta to be offline")
    results = results_of(stage)
    assert {name: result["ok"] for name, result in results.items()} == {
        stage.name("alpha"): True,
        stage.name("beta"): False,
        stage.name("gamma"): False,
        stage.name("delta"): False,
    }
    assert reason(results[stage.name("beta")]) == "offline"
    assert reason(results[stage.name("gamma")]) == "never_connected"
    assert reason(results[stage.name("delta")]) == "revoked"
    assert stage.name("beta") in results[stage.name("beta")]["stages"][0]["hint"]
    shown = stage.deployment.cli("sources", "test", stage.source)
    assert shown.returncode == 1
    for name in ("beta", "gamma", "delta"):
        assert stage.name(name) in shown.stdout, shown.stdout


def test_r9_the_test_names_the_reason_when_no_assigned_runner_is_there(stage) -> None:
    stage.runner("alpha", start=False)
    assert reason(results_of(stage, runner=stage.name("alpha"))[stage.name("alpha")]) == "never_connected"
    verified = stage.client.put(f"/v1/runners/{stage.name('alpha')}/sources/{stage.source}", params={"verify": "true"})
    assert verified.status_code == 409
    assert reason(verified.json()["error"]["details"]["results"][0]) == "never_connected"
    stage.assign("alpha")
    assert reason(results_of(stage)[stage.name("alpha")]) == "never_connected"
    stage.start("alpha")
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/drain")
    drained = results_of(stage)[stage.name("alpha")]
    assert reason(drained) == "draining"
    assert "resume" in drained["stages"][0]["hint"]
