"""Who got in and who was refused stands in the audit and in the log: few rows, every event counted, for those who may read it."""

from __future__ import annotations

import json
import pathlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment, wait_until

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def deployment(tmp_path_factory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("audited")) as running:
        yield running


def entries(deployment: Deployment, is_meant: Callable[[dict], bool], *, key: str | None = None) -> list[dict]:
    found = deployment.client(key).get("/v1/audit", params={"limit": 1000}).json()["entries"]
    return [entry for entry in found if is_meant(entry)]


def made(deployment: Deployment, **body: object) -> dict:
    created = deployment.client().post("/v1/keys", json={"name": "audited", **body}).json()
    deployment.secrets[created["id"]] = created["key"]
    return created


def counted(found: list[dict]) -> int:
    return sum(entry["count"] for entry in found)


def test_a_key_in_a_url_a_thousand_times_is_a_few_rows(deployment: Deployment) -> None:
    key = made(deployment, kind="pk")
    with httpx2.Client(base_url=deployment.url, trust_env=False) as anybody:
        for _ in range(1_000):
            assert anybody.get("/v1/lenses", params={"key": key["key"]}).status_code == 400
    found = entries(deployment, lambda entry: entry["object"] == key["id"] and entry["action"] == "credential.in_url")
    assert counted(found) == 1_000
    assert len(found) <= 3
    lines = [line for line in deployment.server.output.text().splitlines() if key["id"] in line]
    assert 1 <= len(lines) <= 3
    assert {json.loads(line)["action"] for line in lines} == {"credential.in_url"}


def test_wrong_and_expired_keys_leave_a_trace(deployment: Deployment) -> None:
    wrong = deployment.client("sk_" + secrets.token_urlsafe(32))
    before = counted(entries(deployment, lambda entry: entry["action"] == "authenticate"))
    for _ in range(20):
        assert wrong.get("/v1/lenses").status_code == 401
    assert deployment.client("nonsense").get("/v1/lenses").status_code == 401
    found = entries(deployment, lambda entry: entry["action"] == "authenticate")
    assert counted(found) - before == 21
    assert {entry["address"] for entry in found} == {"127.0.0.1"}
    assert {entry["outcome"] for entry in found} == {"unauthenticated"}


def test_refusals_name_who_was_refused_what(deployment: Deployment) -> None:
    viewer, service = made(deployment, kind="ak", role="viewer"), made(deployment, kind="sk")
    deployment.client(viewer["key"]).delete("/v1/keys/key_x")
    deployment.client(viewer["key"]).post("/v1/environments", json={"name": "x"})
    deployment.client(service["key"]).get("/v1/runners")
    found = entries(deployment, lambda entry: entry["outcome"] == "forbidden")
    assert {(entry["actor"].rpartition("(")[2][:-1], entry["action"], entry["object"]) for entry in found} == {
        (viewer["id"], "delete_key", "key_x"),
        (viewer["id"], "create_environment", ""),
        (service["id"], "list_runners", ""),
    }


def test_a_key_where_a_name_belongs_is_not_kept(deployment: Deployment) -> None:
    viewer = made(deployment, kind="ak", role="viewer")
    for client in (deployment.client(viewer["key"]), deployment.client()):
        for path in (f"/v1/keys/{viewer['key']}", f"/v1/lenses/{viewer['key']}", f"/v1/sources/{viewer['key']}"):
            assert client.delete(path).status_code in (403, 404)
    found = deployment.client().get("/v1/audit", params={"limit": 1000})
    assert viewer["key"] not in found.text
    assert {"delete_key", "key.delete"} <= {
        entry["action"] for entry in found.json()["entries"] if entry["object"] == "ak_…"
    }


def test_changes_that_are_refused_or_change_nothing_merge_too(deployment: Deployment) -> None:
    client = deployment.client()
    for _ in range(100):
        assert client.post("/v1/runners", json={"name": "in line"}).status_code == 400
    found = entries(deployment, lambda entry: entry["action"] == "runner.create")
    assert (counted(found), len(found) <= 3) == (100, True)


def test_sign_ins_and_outs(deployment: Deployment) -> None:
    key = made(deployment, kind="ak", role="viewer")
    with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
        assert browser.post("/console/login", data={"key": "ak_" + "x" * 43}).status_code == 401
        assert browser.post("/console/login", data={"key": key["key"]}).status_code == 303
    found = entries(deployment, lambda entry: entry["action"] == "sign-in.create")
    assert sorted((entry["outcome"], entry["object"]) for entry in found) == [
        ("ok", key["id"]),
        ("unauthenticated", ""),
    ]
    assert next(entry["actor"] for entry in found if entry["outcome"] == "ok") == f"audited ({key['id']})"


def test_sessions_of_runners(deployment: Deployment) -> None:
    identity = deployment.create_runner("traced")
    runner = deployment.start_runner(identity)
    runner.stop()

    def traced(action: str) -> list[dict]:
        return entries(deployment, lambda entry: entry["action"] == action and entry["object"] == identity.id)

    wait_until(lambda: bool(traced("runner.disconnect")), seconds=5, what="the end of the session")
    connected = traced("runner.connect")
    assert [(entry["actor"], entry["address"]) for entry in connected] == [(f"traced ({identity.id})", "127.0.0.1")]
    assert connected[0]["details"]["session"] == traced("runner.disconnect")[0]["details"]["session"]
    wrong = deployment.start_runner(
        type(identity)(name="stranger", id=identity.id, token="rk_" + secrets.token_urlsafe(32)), wait=False
    )
    assert wrong.wait() == 1
    refused = entries(deployment, lambda entry: entry["action"] == "runner.connect" and entry["outcome"] != "ok")
    assert {(entry["actor"], entry["outcome"]) for entry in refused} == {("unknown", "unauthenticated")}


