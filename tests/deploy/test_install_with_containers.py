"""The pages on containers and Kubernetes: their `lensway` commands run, their files and their tools' commands are validated."""

from __future__ import annotations

import pathlib
import shlex
import shutil
import subprocess
import sys

import compose
import helm_python
import pytest
import yaml

from lensway.api.blocks import read_block
from lensway.testing.deployment import Deployment
from tools import following

pytestmark = pytest.mark.acceptance
COMPOSE = pathlib.Path(compose.__file__).parent / "docker-compose"


def words_of(text: str, program: str) -> list[list[str]]:
    """The commands of this program in a block, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith(program)]


def test_the_page_on_containers_followed_with_a_server_in_place_of_its_container(tmp_path: pathlib.Path) -> None:
    page = "docs/how-to/install-with-containers.md"
    gateway = "ws://server:8081/connect"
    shutil.copytree(following.ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("*.env", ".env"))
    (tmp_path / "server").mkdir()
    reader = following.Reader(tmp_path, {"make demo-data": "true"})  # a test of the file of compose loads the data
    with Deployment(tmp_path / "server", serve_options=("--gateway-url", gateway)) as deployment:
        reader.changes |= {
            "http://127.0.0.1:8080": deployment.url,
            'LENSWAY_API_KEY="$LENSWAY_ADMIN_KEY"': f"LENSWAY_API_KEY={deployment.admin_key}",
            "lensway ": f"{sys.executable} -m lensway ",
        }
        compositions = []
        for block in following.blocks(page, "sh"):
            if "docker" in block.text:
                compositions += words_of(block.text, "docker compose")
                for words in words_of(block.text, "docker build"):
                    _check_build(words)
            elif "lensway query" not in block.text:  # runners in place of theirs would need the network of compose
                reader.type(block.text)
        for words in compositions:
            _check_compose(tmp_path, words)
        for name in ("alpha", "beta"):
            assert read_block((tmp_path / f"deploy/{name}.env").read_text())["LENSWAY_GATEWAY_URL"] == gateway
        listed = deployment.client().get("/v1/assignments").json()
        assert sorted(each["runner"] for each in listed["assignments"]) == ["alpha", "beta"]
        lenses = {each["name"] for each in deployment.client().get("/v1/lenses").json()["lenses"]}
        assert lenses == {"flights", "airlines"}
    secrets = read_block((tmp_path / "deploy/.env").read_text())
    assert secrets["LENSWAY_ADMIN_KEY"].startswith("ak_")
    assert len(secrets["LENSWAY_ADMIN_KEY"]) >= 35
    assert (tmp_path / "deploy/.env").stat().st_mode & 0o077 == 0


def _check_build(words: list[str]) -> None:
    options = dict(zip(words[2:-1:2], words[3:-1:2], strict=True))
    text = (following.ROOT / options["--file"]).read_text()
    assert f" AS {options['--target']}\n" in text
    assert words[-1] == "."


def _check_compose(directory: pathlib.Path, words: list[str]) -> None:
    """Compose reads the files with these options, and knows the command and the services."""
    at = next(number for number, word in enumerate(words) if word in ("up", "kill"))
    done = subprocess.run(
        [COMPOSE, *words[2:at], "config", "--services"], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {word for word in words[at + 1 :] if not word.startswith("-")} <= set(done.stdout.split())
    told = subprocess.run([COMPOSE, words[at], "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in told for word in words[at + 1 :] if word.startswith("--"))


def test_the_page_on_kubernetes_names_values_that_the_chart_takes(tmp_path: pathlib.Path) -> None:
    page = "docs/how-to/install-with-kubernetes.md"
    values = [yaml.safe_load(block.text) for block in following.blocks(page, "yaml")]
    commands = [block.text for block in following.blocks(page, "sh")]
    installs = [words for text in commands for words in words_of(text, "helm install")]
    assert [words[3:] for words in installs] == [
        ["deploy/chart", "--values", "server.yaml"],
        ["deploy/chart", "--values", "runner.yaml"],
    ]
    for words, given in zip(installs, values, strict=True):
        report = helm_python.lint(following.ROOT / words[3], given, strict=True)
        assert report["errors"] == []
        with helm_python.Chart.load(following.ROOT / words[3]) as chart:
            merged = chart.merge_values(given)
            chart.validate_schema(merged)
            assert "Deployment" in "".join(chart.render(merged, name=words[2]).values())
    (made,) = [words for text in commands for words in words_of(text, "kubectl create")]
    secret = made[4]
    assert secret == values[0]["server"]["existingSecret"]
    assert {word.split("=")[1] for word in made[5:]} == {"LENSWAY_ADMIN_KEY", "LENSWAY_MASTER_KEY"}
    with Deployment(tmp_path) as deployment:
        reader = following.Reader(
            tmp_path, {"lensway ": f"{sys.executable} -m lensway ", "kubectl": "true", "rm ": "true "}
        )
        reader.type(f"LENSWAY_URL={deployment.url}\nLENSWAY_API_KEY={deployment.admin_key}")
        reader.type(following.only(following.blocks(page, "sh"), "runners create"))
        block = yaml.safe_load((tmp_path / "alpha.yaml").read_text())
        assert block["metadata"]["name"] == values[1]["runner"]["existingSecret"]
        assert block["stringData"]["LENSWAY_GATEWAY_URL"] == deployment.gateway_url
