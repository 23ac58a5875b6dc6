"""Who visits: the cookie of the sign-in, the form token, the environment in the address, and the way back after signing in."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lensway.auth import decisions
from lensway.auth.address import Network, address_of
from lensway.auth.caller import Caller
from lensway.catalog.ports import SnapshotSource
from lensway.console.forms import read_form
from lensway.ids import KeyId
from lensway.usecases.sign_ins import SignIns

HOME: Final = "/console/"
LOGOUT: Final = "/console/logout"
_COOKIE: Final = "lensway_sign_in"
_SECURE_COOKIE: Final = "__Host-lensway_sign_in"
"""Browsers take this name only over TLS, for this host alone and for every path of it: no neighbour can plant one."""
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
    def may_administer(self) -> bool:
        """True for an admin: what creates, deletes and shows secrets."""
        return decisions.may_administer(self.caller.identity)

    @property
    def environment(self) -> str:
        """The name in the address of the page."""
        return self.caller.environment.name

    @property
    def role(self) -> str:
        """What the key may do, in a word."""
        role = self.caller.identity.role
        return "" if role is None else role.value


class Visits:
    """Reads and writes the cookies of sign-ins. The sign-in and its key are looked up again at every request."""

    def __init__(
        self,
        snapshots: SnapshotSource,
        sign_ins: SignIns,
        *,
        signing_key: bytes,
        is_secure: bool,
        trusted_proxies: Sequence[Network],
        on_use: Callable[[KeyId], None],
    ) -> None:
        self._on_use = on_use
        self._snapshots = snapshots
        self._sign_ins = sign_ins
        self._key = signing_key
        self._is_secure = is_secure
        self._trusted = trusted_proxies
        self._cookie, self._path = (_SECURE_COOKIE, "/") if is_secure else (_COOKIE, "/console")

    async def open(self, request: Request, response: Response, identity: decisions.Identity) -> None:
        """Sign in; what this browser was signed in as before is over."""
        await self._end(request)
        value = await self._sign_ins.open(identity, self.address(request))
        response.set_cookie(
            self._cookie, value, path=self._path, httponly=True, samesite="strict", secure=self._is_secure
        )

    async def close(self, request: Request, response: Response) -> None:
        """Sign out: the cookie opens nothing any more, wherever a copy of it is."""
        await self._end(request)
        response.delete_cookie(self._cookie, path=self._path, httponly=True, samesite="strict", secure=self._is_secure)

    async def _end(self, request: Request) -> None:
        found = self._sign_ins.find(self._value(request))
        if found is not None:
            await self._sign_ins.close(found[0])

    def identity(self, request: Request, *, by_person: bool = True) -> decisions.Identity | None:
        """The key behind the cookie as it is now, or None. ``by_person`` False: an open page asks by itself."""
        found = self._sign_ins.find(self._value(request))
        if found is None:
            return None
        sign_in, identity = found
        self._on_use(identity.key)
        if by_person:
            self._sign_ins.used(sign_in)
        return identity

    def _value(self, request: Request) -> str:
        return request.cookies.get(self._cookie, "")

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
        return Visit(request, caller, form_token(self._key, self._value(request)))

    def is_still_good(self, visit: Visit) -> bool:
        """False once the sign-in is over, its key deleted or its environment gone."""
        identity = self.identity(visit.request, by_person=False)
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

    def is_same_sign_in(self, visit: Visit) -> bool:
        """False for a page that was loaded under another sign-in than the browser has now: its header shows another key."""
        sent = visit.request.headers.get("x-form-token")
        return sent is None or hmac.compare_digest(sent.encode(), visit.form_token.encode())

    async def is_ours(self, visit: Visit) -> bool:
        """True for a form that a page of this sign-in sent. Its token stands in a header or in the body, never in an address."""
        request = visit.request
        sent = request.headers.get("x-form-token") or await _body_token(request)
        return hmac.compare_digest(sent.encode(), visit.form_token.encode()) and is_same_origin(request)


async def _body_token(request: Request) -> str:
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return ""
    if request.url.path != LOGOUT:
        return ""  # scripts send every other form, and they set the header
    return (await read_form(request)).one("form_token")


def form_token(signing_key: bytes, cookie: str) -> str:
    """What forms of this sign-in carry, so that no other site can post them."""
    return hmac.new(signing_key, b"form:" + cookie.encode(), hashlib.sha256).hexdigest()


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
