"""Why a server cannot be reached: one function that turns what is known of a failed dial into a named cause.

Runner, `doctor`, commands and both Python clients say the same line and the same remedy. Nothing here is decided on the text of
an error: types, codes of the TLS library, HTTP statuses and what a second look found (`looking`) decide. No I/O.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import enum
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from lensway.ways.proxies import Proxy, bracketed
from lensway.ways.remedies import TEXTS

CLOCK_SKEW_SECONDS: Final = 300
"""Clocks that differ by more explain a certificate that is expired or not yet valid."""


class Stage(enum.StrEnum):
    """How far a dial came."""

    CONFIG = "configuration"
    CLOCK = "clock"
    DNS = "dns"
    TCP = "tcp"
    PROXY = "proxy"
    TLS = "tls"
    ANSWER = "answer"
    TOKEN = "token"  # noqa: S105 - a stage


class Speaks(enum.Enum):
    """What a second look found at the port."""

    TLS = "tls"
    CLEAR = "clear"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a dial goes, and which settings say so."""

    what: str
    """``gateway`` or ``server``."""
    host: str
    port: int
    is_tls: bool
    url_setting: str
    ca_file: str | None = None
    proxy: Proxy | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return f"{bracketed(self.host)}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a failed dial."""

    error: BaseException | None = None
    is_through: bool = False
    """The connection to the server itself stood: TCP, and the proxy's part before it."""
    is_secured: bool = False
    """TLS was established."""
    status: int | None = None
    """The HTTP status that arrived instead of the service."""
    is_own: bool = False
    """The answer bears Lensway's own mark."""
    is_other: bool = False
    """The answer is of another listener of Lensway: the API answers where the gateway is expected, or the other way round."""
    proxy_status: int | None = None
    """The HTTP status that the proxy answered."""
    is_proxy_error: bool = False
    """The proxy broke its protocol, or refused in the words of SOCKS."""
    speaks: Speaks | None = None
    peer_date: datetime.datetime | None = None
    """What the peer's clock says, without proof."""
    now: datetime.datetime | None = None
    validity: tuple[datetime.datetime, datetime.datetime] | None = None
    """Of the certificate that the peer shows."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A named cause: what failed, on which object, and what to do."""

    code: str
    stage: Stage
    line: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}. {self.remedy}"


def cause_of(way: Way, seen: Evidence) -> Cause:
    """The cause of this failure. Total: what fits nothing is ``handshake``."""
    stage, code = _of(way, seen)
    return told(code, stage, way, seen)


def told(code: str, stage: Stage, way: Way, seen: Evidence | None = None) -> Cause:
    """The line and the remedy of a cause on this way."""
    seen = seen or Evidence()
    line, remedy = TEXTS[code]
    facts = _facts(way, seen)
    return Cause(code=code, stage=stage, line=line.format_map(facts), remedy=remedy.format_map(facts))


def _facts(way: Way, seen: Evidence) -> Mapping[str, object]:
    proxy = way.proxy
    first, last = seen.validity or (None, None)
    asked = f"set in {way.ca_file}" if way.ca_file else "of this system"
    add_ca = (
        f"Put the CA that signed it into {way.ca_file}"
        if way.ca_file
        else "Set LENSWAY_CA_FILE (`ca_file` in Python) to the CA that signed it"
    )
    return {
        "what": way.what,
        "place": way.place,
        "host": way.host,
        "port": way.port,
        "setting": way.url_setting,
        "scheme": _scheme(way, is_tls=way.is_tls),
        "other": _scheme(way, is_tls=not way.is_tls),
        "proxy": "" if proxy is None else proxy.shown,
        "variable": "the proxy variable" if proxy is None else proxy.variable,
        "via": "" if proxy is None else f" through the proxy {proxy.shown}",
        "cas": asked,
        "add_ca": add_ca,
        "status": seen.proxy_status or seen.status or 0,
        "now": _day(seen.now),
        "peer_date": _day(seen.peer_date),
        "since": f" on {_day(last)}" if last else "",
        "from": f" before {_day(first)}" if first else " yet",
    }


