"""The way of one client to its server: proxy, certificates, and the cause when it fails. Shared by both shells."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from lensway.client import exceptions
from lensway.client.core import Connection, Loss, Lost
from lensway.client.transport import keepalive
from lensway.errors import ErrorCode, LenswayError
from lensway.ways.causes import Cause, Evidence, Stage, Way, told
from lensway.ways.looking import SecondLook
from lensway.ways.proxies import Proxy, proxy_to

_UNSENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_SPOKEN: Final = frozenset({"http", "https", "socks5", "socks5h"})
_LASTING: Final = frozenset(
    {
        "untrusted", "wrong_name", "expired", "not_yet_valid", "clock_off", "certificate_revoked", "certificate_purpose",
        "certificate_weak", "client_certificate", "clear_port", "tls_port", "tls_version", "proxy_forbids", "proxy_login",
        "proxy_no_connect", "proxy_no_http", "proxy_tls",
    }
)  # fmt: skip
"""What no repetition cures."""


class Passage:
    """How one client reaches its server."""

    def __init__(self, connection: Connection, environment: Mapping[str, str] = os.environ) -> None:
        parts = urlsplit(connection.url)
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        try:
            proxy = proxy_to(host, port, is_tls=is_tls, environment=environment)
        except LenswayError as error:
            raise _invalid(str(error), error.failure.hint) from None
        self.way = Way(
            what="server",
            host=host,
            port=port,
            is_tls=is_tls,
            url_setting="the URL",
            ca_file=connection.ca_file,
            proxy=proxy,
        )
        self._origin = connection.origin
        self._ca = pathlib.Path(connection.ca_file) if connection.ca_file else None
        self._ca_mark = _mark_of(self._ca)
        self._verify = _verify(connection.ca_file, environment) if is_tls else False
        self._has_answered = False
        self._look = SecondLook()

    def transport_options(self) -> dict[str, Any]:
        """What both transports of the library are made with."""
        options: dict[str, Any] = {"verify": self._verify, "trust_env": False, "socket_options": keepalive()}
        if (proxy := self.way.proxy) is not None:
            if proxy.scheme not in _SPOKEN:
                raise _invalid(f"{proxy.variable} names a {proxy.scheme} proxy", "Use http, https, socks5 or socks5h.")
            options["proxy"] = _proxy_of(proxy)
        return options

    def check_library(self, error: ImportError) -> LenswayError:
        """The error for a proxy whose library is not there."""
        cause = told("proxy_library", Stage.CONFIG, self.way)
        return _invalid(cause.line, cause.remedy)

    def watch(self) -> Watch | None:
        """Notes how far one request comes, for the cause of its failure; None once the server has answered before."""
        is_socks = self.way.proxy is not None and self.way.proxy.is_socks
        return None if self._has_answered and not is_socks else Watch(self.way)

    def answered(self) -> None:
        """The server has answered: it is where it should be."""
        self._has_answered = True

    def lost(self, error: Exception, watch: Watch | None) -> Lost:
        """What an error of the library means, with its cause. May look at the port a second time: blocks for that."""
        loss = Loss.SILENT if isinstance(error, httpx2.TimeoutException) else Loss.CUT
        if isinstance(error, _UNSENT):
            loss = Loss.UNSENT
        if self._has_answered and loss is not Loss.UNSENT:
            return Lost(loss, type(error).__name__, self._origin)
        cause = self._named(dataclasses.replace(Evidence() if watch is None else watch.seen, error=_bare(error)))
        is_before = cause.stage in (Stage.DNS, Stage.TCP, Stage.PROXY, Stage.TLS, Stage.CLOCK)
        if loss is Loss.SILENT:
            loss = Loss.UNSENT if is_before else loss
        is_lasting = cause.code in _LASTING and not self._is_renewed(cause)
        return Lost(loss, cause.code, self._origin, cause, is_lasting)

    def foreign(self, status: int, headers: Mapping[str, str]) -> Cause:
        """Why something else than Lensway answered. May look at the port a second time: blocks for that."""
        is_other = "lensway-refusal" in headers
        return self._named(Evidence(status=status, is_through=True, is_other=is_other))

    def _named(self, seen: Evidence) -> Cause:
        if self.way.proxy is None and _has(seen.error, ssl.SSLError):
            seen = dataclasses.replace(seen, is_through=True)
        if isinstance(seen.error, httpx2.ProxyError) and seen.proxy_status is None:
            seen = dataclasses.replace(seen, is_proxy_error=True)
        return self._look.cause(self.way, seen)

    def _is_renewed(self, cause: Cause) -> bool:
        """True when the CA file is another one now: it is read, and the next try trusts it."""
        mark = _mark_of(self._ca)
        if (
            cause.code != "untrusted"
            or mark is None
            or mark == self._ca_mark
            or not isinstance(self._verify, ssl.SSLContext)
        ):
            return False
        try:
            self._verify.load_verify_locations(cafile=str(self._ca))
        except (OSError, ssl.SSLError):
            return False
        self._ca_mark = mark
        return True


_THROUGH: Final = (
    ("connection.connect_tcp.complete",),
    ("proxy.start_tls.started", "http_proxy.start_tls.started"),
    ("socks.setup_socks5_connection.complete",),
)
"""The step of the library after which the server itself is spoken to: directly, through an HTTP proxy, through SOCKS."""


class Watch:
    """How far one request came."""

    def __init__(self, way: Way) -> None:
        self.seen = Evidence()
        self.stream: Any = None
        """A connection to a SOCKS proxy, which the library leaves open when the proxy refuses."""
        self._way = way

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """A step of the library on its way."""
        way, seen = self._way, self.seen
        if event == "socks.connect_tcp.complete":
            self.stream = info["return_value"]
        if event in _THROUGH[0 if way.proxy is None else 2 if way.proxy.is_socks else 1]:
            self.seen = dataclasses.replace(seen, is_through=True)
        elif event.endswith("start_tls.complete") and seen.is_through:
            self.seen = dataclasses.replace(seen, is_secured=True)
        elif event == "http11.receive_response_headers.complete" and not seen.is_through and way.is_tls:
            status = info["return_value"][1]
            if not 200 <= status < 300:
                self.seen = dataclasses.replace(seen, proxy_status=status)

    async def note_async(self, event: str, info: Mapping[str, Any]) -> None:
        """The same, as the awaiting side of the library wants it."""
        self.note(event, info)


def _proxy_of(proxy: Proxy) -> httpx2.Proxy:
    auth = None if proxy.user is None else (proxy.user, proxy.password)
    # The proxy's own certificate is checked against the system's authorities, whichever signed the server's.
    context = ssl.create_default_context() if proxy.scheme == "https" else None
    return httpx2.Proxy(proxy.shown, auth=auth, ssl_context=context)


def _verify(ca_file: str | None, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """How certificates are checked. Loading the system's takes tens of milliseconds: only where something is encrypted."""
    named = ca_file or environment.get("SSL_CERT_FILE") or environment.get("SSL_CERT_DIR")
    if not named:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise _invalid(f"cannot read certificates from {ca_file}", "Name a file in PEM format.") from None


def _bare(error: Exception) -> BaseException:
    """The library's error as one of the standard library where it stands for one."""
    if isinstance(error, httpx2.TimeoutException):
        return TimeoutError()
    if isinstance(error, httpx2.RemoteProtocolError):
        # It closed without an answer, or answered rubbish; the library does not say which by type.
        return ConnectionResetError() if _is_silent_end(error) else ValueError()
    return error


def _is_silent_end(error: Exception) -> bool:
    # Beneath the library's error stands one of its parser for rubbish, and none for an end without an answer.
    below = error.__cause__
    return below is None or below.__cause__ is None


def _has(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _mark_of(path: pathlib.Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def _invalid(message: str, hint: str | None) -> LenswayError:
    return exceptions.InvalidRequestError(ErrorCode.INVALID_REQUEST, message, hint=hint)
