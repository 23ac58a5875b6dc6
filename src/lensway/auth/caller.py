"""Who asks, as every use case gets it: an identity in an environment, from an address, under a request id."""

from __future__ import annotations

import dataclasses

from lensway.auth.decisions import Identity
from lensway.catalog.records import Environment


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, in which environment, from where."""

    identity: Identity
    environment: Environment
    request_id: str
    address: str
