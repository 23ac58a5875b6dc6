"""Looks for secrets where none may be: raw, and in the encodings in which they usually slip through."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator, Mapping


def spellings(secret: str) -> Iterator[tuple[str, bytes]]:
    """The secret in every form that counts as leaked, with the form's name."""
    raw = secret.encode()
    yield "raw", raw
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "json", json.dumps(secret)[1:-1].encode()
    yield "url", urllib.parse.quote(secret, safe="").encode()
    yield "form", urllib.parse.quote_plus(secret).encode()
    yield "repr", repr(secret)[1:-1].encode()
    # In base64 the text depends on what stands before it: the inner part of all three alignments.
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw)
        skip = -(-offset * 4 // 3)
        for alphabet, text in (("base64", encoded), ("base64url", encoded.translate(bytes.maketrans(b"+/", b"-_")))):
            yield f"{alphabet}+{offset}", text[skip + 1 :].rstrip(b"=")[:-2]


def leaks(places: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[str]:
    """Where which secret stands, in which form; empty when nowhere."""
    return [
        f"{name} in {place} ({form})"
        for name, secret in secrets.items()
        for form, needle in spellings(secret)
        for place, content in places.items()
        if needle and needle in content
    ]