def test_i10_the_trace_is_for_those_whom_it_concerns(deployment: Deployment) -> None:
    client = deployment.client()
    assert client.post("/v1/environments", json={"name": "elsewhere"}).status_code == 201
    here, wide = made(deployment, kind="ak"), made(deployment, kind="ak", instanceWide=True)
    answer = deployment.client(environment="elsewhere").post("/v1/keys", json={"kind": "ak", "name": "there"}).json()
    deployment.secrets["there"] = answer["key"]
    deployment.client("ak_" + "y" * 43).get("/v1/keys")
    of_all = entries(deployment, lambda entry: entry["environment"] is None, key=wide["key"])
    assert {"environment.create", "authenticate"} <= {entry["action"] for entry in of_all}
    environments = {entry["environment"] for entry in entries(deployment, lambda _entry: True, key=here["key"])}
    assert len(environments) == 1
    assert None not in environments
    assert entries(deployment, lambda entry: entry["action"] == "authenticate", key=answer["key"]) == []


def test_what_waits_is_written_at_the_end(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as own:
        wrong = own.client("sk_" + secrets.token_urlsafe(32))
        for _ in range(50):
            wrong.get("/v1/lenses")
        assert own.server.stop() == 0
        own.start_server()
        assert counted(entries(own, lambda entry: entry["action"] == "authenticate")) == 50


# --- verified, exported, shortened ----------------------------------------------------------------------------------------


def test_the_audit_is_verified_and_exported_by_instance_wide_admins_only(deployment: Deployment) -> None:
    client = deployment.client()
    found = client.get("/v1/audit/verify").json()
    assert (found["ok"], found["broken"], found["keyedFrom"]) == (True, None, 1)
    head = f"{found['head']['sequence']}:{found['head']['chain']}"
    made(deployment, kind="sk")
    assert client.get("/v1/audit/verify", params={"head": head}).json()["ok"]
    forged = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert not client.get("/v1/audit/verify", params={"head": forged}).json()["ok"]
    assert client.get("/v1/audit/verify", params={"head": "12"}).status_code == 400
    lines = [json.loads(line) for line in client.get("/v1/audit/export").text.splitlines()]
    *rows, last = lines
    assert last["$end"] == {"rows": len(rows), "sequence": rows[-1]["sequence"], "chain": rows[-1]["chain"]}
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert {"actor", "action", "count", "environment", "chain"} <= rows[0].keys()
    tail = client.get("/v1/audit/export", params={"after": rows[-3]["sequence"]}).text.splitlines()
    assert [json.loads(line).get("sequence") for line in tail[:2]] == [rows[-2]["sequence"], rows[-1]["sequence"]]
    for kind in ({"kind": "ak"}, {"kind": "ak", "role": "viewer"}, {"kind": "sk"}):
        other = deployment.client(made(deployment, **kind)["key"])
        for path in ("/v1/audit/verify", "/v1/audit/export"):
            assert other.get(path).status_code == 403


def test_commands_verify_and_export_and_notice_what_was_done_to_the_file(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path, serve_options=("--audit-days", "0")) as own:
        kept = tmp_path / "head"
        first = own.cli("audit", "verify", "--head-file", str(kept), "--json")
        assert first.returncode == 0, first.stderr
        assert kept.read_text().startswith(f"{json.loads(first.stdout)['head']['sequence']}:")
        assert own.cli("audit", "verify", "--head-file", str(kept)).returncode == 0
        exported = tmp_path / "audit.ndjson"
        done = own.cli("audit", "export", "-o", str(exported))
        assert done.returncode == 0, done.stderr
        assert "$end" in json.loads(exported.read_text().splitlines()[-1])
        assert own.cli("audit", "export").stdout.splitlines()[0] == exported.read_text().splitlines()[0]
        assert json.loads(own.cli("audit", "--limit", "1").stdout)[0]["count"] == 1
        own.server.stop()
        with sqlite3.connect(tmp_path / "data" / "lensway.db") as store:
            store.execute("UPDATE audit SET entry = replace(entry, 'server', 'nobody') WHERE sequence = 1")
        store.close()
        own.start_server()
        broken = own.cli("audit", "verify", "--head-file", str(kept))
        assert broken.returncode == 1
        assert "broken at row 1" in broken.stderr
        assert "Traceback" not in broken.stderr


def test_old_rows_go_at_the_start_and_that_is_in_the_audit(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path, serve_options=("--audit-days", "30")) as own:
        own.server.stop()
        with sqlite3.connect(tmp_path / "data" / "lensway.db") as store:
            text = store.execute("SELECT entry FROM audit WHERE sequence = 1").fetchone()[0]
            old = json.loads(text) | {"at": "2020-01-01T00:00:00.000+00:00"}
            store.execute("UPDATE audit SET entry = ? WHERE sequence = 1", [json.dumps(old)])
        store.close()
        own.start_server()
        wait_until(
            lambda: bool(entries(own, lambda entry: entry["action"] == "audit.prune")), seconds=5, what="the pruning"
        )
        pruned = entries(own, lambda entry: entry["action"] == "audit.prune")
        assert pruned[0]["details"]["rows"] == 1
        assert entries(own, lambda entry: entry["sequence"] == 1) == []
