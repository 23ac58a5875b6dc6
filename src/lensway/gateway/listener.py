"""The address that runners dial: who may upgrade, and one `Link` for each that does.

Everything that can be refused is refused before the upgrade, with an HTTP status that tells the runner whether dialling again
can help: 401 and 403 are final, 429 and 503 are not. `REFUSAL_HEADER` marks the answer as the gateway's own.
"""

from __future__ import annotations

import asyncio
import http
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from lensway import limits
from lensway.auth import events, exposure, tokens
from lensway.auth.address import HIDDEN_HINT, Network, ProxyWatch, address_of
from lensway.auth.decisions import authenticate_runner
from lensway.auth.shares import Shares
from lensway.catalog.ports import AuditEntry, CatalogStore
from lensway.catalog.records import Change, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.gateway.link import Dispatch, Link
from lensway.gateway.pacing import PacedConnection
from lensway.gateway.sets import AssignmentSets
from lensway.ids import RunnerId
from lensway.observe.refusals import Refusals
from lensway.protocol.frames import CloseReason
from lensway.protocol.transport import Transport
from lensway.protocol.version import REFUSAL_HEADER, SUBPROTOCOL

_log = structlog.get_logger("lensway.gateway")

PATH: Final = "/connect"


class FailureLimiter(Protocol):
    """Counts failed attempts per address."""

    def failed(self, address: str, now: float) -> None:
        """Count one failure. Raises LenswayError RATE_LIMITED when this address has failed too often."""


Door = Callable[[asyncio.BaseProtocol, object, Shares, ssl.SSLContext], asyncio.BaseProtocol]
"""Shakes hands for a connection."""


Accept = Callable[[Callable[[], asyncio.BaseProtocol], socket.socket], asyncio.AbstractServer]
"""Accepts connections on a socket that listens; the first argument makes the protocol of each."""


