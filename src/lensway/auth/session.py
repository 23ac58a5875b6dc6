"""The Console's session cookie: which key signed in, its role, until when; signed, and rechecked against the snapshot."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from lensway.auth.decisions import Identity
from lensway.limits import CONSOLE_SESSION_SECONDS


class SessionClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What the cookie says. ``expires`` in seconds of the wall clock."""

    key: str
    role: str
    expires: int


def sign_session(signing_key: bytes, identity: Identity, now_seconds: float) -> str:
    """The value of a new cookie."""
    claims = SessionClaims(
        key=identity.key,
        role="" if identity.role is None else identity.role.value,
        expires=int(now_seconds + CONSOLE_SESSION_SECONDS),
    )
    return jws.serialize_compact({"alg": "HS256"}, msgspec.json.encode(claims), OctKey.import_key(signing_key))


def read_session(signing_key: bytes, value: str, now_seconds: float) -> SessionClaims | None:
    """What a cookie says, or None for one that is forged, altered or over."""
    try:
        payload = jws.deserialize_compact(value, OctKey.import_key(signing_key), algorithms=["HS256"]).payload
        claims = msgspec.json.decode(payload, type=SessionClaims)
    except (JoseError, ValueError, msgspec.MsgspecError):
        return None
    return claims if claims.expires > now_seconds else None


def form_token(signing_key: bytes, cookie: str) -> str:
    """What forms of this session carry, so that no other site can post them."""
    return hmac.new(signing_key, b"form:" + cookie.encode(), hashlib.sha256).hexdigest()
