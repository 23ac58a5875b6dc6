"""The addresses of the Console. The environment stands in each of them, so a page can act nowhere else."""

from __future__ import annotations

import pathlib
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensway import limits
from lensway.auth import decisions, events
from lensway.auth.address import Network
from lensway.auth.limiter import FailureLimiter
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry, SnapshotSource
from lensway.clock import Clock
from lensway.console import views
from lensway.console.changes import Changes
from lensway.console.declared import declared
from lensway.console.files import file_routes
from lensway.console.forms import read_form
from lensway.console.fragments import (
    HEADERS,
    Fragments,
    Templates,
    embedded,
    fragment_response,
    page_response,
    script_data,
)
from lensway.console.sections import Page, Section, tabs
from lensway.console.streams import Feeds
from lensway.console.visits import (
    LOGOUT,
    REQUEST_ID,
    Visit,
    Visits,
    is_same_origin,
    may_lack_cookie,
    path_of,
    safe_next,
)
from lensway.errors import CODES, ErrorCode, LenswayError
from lensway.ids import KeyId, new_request_id
from lensway.usecases.bundle import UseCases

_STATIC: Final = pathlib.Path(__file__).parent / "static"
_STREAM_HEADERS: Final = {**HEADERS, "X-Accel-Buffering": "no"}

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_log = structlog.get_logger("lensway.console")

Endpoint = Callable[[Request], Awaitable[Response]]


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

        await self._app({**scope, REQUEST_ID: id}, receive, identified)


