"""The facts of a session when it opens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lensway.fleet.liveness import SMALL_FLEET, Timings
from lensway.ids import EnvironmentId, InstanceId, RunnerId, SessionId


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """The facts of a session when it opens."""

    session: SessionId
    environment: EnvironmentId
    runner: RunnerId
    runner_name: str
    instance: InstanceId
    bridges: Mapping[str, str]
    capacity: int
    software: str
    hostname: str
    address: str
    version: int
    encodings: frozenset[str] = frozenset()
    """The formats that it can encode rows in. An older runner names none: it may have every one."""
    timings: Timings = SMALL_FLEET
    """The windows that its welcome named."""
    features: frozenset[str] = frozenset()
    """What it named in its hello and this node knows."""
