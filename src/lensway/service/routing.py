"""From a request to the endpoint of its route, by table: every request pays for this, so it walks no list of patterns.

What no route has (other paths, other methods, the Console's pages) goes on to Starlette, which also says 404 and 405.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lensway import limits
from lensway.api.routes import Route
from lensway.query.cache import BoundedCache

HttpEndpoint = Callable[[Request], Awaitable[Response]]
_KEY_SEGMENT = 2
"""``/v1/query/…``: the first segment that tells routes apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Pattern:
    """One route: its segments, the name instead of each parameter, and which segments are parameters."""

    segments: tuple[str, ...]
    parameters: tuple[int, ...]
    endpoint: HttpEndpoint

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The parameters of this path, or None when it is not of this route."""
        found: dict[str, str] = {}
        for number, (wanted, given) in enumerate(zip(self.segments, segments, strict=True)):
            if number in self.parameters:
                if not given:
                    return None
                found[wanted] = given
            elif wanted != given:
                return None
        return found


class RouteTable:
    """The application: routes by look-up, ``rest`` for everything else."""

    def __init__(self, endpoints: Mapping[Route, HttpEndpoint], rest: ASGIApp) -> None:
        self._rest = rest
        self._patterns: dict[tuple[str, int, str], list[_Pattern]] = {}
        self._found: BoundedCache[tuple[str, str], tuple[HttpEndpoint, Mapping[str, str]]] = BoundedCache(
            entries_max=limits.PATHS_REMEMBERED_MAX, bytes_max=limits.PATHS_REMEMBERED_BYTES_MAX
        )
        for route, endpoint in endpoints.items():
            segments = route.path.split("/")
            parameters = tuple(number for number, each in enumerate(segments) if each.startswith("{"))
            pattern = _Pattern(tuple(each.strip("{}") for each in segments), parameters, endpoint)
            self._patterns.setdefault(_key(route.method, segments), []).append(pattern)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = self._find(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await self._rest(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> HttpEndpoint | None:
        method, path = scope["method"], scope["path"]
        found = self._found.get((method, path))
        if found is None:
            found = self._match(method, path)
            if found is None:
                return None
            self._found.put((method, path), found, len(path))
        endpoint, scope["path_params"] = found
        return endpoint

    def _match(self, method: str, path: str) -> tuple[HttpEndpoint, Mapping[str, str]] | None:
        segments = path.split("/")
        for pattern in self._patterns.get(_key(method, segments), ()):
            parameters = pattern.match(segments)
            if parameters is not None:
                return pattern.endpoint, MappingProxyType(parameters)
        return None


def _key(method: str, segments: list[str]) -> tuple[str, int, str]:
    return method, len(segments), segments[_KEY_SEGMENT] if len(segments) > _KEY_SEGMENT else ""
