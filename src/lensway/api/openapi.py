"""The OpenAPI 3.1 document, made from the table of routes and the shapes."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from lensway.api import shapes
from lensway.api.routes import ROUTES, Access, Route

_PATH_PARAM: Final = re.compile(r"\{(\w+)\}")
_KINDS: Final = {str: {"type": "string"}, int: {"type": "integer", "minimum": 1}, bool: {"type": "boolean"}}
_ERRORS: Final = ("400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "502", "503", "504")


def document(version: str) -> dict[str, Any]:
    """The whole document; ``version`` is the program's."""
    types = [each for route in ROUTES for each in (route.request, route.answer) if each is not None]
    types.append(shapes.ErrorAnswer)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lensway",
            "version": version,
            "description": "One safe query API over databases that live behind other people's firewalls.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "ak_, sk_ or pk_ key"}},
        },
    }


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAM.findall(route.path)
    ]
    for param in route.params:
        entry = {
            "name": param.name,
            "in": "query",
            "required": False,
            "schema": _KINDS[param.kind],
            "description": param.description,
        }
        parameters.append(entry)
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "x-access": route.access.value,
        "responses": {str(route.status): _answer(route, by_type)},
    }
    failure = {
        "description": "A typed failure",
        "content": {"application/json": {"schema": by_type[repr(shapes.ErrorAnswer)]}},
    }
    operation["responses"] |= dict.fromkeys(_ERRORS, failure)
    operation["responses"]["default"] = failure
    if parameters:
        operation["parameters"] = parameters
    if route.request is not None:
        operation["requestBody"] = {
            "required": not route.is_body_optional,
            "content": {"application/json": {"schema": by_type[repr(route.request)]}},
        }
    if route.access is not Access.OPEN:
        operation["security"] = [{"key": []}]
    return operation


def _answer(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.status != 204:
        schema = {} if route.answer is None else by_type[repr(route.answer)]
        answer["content"] = {route.media: {"schema": schema}} | {media: {"schema": {}} for media in route.streams}
    return answer
