"""Dialling the gateway: one WebSocket, upgraded with the runner's token, through the proxy that the environment names.

Every failure of DNS, TCP, TLS, a proxy or the peer becomes a `DialError` with its cause of `lensway.ways`. Only the gateway's own
refusal is final: a proxy or a balancer answers 401 and 403 too, and dialling again cures those.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    NegotiationError,
    ProxyError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol

from lensway import limits
from lensway.bridges.kit import lookups
from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.transport import Transport
from lensway.protocol.version import REFUSAL_HEADER, SUBPROTOCOL
from lensway.runner.settings import RunnerSettings, gateway_address
from lensway.ways.causes import Cause, Evidence, Stage, Way, retry_after_seconds
from lensway.ways.looking import SecondLook
from lensway.ways.proxies import proxy_to

_log = structlog.get_logger("lensway.runner")

Dial = Callable[[], Awaitable[Transport]]

_FINAL: Final = frozenset({"unauthenticated", "revoked"})
_BRIEF: Final = frozenset({"refused", "closed", "balancer_away", "balancer_silent"})
"""What a server looks like that starts again."""
_EXPECTED: Final = (OSError, EOFError, WebSocketException, ValueError, LookupError, ImportError)
"""What the way there does. ValueError: a redirect; LookupError: a header that must be single is there twice."""


class DialError(Exception):
    """The gateway could not be reached or refused us. ``cause`` is a short class, ``hint`` what it is and what to do.

    ``is_final``: the gateway itself refuses this token. ``is_brief``: the usual sign of a server that restarts, so dial soon.
    """

    def __init__(
        self,
        cause: str,
        hint: str,
        *,
        is_final: bool = False,
        is_brief: bool = False,
        retry_after: float = 0.0,
        named: Cause | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.is_final = is_final
        self.is_brief = is_brief
        self.retry_after = retry_after
        self.named = named


def tls_context(url: str, ca_file: pathlib.Path | None) -> ssl.SSLContext | None:
    """How the gateway's certificate is checked; None for ws://. Raises LenswayError for a CA file that is none."""
    if not url.startswith("wss://"):
        return None
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (ssl.SSLError, OSError):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"LENSWAY_CA_FILE {ca_file} holds no certificates",
            hint="Name a file in PEM format with the CA that signed the gateway's certificate.",
        ) from None


@dataclasses.dataclass(slots=True)
class _Progress:
    """How far one dial came."""

    is_through: bool = False
    is_secured: bool = False


