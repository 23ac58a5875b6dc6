"""The pages: sign in, runners, sources. Everything that changes something carries the form token of its session."""

from __future__ import annotations

import dataclasses
import hmac
import pathlib
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import jinja2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensway.auth import decisions, events, session
from lensway.auth.address import Network, address_of
from lensway.auth.caller import Caller
from lensway.auth.limiter import FailureLimiter
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry, SnapshotSource
from lensway.clock import Clock
from lensway.console.files import file_routes
from lensway.console.ports import EventSource, RunnerUse, SourceUse
from lensway.errors import CODES, ErrorCode, LenswayError
from lensway.ids import KeyId, new_request_id

_HERE: Final = pathlib.Path(__file__).parent
_COOKIE: Final = "lensway_session"
_ENVIRONMENT_COOKIE: Final = "lensway_environment"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_REQUEST_ID: Final = "lensway.request_id"
_FORM_BYTES_MAX: Final = 16 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """The use cases behind the pages."""

    runners: RunnerUse
    sources: SourceUse
    events: EventSource


@dataclasses.dataclass(frozen=True, slots=True)
class _Visit:
    """A signed-in request."""

    request: Request
    caller: Caller
    form_token: str

    @property
    def may_operate(self) -> bool:
        role = self.caller.identity.role
        return role is not None and role.value in ("admin", "operator")


