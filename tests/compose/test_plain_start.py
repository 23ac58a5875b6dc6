"""`lensway runner start` without the command line's libraries behaves as with them."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from lensway import limits
from lensway.cli.starting import plain_start
from lensway.testing.deployment import Process, clean_environment, free_ports

SETTINGS = {
    "LENSWAY_RUNNER_ID": "run_00000000000000000000",
    "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
    "LENSWAY_GATEWAY_URL": "ws://127.0.0.1:9/connect",
}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {}),
        (["--insecure"], {"insecure": True}),
        (["--drain-seconds", "5", "--log-level=info"], {"drain_seconds": 5.0, "log_level": "info"}),
        (["--drain-seconds=0", "--insecure"], {"drain_seconds": 0.0, "insecure": True}),
    ],
)
def test_valid_options_are_read_without_a_parser(words: list[str], wanted: dict[str, object]) -> None:
    defaults = {"insecure": False, "drain_seconds": limits.DRAIN_SECONDS, "log_level": "warning"}
    assert plain_start(["runner", "start", *words]) == defaults | wanted


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["runner"],
        ["runner", "start", "--help"],
        ["runner", "start", "extra"],
        ["runner", "start", "--drain-seconds"],
        ["runner", "start", "--drain-seconds", "-1"],
        ["runner", "start", "--drain-seconds=soon"],
        ["runner", "start", "--log-level", "loud"],
        ["runner", "start", "--insecure=yes"],
    ],
)
def test_everything_else_is_left_to_the_parser(words: list[str]) -> None:
    assert plain_start(words) is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SETTINGS | {"LENSWAY_GATEWAY_URL": "http://nowhere"},
        SETTINGS | {"LENSWAY_RUNER_POLICY": "x"},
        SETTINGS | {"LENSWAY_RUNNER_POLICY": "/nowhere.toml"},
    ],
)
def test_settings_that_cannot_be_used_are_told_alike(environment: dict[str, str]) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", module, "runner", "start"],
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for module in ("lensway", "lensway.cli.main")
    ]
    assert said[0].returncode == 2
    assert said[0].stderr.startswith("lensway: ")
    assert (said[0].returncode, said[0].stdout, said[0].stderr) == (said[1].returncode, said[1].stdout, said[1].stderr)


@pytest.mark.acceptance
def test_a_runner_that_waits_has_loaded_neither_parser_nor_tables(tmp_path: pathlib.Path) -> None:
    (nowhere,) = free_ports(1)
    runner = Process(
        "runner",
        ["-X", "importtime", "-m", "lensway", "runner", "start", "--log-level", "warning"],
        SETTINGS | {"LENSWAY_GATEWAY_URL": f"ws://127.0.0.1:{nowhere}/connect"},
        directory=tmp_path,
        program=[sys.executable],
    )
    runner.wait_line("cannot connect")
    assert runner.stop() == 0
    loaded = {
        line.rsplit("|", 1)[1].strip() for line in runner.output.text().splitlines() if line.startswith("import time")
    }
    assert "lensway.runner.agent" in loaded
    assert not loaded & {"cyclopts", "rich.console", "rich.traceback", "pygments", "attr"}
