"""R9: a connection test names every assigned runner, also those that cannot test: offline, revoked, never connected."""

from __future__ import annotations

import datetime

import pytest

from lensway.testing.deployment import Deployment, wait_until

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


def test_the_time_of_a_state_survives_a_restart_of_the_server(tmp_path) -> None:
    with Deployment(tmp_path) as deployment:
        client = deployment.client()
        for name in ("stays", "leaves"):
            deployment.start_runner(deployment.create_runner(name))
        deployment.runners[1].stop()

        def states() -> dict[str, tuple[str, datetime.datetime]]:
            found = client.get("/v1/runners").json()["runners"]
            moments = {each["name"]: datetime.datetime.fromisoformat(each["since"]) for each in found}
            return {each["name"]: (each["status"], moments[each["name"]]) for each in found}

        def are_settled() -> bool:
            return {state for state, _ in states().values()} == {"healthy", "offline"}

        wait_until(are_settled, seconds=10, what="one runner to be healthy and one to be offline")
        before = states()
        for end in (lambda server: server.stop(), lambda server: server.kill()):
            end(deployment.server)
            deployment.start_server()
            wait_until(are_settled, seconds=30, what="the runner to be back")
            for name, (state, since) in states().items():
                assert (name, state) == (name, before[name][0])
                assert abs((since - before[name][1]).total_seconds()) < 0.5, name
