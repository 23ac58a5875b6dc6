"""Audit entries of access: who signed in, who was refused, who connected. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry
from lensway.clock import Clock
from lensway.ids import EnvironmentId

_KEY = re.compile(r"(ak|sk|pk|rk)_[A-Za-z0-9_-]{32,512}")
SIGN_IN = "sign-in.create"
SIGN_OUT = "sign-in.delete"
AUTHENTICATE = "authenticate"
RUNNER_CONNECT = "runner.connect"
RUNNER_DISCONNECT = "runner.disconnect"


def without_keys(text: str) -> str:
    """The text for a record: a key that a caller put where a name belongs is shortened to its kind."""
    return _KEY.sub(r"\1_…", text)


def access_entry(
    clock: Clock,
    action: str,
    *,
    outcome: str,
    address: str,
    actor: str = "unknown",
    environment: EnvironmentId | None = None,
    object: str = "",
    request_id: str = "",
    details: Mapping[str, Any] = {},
) -> AuditEntry:
    """The audit entry of an attempt to sign in or connect, successful or not."""
    return AuditEntry(
        at=moment_text(clock.wall()),
        environment=environment,
        actor=actor,
        action=action,
        object=without_keys(object),
        address=address,
        outcome=outcome,
        request_id=request_id,
        details=details,
    )
