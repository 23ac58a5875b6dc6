"""A second look at a port whose dial failed: does it speak TLS or clear text, and what does its clock say?

Only after failures that have several reasons. It sends no token and trusts nothing: what it finds names the cause for people
and opens no way. Blocking, with a bound.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import socket
import ssl
import time
from typing import Any, Final

from lensway import limits
from lensway.ways.causes import Cause, Evidence, Speaks, Way, cause_of, http_date

_HEAD_BYTES: Final = 8192
_AMBIGUOUS: Final = frozenset(
    {"closed", "silent", "tls_silent", "tls", "handshake", "no_upgrade", "expired", "not_yet_valid"}
)


def is_ambiguous(cause: Cause, seen: Evidence) -> bool:
    """True when a second look can tell more of this failure."""
    return (cause.code in _AMBIGUOUS and (seen.is_through or not _is_late(seen))) or seen.status in (400, 497)


def _is_late(seen: Evidence) -> bool:
    return isinstance(seen.error, TimeoutError)


class SecondLook:
    """Names causes, with a look at the port now and then: who dials a server in trouble must not call it twice each time."""

    def __init__(self) -> None:
        self._last: tuple[str, float, Evidence] | None = None

    def is_needed(self, way: Way, seen: Evidence) -> bool:
        """True when `cause` would look at the port, and block."""
        first = cause_of(way, seen)
        return is_ambiguous(first, seen) and self._remembered(first.code) is None

    def cause(self, way: Way, seen: Evidence) -> Cause:
        """The cause of this failure; what a look found is remembered for a while."""
        seen = dataclasses.replace(seen, now=datetime.datetime.now(datetime.UTC))
        first = cause_of(way, seen)
        if not is_ambiguous(first, seen):
            return first
        found = self._remembered(first.code)
        if found is None:
            found = looked(way, seen)
            self._last = (first.code, time.monotonic(), found)
        more: dict[str, Any] = {
            "speaks": found.speaks,
            "peer_date": found.peer_date,
            "validity": found.validity,
            "now": found.now,
        }
        return cause_of(way, dataclasses.replace(seen, **more))

    def _remembered(self, code: str) -> Evidence | None:
        if self._last is None or self._last[0] != code:
            return None
        return self._last[2] if time.monotonic() - self._last[1] < limits.LOOK_AGAIN_SECONDS else None


def looked(way: Way, seen: Evidence) -> Evidence:
    """The evidence with what a second look adds. Never raises."""
    now = datetime.datetime.now(datetime.UTC)
    seen = dataclasses.replace(seen, now=now)
    if way.proxy is not None and way.proxy.scheme != "http":
        return seen
    if _is_out_of_time(seen.error):
        head, validity = _head(way, is_tls=True)
        return dataclasses.replace(seen, peer_date=_date_of(head), validity=validity)
    head, _ = _head(way, is_tls=not way.is_tls)
    if way.is_tls:
        return dataclasses.replace(seen, speaks=Speaks.CLEAR if head and head.startswith(b"HTTP/") else None)
    return dataclasses.replace(seen, speaks=None if head is None else Speaks.TLS)


def peer_clock(way: Way) -> datetime.datetime | None:
    """What the clock of the peer says, by its HTTP answer; None when it does not say."""
    if way.proxy is not None and way.proxy.scheme != "http":
        return None
    return _date_of(_head(way, is_tls=way.is_tls)[0])


def _is_out_of_time(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_code in (9, 10)
        error = error.__cause__ or error.__context__
    return False


def _head(way: Way, *, is_tls: bool) -> tuple[bytes | None, tuple[datetime.datetime, datetime.datetime] | None]:
    """The head of an answer, and the validity of the certificate; no bytes from a silent peer, None without a connection."""
    validity = None
    head: bytes | None = None
    with contextlib.suppress(OSError, ValueError):
        with contextlib.ExitStack() as stack:
            peer = stack.enter_context(_connected(way))
            if is_tls:
                peer = stack.enter_context(_unverified().wrap_socket(peer, server_hostname=way.host))
                validity = _validity(peer.getpeercert(binary_form=True))
            head = b""
            peer.sendall(
                f"GET /healthz HTTP/1.1\r\nHost: {way.place}\r\nConnection: close\r\nUser-Agent: lensway\r\n\r\n".encode()
            )
            head = _read_head(peer)
    return head, validity


def _connected(way: Way) -> socket.socket:
    proxy = way.proxy
    at = (way.host, way.port) if proxy is None else (proxy.host, proxy.port)
    peer = socket.create_connection(at, timeout=limits.LOOK_SECONDS)
    if proxy is not None:
        login = base64.b64encode(f"{proxy.user or ''}:{proxy.password}".encode()).decode()
        more = "" if proxy.user is None else f"Proxy-Authorization: Basic {login}\r\n"
        try:
            peer.sendall(f"CONNECT {way.place} HTTP/1.1\r\nHost: {way.place}\r\n{more}\r\n".encode())
            if not _read_head(peer)[8:].startswith(b" 200"):
                raise ConnectionError("the proxy refuses")
        except OSError:
            peer.close()
            raise
    return peer


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_head(peer: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        if not (more := peer.recv(1024)):
            break
        head += more
    return head


def _date_of(head: bytes | None) -> datetime.datetime | None:
    for line in (head or b"").split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"date":
            return http_date(value.strip().decode("ascii", "replace"))
    return None


def _validity(der: bytes | None) -> tuple[datetime.datetime, datetime.datetime] | None:
    try:
        from cryptography import x509  # noqa: PLC0415 - the client does without it
    except ImportError:
        return None
    try:
        found = x509.load_der_x509_certificate(der or b"")
    except ValueError:
        return None
    return found.not_valid_before_utc, found.not_valid_after_utc
