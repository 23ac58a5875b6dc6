"""Environments come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lensway.catalog.names import check_name, conflict, counted
from lensway.catalog.records import Change, Environment, Put, Remove
from lensway.catalog.rules.lookup import require_environment
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId

DEFAULT: Final = "default"
"""The environment that is there from the start and stays."""


def create_environment(snapshot: Snapshot, name: object, *, id: EnvironmentId, at: str) -> Sequence[Change]:
    """A new, empty environment. Raises LenswayError INVALID_REQUEST, or CONFLICT when the name is taken."""
    checked = check_name(name, kind="environment", path="name")
    if snapshot.environment(checked) is not None:
        raise conflict(f"Environment {checked!r} already exists", hint="Choose another name.", name=checked)
    return [Put(record=Environment(id=id, name=checked, created_at=at))]


def delete_environment(snapshot: Snapshot, name_or_id: str) -> Sequence[Change]:
    """The environment goes. Raises LenswayError NOT_FOUND, or CONFLICT while anything is in it or it is ``default``."""
    environment = require_environment(snapshot, name_or_id)
    if environment.name == DEFAULT:
        raise conflict("The environment 'default' cannot be deleted", hint="Requests use this environment by default.")
    held = {
        "source": len(snapshot.sources(environment.id)),
        "lens": len(snapshot.lenses(environment.id)),
        "runner": len(snapshot.runners(environment.id)),
        "key": len(snapshot.keys(environment.id)),
    }
    if present := {kind: number for kind, number in held.items() if number}:
        contents = ", ".join(counted(number, kind) for kind, number in present.items())
        raise conflict(
            f"The environment {environment.name!r} is not empty: {contents}",
            hint="Delete its contents first.",
            **{counted(2, kind).removeprefix("2 "): number for kind, number in present.items()},
        )
    return [Remove(record=environment)]
