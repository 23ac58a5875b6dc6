"""From a decoded JSON body to the API's own request type. The planner checks the values; this checks that the keys are known."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lensway import limits
from lensway.api.shapes import Request
from lensway.catalog.names import invalid
from lensway.catalog.reading import mapping
from lensway.query import unavailable
from lensway.query.suggestions import nearest

AnyRequest = TypeVar("AnyRequest", bound=Request)


def read_request(kind: type[AnyRequest], body: object) -> AnyRequest:
    """The request that a body states, its values as they came.

    Raises:
        LenswayError: INVALID_REQUEST for a body that is no object, and for an unknown key, naming the nearest known one.
    """
    members = body if type(body) is dict else mapping(body, "")
    attributes = _attributes(kind)
    try:
        return kind(**{attributes[key]: value for key, value in members.items()})
    except KeyError:
        raise _unknown(members, attributes) from None


@functools.cache
def _attributes(kind: type[Request]) -> Mapping[str, str]:
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}


def _unknown(members: Mapping[str, object], attributes: Mapping[str, str]) -> Exception:
    key = next(key for key in members if key not in attributes)
    if key in unavailable.KEYS:
        return unavailable.key_refusal(key)
    known = [each for each in attributes if each not in unavailable.KEYS]
    return invalid(
        key[: limits.NAME_CHARACTERS_MAX],
        f"unknown key; known keys: {', '.join(known)}",
        nearest=nearest(key, known),
    )