class _Identified:
    """Gives every request of the Console its id, and every response the header with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        id = new_request_id()

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        await self._app({**scope, _REQUEST_ID: id}, receive, identified)


class Console:
    """Builds the routes of the Console."""

    def __init__(
        self,
        uses: Uses,
        *,
        snapshots: SnapshotSource,
        clock: Clock,
        signing_key: bytes,
        is_secure: bool,
        trusted_proxies: Sequence[Network] = (),
        on_use: Callable[[KeyId], None] = lambda _key: None,
        note: Callable[[AuditEntry], None] = lambda _entry: None,
    ) -> None:
        self._uses = uses
        self._on_use = on_use
        self._note = note
        self._snapshots = snapshots
        self._clock = clock
        self._key = signing_key
        self._is_secure = is_secure
        self._trusted = trusted_proxies
        self._limiter = FailureLimiter()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[BaseRoute]:
        """What to mount."""
        pages: list[BaseRoute] = [
            Route("/", self._home),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._signed_in(self._logout), methods=["POST"]),
            Route("/environment", self._signed_in(self._choose_environment), methods=["POST"]),
            Route("/runners", self._signed_in(self._runners)),
            Route("/runners/rows", self._signed_in(self._runner_rows)),
            Route("/preview", self._signed_in(self._preview)),
            Route("/assign", self._signed_in(self._assign), methods=["POST"]),
            Route("/test", self._signed_in(self._test), methods=["POST"]),
            Route("/events", self._signed_in(self._events)),
            *file_routes(_HERE / "static", _HEADERS),
        ]
        return [Mount("/console", app=_Identified(Router(pages))), Route("/console", _Identified(self._to_runners))]

    # --- signing in -----------------------------------------------------------------------------------------------------------

    async def _home(self, request: Request) -> Response:
        return RedirectResponse("/console/runners", 303, _HEADERS)

    async def _to_runners(self, scope: Scope, receive: Receive, send: Send) -> None:
        await RedirectResponse("/console/runners", 303, _HEADERS)(scope, receive, send)

    async def _login_page(self, request: Request) -> Response:
        return self._page("login.html", title="Sign in", error="")

    async def _login(self, request: Request) -> Response:
        address = self._address(request)
        if not _is_same_origin(request):
            return self._page("login.html", status=403, title="Sign in", error="This form was sent from another site.")
        try:
            form = await _form(request)
            identity = decisions.authenticate(
                self._snapshots.current(), f"Bearer {form.get('key', '').strip()}", at=self._now_text()
            )
            decisions.require_read(identity)
        except LenswayError as refusal:
            error = self._counted(refusal, address)
            self._note_sign_in(request, error.code.value, None)
            text = f"{error}. {error.failure.hint or ''}"
            return self._page("login.html", status=CODES[error.code].status, title="Sign in", error=text)
        response = RedirectResponse("/console/runners", 303, _HEADERS)
        value = session.sign_session(self._key, identity, self._clock.wall().timestamp())
        self._set_cookie(response, _COOKIE, value)
        self._note_sign_in(request, "ok", identity)
        return response

    def _note_sign_in(
        self, request: Request, outcome: str, identity: decisions.Identity | None, action: str = events.SIGN_IN
    ) -> None:
        entry = events.access_entry(
            self._clock,
            action,
            outcome=outcome,
            address=self._address(request),
            actor="somebody" if identity is None else identity.actor,
            environment=None if identity is None else identity.environment,
            object="" if identity is None else identity.key,
            request_id=request.scope[_REQUEST_ID],
        )
        self._note(entry)
    def _counted(self, refusal: LenswayError, address: str) -> LenswayError:
        """The refusal; a wrong key is counted, and after too many the answer is to wait."""
        if refusal.code is ErrorCode.UNAUTHENTICATED:
            try:
                self._limiter.failed(address, self._clock.monotonic())
            except LenswayError as too_many:
                return too_many
        return refusal

    async def _logout(self, visit: _Visit) -> Response:
        self._note_sign_in(visit.request, "ok", visit.caller.identity, events.SIGN_OUT)
        response = RedirectResponse("/console/login", 303, _HEADERS)
        response.delete_cookie(_COOKIE, path="/console")
        return response

    async def _choose_environment(self, visit: _Visit) -> Response:
        form = await _form(visit.request)
        response = RedirectResponse("/console/runners", 303, _HEADERS)
        self._set_cookie(response, _ENVIRONMENT_COOKIE, urllib.parse.quote(form.get("environment", "")))
        return response

    def _address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        return address_of(peer, request.headers.getlist("x-forwarded-for"), self._trusted)

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, path="/console", httponly=True, samesite="strict", secure=self._is_secure)

    def _signed_in(self, page: Callable[[_Visit], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A page for whoever has a session; its key and role are looked up again every time."""

        async def endpoint(request: Request) -> Response:
            visit = self._visit(request)
            if visit is None:
                if request.headers.get("x-requested-with") == "console":
                    return Response("Signed out", 401, _HEADERS, "text/plain")
                return RedirectResponse("/console/login", 303, _HEADERS)
            if request.method == "POST" and not self._is_ours(visit):
                return Response(
                    "This form does not belong to your session; reload the page.", 403, _HEADERS, "text/plain"
                )
            try:
                return await page(visit)
            except LenswayError as error:
                if error.code is ErrorCode.FORBIDDEN:
                    self._note_sign_in(request, error.code.value, visit.caller.identity, request.url.path)
                html = self._templates.get_template("error.html").render(failure=error.failure)
                return Response(html, CODES[error.code].status, _HEADERS, "text/html")

        return endpoint

    def _visit(self, request: Request) -> _Visit | None:
        cookie = request.cookies.get(_COOKIE, "")
        claims = session.read_session(self._key, cookie, self._clock.wall().timestamp())
        snapshot = self._snapshots.current()
        key = None if claims is None else snapshot.key(KeyId(claims.key))
        if key is None or claims is None or rules.has_expired(key, at=self._now_text()):
            return None
        self._on_use(key.id)
        identity = decisions.identity_of(key)
        if identity.role is None or identity.role.value != claims.role:
            return None
        wanted = urllib.parse.unquote(request.cookies.get(_ENVIRONMENT_COOKIE, "")) or None
        try:
            environment = decisions.choose_environment(snapshot, identity, wanted)
        except LenswayError:
            environment = decisions.choose_environment(snapshot, identity, None)
        caller = Caller(
            identity=identity,
            environment=environment,
            request_id=request.scope[_REQUEST_ID],
            address=self._address(request),
        )
        return _Visit(request, caller, session.form_token(self._key, cookie))

    def _now_text(self) -> str:
        return moment_text(self._clock.wall())

    def _is_ours(self, visit: _Visit) -> bool:
        sent = visit.request.headers.get("x-form-token") or visit.request.query_params.get("form_token", "")
        return hmac.compare_digest(sent.encode(), visit.form_token.encode()) and _is_same_origin(visit.request)

    # --- pages ------------------------------------------------------------------------------------------------------------------

    async def _runners(self, visit: _Visit) -> Response:
        snapshot = self._snapshots.current()
        identity = visit.caller.identity
        environments = snapshot.environments() if identity.environment is None else (visit.caller.environment,)
        return self._page(
            "runners.html",
            title="Runners",
            visit=visit,
            environments=[each.name for each in environments],
            **self._state(visit),
        )

    async def _runner_rows(self, visit: _Visit) -> Response:
        return self._page("rows.html", visit=visit, **self._state(visit))

    async def _preview(self, visit: _Visit) -> Response:
        query = visit.request.query_params
        is_assigning = query.get("action") != "remove"
        runner, source = query.get("runner", ""), query.get("source", "")
        warnings = self._uses.runners.preview(visit.caller, runner, source, is_assigning=is_assigning)
        return self._page(
            "preview.html", runner=runner, source=source, is_assigning=is_assigning, warnings=list(warnings)
        )

    async def _assign(self, visit: _Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        form = await _form(visit.request)
        runner, source = form.get("runner", ""), form.get("source", "")
        if form.get("action") == "remove":
            await self._uses.runners.unassign(visit.caller, runner, source)
        else:
            await self._uses.runners.assign(visit.caller, runner, source)
        return await self._runner_rows(visit)

    async def _test(self, visit: _Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        form = await _form(visit.request)
        source = form.get("source", "")
        answer = await self._uses.sources.test(visit.caller, source, runner=form.get("runner") or None)
        return self._page("test.html", source=source, results=answer["results"])

    async def _events(self, visit: _Visit) -> Response:
        stream = self._uses.events.stream(visit.caller)
        # The first line is taken here, so that a refusal is an answer and not a cut stream.
        first = await anext(stream)
        return StreamingResponse(_chained(first, stream), media_type="text/event-stream", headers=_HEADERS)

    def _state(self, visit: _Visit) -> dict[str, Any]:
        return {
            "runners": self._uses.runners.list(visit.caller)["runners"],
            "sources": self._uses.sources.list(visit.caller)["sources"],
        }

    def _page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(**values)
        return Response(html, status, _HEADERS, "text/html")


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _is_same_origin(request: Request) -> bool:
    """False when a browser says that another site sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urllib.parse.urlsplit(origin).netloc == request.headers.get("host")


async def _form(request: Request) -> dict[str, str]:
    """A small form. Raises LenswayError PAYLOAD_TOO_LARGE."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES_MAX:
            raise LenswayError(ErrorCode.PAYLOAD_TOO_LARGE, "The form is too large")
    try:
        return dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except (UnicodeDecodeError, ValueError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "The form cannot be read") from None
