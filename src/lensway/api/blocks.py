"""The environment block of a new runner, in the form in which its owner installs it.

Tests run the forms `shell` and `systemd` and validate `compose` and `kubernetes` with the schemas of those tools.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

BlockForm: TypeAlias = Literal["shell", "systemd", "compose", "kubernetes"]

FORMS: Final[tuple[BlockForm, ...]] = ("shell", "systemd", "compose", "kubernetes")
_TOKEN: Final = "LENSWAY_RUNNER_TOKEN"  # noqa: S105 - the variable's name
_IMAGE: Final = "lensway-runner"


def read_block(text: str) -> dict[str, str]:
    """The variables of a block in the form `shell`, as the server returns it."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def environment_block(form: BlockForm, name: str, variables: Mapping[str, str]) -> str:
    """The variables of runner ``name`` in this form, with a line end."""
    match form:
        case "shell":
            return "".join(f"{key}={value}\n" for key, value in variables.items())
        case "systemd":
            return _systemd(name, variables)
        case "compose":
            return _compose(name, variables)
        case "kubernetes":
            return _kubernetes(name, variables)


def resource_name(name: str) -> str:
    """The runner's name as Kubernetes and compose take it: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _systemd(name: str, variables: Mapping[str, str]) -> str:
    """Commands for root that write the two files of `lensway-runner@NAME.service` and start it."""
    settings = "".join(f"{key}={value}\n" for key, value in variables.items() if key != _TOKEN)
    return (
        "install -d -m 0700 /etc/lensway\n"
        "umask 077\n"
        f"printf %s {shlex.quote(settings)} > /etc/lensway/{name}.env\n"
        f"printf %s {shlex.quote(variables[_TOKEN])} > /etc/lensway/{name}.token\n"
        # Restart: a unit that runs holds a copy of the token before.
        f"systemctl enable lensway-runner@{name}\n"
        f"systemctl restart lensway-runner@{name}\n"
    )


def _compose(name: str, variables: Mapping[str, str]) -> str:
    """A compose file with one service."""
    lines = [
        "services:",
        f"  {resource_name(name)}:",
        f"    image: {_IMAGE}",
        "    restart: unless-stopped",
        "    read_only: true",
        "    cap_drop: [ALL]",
        "    security_opt: [no-new-privileges:true]",
        "    stop_grace_period: 45s",
        "    environment:",
        # A `$` would be a variable of compose.
        *(f"      {key}: {json.dumps(value.replace('$', '$$'))}" for key, value in variables.items()),
    ]
    return "\n".join(lines) + "\n"


def _kubernetes(name: str, variables: Mapping[str, str]) -> str:
    """A Secret, which the chart takes as `runner.existingSecret`."""
    lines = [
        "apiVersion: v1",
        "kind: Secret",
        "metadata:",
        f"  name: lensway-runner-{resource_name(name)}",
        "type: Opaque",
        "stringData:",
        *(f"  {key}: {json.dumps(value)}" for key, value in variables.items()),
    ]
    return "\n".join(lines) + "\n"
