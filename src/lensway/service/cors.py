"""Cross-origin requests of web pages: which origin may read which answer.

A preflight carries no key, so it allows every origin that some publishable key lists. The request itself says its key, and its
answer names the origin only when that very key lists it. The answer to a request without a good key follows the rule of
preflights, so that the page can read why. Cookies play no part, so answers carry neither `Access-Control-Allow-Credentials`
nor a wildcard.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lensway import limits
from lensway.api.routes import ROUTES, Access
from lensway.auth.decisions import Identity
from lensway.catalog.ports import SnapshotSource
from lensway.errors import ErrorCode, Failure

ORIGIN: Final = b"origin"
_REQUEST_METHOD: Final = "access-control-request-method"
_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (
    b"access-control-expose-headers",
    b"X-Request-Id, Retry-After, Lensway-Route, Lensway-Request, Lensway-Rows, Lensway-Has-More, Lensway-Next-Cursor,"
    b" Lensway-Total",
)
_METHODS: Final = ", ".join(sorted({each.method for each in ROUTES if each.access in (Access.OPEN, Access.DATA)}))
_HEADERS: Final = "Authorization, Content-Type, Accept, X-Environment, traceparent, tracestate, baggage"
REFUSAL: Final = Failure(
    code=ErrorCode.FORBIDDEN,
    message="No publishable key lists the origin of this page",
    hint="Create a key that lists it: `lensway keys create pk NAME --origin ORIGIN`.",
)


class Cors:
    """Decides by the current catalog. It costs a request without `Origin` nothing but the look for that header."""

    def __init__(self, snapshots: SnapshotSource) -> None:
        self._snapshots = snapshots
        self._revision: int | None = None
        self._listed: frozenset[str] = frozenset()

    def mark(self, response: Response, origin: bytes, identity: Identity | None) -> None:
        """Add what lets the page of this origin read the response, if it may. ``identity`` None: no good key was given."""
        response.raw_headers.append(_VARY)
        if origin.decode("latin-1") in (self._all() if identity is None else identity.origins):
            response.raw_headers += ((b"access-control-allow-origin", origin), _EXPOSED)

    def preflight(self, request: Request) -> Response | None:
        """The answer to a preflight whose origin is allowed, which `mark` completes; None for any other request."""
        if not is_preflight(request) or request.headers["origin"] not in self._all():
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _HEADERS,
            "Access-Control-Max-Age": str(limits.PREFLIGHT_SECONDS),
        }
        return Response(status_code=204, headers=headers)

    def _all(self) -> frozenset[str]:
        snapshot = self._snapshots.current()
        if snapshot.revision != self._revision:
            self._revision = snapshot.revision
            self._listed = frozenset(origin for key in snapshot.all_keys() for origin in key.origins)
        return self._listed


def is_preflight(request: Request) -> bool:
    """True for the question that a browser asks before a request to another origin."""
    return request.method == "OPTIONS" and "origin" in request.headers and _REQUEST_METHOD in request.headers
