"""The command line as a user has it: tables and JSON, exit codes, one helpful line for what is wrong."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import sys

import pytest

from lensway.testing.deployment import RunnerIdentity, clean_environment

pytestmark = pytest.mark.acceptance


def run(*arguments: str, cwd: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", *arguments],
        env=clean_environment() | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("--database-url", "postgresql://x"), {}, "--database-url"),
        (("--bus", "nats://x"), {}, "--bus"),
        (("--metrics", "nonsense"), {}, "--metrics"),
        (("--http", "nonsense"), {}, "--http"),
        (("--tls-cert", "x.pem"), {}, "--tls-key"),
        (("--no-such-option",), {}, "--no-such-option"),
        ((), {"LENSWAY_ADMIN_KEY": "ak_short"}, "LENSWAY_ADMIN_KEY"),
        ((), {"LENSWAY_MASTER_KEY": "short"}, "LENSWAY_MASTER_KEY"),
        (("--trusted-proxies", "everybody"), {}, "--trusted-proxies"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_exits_2(tmp_path, arguments, environment, named: str) -> None:
    done = run("serve", "--data-dir", "data", *arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert "ak_short" not in done.stderr


def test_a_port_or_directory_in_use_is_one_helpful_line(stage, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--data-dir", "data", "--http", f"127.0.0.1:{port}", cwd=tmp_path)
        assert (done.returncode, str(port) in done.stderr, "--http" in done.stderr) == (2, True, True), done.stderr
    data = stage.deployment.directory / "data"
    done = run("serve", "--data-dir", str(data), "--http", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    done = run(
        "serve", "--data-dir", str(data), "--http", "127.0.0.1:18080", "--gateway", "127.0.0.1:18081", cwd=tmp_path
    )
    assert (done.returncode, "another server" in done.stderr) == (2, True), done.stderr


def test_five_minutes_of_the_readme(stage, tmp_path) -> None:
    deployment, source = stage.deployment, f"{stage.source}-file"
    file = tmp_path / "lensway.toml"
    file.write_text(
        f"""
[sources.{source}]
bridge = "postgres"
config.url = "${{MAIN_URL}}"