class _Counted(PacedConnection):
    """A connection that has a place among the strangers until its token was found good."""

    def __init__(self, shares: Shares, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shares = shares

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if not self._shares.enter(self, str(peer[0]) if peer else "", self.loop.time(), self.transport.abort):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shares.leave(self)
        super().connection_lost(exc)


class Listener:
    """The gateway's server. One per node."""

    def __init__(
        self,
        store: CatalogStore,
        dispatch: Dispatch,
        clock: Clock,
        *,
        transport_of: Callable[[Any], Transport],
        door_of: Door,
        accept: Accept,
        limiter: FailureLimiter,
        trusted_proxies: Sequence[Network] = (),
        push_is_lost: Callable[[], bool] = lambda: False,
        note: Callable[[AuditEntry], None],
    ) -> None:
        self._store = store
        self._note = note
        self._trusted = trusted_proxies
        self._proxies = ProxyWatch(trusted_proxies)
        self._dispatch = dispatch
        self._clock = clock
        self._sets = AssignmentSets(store, clock)
        self._transport_of = transport_of
        self._limiter = limiter
        self._push_is_lost = push_is_lost
        self._links: set[Link] = set()
        self._door_of = door_of
        self._accept = accept
        self._refusals = Refusals("gateway")
        self._shares = Shares(
            in_all_max=limits.SESSIONS_MAX + limits.HANDSHAKES_PENDING_MAX,
            strangers_max=limits.HANDSHAKES_PENDING_MAX,
            per_address_max=limits.HANDSHAKES_PENDING_MAX,
            patience_seconds=limits.HANDSHAKE_PATIENCE_SECONDS,
            note=self._refusals.note,
        )
        self._silent: dict[RunnerId, dict[ServerConnection, Link]] = {}
        self._server: Server | None = None
        self._forget = store.subscribe(self._on_change)

    @property
    def link_count(self) -> int:
        """Connections that are served now."""
        return len(self._links)

    async def start(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Listen on this socket, which is bound. Raises OSError when the address is in use after all."""

        server = serve(
            self._serve,
            process_request=self._check_upgrade,
            open_timeout=limits.HANDSHAKE_TIMEOUT_SECONDS,
            server_header=None,
        )

        def connection() -> asyncio.BaseProtocol:
            made = _Counted(
                self._shares,
                ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=limits.MESSAGE_BYTES_MAX),
                server,
                ping_interval=None,
                close_timeout=limits.CLOSE_TIMEOUT_SECONDS,
                max_queue=8,
            )
            return made if tls is None else self._door_of(made, made, self._shares, tls)

        # The library makes its server when it is awaited, unless it has one.
        server.server = self._accept(connection, sock)  # type: ignore[assignment]
        self._server = await server

    async def drain(self, after_ms: int) -> None:
        """Tell every runner that this node goes away."""
        for link in list(self._links):
            link.go_away(after_ms)

    async def close(self) -> None:
        """Close every session and stop listening."""
        self._forget()
        for link in list(self._links):
            link.finish(CloseReason.GOING_AWAY, "the server stops")
        if self._server is not None:
            self._server.close(close_connections=True)
            await self._server.wait_closed()
        self._refusals.close()

    # --- one connection -----------------------------------------------------------------------------------------------------

    async def _check_upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        address = self._address(connection, request)
        self._note_exposed(request, address)
        try:
            runner, token_hash = self._admit(request, address)
        except LenswayError as error:
            status = _STATUS.get(error.code, http.HTTPStatus.BAD_REQUEST)
            self._refusals.note(error.code.value)
            _log.debug("upgrade refused", address=address, code=error.code.value, reason=str(error))
            if error.code in _REFUSALS:
                self._note(
                    events.access_entry(self._clock, events.RUNNER_CONNECT, outcome=error.code.value, address=address)
                )
            response = connection.respond(status, f"{error.code.value}: {error}\n")
            response.headers[REFUSAL_HEADER] = error.code.value
            if error.failure.retry_after_seconds:
                response.headers["Retry-After"] = str(int(error.failure.retry_after_seconds) + 1)
            return response
        self._shares.know(connection)
        connection.lensway_runner = runner  # type: ignore[attr-defined]  # the library offers no slot for what a check found
        connection.lensway_token_hash = token_hash  # type: ignore[attr-defined]
        connection.lensway_address = address  # type: ignore[attr-defined]
        return None

    def _address(self, connection: ServerConnection, request: Request) -> str:
        remote = connection.remote_address
        forwarded = request.headers.get_all("X-Forwarded-For")
        peer = str(remote[0]) if remote else ""
        if forwarded and self._proxies.is_watching and self._proxies.is_hidden(peer):
            _log.warning("runners dial through a proxy that is not trusted", address=peer, hint=HIDDEN_HINT)
        return address_of(peer, forwarded, self._trusted)

    def _note_exposed(self, request: Request, address: str) -> None:
        query = request.path.partition("?")[2]
        exposed = exposure.exposed_in(self._store.current(), query) if query else None
        if exposed is not None:
            self._note(
                AuditEntry(
                    at=self._clock.wall().isoformat(timespec="milliseconds"),
                    environment=exposed.environment,
                    actor="unknown",
                    action=exposure.ACTION,
                    object=exposed.object,
                    address=address,
                    outcome=ErrorCode.INVALID_REQUEST.value,
                    request_id="",
                )
            )

    def _admit(self, request: Request, address: str) -> tuple[Runner, bytes]:
        path, _, query = request.path.partition("?")
        if path == "/healthz":
            raise LenswayError(ErrorCode.NOT_FOUND, "this is the gateway for runners; health is served with HTTP")
        if path.rstrip("/") != PATH:
            raise LenswayError(ErrorCode.NOT_FOUND, f"runners connect to {PATH}")
        if query:
            # A token in a URL ends up in logs: refused even if it were a good one.
            raise LenswayError(
                ErrorCode.INVALID_REQUEST, "the URL must have no query; the token goes into Authorization"
            )
        if "Origin" in request.headers:
            raise LenswayError(ErrorCode.FORBIDDEN, "upgrades from web pages are refused")
        if len(self._links) >= limits.SESSIONS_MAX:
            raise LenswayError(ErrorCode.OVERLOADED, "too many connections", retry_after_seconds=10.0)
        try:
            header = request.headers.get("Authorization", "")
        except MultipleValuesError:
            header = ""
        scheme, _, token = header.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise LenswayError(ErrorCode.UNAUTHENTICATED, "no bearer token")
            runner = authenticate_runner(self._store.current(), token.strip(), self._clock.wall().isoformat())
        except LenswayError as error:
            if error.code is ErrorCode.UNAUTHENTICATED:
                self._limiter.failed(address, self._clock.monotonic())
            raise
        self._check_silent(runner)
        return runner, tokens.hash_token(token.strip())

    def _check_silent(self, runner: Runner) -> None:
        """Make room among the links of a runner that have not said hello. Raises LenswayError OVERLOADED when there is none."""
        silent = self._silent.get(runner.id, {})
        for connection in [each for each, link in silent.items() if link.session_id is not None]:
            del silent[connection]
        if len(silent) < limits.LINKS_SILENT_PER_RUNNER_MAX:
            return
        oldest = next(iter(silent))
        if self._clock.monotonic() - silent[oldest].since >= limits.HTTP_PATIENCE_SECONDS:
            self._refusals.note("evicted")
            oldest.transport.abort()
            return
        raise LenswayError(
            ErrorCode.OVERLOADED, "too many connections of this runner have not said hello", retry_after_seconds=5.0
        )

    async def _serve(self, connection: ServerConnection) -> None:
        if connection.subprotocol != SUBPROTOCOL:
            await connection.close(1002, f"subprotocol {SUBPROTOCOL} is required")
            return
        link = Link(
            self._transport_of(connection),
            connection.lensway_runner,  # type: ignore[attr-defined]
            dispatch=self._dispatch,
            sets=self._sets,
            clock=self._clock,
            address=connection.lensway_address,  # type: ignore[attr-defined]
            token_hash=connection.lensway_token_hash,  # type: ignore[attr-defined]
            push_is_lost=self._push_is_lost,
        )
        self._links.add(link)
        self._silent.setdefault(link.runner.id, {})[connection] = link
        runner = link.runner.id
        try:
            # The catalog may have moved between the check and now.
            link.adopt(self._store.current().runner_by_id(link.runner.id))
            await link.serve()
        except asyncio.CancelledError:
            raise
        finally:
            self._links.discard(link)
            if (silent := self._silent.get(runner)) is not None:
                silent.pop(connection, None)
                if not silent:
                    del self._silent[runner]

    def _on_change(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        for link in list(self._links):
            now = snapshot.runner_by_id(link.runner.id)
            if now is not link.runner:
                self._adopt(link, now)

    def _adopt(self, link: Link, runner: Runner | None) -> None:
        try:
            link.adopt(runner)
        except Exception as error:  # noqa: BLE001 - the boundary of one link: the change reaches all others all the same
            _log.exception("a link failed", runner=link.runner.name, error=type(error).__name__)
            link.finish(CloseReason.GOING_AWAY, "the server failed")


_REFUSALS: Final = frozenset({ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED})
_STATUS: Final = {
    ErrorCode.UNAUTHENTICATED: http.HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: http.HTTPStatus.FORBIDDEN,
    ErrorCode.NOT_FOUND: http.HTTPStatus.NOT_FOUND,
    ErrorCode.RATE_LIMITED: http.HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.OVERLOADED: http.HTTPStatus.SERVICE_UNAVAILABLE,
}
