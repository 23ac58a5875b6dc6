"""Audit entries of access: who signed in, who was refused, who connected. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry
from lensway.clock import Clock
from lensway.ids import EnvironmentId

SIGN_IN = "session.create"
SIGN_OUT = "session.delete"
AUTHENTICATE = "authenticate"
RUNNER_CONNECT = "runner.connect"
RUNNER_DISCONNECT = "runner.disconnect"


def access_entry(
    clock: Clock,
    action: str,
    *,
    outcome: str,
    address: str,
    actor: str = "somebody",
    environment: EnvironmentId | None = None,
    object: str = "",
    request_id: str = "",
    details: Mapping[str, Any] = {},
) -> AuditEntry:
    """The entry of an attempt to get in, or of somebody who got in."""
    return AuditEntry(
        at=moment_text(clock.wall()),
        environment=environment,
        actor=actor,
        action=action,
        object=object,
        address=address,
        outcome=outcome,
        request_id=request_id,
        details=details,
    )