class Dialer:
    """Opens connections with these settings."""

    def __init__(
        self,
        settings: RunnerSettings,
        transport_of: Callable[[Any], Transport],
        resolve: Callable[[str, int], Awaitable[list[str]]] = lookups.PROCESS.addresses,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._environment = environment
        self._known: dict[str, list[str]] = {}
        self._transport_of = transport_of
        self._ca_mark = _mark_of(self._ca_path())
        self._tls = tls_context(settings.gateway_url, settings.ca_file)
        self._look = SecondLook()

    async def __call__(self) -> Transport:
        """A connection that the gateway has upgraded. Raises DialError, and nothing else but cancellation."""
        way, progress = self._way(), _Progress()
        try:
            way = self.way()
            return self._transport_of(await self._connect(way, progress))
        except LenswayError as error:
            # A proxy's variable, or the token's file: being written, or gone for now.
            raise _of_setting(error) from None
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the way there does, the runner dials again
            if not isinstance(error, _EXPECTED):
                _log.error("dialling failed by a defect", error=type(error).__name__, exc_info=error)
                raise DialError("internal", "Dialling failed unexpectedly; the log says where.") from None
            seen = _evidence(error, progress)
        raise await self._named(way, seen)

    def way(self) -> Way:
        """Where the next dial goes. Raises LenswayError INVALID_REQUEST for a variable that should name a proxy."""
        way = self._way()
        proxy = proxy_to(way.host, way.port, is_tls=way.is_tls, environment=self._environment)
        return dataclasses.replace(way, proxy=proxy)

    def _way(self) -> Way:
        host, port = gateway_address(self._settings.gateway_url)
        return Way(
            what="gateway",
            host=host,
            port=port,
            is_tls=self._settings.gateway_url.startswith("wss://"),
            url_setting="LENSWAY_GATEWAY_URL",
            ca_file=None if self._settings.ca_file is None else f"{self._settings.ca_file} (LENSWAY_CA_FILE)",
        )

    async def _named(self, way: Way, seen: Evidence) -> DialError:
        """The failure with its cause, after a second look where that can tell more."""
        if self._look.is_needed(way, seen):
            cause = await _in_thread(lambda: self._look.cause(way, seen))
        else:
            cause = self._look.cause(way, seen)
        return DialError(
            cause.code,
            str(cause),
            is_final=seen.is_own and cause.code in _FINAL,
            is_brief=cause.code in _BRIEF and seen.status != 503,
            retry_after=_told_seconds(seen.error),
            named=cause,
        )

    async def _connect(self, way: Way, progress: _Progress) -> ClientConnection:
        if way.proxy is not None:
            host = None
            if way.proxy.scheme != "https":
                # The library would look the name up in the threads that everybody shares.
                host = (await self._addresses(way.proxy.host, way.proxy.port))[0]
            where: dict[str, Any] = {"proxy": way.proxy.url(host=host)}
            return await self._upgraded(limits.HANDSHAKE_TIMEOUT_SECONDS, progress, where)
        *others, last = (await self._addresses(way.host, way.port))[: limits.GATEWAY_ADDRESSES_MAX]
        for address in others:
            try:
                return await self._directly(limits.HANDSHAKE_TIMEOUT_SECONDS / 2, address, way.port, progress)
            except Exception as error:
                # The name has other addresses.
                if isinstance(error, ssl.SSLCertVerificationError | LenswayError) or _is_refusal(error):
                    raise
        return await self._directly(limits.HANDSHAKE_TIMEOUT_SECONDS, last, way.port, progress)

    async def _directly(self, seconds: float, address: str, port: int, progress: _Progress) -> ClientConnection:
        progress.is_through = progress.is_secured = False
        until = time.monotonic() + seconds
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            progress.is_through = True
            return await self._upgraded(max(0.01, until - time.monotonic()), progress, {"sock": sock, "proxy": None})
        except BaseException:
            sock.close()
            raise

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the name stands for now; while it cannot be looked up, what it stood for last."""
        try:
            found = await self._resolve(host, port)
        except (OSError, ValueError) as error:
            if host not in self._known:
                if isinstance(error, TimeoutError):
                    raise socket.gaierror(socket.EAI_AGAIN, "no answer") from None
                raise
            found = []
        self._known[host] = found or self._known.get(host, [])
        if not self._known[host]:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return self._known[host]

    def _ca_path(self) -> pathlib.Path | None:
        named = self._environment.get("SSL_CERT_FILE")
        return self._settings.ca_file or (pathlib.Path(named) if named else None)

    def _tls_now(self) -> ssl.SSLContext | None:
        """As the CA file is now; while it is being written, as it was."""
        mark = _mark_of(self._ca_path())
        if mark is not None and mark != self._ca_mark:
            with contextlib.suppress(LenswayError):
                self._tls = tls_context(self._settings.gateway_url, self._settings.ca_file)
                self._ca_mark = mark
        return self._tls

    async def _upgraded(self, seconds: float, progress: _Progress, where: Mapping[str, Any]) -> ClientConnection:
        try:
            made = await self._connected(seconds, progress, where)
        except AssertionError:
            # The library asserts that no peer answers and closes before it is asked; a balancer does.
            raise EOFError from None
        if made.subprotocol != SUBPROTOCOL:
            made.transport.abort()
            raise NegotiationError("the peer does not speak the subprotocol")
        return made

    async def _connected(self, seconds: float, progress: _Progress, where: Mapping[str, Any]) -> ClientConnection:
        def connection(*args: Any, **options: Any) -> ClientConnection:
            # Made when the way stands: after the proxy's part of it.
            progress.is_through = True
            return _Watched(progress, *args, **options)

        return await connect(
            self._settings.gateway_url,
            additional_headers={"Authorization": f"Bearer {self._settings.fresh_token().reveal()}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=limits.MESSAGE_BYTES_MAX,
            max_queue=8,
            ping_interval=None,
            open_timeout=seconds,
            close_timeout=limits.CLOSE_TIMEOUT_SECONDS,
            user_agent_header=None,
            ssl=self._tls_now(),
            create_connection=connection,  # type: ignore[arg-type]  # a maker will do
            **where,
        )


class _Watched(ClientConnection):
    """A connection that notes when it can be written to: TLS is over then."""

    def __init__(self, progress: _Progress, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._progress = progress

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._progress.is_secured = True
        super().connection_made(transport)


async def _in_thread(work: Callable[[], Cause]) -> Cause:
    """What the work gives, in a thread of its own that keeps no process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Cause] = loop.create_future()

    def run() -> None:
        found = work()
        with contextlib.suppress(RuntimeError):  # the loop is over
            loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(found))

    threading.Thread(target=run, name="second look", daemon=True).start()
    return await done


