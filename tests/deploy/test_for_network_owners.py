"""What the page for network owners says of a running runner."""

from __future__ import annotations

import pathlib
import tempfile

import psutil
import pytest

from lensway.runner.policy import read_policy
from lensway.testing.deployment import Deployment
from tools import following

pytestmark = pytest.mark.acceptance
PAGE = "docs/explanation/for-network-owners.md"


def test_a_runner_listens_on_no_port_and_writes_nothing_but_its_socket(tmp_path: pathlib.Path) -> None:
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="lensway-") as folder, Deployment(tmp_path) as deployment:
        home = pathlib.Path(folder)
        identity = deployment.create_runner("alpha")
        runner = deployment.start_runner(
            identity, environment={"LENSWAY_RUNNER_STATE_DIR": str(home), "HOME": str(home), "TMPDIR": str(home)}
        )
        seen = psutil.Process(runner.pid)
        connections = seen.net_connections("inet")
        assert [each.status for each in connections] == [psutil.CONN_ESTABLISHED]
        assert connections[0].raddr.port == deployment.gateway_port
        assert [each.path for each in seen.open_files() if "w" in each.mode or "a" in each.mode] == []
        assert [path.suffix for path in home.rglob("*")] == [".sock"]
        assert runner.stop() == 0
        assert list(home.rglob("*")) == []


def test_the_policy_on_the_page_is_one_that_a_runner_takes(tmp_path: pathlib.Path) -> None:
    (block,) = following.blocks(PAGE, "toml")
    file = tmp_path / "policy.toml"
    file.write_text(block.text.replace("\n  ", "\n"))
    policy = read_policy(file)
    assert policy.allows_table("public.orders")
    assert not policy.allows_table("public.salaries")
    assert not policy.allows_source("other")
