"""The ways to start a runner: its environment block as a shell, systemd, Compose and Kubernetes take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from lensway.api.blocks import FORMS, BlockForm, environment_block, read_block, resource_name


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """One way to start a runner. ``text`` goes into a file or a terminal as it is."""

    id: str
    title: str
    hint: str
    text: str


_TITLES: Final[Mapping[BlockForm, str]] = {
    "shell": "Shell",
    "systemd": "systemd",
    "compose": "Compose",
    "kubernetes": "Kubernetes",
}


def ways(name: str, block: str) -> list[Way]:
    """Every way, with the variables of the block filled in. The token stands in the text: show it once."""
    variables = read_block(block)
    hints: Mapping[BlockForm, str] = {
        "shell": "Paste it into a terminal near the database.",
        "systemd": "Run it as root on a machine that has the unit lensway-runner@ (deploy/systemd in the repository).",
        "compose": "Save it as compose.yaml, readable for you alone, then run `docker compose up -d`.",
        "kubernetes": "Apply it with `kubectl apply -f -`, then install the chart with "
        f"`--set runner.existingSecret=lensway-runner-{resource_name(name)}`.",
    }
    return [Way(form, _TITLES[form], hints[form], _text(form, name, variables)) for form in FORMS]


def _text(form: BlockForm, name: str, variables: Mapping[str, str]) -> str:
    if form == "shell":
        return "".join(f"export {key}='{value}'\n" for key, value in variables.items()) + "lensway runner start\n"
    return environment_block(form, name, variables)