def _mark_of(path: pathlib.Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def _evidence(error: Exception, progress: _Progress) -> Evidence:
    """What the library's error says, without the library's types."""
    if isinstance(error, InvalidProxyStatus):
        return Evidence(error=error, proxy_status=error.response.status_code)
    if isinstance(error, InvalidProxyMessage):
        is_cut = isinstance(error.__cause__, EOFError)
        return Evidence(error=error.__cause__ if is_cut else error, is_proxy_error=not is_cut)
    if isinstance(error, ProxyError):
        return Evidence(error=error, is_proxy_error=True)
    response = _response_of(error)
    if response is not None:
        is_own = bool(response.headers.get_all(REFUSAL_HEADER))
        is_other = not is_own and bool(response.headers.get_all("X-Request-Id"))
        status = response.status_code
        return Evidence(error=error, is_through=True, status=status, is_own=is_own, is_other=is_other)
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
        error = error.__cause__
    if isinstance(error, ConnectionClosed):
        # Before the request was sent.
        error = ConnectionResetError()
    if isinstance(error, WebSocketException):
        # What stands beneath it is the library's affair.
        error = _NonsenseError()
    return Evidence(error=error, is_through=progress.is_through, is_secured=progress.is_secured)


class _NonsenseError(Exception):
    """The peer does not speak the protocol."""


def _response_of(error: BaseException | None) -> Response | None:
    """The answer that the peer gave instead of an upgrade; a redirect stands beneath another error."""
    while error is not None:
        if isinstance(error, InvalidStatus):
            return error.response
        error = error.__cause__ or error.__context__
    return None


def _is_refusal(error: Exception) -> bool:
    """True for an answer of the gateway itself that says that this token is not welcome."""
    response = _response_of(error)
    if response is None:
        return False
    return response.status_code in (401, 403) and bool(response.headers.get_all(REFUSAL_HEADER))


def _of_setting(error: LenswayError) -> DialError:
    message = f"{error}. {error.failure.hint}" if error.failure.hint else str(error)
    is_token = "TOKEN" in str(error)
    code, stage = ("token", Stage.TOKEN) if is_token else ("proxy_setting", Stage.CONFIG)
    named = Cause(code=code, stage=stage, line=str(error), remedy=error.failure.hint or "")
    return DialError(code, message, named=named)


def _told_seconds(error: BaseException | None) -> float:
    """``Retry-After`` as far as it is sane: what answers may be anything."""
    response = _response_of(error)
    if response is not None:
        now = datetime.datetime.now(datetime.UTC)
        for text in response.headers.get_all("Retry-After"):
            if (found := retry_after_seconds(text, now)) is not None:
                return min(found, limits.RECONNECT_TOLD_SECONDS_MAX)
    return 0.0
