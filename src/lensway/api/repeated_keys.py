"""Refuses JSON objects that hold a key twice. Decoders keep the last value only, so half of such a filter would be lost."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from lensway.errors import ErrorCode, LenswayError

_KEY_ENDS: Final = re.compile(rb'"\s*:')
"""Where a key ends. Within a text only an escaped quote looks like this, which is rare."""
_SHOWN_CHARACTERS: Final = 63


def require_single_keys(data: bytes, decoded: Any) -> None:
    """Refuse JSON in which an object has a key twice; ``decoded`` is what the decoder made of it.

    Raises:
        LenswayError: INVALID_REQUEST naming the key.
    """
    if len(_KEY_ENDS.findall(data)) == _keys_in(decoded):
        return
    # The numbers differ: either a key was lost, or a text looks like one.
    json.loads(data.decode(), object_pairs_hook=_object, parse_int=str, parse_float=str)


def _keys_in(decoded: Any) -> int:
    found, pending = 0, [decoded]
    while pending:
        value = pending.pop()
        if type(value) is dict:
            found += len(value)
            pending += [each for each in value.values() if type(each) is dict or type(each) is list]
        elif type(value) is list:
            pending += [each for each in value if type(each) is dict or type(each) is list]
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"The key {key[:_SHOWN_CHARACTERS]!r} stands twice in one object",
                hint='Write each key once. For two conditions on one field: {"total": {"$gt": 100, "$lt": 200}}, or `$and`.',
                details={"key": key[:_SHOWN_CHARACTERS]},
            )
        found[key] = value
    return found
