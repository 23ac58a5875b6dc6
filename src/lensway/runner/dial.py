"""Dialling the gateway: one WebSocket, upgraded with the runner's token.

Every failure of DNS, TCP, TLS, a proxy or the peer becomes a `DialError`, classified by type. Only the gateway's own refusal is
marked as one: a proxy or a balancer answers 401 and 403 too, and dialling again cures those.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    NegotiationError,
    ProxyError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.proxy import get_proxy, parse_proxy
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from lensway import limits
from lensway.bridges.kit import lookups
from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.transport import Transport
from lensway.protocol.version import REFUSAL_HEADER, SUBPROTOCOL
from lensway.runner.settings import RunnerSettings

_log = structlog.get_logger("lensway.runner")

Dial = Callable[[], Awaitable[Transport]]

_FINAL_STATUS: Final = frozenset({401, 403})
_NO_GATEWAY: Final = "The peer is not a Lensway gateway; check LENSWAY_GATEWAY_URL, and proxies on the way."


class DialError(Exception):
    """The gateway could not be reached or refused us. ``cause`` is a short class, ``hint`` what to do.

    ``is_final``: the gateway itself refuses this token. ``is_brief``: the usual sign of a server that restarts, so dial soon.
    """

    def __init__(
        self, cause: str, hint: str, *, is_final: bool = False, is_brief: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.is_final = is_final
        self.is_brief = is_brief
        self.retry_after = retry_after


def tls_context(url: str, ca_file: pathlib.Path | None) -> ssl.SSLContext | None:
    """How the gateway's certificate is checked; None for ws://. Raises LenswayError for a CA file that is none."""
    if not url.startswith("wss://"):
        return None
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (ssl.SSLError, OSError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"LENSWAY_CA_FILE {ca_file} holds no certificates") from None


