"""Keys and tokens in URLs: they end up in logs, histories and headers of others, so whose they are is told. Pure."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from typing import Final

from lensway.auth import tokens
from lensway.catalog.snapshot import Snapshot
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId

ACTION: Final = "credential.in_url"
_LOOKS_LIKE_ONE: Final = re.compile(r"(?:ak|sk|pk|rk)_[A-Za-z0-9_-]{32,512}")
_LOOKED_AT_MAX: Final = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A valid key or token that stood in a URL; never its text."""

    environment: EnvironmentId | None
    object: str


def exposed_in(snapshot: Snapshot, query: str) -> Exposed | None:
    """The first good key or runner token in the query of a URL."""
    for text in _LOOKS_LIKE_ONE.findall(urllib.parse.unquote(query))[:_LOOKED_AT_MAX]:
        hashed = tokens.hash_token(text)
        if (key := snapshot.key_by_hash(hashed)) is not None:
            return Exposed(environment=key.environment, object=key.id)
        if (runner := snapshot.runner_by_token(hashed)) is not None:
            return Exposed(environment=runner.environment, object=runner.id)
    return None


def refusal() -> LenswayError:
    """The answer to a request with a key in its URL."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        "The URL contains a key, and logs and browser histories store URLs",
        hint="Send the key in the Authorization header, and replace this key: treat it as compromised.",
    )
