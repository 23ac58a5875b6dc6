"""Origins of web pages: what a publishable key lists, in the form in which browsers send them."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from typing import Final

from lensway.catalog.names import invalid, shown
from lensway.catalog.reading import described, joined
from lensway.hosts import is_this_machine
from lensway.limits import KEY_ORIGINS_MAX, ORIGIN_CHARACTERS_MAX

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_PORT_MAX: Final = 65535
_DEFAULT_PORTS: Final = {"https": "443", "http": "80"}
_FORM: Final = (
    "Write it as browsers send it: https://app.example.com, or http://localhost:3000 on the page's own machine."
)


def read_origins(value: object, path: str) -> tuple[str, ...]:
    """The origins that a key lists, each once and as browsers spell it.

    Raises:
        LenswayError: INVALID_REQUEST with the path of the one that is no origin.
    """
    if not isinstance(value, list | tuple):
        raise invalid(path, f"must be a list of origins, not {described(value)}")
    if len(value) > KEY_ORIGINS_MAX:
        raise invalid(path, f"must not list more than {KEY_ORIGINS_MAX} origins")
    return tuple(dict.fromkeys(_read(origin, joined(path, str(number))) for number, origin in enumerate(value)))


def _read(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(path, f"must be text, not {described(value)}")
    if "*" in value or value == "null":
        raise invalid(path, f"{shown(value)} matches many origins", hint="List each origin by its name. " + _FORM)
    if not value.isascii():
        raise invalid(path, f"{shown(value)} is not ASCII", hint="Write the host in the form that begins with xn--.")
    origin = _parsed(value.lower()) if len(value) <= ORIGIN_CHARACTERS_MAX else None
    if origin is None:
        raise invalid(path, f"{shown(value)} is not an origin (scheme://host[:port])", hint=_FORM)
    scheme, host, port = origin
    if scheme == "http" and not (is_this_machine(host) or host.endswith(".localhost")):
        raise invalid(
            path, f"{shown(value)} is not encrypted, so its network can read the key", hint="Serve the page over https."
        )
    return f"{scheme}://{host}" + (f":{port}" if port and port != _DEFAULT_PORTS[scheme] else "")


def _parsed(text: str) -> tuple[str, str, str] | None:
    """Scheme, host and port; None for anything but an origin."""
    scheme, separator, place = text.partition("://")
    if not separator or scheme not in _DEFAULT_PORTS or urllib.parse.quote(place, safe="[]:") != place:
        return None
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon and not host:
        host, port = port, ""
    if colon and (not _PORT.fullmatch(port) or int(port) > _PORT_MAX):
        return None
    found = _host(host)
    return None if found is None else (scheme, found, port)


def _host(host: str) -> str | None:
    """The host as browsers spell it, or None."""
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:].removesuffix(']')).compressed}]" if host.endswith("]") else None
        except ValueError:
            return None
    labels = host.split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        return None
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    return host
