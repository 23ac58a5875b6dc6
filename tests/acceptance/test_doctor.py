"""`lensway runner doctor` and Test connection on real faults of tokens, sessions, settings and databases: stage and cause."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lensway.testing.deployment import Deployment, RunnerIdentity, free_ports, wait_until

pytestmark = pytest.mark.acceptance
SECRET = "wr0ng-passw0rd"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("doctor")) as deployment:
        yield deployment


def doctor(deployment: Deployment, identity: RunnerIdentity, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    done = deployment.cli("runner", "doctor", "--json", environment=block(deployment, identity) | environment)
    assert "Traceback" not in done.stderr, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def block(deployment: Deployment, identity: RunnerIdentity) -> dict[str, str]:
    return {
        "LENSWAY_RUNNER_ID": identity.id,
        "LENSWAY_RUNNER_TOKEN": identity.token,
        "LENSWAY_GATEWAY_URL": deployment.gateway_url,
    }


def bad(found: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(each["check"], each["cause"]) for each in found if each["ok"] is False]


def test_a_good_runner_passes_every_check_and_is_disturbed_by_none(deployment: Deployment, orders) -> None:
    identity = deployment.create_runner("good")
    client = deployment.client()
    client.post("/v1/sources", json={"name": "good", "bridge": "postgres", "config": {"url": orders.reader_url}})
    deployment.assign("good", "good")
    code, found = doctor(deployment, identity)
    assert (code, bad(found)) == (0, []), found
    checks = [each["check"] for each in found]
    assert checks == [
        "configuration", "credentials", "policy", "bridges", "encodings", "proxy", "dns", "tcp", "tls", "clock", "token",
        "protocol", "source good",
    ]  # fmt: skip
    source = found[-1]
    assert "login query read_only" in source["detail"], source


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43}, [("token", "unauthenticated")]),
        ({"LENSWAY_RUNNER_ID": "run_" + "0" * 20}, [("token", "unauthenticated")]),
        ({"LENSWAY_RUNNER_ID": ""}, [("configuration", "setting")]),
        ({"LENSWAY_RUNNER_TOKEN": "secret"}, [("configuration", "setting")]),
        ({"LENSWAY_RUNNER_TOKEN_FILE": "/nowhere"}, [("configuration", "setting")]),
        ({"LENSWAY_RUNNER_POLICI": "x"}, [("configuration", "setting")]),
        ({"LENSWAY_GATEWAY_URL": "ws://lensway.example/connect"}, [("configuration", "setting")]),
        ({"LENSWAY_GATEWAY_URL": "wss://lensway.example/"}, [("configuration", "setting")]),
        ({"LENSWAY_CA_FILE": "/nowhere"}, [("configuration", "setting")]),
        ({"LENSWAY_RUNNER_POLICY": "{policy}"}, [("policy", "policy_invalid")]),
        ({"LENSWAY_SOURCE_MAIN_URL": ""}, [("credentials", "invalid_settings")]),
        ({"LENSWAY_SOURCE_MAIN_PASSWORD_FILE": "/nowhere"}, [("credentials", "invalid_settings")]),
    ],
    ids=lambda value: next(iter(value.items()), None) if isinstance(value, dict) else "",
)
def test_settings_and_tokens_are_named(
    deployment: Deployment, tmp_path: pathlib.Path, environment: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("colour = 1\n")
    identity = deployment.create_runner(f"r{tmp_path.name[-12:]}".replace("_", "-"))
    given = {name: value.replace("{policy}", str(policy)) for name, value in environment.items()}
    code, found = doctor(deployment, identity, **given)
    assert (code != 0, bad(found)) == (True, expected), found
    assert all(each["hint"] for each in found if each["ok"] is False)


def test_gateway_and_api_are_told_apart(deployment: Deployment) -> None:
    identity = deployment.create_runner("confused")
    url = f"ws://127.0.0.1:{deployment.http_port}/connect"
    code, found = doctor(deployment, identity, LENSWAY_GATEWAY_URL=url)
    assert (code, bad(found)) == (1, [("answer", "other_port")]), found
    process = deployment.start_runner(identity, gateway_url=url, wait=False)
    process.wait_line("other_port")
    status = deployment.cli(
        "runner", "status", "--json", environment=block(deployment, identity) | {"LENSWAY_GATEWAY_URL": url}
    )
    (told,) = json.loads(status.stdout)
    assert (told["state"], told["cause"]) == ("connecting", "other_port")
    assert "Name the gateway in LENSWAY_GATEWAY_URL" in told["hint"]
    process.kill()
    wrong = deployment.cli(
        "runners", "list", environment={"LENSWAY_URL": f"http://127.0.0.1:{deployment.gateway_port}"}
    )
    assert wrong.returncode == 1
    assert "is a port of Lensway, and not the one of its server" in wrong.stderr


def test_a_revoked_runner_is_told_so(deployment: Deployment) -> None:
    identity = deployment.create_runner("revoked")
    assert deployment.client().post("/v1/runners/revoked/revoke").status_code == 200
    code, found = doctor(deployment, identity)
    assert (code, bad(found)) == (1, [("token", "revoked")]), found


def test_doctor_and_test_connection_name_the_same_stage_of_every_source(
    deployment: Deployment, orders, tmp_path: pathlib.Path
) -> None:
    """One runner with a source for each fault; what only one of the two can see stands in its own column."""
    (refused,) = free_ports(1)
    silent = socket.create_server(("127.0.0.1", 0))
    base = orders.reader_url
    host = base.rpartition("@")[2].partition("/")[0]
    wrong = f"postgresql://reader:{SECRET}@{host}/postgres"
    config = {
        "refused": {"url": f"postgresql://u@127.0.0.1:{refused}/d"},
        "no-name": {"url": "postgresql://u@db.invalid/d?sslmode=disable"},
        "password": {"url": wrong},
        "database": {"url": base.rpartition("/")[0] + "/no_such_database"},
        "silent": {"url": f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"},
        "tls": {"url": base + ("&" if "?" in base else "?") + "sslmode=require"},
        "forbidden": {"url": base},
        "forbidden-host": {"url": "postgresql://u@192.0.2.77/d"},
        "overridden": {"url": base},
    }
    expected = {
        "refused": ("tcp", "refused"),
        "no-name": ("dns", "unknown_host"),
        "password": ("login", "password"),
        "database": ("login", "unknown_database"),
        "silent": ("tls", "timeout"),
        "tls": ("tls", "no_tls"),
        "forbidden": ("runner", "refused_by_runner"),
        "forbidden-host": ("runner", "refused_by_runner"),
        "overridden": ("runner", "invalid_settings"),
        "missing": ("runner", "no_credentials"),
        "twin-a": ("runner", "credentials_ambiguous"),
        "twin_a": ("runner", "credentials_ambiguous"),
    }
    identity = deployment.create_runner("faults")
    client = deployment.client()
    policy = tmp_path / "policy.toml"
    names = [*config, "missing", "twin-a", "twin_a"]
    policy.write_text(
        f"sources = {json.dumps([name for name in names if name != 'forbidden'])}\n"
        'hosts = ["localhost", "127.0.0.1", "db.invalid"]\n'
    )
    for name in names:
        body: dict[str, Any] = {"name": name, "bridge": "postgres"}
        body |= {"config": config[name]} if name in config else {"credentials": "runner-local"}
        made = client.post("/v1/sources", json=body)
        assert made.status_code == 201, made.text
        deployment.assign("faults", name)
    local = {
        "LENSWAY_RUNNER_POLICY": str(policy),
        "LENSWAY_SOURCE_OVERRIDDEN_HOST": "",
        "LENSWAY_SOURCE_TWIN_A_URL": base,
    }
    deployment.start_runner(identity, environment=local)
    _, found = doctor(deployment, identity, **local)
    seen = {each["check"].removeprefix("source "): each for each in found if each["check"].startswith("source ")}
    assert set(seen) == set(names) == set(expected)
    for name, (stage, cause) in expected.items():
        tested = client.post(f"/v1/sources/{name}/test").json()["results"][0]
        failed = next(each for each in tested["stages"] if each["ok"] is False)
        assert (failed["stage"], failed["error"]) == (stage, cause), name
        assert seen[name]["cause"] == cause, name
        assert stage == "runner" or seen[name]["detail"].startswith(f"{stage}: "), seen[name]
        assert failed["hint"]
        assert seen[name]["hint"]
    silent.close()
    # What is wrong with the settings of a source is told to callers, in warnings and in the status.
    lens = {"source": "overridden", "table": "public.orders", "fields": {"id": {"type": "integer", "primaryKey": True}}}
    assert client.put("/v1/lenses/overridden", json=lens).status_code in (200, 201)
    asked = client.post("/v1/query/overridden", json={}).json()["error"]
    assert "has settings for it that are invalid" in asked["message"]
    assert "no credentials" not in str(asked)
    shown = client.get("/v1/runners/faults").json()
    told = next(each for each in shown["sources"] if each["name"] == "overridden")
    assert (told["health"], told["cause"]) == ("invalid_settings", "LENSWAY_SOURCE_OVERRIDDEN_HOST is set and empty")
    status = deployment.cli(
        "runner", "status", "--json", environment=block(deployment, identity) | {"LENSWAY_RUNNER_POLICY": str(policy)}
    )
    assert "LENSWAY_SOURCE_OVERRIDDEN_HOST is set and empty" in status.stdout


@pytest.mark.parametrize(
    ("table", "sql"),
    [("public.no_such_table", None), ("public.secret_orders", "CREATE TABLE secret_orders (id bigint)")],
)
def test_a_lens_that_cannot_be_read_is_named_by_test_connection(
    deployment: Deployment, orders, table: str, sql: str | None
) -> None:
    if sql is not None:
        asyncio.run(orders.execute(sql, "REVOKE ALL ON secret_orders FROM PUBLIC, orders_reader"))
    client, name = deployment.client(), table.rpartition("_")[0].replace(".", "-").replace("_", "-")
    client.post("/v1/sources", json={"name": name, "bridge": "postgres", "config": {"url": orders.reader_url}})
    lens = {"source": name, "table": table, "fields": {"id": {"type": "integer", "primaryKey": True}}}
    assert client.put(f"/v1/lenses/{name}", json=lens).status_code in (200, 201)
    tested = client.post(f"/v1/sources/{name}/test").json()["results"][0]
    failed = [each for each in tested["stages"] if each["ok"] is False]
    assert [each["stage"] for each in failed] == ["lenses"], tested


def test_a_source_is_tested_without_any_variable_of_the_server(deployment: Deployment, orders) -> None:
    good = deployment.cli("runner", "test-source", "main", environment={"LENSWAY_SOURCE_MAIN_URL": orders.reader_url})
    assert good.returncode == 0, good.stdout + good.stderr
    empty = deployment.cli("runner", "test-source", "main", environment={"LENSWAY_SOURCE_MAIN_URL_FILE": "/nowhere"})
    assert empty.returncode == 2
    assert "LENSWAY_SOURCE_MAIN_URL_FILE names /nowhere, which does not exist" in empty.stderr


def test_what_a_runner_overrides_is_shown_with_the_source(deployment: Deployment, orders) -> None:
    client = deployment.client()
    config = {"url": orders.reader_url}
    assert client.post("/v1/sources", json={"name": "moved", "bridge": "postgres", "config": config}).status_code == 201
    identity = deployment.create_runner("mover")
    deployment.assign("mover", "moved")
    plain = deployment.cli("sources", "show", "moved")
    assert "overrides" not in plain.stdout + plain.stderr
    local = {"LENSWAY_SOURCE_MOVED_CONNECT_TIMEOUT": "4"}
    deployment.start_runner(identity, environment=local)
    wait_until(
        lambda: client.get("/v1/sources/moved").json().get("overrides") == {"mover": ["connect_timeout"]},
        seconds=10,
        what="the runner's report",
    )
    shown = deployment.cli("sources", "show", "moved", "--format", "table")
    assert "mover overrides: connect_timeout" in shown.stdout + shown.stderr
    source = client.get("/v1/runners/mover").json()["sources"][0]
    assert (source["health"], source["overrides"]) == ("ready", ["connect_timeout"])