class Dialer:
    """Opens connections with these settings."""

    def __init__(
        self,
        settings: RunnerSettings,
        transport_of: Callable[[Any], Transport],
        resolve: Callable[[str, int], Awaitable[list[str]]] = lookups.PROCESS.addresses,
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._known: dict[str, list[str]] = {}
        self._transport_of = transport_of
        self._ca_mark = _mark_of(settings.ca_file)
        self._tls = tls_context(settings.gateway_url, settings.ca_file)

    async def __call__(self) -> Transport:
        """A connection that the gateway has upgraded. Raises DialError, and nothing else but cancellation."""
        try:
            return self._transport_of(await self._connect())
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the way there does, the runner dials again
            raise _classified(error) from None

    async def _connect(self) -> ClientConnection:
        uri = parse_uri(self._settings.gateway_url)
        if (proxy := get_proxy(uri)) is not None:
            return await self._connect_to(limits.HANDSHAKE_TIMEOUT_SECONDS, **await self._by_address(proxy))
        *others, last = (await self._addresses(uri.host, uri.port))[: limits.GATEWAY_ADDRESSES_MAX]
        for address in others:
            try:
                return await self._connect_to(limits.HANDSHAKE_TIMEOUT_SECONDS / 2, host=address)
            except Exception as error:
                # The name has other addresses.
                if isinstance(error, ssl.SSLCertVerificationError | LenswayError) or _is_refusal(error):
                    raise
        return await self._connect_to(limits.HANDSHAKE_TIMEOUT_SECONDS, host=last)

    async def _by_address(self, proxy: str) -> dict[str, Any]:
        """The proxy with its address for its name: the library would look it up in the threads that everybody shares."""
        parsed = parse_proxy(proxy)
        if not parsed.scheme.startswith("http"):
            return {"proxy": proxy}
        address = (await self._addresses(parsed.host, parsed.port))[0]
        login = "" if parsed.username is None else f"{quote(parsed.username, '')}:{quote(parsed.password or '', '')}@"
        place = f"[{address}]" if ":" in address else address
        more = {"proxy_server_hostname": parsed.host} if parsed.scheme == "https" else {}
        return {"proxy": f"{parsed.scheme}://{login}{place}:{parsed.port}", **more}

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the name stands for now; while it cannot be looked up, what it stood for last."""
        try:
            found = await self._resolve(host, port)
        except (OSError, ValueError):
            if host not in self._known:
                raise
            found = []
        self._known[host] = found or self._known.get(host, [])
        if not self._known[host]:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return self._known[host]

    def _tls_now(self) -> ssl.SSLContext | None:
        """As the CA file is now; while it is being written, as it was."""
        mark = _mark_of(self._settings.ca_file)
        if mark is not None and mark != self._ca_mark:
            with contextlib.suppress(LenswayError):
                self._tls = tls_context(self._settings.gateway_url, self._settings.ca_file)
                self._ca_mark = mark
        return self._tls

    async def _connect_to(self, seconds: float, **where: Any) -> ClientConnection:
        try:
            connection = await self._upgraded(seconds, **where)
        except AssertionError:
            # The library asserts that no peer answers and closes before it is asked; a balancer does.
            raise EOFError from None
        if connection.subprotocol != SUBPROTOCOL:
            connection.transport.abort()
            raise NegotiationError("the peer does not speak the subprotocol")
        return connection

    async def _upgraded(self, seconds: float, **where: Any) -> ClientConnection:
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
            **where,
        )


def _mark_of(path: pathlib.Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


_CLOSED: Final = (
    "The peer closes the connection at once; check for a load balancer or proxy without a server behind it."
)
_CLASSES: Final[tuple[tuple[tuple[type[Exception], ...], str, str], ...]] = (
    # ImportError: a SOCKS proxy, whose library is not installed.
    (
        (InvalidProxy, ProxyError, ImportError),
        "proxy",
        "The proxy fails or refuses the connection; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    ),
    (
        (ssl.SSLCertVerificationError,),
        "certificate",
        "The gateway's certificate is not trusted here; set LENSWAY_CA_FILE to the CA that signed it.",
    ),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), "closed", _CLOSED),
    ((ssl.SSLError,), "tls", "The TLS handshake failed; check that the port speaks TLS."),
    ((TimeoutError,), "timeout", "The gateway does not answer; check the address and firewalls."),
    (
        (ConnectionRefusedError,),
        "refused",
        "No server listens there; check that the server is running and that this is its gateway port.",
    ),
    # A balancer in TCP mode accepts for a server that is down, and closes; ConnectionClosed: before the request was sent.
    ((ConnectionError, EOFError, ConnectionClosed), "closed", _CLOSED),
    (
        (socket.gaierror, UnicodeError),
        "unknown_host",
        "The gateway's name does not resolve; check LENSWAY_GATEWAY_URL and DNS.",
    ),
    ((OSError,), "unreachable", "The network has no route to the gateway; check LENSWAY_GATEWAY_URL and the network."),
    # ValueError: a redirect to another host. LookupError: a header that must be single is there twice.
    ((WebSocketException, ValueError, LookupError), "handshake", _NO_GATEWAY),
)
"""Causes and hints by type. The order counts: the first entry that fits names the failure."""
_BRIEF: Final = frozenset({"refused", "closed"})


def _classified(error: Exception) -> DialError:
    if isinstance(error, InvalidStatus):
        return _of_status(error.response)
    if isinstance(error, LenswayError):
        # The token's file is being written, or is gone for now.
        return DialError("token", str(error))
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
        error = error.__cause__
    for types, cause, hint in _CLASSES:
        if isinstance(error, types):
            return DialError(cause, hint, is_brief=cause in _BRIEF)
    _log.error("dialling failed by a defect", error=type(error).__name__, exc_info=error)
    return DialError("internal", "Dialling failed unexpectedly; the log says where.")


def _is_refusal(error: Exception) -> bool:
    """True for an answer of the gateway itself that says that this token is not welcome."""
    if not isinstance(error, InvalidStatus):
        return False
    return error.response.status_code in _FINAL_STATUS and bool(error.response.headers.get_all(REFUSAL_HEADER))


def _of_status(response: Response) -> DialError:
    status = response.status_code
    if status in _FINAL_STATUS:
        if not response.headers.get_all(REFUSAL_HEADER):
            return DialError(
                f"status_{status}",
                f"A proxy or load balancer on the way to the gateway answers {status}; check it.",
            )
        if status == 401:
            return DialError("unauthenticated", "The token is invalid, or no longer valid: rotate it.", is_final=True)
        return DialError(
            "forbidden", "The gateway refuses this runner: the runner or its token is revoked.", is_final=True
        )
    if status in (429, 503):
        return DialError("busy", "The server is busy or starting.", retry_after=_seconds(response))
    if status in (502, 504):
        return DialError(f"status_{status}", "The load balancer on the way cannot reach a server.", is_brief=True)
    return DialError(f"status_{status}", _NO_GATEWAY)


def _seconds(response: Response) -> float:
    """``Retry-After`` as far as it is sane: what answers may be anything."""
    for text in response.headers.get_all("Retry-After"):
        if text.isascii() and text.isdecimal() and len(text) <= 6:
            return min(float(text), limits.RECONNECT_TOLD_SECONDS_MAX)
    return 0.0
