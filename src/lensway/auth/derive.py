"""Keys derived from the one master key, by purpose (HKDF-SHA256, RFC 5869)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def derive(master: bytes, purpose: str) -> bytes:
    """32 bytes for this purpose: ``cursor``, ``sign-in``, ``at-rest``, ``audit``. They reveal nothing about another purpose."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"lensway/{purpose}/v1".encode()).derive(master)
