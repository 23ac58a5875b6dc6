"""The files for Prometheus and Grafana: judged by Prometheus' own tool, and by what server and runner really expose."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from lensway.observe.metrics import JobTimes, Metrics
from lensway.runner.health import Health, JobTotals
from lensway.usecases.measuring import watch

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
_NAME = re.compile(r"\blensway_[a-z_]+")


def exposed() -> set[str]:
    """Every name of a sample that a server or a runner gives."""
    metrics = Metrics()
    metrics.request("ok")
    metrics.job(
        JobTimes("runner", "completed", total=0.1, dispatch=0.1, accept=0.1, first_row=0.1, cancels=["deadline"])
    )
    fleet = SimpleNamespace(sessions={}, sessions_of=lambda _runner: [])
    core = SimpleNamespace(counters={})
    dispatcher: Any = SimpleNamespace(fleet=fleet, core=core, jobs_in_flight=0, jobs_queued=0)
    snapshots: Any = SimpleNamespace(current=lambda: SimpleNamespace(environments=list))
    watch(metrics, snapshots, dispatcher, lambda: 0)
    agent: Any = SimpleNamespace(
        state="connected", cause="", policy_problem="", jobs_count=0, sources=SimpleNamespace(served=list)
    )
    text = metrics.text().decode() + Health(agent, JobTotals()).page("/metrics").text
    names = set(re.findall(r"^# TYPE (lensway_\w+)", text, re.MULTILINE))
    histograms = {f"{name}_bucket" for name in re.findall(r"^# TYPE (lensway_\w+) histogram", text, re.MULTILINE)}
    return names | histograms


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_the_alerts_pass_the_tool_of_prometheus(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_and_dashboard_name_only_metrics_that_exist() -> None:
    known = exposed()
    alerts = (DEPLOY / "prometheus/alerts.yaml").read_text()
    expressions = re.findall(r"expr: (.*)", alerts)
    assert expressions
    assert set(_NAME.findall(" ".join(expressions))) <= known
    dashboard = json.loads((DEPLOY / "grafana/lensway.json").read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(_NAME.findall(" ".join(targets))) <= known
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_every_alert_is_tried() -> None:
    alerts = (DEPLOY / "prometheus/alerts.yaml").read_text()
    tried = (DEPLOY / "prometheus/alerts_test.yaml").read_text()
    for name in re.findall(r"alert: (\w+)", alerts):
        assert f"alertname: {name}" in tried, name
