"""The environment block of a runner in its forms; the install pages' tests run and validate them."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
import yaml

from lensway.api.blocks import FORMS, environment_block, read_block, resource_name

VARIABLES = {
    "LENSWAY_RUNNER_ID": "run_0123456789abcdefghij",
    "LENSWAY_RUNNER_TOKEN": "rk_" + "Az-_" * 10,
    "LENSWAY_GATEWAY_URL": "wss://gateway.example/a$b/connect?it='s",
}


def test_the_shell_form_is_what_the_server_returns() -> None:
    block = environment_block("shell", "alpha", VARIABLES)
    assert read_block(block) == VARIABLES
    assert environment_block("shell", "alpha", read_block(block)) == block


def test_the_systemd_form_writes_both_files_for_root_alone(tmp_path: pathlib.Path) -> None:
    script = environment_block("systemd", "alpha_1", VARIABLES).replace("/etc/lensway", str(tmp_path / "etc"))
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    (tmp_path / "systemctl").chmod(0o755)
    subprocess.run(["sh", "-euc", f"PATH={tmp_path}:$PATH\n{script}"], check=True)
    settings, token = tmp_path / "etc/alpha_1.env", tmp_path / "etc/alpha_1.token"
    assert read_block(settings.read_text()) | {"LENSWAY_RUNNER_TOKEN": token.read_text()} == VARIABLES
    assert VARIABLES["LENSWAY_RUNNER_TOKEN"] not in settings.read_text()
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "etc", settings, token)] == [0o700, 0o600, 0o600]
    assert (tmp_path / "told").read_text().splitlines() == [
        "enable lensway-runner@alpha_1",
        "restart lensway-runner@alpha_1",
    ]


def test_the_compose_form_keeps_a_dollar_from_compose() -> None:
    (service,) = yaml.safe_load(environment_block("compose", "Alpha_1", VARIABLES))["services"].items()
    assert service[0] == "alpha-1"
    assert {key: value.replace("$$", "$") for key, value in service[1]["environment"].items()} == VARIABLES
    assert "a$$b" in service[1]["environment"]["LENSWAY_GATEWAY_URL"]


def test_the_kubernetes_form_is_a_secret() -> None:
    secret = yaml.safe_load(environment_block("kubernetes", "Alpha_1", VARIABLES))
    assert (secret["kind"], secret["metadata"]["name"], secret["stringData"]) == (
        "Secret",
        "lensway-runner-alpha-1",
        VARIABLES,
    )


@pytest.mark.parametrize("name", ["a", "A_b", "x--y_", "Zz9" * 21])
def test_names_become_names_that_kubernetes_takes(name: str) -> None:
    found = resource_name(name)
    assert found == found.lower().strip("-")
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert all(resource_name(name) in environment_block(form, name, VARIABLES) for form in FORMS[2:])
