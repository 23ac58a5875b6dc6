"""Who asks, as every use case gets it: an identity in an environment, from an address, under a request id."""

from __future__ import annotations

import msgspec

from lensway.auth.decisions import Identity
from lensway.catalog.records import Environment


class Caller(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asks, in which environment, from where."""

    identity: Identity
    environment: Environment
    request_id: str
    address: str
