"""Which proxy leads to a server, by the variables that curl reads. Pure: the environment arrives as an argument.

``https_proxy`` or ``HTTPS_PROXY`` for TLS, ``http_proxy`` (in lower case only) for clear text, then ``all_proxy`` or
``ALL_PROXY``; ``no_proxy`` or ``NO_PROXY`` with names, ports and networks. What is sent to this machine passes no proxy.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from typing import Final

from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import is_this_machine

_SECURE: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
# `HTTP_PROXY` is what a CGI server makes of a request's header `Proxy`: any caller could set it.
_CLEAR: Final = ("http_proxy", "all_proxy", "ALL_PROXY")
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")
_PORTS: Final = {"http": 1080, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
"""What curl takes for a proxy without a port."""
_FORM: Final = "Write it as [http|https|socks5|socks5h]://[USER[:PASSWORD]@]HOST[:PORT]."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy, and the variable that names it. The login is never shown."""

    scheme: str
    host: str
    port: int
    user: str | None = dataclasses.field(default=None, repr=False)
    password: str = dataclasses.field(default="", repr=False)
    variable: str

    @property
    def shown(self) -> str:
        """Its address for people, without the login."""
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"

    @property
    def is_socks(self) -> bool:
        """True for SOCKS, which takes a library."""
        return self.scheme.startswith("socks")

    def url(self, *, host: str | None = None) -> str:
        """The address with the login, and with another host where a library must not look the name up."""
        user = self.user
        login = "" if user is None else f"{urllib.parse.quote(user, '')}:{urllib.parse.quote(self.password, '')}@"
        return f"{self.scheme}://{login}{bracketed(host or self.host)}:{self.port}"


def proxy_to(host: str, port: int, *, is_tls: bool, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to this server; None for a direct way.

    Raises:
        LenswayError: INVALID_REQUEST naming a variable that holds no proxy, never its value.
    """
    if is_this_machine(host):
        return None
    for variable in _SECURE if is_tls else _CLEAR:
        value = environment.get(variable, "").strip()
        if value:
            break
    else:
        return None
    if _is_excepted(host, port, environment):
        return None
    return parse_proxy(value, variable)


def parse_proxy(value: str, variable: str) -> Proxy:
    """The proxy that a variable holds; without a scheme it is an HTTP proxy.

    Raises:
        LenswayError: INVALID_REQUEST naming the variable, never its value.
    """
    try:
        parts = urllib.parse.urlsplit(value if "://" in value else f"http://{value}")
        scheme, host = parts.scheme.lower(), parts.hostname
        port = _PORTS[scheme] if parts.port is None else parts.port
        user = None if parts.username is None else urllib.parse.unquote(parts.username, errors="strict")
        password = urllib.parse.unquote(parts.password or "", errors="strict")
    except KeyError:
        raise _invalid(variable, "names a kind of proxy that Lensway does not know") from None
    except ValueError:
        raise _invalid(variable, "does not hold the address of a proxy") from None
    if not host or not value.isprintable() or port == 0 or any(char.isspace() for char in host):
        raise _invalid(variable, "does not hold the address of a proxy")
    return Proxy(scheme=scheme, host=host, port=port, user=user, password=password, variable=variable)


def bracketed(host: str) -> str:
    """The host as URLs write it."""
    return f"[{host}]" if ":" in host else host


def _is_excepted(host: str, port: int, environment: Mapping[str, str]) -> bool:
    for variable in _EXCEPTIONS:
        if value := environment.get(variable, "").strip():
            return any(_covers(entry, host.lower().rstrip("."), port) for entry in re.split(r"[,\s]+", value) if entry)
    return False


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry, wanted = _without_port(entry.lower())
    if wanted is not None and wanted != port:
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _without_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        inside, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
        return inside, int(port) if port.isascii() and port.isdecimal() else None
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and port.isascii() and port.isdecimal():
        return name, int(port)
    return entry, None


def _invalid(variable: str, what: str) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"{variable} {what}", hint=_FORM)