class Console:
    """Builds the routes of the Console."""

    def __init__(
        self,
        use: UseCases,
        *,
        snapshots: SnapshotSource,
        clock: Clock,
        signing_key: bytes,
        is_secure: bool,
        trusted_proxies: Sequence[Network] = (),
        on_use: Callable[[KeyId], None] = lambda _key: None,
        note: Callable[[AuditEntry], None] = lambda _entry: None,
    ) -> None:
        self._use = use
        self._note = note
        self._snapshots = snapshots
        self._clock = clock
        self._limiter = FailureLimiter()
        self._templates = Templates()
        self._visits = Visits(
            snapshots,
            use.sign_ins,
            signing_key=signing_key,
            is_secure=is_secure,
            trusted_proxies=trusted_proxies,
            on_use=on_use,
        )
        self._sections = declared(use, self._templates, clock)
        self._fragments = Fragments(use.fleet, self._templates, clock, self._sections)
        self._feeds = Feeds(self._fragments, use.fleet, clock)
        self._changes = Changes(use.fleet, use.runners, use.sources, self._templates, clock)

    def routes(self) -> list[BaseRoute]:
        """What to mount."""
        pages: list[BaseRoute] = [
            Route("/", self._home),
            Route("/runners", self._home),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route(LOGOUT.removeprefix("/console"), self._signed_in(self._logout), methods=["POST"]),
            Route("/e/{environment}", self._signed_in(self._environment_home)),
            Route("/e/{environment}/", self._signed_in(self._environment_home)),
            *(route for section in self._sections for route in self._section_routes(section)),
            Route("/e/{environment}/choices", self._signed_in(self._changes.choices)),
            Route("/e/{environment}/assign", self._signed_in(self._changes.assign), methods=["POST"]),
            Route("/e/{environment}/test", self._signed_in(self._changes.test), methods=["POST"]),
            Route("/e/{environment}/resume", self._signed_in(self._changes.resume), methods=["POST"]),
            *file_routes(_STATIC, HEADERS),
            Route("/static/{rest:path}", self._no_file, methods=_METHODS),
            Route("/{path:path}/", self._without_slash),
            Route("/e/{environment}/{rest:path}", self._signed_in(self._no_page), methods=_METHODS),
            Route("/{rest:path}", self._signed_in(self._no_page), methods=_METHODS),
        ]
        # The library's own redirect would repeat the Host header, which the caller writes.
        router = Router(pages, redirect_slashes=False)
        return [Mount("/console", app=_Identified(router)), Route("/console", _Identified(self._to_home))]

    def _section_routes(self, section: Section) -> list[BaseRoute]:
        """A page, its rows for a page that is open, beats that say when to fetch them, and what else the section declares."""

        async def page(visit: Visit) -> Response:
            return await self._page(visit, section)

        async def rows(visit: Visit) -> Response:
            return fragment_response(visit.request, await self._fragments.newest(section.view(visit)))

        async def stream(visit: Visit) -> Response:
            view = section.view(visit)
            self._feeds.check_room(view)
            beats = self._feeds.beats(view, lambda: self._visits.is_still_good(visit))
            return StreamingResponse(beats, media_type="text/event-stream", headers=_STREAM_HEADERS)

        def guarded(endpoint: Page) -> Page:
            async def guard(visit: Visit) -> Response:
                section.require(visit.caller)
                return await endpoint(visit)

            return guard

        path = f"/e/{{environment}}/{section.name}" + ("/{object}" if section.has_object else "")
        return [
            Route(path, self._signed_in(page)),
            Route(f"{path}/rows", self._signed_in(rows, is_part=True)),
            Route(f"{path}/stream", self._signed_in(stream, is_part=True)),
            *(Route(f"{path}/{name}", self._signed_in(guarded(part))) for name, part in section.parts.items()),
            *(
                Route(f"{path}/{name}", self._signed_in(guarded(post)), methods=["POST"])
                for name, post in section.posts.items()
            ),
        ]

    # --- signing in -----------------------------------------------------------------------------------------------------------

    async def _to_home(self, scope: Scope, receive: Receive, send: Send) -> None:
        await RedirectResponse("/console/", 303, HEADERS)(scope, receive, send)

    async def _without_slash(self, request: Request) -> Response:
        path = urllib.parse.quote(request.path_params["path"].strip("/"))
        return RedirectResponse(f"/console/{path}", 303, HEADERS)

    async def _home(self, request: Request) -> Response:
        identity = self._visits.identity(request)
        if identity is None:
            return await self._to_sign_in(request)
        names = self._visits.environments(identity)
        if not names:
            error = LenswayError(ErrorCode.NOT_FOUND, "This key may not see any environment of this server")
            return await self._failure(request, error, None)
        name = decisions.DEFAULT_ENVIRONMENT if decisions.DEFAULT_ENVIRONMENT in names else names[0]
        return RedirectResponse(f"/console/e/{urllib.parse.quote(name)}/overview", 303, HEADERS)

    async def _environment_home(self, visit: Visit) -> Response:
        return RedirectResponse(f"/console/e/{urllib.parse.quote(visit.environment)}/overview", 303, HEADERS)

    async def _to_sign_in(self, request: Request) -> Response:
        wanted = safe_next(path_of(request)) if request.method == "GET" else "/console/"
        return RedirectResponse("/console/login?" + urllib.parse.urlencode({"next": wanted}), 303, HEADERS)

    async def _login_page(self, request: Request) -> Response:
        wanted = request.query_params.get("next")
        target, again = safe_next(wanted or ""), ""
        if wanted is not None:
            if self._visits.identity(request) is not None:
                return RedirectResponse(target, 303, HEADERS)
            if may_lack_cookie(request) and "again" not in request.query_params:
                # A browser withholds a strict cookie when another site's link led here. It sends the cookie when this page
                # loads itself again.
                again = "/console/login?" + urllib.parse.urlencode({"next": target, "again": "1"})
        return await self._login_form(request, target, again=again)

    async def _login(self, request: Request) -> Response:
        address = self._visits.address(request)
        if not is_same_origin(request):
            return await self._login_form(request, "/console/", "This form was sent from another site.", status=403)
        target = "/console/"
        try:
            form = await read_form(request)
            target = safe_next(form.one("next"))
            authorization = f"Bearer {form.one('key').strip()}"
            at = moment_text(self._clock.wall())
            identity = decisions.authenticate(self._snapshots.current(), authorization, at=at)
            decisions.require_read(identity)
        except LenswayError as refusal:
            error = self._counted(refusal, address)
            self._note_sign_in(request, error.code.value, None)
            text = f"{error}. {error.failure.hint or ''}"
            return await self._login_form(request, target, text, status=CODES[error.code].status)
        response = RedirectResponse(target, 303, HEADERS)
        await self._visits.open(request, response, identity)
        self._note_sign_in(request, "ok", identity)
        return response

    def _note_sign_in(
        self, request: Request, outcome: str, identity: decisions.Identity | None, action: str = events.SIGN_IN
    ) -> None:
        entry = events.access_entry(
            self._clock,
            action,
            outcome=outcome,
            address=self._visits.address(request),
            actor="unknown" if identity is None else identity.actor,
            environment=None if identity is None else identity.environment,
            object="" if identity is None else identity.key,
            request_id=request.scope[REQUEST_ID],
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

    async def _login_form(
        self, request: Request, target: str, error: str = "", *, status: int = 200, again: str = ""
    ) -> Response:
        html = self._templates.render("login.html", title="Sign in", error=error, target=target, again=again)
        return await page_response(request, html, status=status)

    async def _logout(self, visit: Visit) -> Response:
        self._note_sign_in(visit.request, "ok", visit.caller.identity, events.SIGN_OUT)
        response = RedirectResponse("/console/login", 303, HEADERS)
        await self._visits.close(visit.request, response)
        return response

    def _signed_in(self, page: Page, *, is_part: bool = False) -> Endpoint:
        """Require a sign-in. Parts of an open page answer 401 where pages lead to the sign-in page."""

        async def endpoint(request: Request) -> Response:
            identity = self._visits.identity(request, by_person=not is_part)
            if identity is None:
                if is_part or request.headers.get("x-requested-with") == "console":
                    return Response("Signed out", 401, HEADERS, "text/plain")
                return await self._to_sign_in(request)
            visit = None
            try:
                visit = self._visits.visit(request, identity)
                if is_part and not self._visits.is_same_sign_in(visit):
                    return Response("Another sign-in has begun in this browser", 409, HEADERS, "text/plain")
                if request.method == "POST" and not await self._visits.is_ours(visit):
                    text = "This form does not belong to your sign-in; reload the page."
                    return Response(text, 403, HEADERS, "text/plain")
                return await page(visit)
            except LenswayError as error:
                if error.code is ErrorCode.FORBIDDEN:
                    self._note_sign_in(request, error.code.value, identity, request.url.path)
                return await self._failure(request, error, visit, is_part=is_part)
            except Exception as error:  # noqa: BLE001 - the boundary of one request: its defect is answered and logged, not spread
                id = request.scope[REQUEST_ID]
                _log.exception("page failed by a defect", request=id, error=type(error).__name__)
                defect = LenswayError(
                    ErrorCode.INTERNAL,
                    "Lensway failed to show this page",
                    hint=f"The server's log has the details under {id}. Load the page again.",
                )
                return await self._failure(request, defect, None, is_part=is_part)

        return endpoint

    async def _no_page(self, visit: Visit) -> Response:
        path = visit.request.path_params["rest"]
        raise LenswayError(
            ErrorCode.NOT_FOUND,
            f"The Console has no page {path[: limits.NAME_CHARACTERS_MAX]!r}",
            hint="The navigation above leads to every page.",
        )

    async def _no_file(self, _request: Request) -> Response:
        return Response("Not found", 404, HEADERS, "text/plain")

    # --- pages ------------------------------------------------------------------------------------------------------------------

    async def _page(self, visit: Visit, section: Section) -> Response:
        view = section.view(visit)
        fragment = await self._fragments.newest(view)
        live = {
            "base": view.base,
            "path": view.path,
            "object": view.object,
            "version": fragment.version,
            "query": visit.request.url.query,
            "token": visit.form_token,
            "wall": round(self._clock.wall().timestamp() * 1000),
        }
        html = self._templates.render(
            section.page,
            title=view.object or section.title,
            section=section,
            view=view,
            rows_html=embedded(fragment),
            query=view.query,
            problems=fragment.problems,
            live=script_data(live),
            **self._header(visit, section.tab),
        )
        return await page_response(visit.request, html)

    def _header(self, visit: Visit, tab: str) -> dict[str, Any]:
        identity = visit.caller.identity
        return {
            "visit": visit,
            "tab": tab,
            "tabs": tabs(self._sections),
            "base": f"/console/e/{urllib.parse.quote(visit.environment)}",
            "environments": self._visits.environments(identity),
            "hue": views.hue_of,
            "now": self._clock.wall().isoformat(timespec="seconds"),
        }

    async def _failure(
        self, request: Request, error: LenswayError, visit: Visit | None, *, is_part: bool = False
    ) -> Response:
        status = CODES[error.code].status
        if is_part or request.headers.get("x-requested-with") == "console" or request.method == "POST":
            html = self._templates.render("error.html", failure=error.failure)
            return Response(html, status, HEADERS, "text/html")
        if visit is not None:
            tab = request.url.path.removeprefix("/console/e/").partition("/")[2].partition("/")[0]
            problems = await self._use.fleet.problems(visit.caller)
            header = self._header(visit, next((each.tab for each in self._sections if each.name == tab), ""))
            html = self._templates.render(
                "refused.html", title="Not possible", failure=error.failure, problems=problems, **header
            )
        else:
            html = self._templates.render("failure.html", title="Not possible", failure=error.failure)
        return await page_response(request, html, status=status)