def _day(moment: datetime.datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _scheme(way: Way, *, is_tls: bool) -> str:
    if way.what == "gateway":
        return "wss://" if is_tls else "ws://"
    return "https://" if is_tls else "http://"


def _of(way: Way, seen: Evidence) -> tuple[Stage, str]:
    if seen.proxy_status is not None:
        return Stage.PROXY, _PROXY_STATUS.get(seen.proxy_status, "proxy_status")
    if seen.is_proxy_error:
        return Stage.PROXY, "proxy_refuses" if way.proxy is not None and way.proxy.is_socks else "proxy_no_http"
    if seen.status is not None:
        return _of_status(way, seen)
    chain = _chain(seen.error)
    if way.proxy is not None and not seen.is_through:
        return _before_proxy(chain)
    for error in chain:
        if isinstance(error, ssl.SSLCertVerificationError):
            return _of_certificate(error, seen)
    if way.is_tls and seen.is_through and not seen.is_secured:
        return Stage.TLS, _in_tls(way, chain, seen)
    if not way.is_tls and seen.speaks is Speaks.TLS:
        return Stage.TLS, "tls_port"
    return _of_network(chain, is_through=seen.is_through)


_PROXY_STATUS: Final = {
    400: "proxy_no_connect", 401: "proxy_login", 403: "proxy_forbids", 405: "proxy_no_connect", 407: "proxy_login",
    426: "proxy_no_connect",
    501: "proxy_no_connect", 500: "proxy_away", 502: "proxy_away", 503: "proxy_away", 504: "proxy_away",
}  # fmt: skip


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        if isinstance(error, BaseExceptionGroup):
            # One of each address that was tried.
            error = error.exceptions[0]
            continue
        found.append(error)
        error = error.__cause__ or error.__context__
    # An error without a number stands for the ones beneath it.
    return [each for each in found if not (type(each) is OSError and each.errno is None)] or found


def _before_proxy(chain: list[BaseException]) -> tuple[Stage, str]:
    for error in chain:
        match error:
            case ImportError():
                return Stage.CONFIG, "proxy_library"
            case socket.gaierror() | UnicodeError():
                return Stage.PROXY, "proxy_unknown_host"
            case ssl.SSLError():
                return Stage.PROXY, "proxy_tls"
            case TimeoutError():
                return Stage.PROXY, "proxy_silent"
            case ConnectionRefusedError():
                return Stage.PROXY, "proxy_refused"
            case ConnectionError() | EOFError():
                return Stage.PROXY, "proxy_closed"
            case OSError():
                return Stage.PROXY, "proxy_unreachable"
    return Stage.PROXY, "proxy_closed"


def _of_certificate(error: ssl.SSLCertVerificationError, seen: Evidence) -> tuple[Stage, str]:
    code = _CERTIFICATE.get(error.verify_code, "untrusted")
    is_timed = code in ("expired", "not_yet_valid") and seen.peer_date is not None and seen.now is not None
    if is_timed and skew_seconds(seen.peer_date, seen.now) > CLOCK_SKEW_SECONDS:
        return Stage.CLOCK, "clock_off"
    return Stage.TLS, code


_CERTIFICATE: Final = {
    9: "not_yet_valid", 10: "expired", 62: "wrong_name", 63: "wrong_name", 64: "wrong_name",
    23: "certificate_revoked", 26: "certificate_purpose", 66: "certificate_weak", 67: "certificate_weak",
    68: "certificate_weak",
}  # fmt: skip
"""By X509_V_ERR_… of OpenSSL's x509_vfy.h; whatever else it finds, the chain leads to no trusted CA."""


def _in_tls(way: Way, chain: list[BaseException], seen: Evidence) -> str:
    if seen.speaks is Speaks.CLEAR:
        return "clear_port"
    for error in chain:
        match error:
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return "closed"
            case ssl.SSLError():
                return _TLS_REASONS.get(error.reason or "", "tls")
            case TimeoutError():
                return "tls_silent"
            case ConnectionError() | EOFError():
                return "closed"
    return "tls"


_TLS_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "clear_port",
    "RECORD_LAYER_FAILURE": "clear_port",
    "HTTP_REQUEST": "clear_port",
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls_version",
    "UNEXPECTED_EOF_WHILE_READING": "closed",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "client_certificate",
    "TLSV1_UNRECOGNIZED_NAME": "wrong_name",
}


