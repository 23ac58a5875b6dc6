"""Settings of sources, encrypted: sealed to one runner instance on the wire, and at rest under a key of the deployment.

Both are standard JWE (RFC 7516) by a library. Who and what they are for stands inside, so that a ciphertext that is moved to
another source, runner or version opens nothing.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, OKPKey

from lensway.errors import ErrorCode, LenswayError

_SEAL_HEADER: Final = {"alg": "ECDH-ES", "enc": "A256GCM"}
_REST_HEADER: Final = {"alg": "A256KW", "enc": "A256GCM"}
_SEAL_ALGORITHMS: Final = ["ECDH-ES", "A256GCM"]
_REST_ALGORITHMS: Final = ["A256KW", "A256GCM"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SealClaims:
    """What sealed settings are for. ``expires_at_wall_ms`` counts on the sealing node's wall clock."""

    environment: str
    source: str
    runner: str
    version: int
    expires_at_wall_ms: int


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    environment: str
    source: str
    runner: str
    version: int
    expires_at_wall_ms: int
    config: bytes


class _AtRest(msgspec.Struct, frozen=True, kw_only=True):
    environment: str
    source: str
    version: int
    config: bytes


class InstanceKeys:
    """The X25519 pair of one runner process; it never leaves its memory."""

    __slots__ = ("_key", "public_bytes")

    def __init__(self, private: X25519PrivateKey) -> None:
        raw = private.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        self.public_bytes = private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": _text(self.public_bytes), "d": _text(raw)})

    @classmethod
    def generate(cls) -> InstanceKeys:
        """A fresh pair."""
        return cls(X25519PrivateKey.generate())

    def __repr__(self) -> str:
        return "InstanceKeys(redacted)"

    def decrypt(self, sealed: bytes) -> bytes:
        """The plaintext. Raises JoseError or ValueError."""
        plain = jwe.decrypt_compact(sealed, self._key, algorithms=_SEAL_ALGORITHMS).plaintext
        if plain is None:
            raise ValueError("no plaintext")
        return plain


def is_usable(public_key: bytes) -> bool:
    """False for 32 bytes with which no key can be agreed (points of low order): nothing can be sealed to them."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return False
    return True


def seal(config: bytes, public_key: bytes, claims: SealClaims) -> bytes:
    """The settings, readable by the holder of this public key alone."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": _text(public_key)})
    plain = msgspec.json.encode(_Sealed(**dataclasses.asdict(claims), config=config))
    return jwe.encrypt_compact(dict(_SEAL_HEADER), plain, key, algorithms=_SEAL_ALGORITHMS).encode()


def open_sealed(
    sealed: bytes, keys: InstanceKeys, *, environment: str, source: str, runner: str, version: int, now_wall_ms: int
) -> bytes:
    """The settings inside.

    Raises:
        LenswayError: INTERNAL when they are not readable, not for this source, runner and version, or too old.
    """
    try:
        found = msgspec.json.decode(keys.decrypt(sealed), type=_Sealed)
    except (JoseError, ValueError, msgspec.MsgspecError):
        raise _unreadable("cannot be opened with this key") from None
    meant = (found.environment, found.source, found.runner, found.version)
    if meant != (environment, source, runner, version):
        raise _unreadable("were sealed for another source, runner or version")
    if found.expires_at_wall_ms < now_wall_ms:
        raise _unreadable("have expired")
    return found.config


def encrypt_at_rest(config: bytes, key: bytes, *, environment: str, source: str, version: int) -> bytes:
    """The settings as they may stand in a database."""
    plain = msgspec.json.encode(_AtRest(environment=environment, source=source, version=version, config=config))
    header = dict(_REST_HEADER)
    return jwe.encrypt_compact(header, plain, OctKey.import_key(key), algorithms=_REST_ALGORITHMS).encode()


def decrypt_at_rest(sealed: bytes, key: bytes, *, environment: str, source: str, version: int) -> bytes:
    """The settings of a database row.

    Raises:
        LenswayError: INTERNAL when the key is another one, or the row belongs to another source or version.
    """
    try:
        plain = jwe.decrypt_compact(sealed, OctKey.import_key(key), algorithms=_REST_ALGORITHMS).plaintext
        found = msgspec.json.decode(plain or b"", type=_AtRest)
    except (JoseError, ValueError, msgspec.MsgspecError):
        raise _unreadable("cannot be decrypted with this master key") from None
    if (found.environment, found.source, found.version) != (environment, source, version):
        raise _unreadable("belong to another source or version")
    return found.config


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unreadable(why: str) -> LenswayError:
    return LenswayError(ErrorCode.INTERNAL, f"stored settings {why}")
