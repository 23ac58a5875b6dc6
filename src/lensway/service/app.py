"""The HTTP application: handlers joined to the table of routes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as HttpRoute

import lensway
from lensway.api import openapi
from lensway.api.routes import ROUTES, Route
from lensway.observe.metrics import CONTENT_TYPE, Metrics
from lensway.service.control_plane import ControlPlane
from lensway.service.data_plane import DataPlane
from lensway.service.http import Call, Endpoint, json_response
from lensway.service.routing import HttpEndpoint, RouteTable
from lensway.usecases.desk import Desk


class Operations:
    """Handlers without a use case: health, metrics, the document of the API itself."""

    def __init__(self, desk: Desk, metrics: Metrics) -> None:
        self._desk = desk
        self._metrics = metrics
        self._document = msgspec.json.encode(openapi.document(lensway.__version__))
        self.is_ready = False

    async def healthz(self, call: Call) -> Response:
        """The process lives."""
        return json_response({"status": "ok"})

    async def readyz(self, call: Call) -> Response:
        """The process serves; 503 while it starts or stops."""
        status = "ready" if self.is_ready else "not ready"
        return json_response({"status": status}, status=200 if self.is_ready else 503)

    async def openapi(self, call: Call) -> Response:
        """The OpenAPI document."""
        return Response(self._document, media_type="application/json")

    async def metrics(self, call: Call) -> Response:
        """Prometheus metrics: the server's for instance-wide keys, those of its environment for others."""
        environment = None if call.by.identity.environment is None else call.by.environment.name
        return Response(self._metrics.text(environment=environment), headers={"Content-Type": CONTENT_TYPE})


def build_app(
    endpoint: Endpoint,
    handlers: Sequence[DataPlane | ControlPlane | Operations],
    *,
    mounts: Sequence[BaseRoute] = (),
) -> RouteTable:
    """The application. Every route of the table has exactly one handler of its name."""
    endpoints: dict[Route, HttpEndpoint] = {}
    routes: list[BaseRoute] = []
    for route in ROUTES:
        found = [method for handler in handlers if (method := getattr(handler, route.name, None)) is not None]
        assert len(found) == 1, f"{route.name} has {len(found)} handlers"
        endpoints[route] = endpoint.of(route, found[0])
        # Starlette knows them too: it tells a wrong method from a wrong path, and answers HEAD.
        routes.append(HttpRoute(route.path, endpoints[route], methods=[route.method], name=route.name))

    async def unrouted(request: Request, error: Exception) -> Response:
        return await endpoint.unrouted(request, _with_allow(request, error))

    app = Starlette(routes=[*routes, *mounts], exception_handlers={HTTPException: unrouted})
    app.router.redirect_slashes = False
    return RouteTable(endpoints, app)


def _with_allow(request: Request, error: Exception) -> Exception:
    """The error, with every method of the path: each route of ours knows its own only."""
    if not isinstance(error, HTTPException) or error.status_code != 405:
        return error
    methods = sorted(
        {route.method for route in ROUTES if HttpRoute(route.path, lambda _r: None).path_regex.match(request.url.path)}
    )
    return HTTPException(405, headers={"Allow": ", ".join(methods)})
