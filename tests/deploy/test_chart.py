"""The Helm chart: Helm itself lints and renders it, and what it renders is valid for the oldest and newest Kubernetes named."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from lensway import limits
from lensway.api.blocks import environment_block, read_block
from lensway.cli.program import app

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart"
OLDEST, NEWEST = "1.27", kubernetes_validate.latest_version()
SERVER = {
    "server": {
        "existingSecret": "lensway-server",
        "publicUrl": "https://lensway.example",
        "trustedProxies": ["10.0.0.0/8"],
    }
}
RUNNER = {
    "server": {"enabled": False},
    "runner": {
        "enabled": True,
        "existingSecret": "lensway-runner-alpha",
        "sourcesSecret": "databases",
        "policy": 'sources = ["main"]\n',
        "caConfigMap": "corporate-ca",
    },
}


def render(values: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects by kind and name, each valid for Kubernetes."""
    with helm_python.Chart.load(CHART) as chart:
        merged = chart.merge_values(dict(values))
        chart.validate_schema(merged)
        rendered = chart.render(merged, name="test")
    found = {}
    for path, text in rendered.items():
        for document in filter(None, yaml.safe_load_all(text)) if path.endswith(".yaml") else ():
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(document, version, strict=True)
            found[document["kind"], document["metadata"]["name"]] = document
    return found


@pytest.mark.parametrize("values", [SERVER, RUNNER, SERVER | {"runner": RUNNER["runner"]}])
def test_helm_finds_no_fault(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert [each for each in report["messages"] if each["error"] != "icon is recommended"] == []
    assert report["errors"] == []


def pod(objects: Mapping[tuple[str, str], Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification and its only container, hardened."""
    spec = objects["Deployment", name]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    app.parse_args(container["args"])  # the program takes these words
    return spec, container


def option(container: Mapping[str, Any], name: str) -> float:
    (found,) = [word.split("=")[1] for word in container["args"] if word.startswith(f"--{name}=")]
    return float(found)


def test_the_server_is_one_replica_that_ends_before_its_successor_starts() -> None:
    objects = render(SERVER)
    deployment = objects["Deployment", "test-server"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    spec, container = pod(objects, "test-server")
    assert container["envFrom"] == [{"secretRef": {"name": "lensway-server"}}]
    lame_duck, drain = option(container, "lame-duck-seconds"), option(container, "drain-seconds")
    assert spec["terminationGracePeriodSeconds"] > lame_duck + drain + limits.CANCEL_SECONDS
    probe = container["readinessProbe"]
    assert lame_duck > probe["periodSeconds"] * probe["failureThreshold"]
    assert {kind for kind, _ in objects} == {"Deployment", "PersistentVolumeClaim", "Service", "PodDisruptionBudget"}
    with pytest.raises(helm_python.HelmError, match="replicas"):
        render({"server": SERVER["server"] | {"replicas": 2}})


def test_two_replicas_of_the_runner_serve_and_one_may_leave() -> None:
    objects = render(RUNNER)
    deployment = objects["Deployment", "test-runner"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    spec, container = pod(objects, "test-runner")
    assert spec["terminationGracePeriodSeconds"] > option(container, "drain-seconds") + limits.CANCEL_SECONDS
    budget = objects["PodDisruptionBudget", "test-runner"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["selector"]
    probes = {name: container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {"livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert objects["ConfigMap", "test-runner-policy"]["data"] == {"policy.toml": 'sources = ["main"]\n'}
    assert [each["secretRef"]["name"] for each in container["envFrom"]] == ["lensway-runner-alpha", "databases"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert {
        str(pathlib.PurePath(variables[name]).parent) for name in ("LENSWAY_RUNNER_POLICY", "LENSWAY_CA_FILE")
    } <= mounts
    assert {kind for kind, _ in objects} == {"Deployment", "PodDisruptionBudget", "ConfigMap"}


@pytest.mark.parametrize("room", ["server", "runner"])
def test_a_chart_without_its_secret_says_which_one_it_needs(room: str) -> None:
    with pytest.raises(helm_python.HelmError, match=f"{room}.existingSecret"):
        render({"server": {"enabled": room == "server"}, "runner": {"enabled": room == "runner"}})


def test_a_misspelt_value_is_refused() -> None:
    with pytest.raises(helm_python.HelmError, match="replica"):
        render({"server": SERVER["server"], "runner": {"replica": 3}})


def test_the_block_for_kubernetes_is_a_valid_secret() -> None:
    variables = read_block("LENSWAY_RUNNER_ID=run_1\nLENSWAY_RUNNER_TOKEN=rk_1\nLENSWAY_GATEWAY_URL=wss://x/connect\n")
    secret = yaml.safe_load(environment_block("kubernetes", "alpha", variables))
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(secret, version, strict=True)
    assert secret["metadata"]["name"] == RUNNER["runner"]["existingSecret"]  # type: ignore[index]
    assert json.loads(json.dumps(secret["stringData"])) == variables
