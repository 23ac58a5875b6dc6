"""What the owner of a runner's network has: a policy that may change, a file of jobs, health pages, and commands that explain."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import signal
import sqlite3
import tempfile
from collections.abc import Mapping

import httpx2
import pytest

from lensway.testing.deployment import Process, free_ports, wait_until

pytestmark = pytest.mark.acceptance


class Owned:
    """One runner with a policy file, a file of jobs and health pages."""

    def __init__(
        self, stage, directory: pathlib.Path, policy: str = "", settings: Mapping[str, str] | None = None
    ) -> None:
        self.stage = stage
        self.file = directory / "policy.toml"
        self.file.write_text(policy)
        self.jobs_file = directory / "jobs.log"
        (port,) = free_ports(1)
        self.health = f"http://127.0.0.1:{port}"
        self.environment = {
            "LENSWAY_RUNNER_POLICY": str(self.file),
            "LENSWAY_RUNNER_JOB_LOG": str(self.jobs_file),
            "LENSWAY_RUNNER_HEALTH": f"127.0.0.1:{port}",
            # The path of a socket is short.
            "LENSWAY_RUNNER_STATE_DIR": tempfile.mkdtemp(prefix="owned-"),
            **(settings or {}),
        }
        stage.runner("alpha", start=False)
        stage.assign("alpha")
        self.process: Process = stage.start("alpha", environment=self.environment)

    def write(self, text: str) -> None:
        """Change the policy and tell the runner."""
        self.file.write_text(text)
        self.process.signal(signal.SIGHUP)

    def page(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.health}{path}", trust_env=False)

    def jobs(self) -> list[dict]:
        return [json.loads(line) for line in self.jobs_file.read_text().splitlines()]

    def code(self, body: dict | None = None, lens: str | None = None) -> str:
        answer = self.stage.query(body, lens=lens)
        return "ok" if answer.status_code == 200 else answer.json()["error"]["code"]


@pytest.fixture
def owned(stage, tmp_path: pathlib.Path) -> Owned:
    return Owned(stage, tmp_path)


def test_a_policy_that_changes_is_obeyed_at_once(owned: Owned) -> None:
    assert owned.code() == "ok"
    for policy, part in (
        ("sources = ['other']", "policy"),
        ("tables = ['public.other']", "the table public.orders"),
        ("withhold = ['*.total_amount']", "the column public.orders.total_amount"),
        ("hosts = ['192.0.2.0/24']", "policy"),
        ("ports = [1]", "policy"),
    ):
        owned.write(policy)
        wait_until(lambda: owned.code() == "refused_by_runner", seconds=5, what=policy)
        error = owned.stage.query().json()["error"]
        assert part in error["message"] + error["hint"], policy
        owned.write("")
        wait_until(lambda: owned.code() == "ok", seconds=5, what=f"no {policy}")
    outcomes = {job["outcome"] for job in owned.jobs()}
    assert outcomes == {"completed", "refused_by_runner"}


def test_a_withheld_column_is_refused_wherever_a_query_uses_it_and_hidden_in_introspection(
    stage, tmp_path: pathlib.Path
) -> None:
    owned = Owned(stage, tmp_path, "withhold = ['orders.total_amount']")
    for body in (
        {"limit": 1},
        {"select": ["total"], "limit": 1},
        {"select": ["id"], "where": {"total": {"$gt": 3}}, "limit": 1},
        {"select": ["id"], "orderBy": [{"field": "total"}], "limit": 1},
        {"select": ["id"], "where": {"$or": [{"id": 1}, {"$not": {"total": None}}]}, "limit": 1},
    ):
        answer = stage.query(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "refused_by_runner"), body
    counted = stage.client.post(f"/v1/count/{stage.lens}", json={"where": {"total": {"$gt": 3}}})
    assert counted.status_code == 403
    assert owned.code({"select": ["id", "customer"], "where": {"id": 7}, "limit": 1}) == "ok"
    table = stage.client.get(f"/v1/sources/{stage.source}/tables/public.orders").json()
    assert "total_amount" not in [column["name"] for column in table["columns"]]
    assert "customer" in [column["name"] for column in table["columns"]]
    test = stage.client.post(f"/v1/sources/{stage.source}/test").json()["results"][0]
    assert (test["ok"], test["stages"][-1]["error"]) == (False, "refused_by_runner")
    assert "total_amount" in test["stages"][-1]["hint"]


def test_a_running_query_ends_when_the_policy_forbids_it(owned: Owned) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(owned.stage.query, None, lens=owned.stage.slow_lens)
        wait_until(lambda: "lensway_runner_jobs 1" in owned.page("/metrics").text, seconds=5, what="a running job")
        owned.write("tables = ['public.orders']")
        answer = running.result(5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "refused_by_runner")
    assert answer.elapsed.total_seconds() < 1.9, "the view takes two seconds"


def test_a_policy_that_is_not_valid_leaves_the_one_before_in_force_and_shows(owned: Owned) -> None:
    owned.write("tables = ['public.other']")
    wait_until(lambda: owned.code() == "refused_by_runner", seconds=5, what="the new policy")
    owned.write("tabless = ['public.*']")
    wait_until(lambda: owned.stage.status_of("alpha")["status"] == "degraded", seconds=10, what="degraded")
    shown = owned.stage.status_of("alpha")
    assert shown["cause"] == "policy_invalid"
    assert "lensway runner policy check" in shown["hint"]
    assert owned.code() == "refused_by_runner"
    assert "lensway_runner_policy_valid 0" in owned.page("/metrics").text
    identity = owned.stage.identities["alpha"]
    environment = owned.environment | {
        "LENSWAY_RUNNER_ID": identity.id,
        "LENSWAY_RUNNER_TOKEN": identity.token,
        "LENSWAY_GATEWAY_URL": owned.stage.deployment.gateway_url,
    }
    status = owned.stage.deployment.cli("runner", "status", environment=environment)
    assert "tabless" in status.stdout
    owned.write("")
    wait_until(lambda: owned.stage.status_of("alpha")["status"] == "healthy", seconds=10, what="healthy")
    assert owned.code() == "ok"


def test_limits_of_the_policy_are_told_as_its_own(owned: Owned) -> None:
    owned.write("seconds_max = 0.2")
    wait_until(lambda: owned.code(lens=owned.stage.slow_lens) == "QUERY_TIMEOUT", seconds=5, what="the limit")
    error = owned.stage.query(lens=owned.stage.slow_lens).json()["error"]
    assert "0.2 s" in error["message"]
    assert "seconds_max" in error["hint"]
    owned.write("jobs_max = 1")
    wait_until(lambda: owned.code(lens=owned.stage.slow_lens) == "ok", seconds=10, what="no limit of time")


def test_the_file_of_jobs_says_who_asked_what_and_holds_no_value(owned: Owned) -> None:
    body = {"select": ["id"], "where": {"customer": "customer 42"}, "limit": 3}
    for value in ("customer 42", "customer 43"):
        body["where"]["customer"] = value
        assert owned.code(body) == "ok"
    wait_until(lambda: owned.jobs_file.read_text().count("completed") >= 2, seconds=5, what="two lines")
    first, second = [job for job in owned.jobs() if job["rows"] == 3]
    assert (first["lens"], first["tables"], first["outcome"]) == (owned.stage.lens, ["public.orders"], "completed")
    assert first["key_id"]
    assert first["at"].endswith("+00:00")
    assert first["fingerprint"] == second["fingerprint"] != ""
    assert first["bytes"] > 0
    text = owned.jobs_file.read_text()
    assert "customer 42" not in text
    assert owned.jobs_file.stat().st_mode & 0o077 == 0


def test_the_health_pages_tell_alive_from_ready(owned: Owned) -> None:
    assert owned.page("/livez").status_code == 200
    assert owned.page("/readyz").status_code == 200
    assert owned.code() == "ok"
    text = owned.page("/metrics").text
    for line in (
        "lensway_runner_connected 1",
        'lensway_runner_jobs_total{outcome="completed"} 1',
        "lensway_runner_rows_total 1",
        f'lensway_source_up{{source="{owned.stage.source}"}} 1',
        "lensway_build_info{version=",
    ):
        assert line in text
    assert owned.page("/").status_code == 404
    assert owned.page("/metrics").headers["cache-control"] == "no-store"
    owned.stage.client.post(f"/v1/runners/{owned.stage.name('alpha')}/revoke")
    wait_until(lambda: not owned.process.is_running, seconds=10, what="the end of a revoked runner")


def test_a_runner_without_a_gateway_is_alive_and_not_ready(stage, tmp_path: pathlib.Path) -> None:
    stage.runner("alpha", start=False)
    (closed, port) = free_ports(2)
    process = stage.deployment.start_runner(
        stage.identities["alpha"],
        gateway_url=f"ws://127.0.0.1:{closed}/connect",
        environment={"LENSWAY_RUNNER_HEALTH": f"127.0.0.1:{port}"},
        wait=False,
    )
    stage.started.append(process)
    process.wait_line("cannot connect")
    assert httpx2.get(f"http://127.0.0.1:{port}/livez", trust_env=False).status_code == 200
    ready = httpx2.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    assert ready.status_code == 503
    assert ready.text.startswith("connecting (")
    assert process.stop() == 0


def test_the_policy_check_explains(shared, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("tables = ['public.*']\nwithhold = ['*.ssn']\nhosts = ['*.internal']\nports = [5432]\n")
    said = shared.cli("runner", "policy", "check", str(file), "--host", "db.internal:5432", "--table", "public.people")
    assert said.returncode == 0, said.stderr
    assert "Withheld columns: *.ssn." in said.stdout
    for arguments in (
        ("--host", "db.internal:1433"),
        ("--host", "10.0.0.1"),
        ("--table", "secret.people"),
        ("--table", "people", "--column", "SSN"),
        ("--path", str(tmp_path / "data.sqlite")),
    ):
        refused = shared.cli("runner", "policy", "check", str(file), *arguments)
        assert refused.returncode == 1, arguments
        verdicts = json.loads(refused.stdout)["verdicts"]
        assert not verdicts[-1]["isAllowed"]
        assert verdicts[-1]["rule"] in ("hosts, ports", "source_dirs", "tables", "withhold")
    file.write_text("tabless = []")
    broken = shared.cli("runner", "policy", "check", str(file))
    assert broken.returncode == 2
    assert "tabless" in broken.stderr
    assert "Known keys" in broken.stderr


def test_a_file_source_ends_when_its_directory_is_not_allowed_any_more(stage, tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    sqlite3.connect(data / "shop.sqlite").executescript(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)"
    )
    name = f"{stage.source}-file"
    created = stage.client.post("/v1/sources", json={"name": name, "bridge": "sqlite", "credentials": "runner-local"})
    assert created.status_code == 201, created.text
    variable = f"LENSWAY_SOURCE_{name.upper().replace('-', '_')}_PATH"
    settings = {variable: str(data / "shop.sqlite")}
    owned = Owned(stage, tmp_path, f"source_dirs = ['{data}']", settings)
    stage.deployment.assign(stage.name("alpha"), name)
    lens = f"{stage.lens}file"
    put = stage.client.put(
        f"/v1/lenses/{lens}",
        json={"source": name, "table": "t", "fields": {"id": {"type": "integer", "primaryKey": True}}},
    )
    assert put.status_code == 200
    assert owned.code(lens=lens) == "ok"
    owned.write("source_dirs = []")
    wait_until(lambda: owned.code(lens=lens) == "refused_by_runner", seconds=5, what="the refusal")


def test_the_servers_metrics_follow_a_source_and_count_connections(stage) -> None:
    def metric(text: str) -> str:
        lines = stage.client.get("/metrics").text.splitlines()
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(text)), "")

    up = f'lensway_source_up{{environment="default",source="{stage.source}"}}'
    assert metric(up) == "", "an inline source has no state"
    before = float(metric("lensway_pool_connections"))
    assert stage.query().status_code == 200
    assert float(metric("lensway_pool_connections")) == before + 1
    assert float(metric("lensway_queue_jobs")) == 0
    stage.runner("alpha")
    stage.assign("alpha")
    wait_until(lambda: metric(up) == "1.0", seconds=5, what="a source that is up")
    stage.started[0].kill()
    wait_until(lambda: metric(up) == "0.0", seconds=5, what="a source that is down")
    assert "lensway_build_info{" in stage.client.get("/metrics").text
