"""HTTP around the handlers: request ids, keys, bodies, errors in their envelope. One place for what every route has."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lensway import limits
from lensway.api.envelope import error_body
from lensway.api.repeated_keys import require_single_keys
from lensway.api.routes import Access, Param, Route
from lensway.auth import decisions, events, exposure
from lensway.auth.address import HIDDEN_HINT, Network, ProxyWatch, address_of
from lensway.auth.caller import Caller
from lensway.auth.limiter import FailureLimiter
from lensway.catalog.moments import moment_text
from lensway.catalog.names import invalid
from lensway.catalog.ports import AuditEntry, SnapshotSource
from lensway.catalog.records import Environment
from lensway.catalog.snapshot import Snapshot
from lensway.clock import Clock
from lensway.errors import CODES, ErrorCode, Failure, LenswayError
from lensway.ids import new_request_id
from lensway.observe.metrics import Metrics
from lensway.observe.trace import Tracer
from lensway.query import unavailable
from lensway.query.suggestions import nearest
from lensway.service import tracing
from lensway.service.cors import ORIGIN, REFUSAL, Cors, is_preflight
from lensway.service.streaming import StreamedRows
from lensway.service.tracing import RequestTrace
from lensway.service.wire import WIRE, Wire
from lensway.usecases.endings import KeyEndings
from lensway.usecases.tally import Note

_log = structlog.get_logger("lensway.http")

_REQUIRE: Final[Mapping[Access, Callable[[decisions.Identity], None]]] = {
    Access.READ: decisions.require_read,
    Access.OPERATE: decisions.require_operate,
    Access.ADMIN: decisions.require_admin,
    Access.INSTANCE: decisions.require_instance_wide,
}
_REFUSALS: Final = frozenset({ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED})
_OK: Final = "ok"
_PATH_START: Final = len("/v1/aggregate/")
_CONSOLE: Final = "/console/"
_REQUEST_ID: Final = b"x-request-id"
_NO_STORE: Final = (b"cache-control", b"no-store")
_FORWARDED: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})
_SMALL_LENGTH_DIGITS: Final = len(str(limits.REQUEST_BODY_BYTES_MAX)) - 1
_TRUE: Final = frozenset({"true", "1", "yes", ""})
_FALSE: Final = frozenset({"false", "0", "no"})


@dataclasses.dataclass(slots=True)
class Call:
    """One request on its way through a handler."""

    request: Request
    route: Route
    request_id: str
    address: str
    endings: KeyEndings
    trace: RequestTrace | None = None
    caller: Caller | None = None
    headers: Mapping[bytes, bytes] = dataclasses.field(init=False)
    wire: Wire = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.headers = _headers(self.request)
        self.wire = self.request.scope[WIRE]

    @property
    def by(self) -> Caller:
        """Who calls; there on every route but the open ones."""
        assert self.caller is not None, "an open route has no caller"
        return self.caller

    @property
    def is_public(self) -> bool:
        """True for a publishable key."""
        return self.caller is not None and self.caller.identity.is_public

    def path(self, name: str) -> str:
        """A parameter of the path."""
        value: str = self.request.path_params[name]
        return value

    def header(self, name: bytes) -> str | None:
        """The header of this name (in lower case), or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def flag(self, name: str) -> bool:
        """A boolean query parameter, false when absent. Raises LenswayError INVALID_REQUEST."""
        value = self.request.query_params.get(name)
        if value is None or value.lower() in _FALSE:
            return False
        if value.lower() in _TRUE:
            return True
        raise invalid(name, "must be true or false")

    def number(self, name: str, default: int | None, maximum: int) -> int | None:
        """A whole query parameter from 1. Raises LenswayError INVALID_REQUEST."""
        value = self.request.query_params.get(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdecimal() or len(value) > 15 or not 1 <= int(value) <= maximum:
            raise invalid(name, f"must be a whole number from 1 to {maximum:,}")
        return int(value)

    async def body(self, decode: Callable[[bytes], Any] = msgspec.json.decode) -> Any:
        """The decoded JSON body. Raises LenswayError INVALID_REQUEST, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE."""
        coding = self.header(b"content-encoding") or "identity"
        if coding.strip().lower() != "identity":
            # Never opened: a few bytes can stand for any number of them.
            raise LenswayError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body is compressed", hint="Send it without Content-Encoding."
            )
        self._check_length(self.headers.get(b"content-length", b""))
        data = self.wire.take_body()
        if data is None:
            data = await self._read()
            if self.caller is not None:
                # It may have taken long, and was paid for by a key that is no more.
                self.endings.require_good(self.caller)
        if not data:
            if self.route.is_body_optional:
                return {}
            raise LenswayError(ErrorCode.INVALID_REQUEST, "The request has no body", hint="Send a JSON object.")
        media = self.header(b"content-type") or "application/json"
        if media != "application/json" and media.partition(";")[0].strip().lower() != "application/json":
            raise LenswayError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON", hint="Send Content-Type: application/json."
            )
        try:
            decoded = decode(data)
            require_single_keys(data, decoded)
            return decoded
        except msgspec.ValidationError:
            # Nothing else is asked of untyped JSON.
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                "The body holds a number with too many digits",
                hint=f"A number has at most {limits.NUMBER_CHARACTERS_MAX:,} digits.",
            ) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            where = str(error) if isinstance(error, msgspec.DecodeError) else "nested too deeply or not UTF-8"
            raise LenswayError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {where}") from None

    @staticmethod
    def _check_length(length: bytes) -> None:
        if len(length) > _SMALL_LENGTH_DIGITS and length.isdigit() and int(length) > limits.REQUEST_BODY_BYTES_MAX:
            raise _too_large()

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        is_more = True
        while is_more:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > limits.REQUEST_BODY_BYTES_MAX:
                raise _too_large()
            parts.append(part)
            is_more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watched(self, end: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Within the block, ``end`` is called as soon as the caller's key or environment is no more."""
        return self.endings.watched(end, self.by.identity.key, self.by.environment.id)

    async def while_connected(self, work: Awaitable[Any], cancel: Callable[[], None]) -> Any:
        """What the work gives. ``cancel`` is called when the caller goes away meanwhile; it must make the work end. Use it
        after the body was read.
        """
        self.wire.when_gone(cancel)
        try:
            return await work
        finally:
            self.wire.when_gone(None)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """Who a connection's last request was from. The next one says the same, as a rule, and is compared with less work.

    It keeps a key in memory no longer than the connection keeps its last request's headers in any case, and of the catalog only
    what the caller is.
    """

    revision: int
    epoch: int
    authorization: bytes
    wanted: str | None
    identity: decisions.Identity
    environment: Environment

    def holds(self, snapshot: Snapshot, epoch: int, authorization: bytes, wanted: str | None) -> bool:
        """True when a request that says this is from the same caller, by the same catalog. Others may share the connection,
        so that the comparison must not tell how much of a key is right."""
        return (
            snapshot.revision == self.revision
            and epoch == self.epoch
            and wanted == self.wanted
            and hmac.compare_digest(authorization, self.authorization)
        )


Handler = Callable[[Call], Awaitable[Response]]


class Endpoint:
    """Makes a handler of a route into what the router calls."""

    def __init__(
        self,
        *,
        snapshots: SnapshotSource,
        limiter: FailureLimiter,
        metrics: Metrics,
        clock: Clock,
        endings: KeyEndings,
        note: Note,
        trusted_proxies: Sequence[Network] = (),
        tracer: Tracer | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._endings = endings
        self._note = note
        self._trusted = trusted_proxies
        self._proxies = ProxyWatch(trusted_proxies)
        self._tracer = tracer
        self._cors = Cors(snapshots)

    def of(self, route: Route, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one route."""

        async def endpoint(request: Request, trace: RequestTrace | None = None) -> Response:
            call = Call(request, route, new_request_id(), self._address(request), self._endings, trace)
            if self._proxies.is_watching:
                self._look_at_proxy(call)
            code = _OK
            try:
                if request.scope["query_string"]:
                    self._check_url(call)
                if route.access is not Access.OPEN:
                    call.caller = self._authenticate(call)
                    if (require := _REQUIRE.get(route.access)) is not None:
                        require(call.caller.identity)
                response = await handler(call)
            except ClientDisconnect:
                code = ErrorCode.CANCELLED.value
                response = Response(status_code=CODES[ErrorCode.CANCELLED].status)
            except LenswayError as error:
                code = error.code.value
                if error.code in _REFUSALS:
                    self._note_refusal(call, error)
                response = self.failure(error.failure, call.request_id, is_public=call.is_public)
            except Exception as error:  # noqa: BLE001 - the boundary of one request: its defect is answered and logged, not spread
                code = ErrorCode.INTERNAL.value
                response = self._defect(call, error)
            return self._answered(call, response, code)

        tracer = self._tracer
        if tracer is None or route.access is Access.OPEN:
            return endpoint

        async def traced(request: Request) -> Response:
            trace = tracing.begin(tracer, self._clock, route, _headers(request), self._metrics.request)
            return await endpoint(request, trace)

        return traced

    def _defect(self, call: Call, error: Exception) -> Response:
        _log.exception(
            "request failed by a defect", request=call.request_id, route=call.route.name, error=type(error).__name__
        )
        failure = Failure(
            code=ErrorCode.INTERNAL,
            message="Lensway failed to answer this request",
            hint=f"The server's log has the details under {call.request_id}.",
        )
        return self.failure(failure, call.request_id)

    def _answered(self, call: Call, response: Response, code: str) -> Response:
        """The response with what every one carries. Its outcome is counted now, or when its stream is over."""
        response.raw_headers += (_NO_STORE, (_REQUEST_ID, call.request_id.encode()))
        if (origin := call.headers.get(ORIGIN)) is not None:
            self._cors.mark(response, origin, None if call.caller is None else call.caller.identity)
        trace = call.trace
        over = self._metrics.request if trace is None else trace.answered(call.request_id, response.status_code)
        if isinstance(response, StreamedRows):
            response.on_over = over
        else:
            over(code)
        return response

    def failure(self, failure: Failure, request_id: str, *, is_public: bool = False) -> Response:
        """A failure as a response."""
        headers = {}
        if failure.retry_after_seconds is not None:
            headers["Retry-After"] = str(max(1, round(failure.retry_after_seconds)))
        if failure.code is ErrorCode.UNAUTHENTICATED:
            headers["WWW-Authenticate"] = "Bearer"
        body = msgspec.json.encode(error_body(failure, request_id, is_public=is_public))
        return Response(body, CODES[failure.code].status, headers, "application/json")

    async def unrouted(self, request: Request, error: Exception) -> Response:
        """A path or method that no route has, and the preflights of browsers, which every path has."""
        request_id = new_request_id()
        # Pages of the Console are for its own origin.
        origin = None if request.url.path.startswith(_CONSOLE) else request.headers.get("origin")
        response, code = self._unrouted(request, error, request_id, is_cross=origin is not None)
        self._metrics.request(code)
        response.raw_headers += (_NO_STORE, (_REQUEST_ID, request_id.encode()))
        if (
            isinstance(error, HTTPException)
            and error.headers
            and "Allow" in error.headers
            and response.status_code == 405
        ):
            response.headers["Allow"] = error.headers["Allow"]
        if origin is not None:
            self._cors.mark(response, origin.encode("latin-1"), None)
        return response

    def _unrouted(self, request: Request, error: Exception, request_id: str, *, is_cross: bool) -> tuple[Response, str]:
        if is_cross and (allowed := self._cors.preflight(request)) is not None:
            return allowed, _OK
        if request.url.path == "/" and request.method in ("GET", "HEAD") and _wants_page(request):
            return Response(status_code=303, headers={"Location": _CONSOLE, "Vary": "Accept"}), _OK
        status = error.status_code if isinstance(error, HTTPException) else 404
        if is_cross and is_preflight(request):
            failure = REFUSAL
        elif status == 405:
            failure = Failure(
                code=ErrorCode.METHOD_NOT_ALLOWED,
                message=f"{request.method} is not allowed on {request.url.path[:200]}",
            )
        else:
            failure = Failure(
                code=ErrorCode.NOT_FOUND,
                message="The path does not exist",
                hint=unavailable.PATHS.get(request.url.path[:_PATH_START], "GET /openapi.json lists all paths."),
            )
        return self.failure(failure, request_id), failure.code.value

    def _check_url(self, call: Call) -> None:
        query = call.request.scope["query_string"].decode("latin-1")
        if (exposed := exposure.exposed_in(self._snapshots.current(), query)) is not None:
            self._note(
                AuditEntry(
                    at=self._clock.wall().isoformat(timespec="milliseconds"),
                    environment=exposed.environment,
                    actor="unknown",
                    action=exposure.ACTION,
                    object=exposed.object,
                    address=call.address,
                    outcome=ErrorCode.INVALID_REQUEST.value,
                    request_id=call.request_id,
                )
            )
            raise exposure.refusal()
        _check_params(call.request, call.route.params)

    def _note_refusal(self, call: Call, error: LenswayError) -> None:
        caller = call.caller
        if caller is None:
            entry = events.access_entry(
                self._clock,
                events.AUTHENTICATE,
                outcome=error.code.value,
                address=call.address,
                object=str(error.details.get("key", "")),
                request_id=call.request_id,
            )
        elif error.code is ErrorCode.FORBIDDEN:
            entry = events.access_entry(
                self._clock,
                call.route.name,
                outcome=error.code.value,
                address=call.address,
                actor=caller.identity.actor,
                environment=caller.environment.id,
                object=",".join(call.request.path_params.values())[: limits.NAME_CHARACTERS_MAX],
                request_id=call.request_id,
            )
        else:
            return
        self._note(entry)

    def _authenticate(self, call: Call) -> Caller:
        snapshot = self._snapshots.current()
        authorization, wanted = call.headers.get(b"authorization", b""), call.header(b"x-environment")
        known, epoch = call.wire.memory, self._endings.epoch
        if not isinstance(known, _Known) or not known.holds(snapshot, epoch, authorization, wanted):
            try:
                at = moment_text(self._clock.wall())
                identity = decisions.authenticate(snapshot, authorization.decode("latin-1"), at=at)
            except LenswayError:
                self._limiter.failed(call.address, self._clock.monotonic())
                raise
            environment = decisions.choose_environment(snapshot, identity, wanted)
            known = call.wire.memory = _Known(snapshot.revision, epoch, authorization, wanted, identity, environment)
            self._endings.used(identity.key)
        return Caller(
            identity=known.identity, environment=known.environment, request_id=call.request_id, address=call.address
        )

    def _look_at_proxy(self, call: Call) -> None:
        if _FORWARDED.isdisjoint(call.headers):
            return
        client = call.request.scope.get("client")
        peer: str = client[0] if client else ""
        if self._proxies.is_hidden(peer):
            _log.warning("requests come from a proxy that is not trusted", address=peer, hint=HIDDEN_HINT)

    def _address(self, request: Request) -> str:
        client = request.scope.get("client")
        peer: str = client[0] if client else ""
        if not self._trusted:
            return peer
        return address_of(peer, request.headers.getlist("x-forwarded-for"), self._trusted)


def json_response(value: object, *, status: int = 200) -> Response:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _wants_page(request: Request) -> bool:
    """True for a browser that opens an address: it names HTML, which programs do not."""
    kinds = ",".join(request.headers.getlist("accept")).split(",")
    return any(kind.partition(";")[0].strip().lower() == "text/html" for kind in kinds)


def _headers(request: Request) -> dict[bytes, bytes]:
    # Looked up by name several times for each request; the first of several of one name counts, as everywhere.
    return dict(reversed(request.scope["headers"]))


def _check_params(request: Request, known: Sequence[Param]) -> None:
    if not request.scope["query_string"]:
        return
    names = {param.name for param in known}
    for name in request.query_params:
        if name not in names:
            raise invalid(name[: limits.NAME_CHARACTERS_MAX], "unknown query parameter", nearest=nearest(name, names))


def _too_large() -> LenswayError:
    return LenswayError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"The body is larger than {limits.REQUEST_BODY_BYTES_MAX:,} bytes",
        details={"limit": limits.REQUEST_BODY_BYTES_MAX},
    )
