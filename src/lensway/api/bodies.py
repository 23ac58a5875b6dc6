"""Requests of the API as bodies of HTTP requests: the one place where their members get the names that travel."""

from __future__ import annotations

from typing import Any

import msgspec

from lensway.api.shapes import Request


def body_of(request: Request) -> dict[str, Any]:
    """The members of the request by their names on the wire, without those that have their defaults."""
    body: dict[str, Any] = {}
    for field in msgspec.structs.fields(request):
        value = getattr(request, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if default is msgspec.NODEFAULT or value != default:
            body[field.encode_name] = _plain(value)
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, Request):
        return body_of(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
