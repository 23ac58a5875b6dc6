"""Who visits: the session cookie, the form token, the environment in the address, and the way back after signing in."""

from __future__ import annotations

import dataclasses
import hmac
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lensway.auth import decisions, session
from lensway.auth.address import Network, address_of
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import SnapshotSource
from lensway.clock import Clock
from lensway.ids import KeyId

HOME: Final = "/console/"
_COOKIE: Final = "lensway_session"
_LOCAL_PATH: Final = re.compile(r"/console/(?:e/[\w.~-]+(?:/[\w.~-]+)*)?(?:\?[\w.~%&=+,-]*)?", re.ASCII)
REQUEST_ID: Final = "lensway.request_id"


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """A signed-in request in the environment of its address."""

    request: Request
    caller: Caller
    form_token: str

    @property
    def may_operate(self) -> bool:
        """False for a viewer."""
        return decisions.may_operate(self.caller.identity)

    @property
    def environment(self) -> str:
        """The name in the address of the page."""
        return self.caller.environment.name

    @property
    def role(self) -> str:
        """What the key may do, in a word."""
        role = self.caller.identity.role
        return "" if role is None else role.value


class Sessions:
    """Reads and writes sessions. The key of a session and its role are looked up again at every request."""

    def __init__(
        self,
        snapshots: SnapshotSource,
        clock: Clock,
        *,
        signing_key: bytes,
        is_secure: bool,
        trusted_proxies: Sequence[Network],
        on_use: Callable[[KeyId], None],
    ) -> None:
        self._on_use = on_use
        self._snapshots = snapshots
        self._clock = clock
        self._key = signing_key
        self._is_secure = is_secure
        self._trusted = trusted_proxies

    def open(self, response: Response, identity: decisions.Identity) -> None:
        """Sign in."""
        value = session.sign_session(self._key, identity, self._clock.wall().timestamp())
        response.set_cookie(_COOKIE, value, path="/console", httponly=True, samesite="strict", secure=self._is_secure)

    def close(self, response: Response) -> None:
        """Sign out."""
        response.delete_cookie(_COOKIE, path="/console")

    def identity(self, request: Request) -> decisions.Identity | None:
        """The key behind the cookie as it is now, or None when there is none any more."""
        cookie = request.cookies.get(_COOKIE, "")
        claims = session.read_session(self._key, cookie, self._clock.wall().timestamp())
        key = None if claims is None else self._snapshots.current().key(KeyId(claims.key))
        if key is None or claims is None or rules.has_expired(key, at=moment_text(self._clock.wall())):
            return None
        self._on_use(key.id)
        identity = decisions.identity_of(key)
        return identity if identity.role is not None and identity.role.value == claims.role else None

    def visit(self, request: Request, identity: decisions.Identity) -> Visit:
        """The visit to the environment of the address, or to the key's first one. Raises LenswayError NOT_FOUND."""
        wanted = request.path_params.get("environment")
        environment = decisions.choose_environment(self._snapshots.current(), identity, wanted)
        caller = Caller(
            identity=identity,
            environment=environment,
            request_id=request.scope[REQUEST_ID],
            address=self.address(request),
        )
        return Visit(request, caller, session.form_token(self._key, request.cookies.get(_COOKIE, "")))

    def is_still_good(self, visit: Visit) -> bool:
        """False once the session is over, its key deleted or its environment gone."""
        identity = self.identity(visit.request)
        found = self._snapshots.current().environment(visit.caller.environment.id)
        return identity == visit.caller.identity and found is not None

    def environments(self, identity: decisions.Identity) -> list[str]:
        """The names of the environments that a key may visit."""
        found = self._snapshots.current().environments()
        return [each.name for each in found if identity.environment in (None, each.id)]

    def address(self, request: Request) -> str:
        """The address that the request comes from."""
        peer = request.client.host if request.client else ""
        return address_of(peer, request.headers.getlist("x-forwarded-for"), self._trusted)

    def is_same_session(self, visit: Visit) -> bool:
        """False for a page that was loaded under another session than the browser has now: its header shows another key."""
        sent = visit.request.headers.get("x-form-token")
        return sent is None or hmac.compare_digest(sent.encode(), visit.form_token.encode())

    def is_ours(self, visit: Visit) -> bool:
        """True for a form that this session's own page sent."""
        request = visit.request
        sent = request.headers.get("x-form-token") or request.query_params.get("form_token", "")
        return hmac.compare_digest(sent.encode(), visit.form_token.encode()) and is_same_origin(request)


def is_same_origin(request: Request) -> bool:
    """False when a browser says that another site sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urllib.parse.urlsplit(origin).netloc == request.headers.get("host")


def may_lack_cookie(request: Request) -> bool:
    """True when a link of another site may have brought this request: strict cookies stay at home then."""
    return request.headers.get("sec-fetch-site", "cross-site") == "cross-site"


def safe_next(wanted: str) -> str:
    """A path of the Console to go on to; its start for everything else: other hosts, other paths, tricks with dots."""
    path = wanted.partition("?")[0]
    is_local = _LOCAL_PATH.fullmatch(wanted) is not None and not any(part in (".", "..") for part in path.split("/"))
    return wanted if is_local else HOME


def path_of(request: Request) -> str:
    """The path and query of a request, to come back to."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