def _of_network(chain: list[BaseException], *, is_through: bool) -> tuple[Stage, str]:
    for error in chain:
        match error:
            case socket.gaierror():
                return Stage.DNS, "dns_silent" if error.errno == socket.EAI_AGAIN else "unknown_host"
            case UnicodeError():
                return Stage.DNS, "unknown_host"
            case TimeoutError():
                return (Stage.ANSWER, "silent") if is_through else (Stage.TCP, "timeout")
            case ConnectionRefusedError():
                return Stage.TCP, "refused"
            case ConnectionError() | EOFError():
                return (Stage.ANSWER if is_through else Stage.TCP), "closed"
            case ssl.SSLError():
                return Stage.TLS, "closed" if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else "tls"
            case OSError():
                is_permission = error.errno in (errno.EACCES, errno.EPERM)
                return Stage.TCP, "forbidden_here" if is_permission else "unreachable"
    return Stage.ANSWER, "handshake"


def _of_status(way: Way, seen: Evidence) -> tuple[Stage, str]:
    status = seen.status or 0
    if seen.is_other:
        return Stage.ANSWER, "other_port"
    if seen.is_own:
        return _OWN.get(status, (Stage.ANSWER, "wrong_path" if status == 404 else "handshake"))
    if not way.is_tls and status in (400, 497) and seen.speaks is Speaks.TLS:
        return Stage.TLS, "tls_port"
    if status == 407:
        return Stage.PROXY, "proxy_login"
    if way.proxy is not None and not way.is_tls and status in _PROXY_STATUS:
        # A request in clear text is answered by the proxy itself.
        return Stage.PROXY, _PROXY_STATUS[status]
    if status in _FOREIGN:
        return Stage.ANSWER, _FOREIGN[status]
    if 300 <= status < 400:
        return Stage.ANSWER, "redirected"
    return Stage.ANSWER, "no_upgrade" if way.what == "gateway" and status == 200 else "handshake"


_OWN: Final = {
    401: (Stage.TOKEN, "unauthenticated"),
    403: (Stage.TOKEN, "revoked"),
    429: (Stage.ANSWER, "busy"),
    503: (Stage.ANSWER, "busy"),
}
_FOREIGN: Final = {
    401: "foreign_login", 403: "foreign_forbids", 404: "wrong_path", 426: "no_upgrade", 505: "no_upgrade",
    429: "busy", 502: "balancer_away", 503: "balancer_away", 504: "balancer_silent",
}  # fmt: skip


def skew_seconds(some: datetime.datetime | None, other: datetime.datetime | None) -> float:
    """By how much two clocks differ; 0 where one of them is unknown."""
    return 0.0 if some is None or other is None else abs((some - other).total_seconds())


def retry_after_seconds(text: str | None, now: datetime.datetime | None) -> float | None:
    """What a header ``Retry-After`` asks for, as a number or as a date; None for anything else."""
    text = (text or "").strip()
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        return float(text)
    moment = http_date(text)
    return None if moment is None or now is None else max(0.0, (moment - now).total_seconds())


def http_date(text: str) -> datetime.datetime | None:
    """The moment that an HTTP date names; None for anything else."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
