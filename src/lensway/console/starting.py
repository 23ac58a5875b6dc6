"""The ways to start a runner: its environment block as a shell, systemd, Compose and Kubernetes take it."""

from __future__ import annotations

import dataclasses
from typing import Final

_IMAGE: Final = "lensway-runner"


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """One way to start a runner. ``text`` goes into a file or a terminal as it is."""

    id: str
    title: str
    hint: str
    text: str


def ways(name: str, block: str, version: str) -> list[Way]:
    """Every way, with the variables of the block filled in. The token stands in the text: show it once."""
    variables = dict(line.split("=", 1) for line in block.strip().splitlines())
    exports = "\n".join(f"export {key}='{value}'" for key, value in variables.items())
    lines = "\n".join(f"{key}={value}" for key, value in variables.items())
    listed = "\n".join(f"      {key}: {_quoted(value)}" for key, value in variables.items())
    secret = "\n".join(f"  {key}: {_quoted(value)}" for key, value in variables.items())
    unit = f"lensway-runner-{name}"
    return [
        Way("shell", "Shell", "Paste it into a terminal near the database.", f"{exports}\nlensway runner start\n"),
        Way(
            "systemd",
            "systemd",
            "Run it as root on the runner's machine.",
            f"install -m 600 /dev/stdin /etc/{unit}.env <<'END'\n{lines}\nEND\n"
            f"cat > /etc/systemd/system/{unit}.service <<'END'\n{_unit(name, unit)}END\n"
            f"systemctl daemon-reload && systemctl enable --now {unit}\n",
        ),
        Way(
            "compose",
            "Compose",
            "Save it as compose.yaml, readable for you alone, then run `docker compose up -d`.",
            f"services:\n  {unit}:\n    image: {_IMAGE}:{version}\n    restart: unless-stopped\n    environment:\n{listed}\n",
        ),
        Way(
            "kubernetes",
            "Kubernetes",
            "Apply it with `kubectl apply -f -` in the namespace near the database.",
            f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: {unit}\nstringData:\n{secret}\n---\n{_deployment(unit, version)}",
        ),
    ]


def _unit(name: str, unit: str) -> str:
    return (
        f"[Unit]\nDescription=Lensway runner {name}\nAfter=network-online.target\nWants=network-online.target\n\n"
        f"[Service]\nEnvironmentFile=/etc/{unit}.env\nExecStart=/usr/bin/env lensway runner start\n"
        "Restart=always\nRestartSec=2\nDynamicUser=yes\nTimeoutStopSec=60\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def _deployment(unit: str, version: str) -> str:
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {unit}\nspec:\n  replicas: 1\n"
        f"  selector:\n    matchLabels:\n      app: {unit}\n"
        f"  template:\n    metadata:\n      labels:\n        app: {unit}\n    spec:\n      containers:\n"
        f"        - name: runner\n          image: {_IMAGE}:{version}\n          envFrom:\n"
        f"            - secretRef:\n                name: {unit}\n"
    )


def _quoted(value: str) -> str:
    """A YAML string: what JSON would write, which every YAML reader takes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
