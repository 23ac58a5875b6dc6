"""The compose file: compose itself reads it; its health checks and its data are tried on real programs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import compose
import pytest

from demo import data
from lensway import limits
from lensway.api.blocks import environment_block
from lensway.cli.program import app
from lensway.testing.deployment import Deployment
from lensway.testing.postgres import PostgresCluster, find_binaries

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/compose.yaml"
COMPOSE = pathlib.Path(compose.__file__).parent / "docker-compose"  # its wrapper loses the exit code
SECRETS = {"LENSWAY_ADMIN_KEY": "ak_x", "POSTGRES_PASSWORD": "p"}


def config(file: pathlib.Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMPOSE, "--file", file, "--profile", "*", "config", "--format", "json"],
        env={"HOME": os.environ.get("HOME", "/"), "PATH": os.environ["PATH"], **environment},
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = config(FILE, SECRETS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def seconds(text: str) -> float:
    parts = text.replace("h", "h ").replace("m", "m ").split()
    return sum(float(part[:-1]) * {"h": 3600, "m": 60, "s": 1}[part[-1]] for part in parts)


def test_every_service_is_checked_and_ours_are_hardened(services: dict[str, Any]) -> None:
    assert set(services) == {"server", "database", "alpha", "beta"}
    assert all("healthcheck" in service for service in services.values())
    for name in ("server", "alpha", "beta"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert seconds(service["stop_grace_period"]) > limits.DRAIN_SECONDS + limits.CANCEL_SECONDS
        app.parse_args(service["command"])  # the program takes these words
    assert {service["build"]["target"] for service in services.values() if "build" in service} == {"server", "runner"}
    assert [port["host_ip"] for service in services.values() for port in service.get("ports", ())] == ["127.0.0.1"]
    assert not set(services["server"]["networks"]) & set(services["database"]["networks"])


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_missing_secret_is_named(missing: str) -> None:
    done = config(FILE, {name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_health_check_of_the_server_tells_ready_from_not(services: dict[str, Any], tmp_path: pathlib.Path) -> None:
    command = services["server"]["healthcheck"]["test"]
    assert command[:2] == ["CMD", "python3"]
    with Deployment(tmp_path) as deployment:
        words = [sys.executable, *command[2:]]
        words = [word.replace("127.0.0.1:8080", f"127.0.0.1:{deployment.http_port}") for word in words]
        assert subprocess.run(words, check=False).returncode == 0
        assert deployment.server is not None
        deployment.server.kill()
        assert subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_the_database_gets_the_demos_tables(postgres: PostgresCluster) -> None:
    tables = ("airlines", "planes", "weather")  # flights come the same way, and take ten times as long
    script = b"".join(data.statements("flights_reader", tables=tables))
    psql = find_binaries() / "psql"
    subprocess.run([psql, "-qX", postgres.superuser_dsn("postgres"), "-c", "CREATE DATABASE compose"], check=True)
    target = postgres.superuser_dsn("compose")
    # As the image of PostgreSQL does with a file that ends in .sql.gz.
    subprocess.run([psql, "-qX", target], input=script, check=True, stdout=subprocess.DEVNULL)
    reader = postgres.url("flights_reader", "flights_reader", "compose")
    for table in tables:
        asked = [psql, "-qAtX", reader, "-c", f"SELECT count(*) FROM {table}"]
        assert int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) == data.ROWS[table]


def test_compose_reads_the_block_of_a_runner_as_it_was_meant(tmp_path: pathlib.Path) -> None:
    variables = {
        "LENSWAY_RUNNER_ID": "run_1",
        "LENSWAY_RUNNER_TOKEN": "rk_1",
        "LENSWAY_GATEWAY_URL": "wss://gateway.example/${HOME}/connect",
    }
    file = tmp_path / "alpha.yaml"
    file.write_text("name: alpha\n" + environment_block("compose", "alpha", variables))
    done = config(file, {})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"]["alpha"]["environment"] == {
        key: value.replace("$", "$$") for key, value in variables.items()
    }
