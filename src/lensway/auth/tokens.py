"""Keys and tokens: 256 random bits behind a prefix that says what they open. Stored as SHA-256 only, which is right for random
texts of full entropy: a slow hash protects guessable ones."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from lensway.auth.secret import Secret
from lensway.errors import ErrorCode, LenswayError
from lensway.limits import KEY_CHARACTERS_MAX

KINDS: Final = ("ak", "sk", "pk", "rk")
_SHAPE: Final = re.compile(r"(ak|sk|pk|rk)_[A-Za-z0-9_-]{32,512}")


def mint(kind: str) -> Secret:
    """A new key of this kind: ``ak``, ``sk``, ``pk`` or ``rk``."""
    assert kind in KINDS
    return Secret(f"{kind}_{secrets.token_urlsafe(32)}")


def hash_token(text: str) -> bytes:
    """The stored hash of a key, 32 bytes."""
    return hashlib.sha256(text[:KEY_CHARACTERS_MAX].encode()).digest()


def kind_of(text: str) -> str | None:
    """The kind of a text that looks like a key, else None."""
    found = _SHAPE.fullmatch(text)
    return None if found is None else found[1]


def check_admin_key(text: str) -> Secret:
    """The key, taken as given. Raises LenswayError INVALID_REQUEST for anything but ``ak_`` and 32 URL-safe characters."""
    if kind_of(text) != "ak":
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "LENSWAY_ADMIN_KEY is not an admin key",
            hint="Use `ak_` followed by at least 32 URL-safe characters, for example from `openssl rand -hex 32`.",
        )
    return Secret(text)
