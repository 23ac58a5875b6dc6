"""A limit that was met says whose it is and what to do about it: the key's, the lens's, the runner's policy, or the server's."""

from __future__ import annotations

import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance


def with_limits(stage, **limits: int) -> None:
    definition = stage.client.get("/v1/config").json()["lenses"][stage.lens]
    answer = stage.client.put(f"/v1/lenses/{stage.lens}", json=definition | {"limits": limits})
    assert answer.status_code == 200, answer.text


def key_with(deployment: Deployment, kind: str = "sk", **limits: int):
    answer = deployment.client().post("/v1/keys", json={"kind": kind, "name": "bounded", "limits": limits})
    return deployment.client(answer.json()["key"])


def refused(stage, path: str, body: dict | None = None, client=None) -> dict:
    answer = (client or stage.client).post(path, json=body or {})
    assert answer.status_code in (422, 504), answer.text
    return answer.json()["error"]


@pytest.mark.parametrize("is_dispatched", [False, True], ids=["inline", "runner"])
def test_of_key_and_lens(stage, is_dispatched: bool) -> None:
    if is_dispatched:
        stage.runner("alpha")
        stage.assign("alpha")
    page, export = f"/v1/query/{stage.lens}", f"/v1/query/{stage.lens}/export"
    error = refused(stage, export, client=key_with(stage.deployment, maxRows=7))
    assert error["message"] == "The result has more than 7 rows: the limit of this key (--max-rows)"
    assert error["hint"] == "Narrow it with `where`, or use a key with a higher limit."
    assert (error["details"]["limitOf"], error["details"]["limit"]) == ("key", 7)
    error = refused(stage, page, {"limit": 100}, client=key_with(stage.deployment, maxRows=7))
    assert "this key" in error["message"]
    assert "smaller page" in error["hint"]
    assert "export" not in error["hint"]
    with_limits(stage, maxRows=9)
    error = refused(stage, export)
    assert error["message"] == f"The result has more than 9 rows: the limit of lens '{stage.lens}' (limits.maxRows)"
    assert "raise limits.maxRows of the lens" in error["hint"]
    assert "this key" in refused(stage, export, client=key_with(stage.deployment, maxRows=7))["message"]
    assert "lens" in refused(stage, export, client=key_with(stage.deployment, maxRows=70))["message"]
    with_limits(stage, maxBytes=2000)
    error = refused(stage, export)
    assert "bytes: the limit of lens" in error["message"]
    assert "export it" not in error["hint"]
    with_limits(stage, maxRowBytes=20)
    error = refused(stage, page)
    assert (error["code"], error["details"]["limitOf"]) == ("row_too_large", "lens")
    assert "raise limits.maxRowBytes of the lens" in error["hint"]
    with_limits(stage)
    error = refused(stage, page, client=key_with(stage.deployment, maxRowBytes=20))
    assert error["details"]["limitOf"] == "key"


def test_of_a_deadline(stage) -> None:
    definition = stage.client.get("/v1/config").json()["lenses"][stage.slow_lens]
    slow = f"/v1/query/{stage.slow_lens}"
    error = refused(stage, slow, client=key_with(stage.deployment, timeoutMs=300))
    assert "The deadline passed after 300 ms" in error["message"]
    assert "the limit of this key (--timeout-ms)" in error["message"]
    stage.client.put(f"/v1/lenses/{stage.slow_lens}", json=definition | {"limits": {"timeoutMs": 200}})
    error = refused(stage, slow, {"timeoutMs": 5000})
    assert f"the limit of lens '{stage.slow_lens}' (limits.timeoutMs)" in error["message"]
    error = refused(stage, slow, {"timeoutMs": 100})
    assert "limit of" not in error["message"]
    assert "raise `timeoutMs`" in error["hint"]


def test_of_the_runners_policy(stage, tmp_path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("rows_max = 5\n")
    process = stage.runner("alpha", environment={"LENSWAY_RUNNER_POLICY": str(policy)})
    stage.assign("alpha")
    export = f"/v1/query/{stage.lens}/export"
    error = refused(stage, export)
    assert error["message"] == "The result has more than 5 rows: the limit of the runner's local policy (`rows_max`)"
    assert "the owner of the runner's network" in error["hint"]
    assert "this key" in refused(stage, export, client=key_with(stage.deployment, maxRows=4))["message"]
    definition = stage.client.get("/v1/config").json()["lenses"][stage.lens]
    stage.client.put(f"/v1/lenses/{stage.lens}", json=definition | {"grants": {"query": "public"}})
    public = refused(stage, export, client=key_with(stage.deployment, kind="pk"))
    assert stage.name("alpha") not in repr(public)
    assert process.is_running


def test_commands_and_clients_say_it_too(stage) -> None:
    with_limits(stage, maxRows=9)
    done = stage.deployment.cli("export", stage.lens, "-o", "rows.csv")
    assert done.returncode == 1
    assert "limits.maxRows" in done.stderr
    assert "export it" not in done.stderr