[lenses.{source}]
source = "{source}"
table = "public.orders"
[lenses.{source}.fields]
id     = {{ type = "integer", primaryKey = true }}
total  = {{ type = "decimal", column = "total_amount" }}
placed = {{ type = "timestamp", column = "created_at" }}
"""
    )
    unset = deployment.cli("push", str(file))
    assert unset.returncode == 2
    assert "MAIN_URL" in unset.stderr
    settings = {"MAIN_URL": stage.database.reader_url}
    pushed = json.loads(deployment.cli("push", str(file), environment=settings).stdout)
    assert [change["action"] for change in pushed["changes"]] == ["created", "created"]
    again = json.loads(deployment.cli("push", str(file), environment=settings).stdout)
    assert {change["action"] for change in again["changes"]} == {"unchanged"}
    assert again["revision"] == pushed["revision"]
    assert stage.database.reader_password not in deployment.cli("pull").stdout
    assert json.loads(deployment.cli("sources", "test", source).stdout)["results"][0]["ok"]
    where = '{"total": {"$gt": 100}}'
    asked = deployment.cli("query", source, "--where", where, "--order-by", "placed:desc", "--limit", "5")
    assert [row["id"] for row in json.loads(asked.stdout)["rows"]] == [5000, 4999, 4998, 4997, 4996]
    assert json.loads(asked.stdout)["meta"]["route"] == {"via": "inline", "runner": None, "attempts": 1}
    name = f"{source}-runner"
    block = deployment.cli("runners", "create", name).stdout
    variables = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    assert set(variables) == {"LENSWAY_RUNNER_ID", "LENSWAY_RUNNER_TOKEN", "LENSWAY_GATEWAY_URL"}
    doctor = run("runner", "doctor", cwd=tmp_path, **variables)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert run("runner", "status", cwd=tmp_path, **variables).returncode == 1, "it does not run"

    identity = RunnerIdentity(name=name, id=variables["LENSWAY_RUNNER_ID"], token=variables["LENSWAY_RUNNER_TOKEN"])
    process = deployment.start_runner(identity)
    stage.started.append(process)
    status = run("runner", "status", cwd=tmp_path, **variables)
    assert (status.returncode, json.loads(status.stdout)[0]["state"]) == (0, "connected"), status.stdout + status.stderr
    assert deployment.cli("runners", "assign", name, source, "--verify").returncode == 0
    answer = json.loads(deployment.cli("query", source, "--limit", "1", "--format", "json").stdout)
    assert answer["meta"]["route"] == {"via": "runner", "runner": name, "attempts": 1}
    export = tmp_path / "orders.csv"
    assert deployment.cli("export", source, "-o", str(export)).returncode == 0
    assert len(export.read_text().splitlines()) == 5001
    explained = json.loads(deployment.cli("explain", source, "--limit", "1").stdout)
    assert explained["route"]["runner"] == name
    assert deployment.cli("runners", "unassign", name, source).returncode == 0
    assert process.stop() == 0
    for command in (("audit",), ("requests",), ("runners", "list"), ("keys", "list"), ("environments", "list")):
        assert isinstance(json.loads(deployment.cli(*command).stdout), list), command


def test_a_runner_tests_its_local_credentials(stage, tmp_path) -> None:
    variables = {
        "LENSWAY_RUNNER_ID": "run_x",
        "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
        "LENSWAY_GATEWAY_URL": "ws://127.0.0.1:1/connect",
    }
    good = run(
        "runner", "test-source", "shop", cwd=tmp_path, **variables, LENSWAY_SOURCE_SHOP_URL=stage.database.reader_url
    )
    assert good.returncode == 0, good.stdout + good.stderr
    bad = run(
        "runner",
        "test-source",
        "shop",
        cwd=tmp_path,
        **variables,
        LENSWAY_SOURCE_SHOP_URL="postgresql://a:b@127.0.0.1:1/c",
    )
    assert bad.returncode == 1
    assert "refused" in bad.stdout
    missing = run("runner", "test-source", "shop", cwd=tmp_path, **variables)
    assert missing.returncode == 2
    assert "LENSWAY_SOURCE_SHOP_URL" in missing.stderr
    doctor = run("runner", "doctor", cwd=tmp_path, **variables)
    assert doctor.returncode == 1
    assert "refused" in doctor.stdout


def at_terminal(deployment, *arguments: str, until: str | None = None) -> str:
    """What somebody at a terminal reads; a command that does not end is ended once ``until`` has been printed."""
    ours, theirs = pty.openpty()
    environment = {"LENSWAY_URL": deployment.url, "LENSWAY_API_KEY": deployment.admin_key, "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lensway.cli.main", *arguments],
        env=clean_environment() | environment | {"TERM": "dumb", "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output, is_over = b"", False
    # Read to the very end: a terminal that nobody reads would hold the program up.
    with contextlib.suppress(OSError):  # how the output of a terminal ends
        while data := os.read(ours, 65536):
            output += data
            if until is not None and not is_over and until.encode() in output:
                is_over = True
                process.send_signal(signal.SIGINT)
    process.wait(30)
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def test_tables_at_a_terminal_show_names_and_never_raw_documents(stage, tmp_path) -> None:
    assert stage.query().status_code == 200
    lenses = at_terminal(stage.deployment, "lenses", "list")
    assert "id, customer, total, placed, note" in lenses
    assert "{" not in lenses
    request = stage.client.get("/v1/requests").json()["requests"][0]["id"]
    assert request in at_terminal(stage.deployment, "requests")
    explained = at_terminal(stage.deployment, "requests", request)
    assert f"{request}  rows of {stage.lens}, source {stage.source}" in explained
    assert "{" not in explained
    assert re.search(r"^1 +inline +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +✓ ended *$", explained, re.MULTILINE), explained
    file = tmp_path / "lensway.toml"
    file.write_text(f'[sources.{stage.source}]\nbridge = "postgres"\nconfig.url = "postgresql://a:b@127.0.0.1/c"\n')
    assert f"~ source {stage.source} (config)" in at_terminal(stage.deployment, "push", "--dry-run", str(file))
    asked = at_terminal(stage.deployment, "query", stage.lens[:-1] + "x")
    assert "Did you mean" in asked
    assert "`lensway sources list` lists" in at_terminal(stage.deployment, "sources", "show", "zzzzzzzzzzzzzzzzzzz")


def test_an_export_to_where_no_file_can_be_made_asks_for_nothing(stage, tmp_path) -> None:
    before = len(stage.client.get("/v1/requests").json()["requests"])
    for place, words in ((tmp_path / "nowhere/rows.csv", "there is no directory"), (tmp_path, "it is a directory")):
        done = stage.deployment.cli("export", stage.lens, "--format", "csv", "-o", str(place))
        assert done.returncode != 0
        assert words in done.stderr
    assert len(stage.client.get("/v1/requests").json()["requests"]) == before
    assert stage.deployment.cli("export", stage.lens, "--format", "csv", "-o", "/dev/null").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("requests", "--cancel"), "--cancel needs the id of a request"),
        (("export", "orders", "--unordered", "--order-by", "id"), "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage, arguments, words: str) -> None:
    done = stage.deployment.cli(*arguments)
    assert done.returncode != 0
    assert words in done.stderr


def test_events_say_of_what_kind_they_are(stage) -> None:
    stage.runner("alpha", start=False)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        watched = pool.submit(at_terminal, stage.deployment, "events", until="change=unassigned")
        while not watched.done():
            stage.assign("alpha")
            stage.unassign("alpha")
    assert " assignment runner=" in watched.result()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LENSWAY_URL", "http://[::1"),
        ("LENSWAY_URL", "localhost:8080"),
        ("LENSWAY_URL", "http://key@127.0.0.1"),
        ("LENSWAY_API_KEY", "ak_näme"),
        ("LENSWAY_API_KEY", "ak_a\nb"),
        ("LENSWAY_ENVIRONMENT", "é"),
        ("LENSWAY_CA_FILE", "/nowhere"),
    ],
)
def test_a_wrong_variable_is_one_line_that_names_it(tmp_path, variable: str, value: str) -> None:
    variables = {"LENSWAY_API_KEY": "ak_" + "x" * 40} | {variable: value}
    done = run("sources", "list", cwd=tmp_path, **variables)
    assert (done.returncode, variable in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert "ak_n" not in done.stderr, "part of a key is never shown"


def test_keys_of_one_environment_and_of_all(stage) -> None:
    cli, other = stage.deployment.cli, f"{stage.source}-env"
    assert cli("environments", "create", other).returncode == 0
    wide = cli("keys", "create", "ak", "wide", "--instance-wide").stdout.strip()
    bound = cli("keys", "create", "ak", "bound", "--env", other).stdout.strip()
    for key, environment, code in ((wide, other, 0), (wide, "default", 0), (bound, other, 0), (bound, "default", 1)):
        done = cli("sources", "list", "--env", environment, environment={"LENSWAY_API_KEY": key})
        assert done.returncode == code, (environment, done.stderr)
    refused = cli("keys", "create", "ak", "x", "--instance-wide", environment={"LENSWAY_API_KEY": bound})
    assert (refused.returncode, "forbidden" in refused.stderr) == (1, True), refused.stderr


def test_a_runner_like_another_takes_its_sources_in_one_step(stage) -> None:
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    like = stage.deployment.cli("runners", "create", f"{stage.source}-twin", "--like", stage.name("alpha"))
    assert "LENSWAY_RUNNER_TOKEN=rk_" in like.stdout
    assert "runner_offline" in like.stderr, "what is bad about the assignments is said"
    covered = stage.client.get(f"/v1/runners/{stage.source}-twin/sources").json()["sources"]
    assert covered == [stage.source]
