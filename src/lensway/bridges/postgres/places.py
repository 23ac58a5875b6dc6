"""Hosts and ports of a PostgreSQL source: one or a list of names, addresses, and directories of Unix sockets."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Sequence
from typing import Final, NamedTuple

from lensway.bridges.kit.addresses import is_loopback
from lensway.bridges.kit.failures import invalid_setting
from lensway.limits import SOURCE_HOSTS_MAX

_PORT: Final = 5432
_PORT_CHARACTERS_MAX: Final = 5
_HOST: Final = re.compile(r"[^\s/:@\[\]?#%,]{1,255}")
_ENCODED: Final = "Special characters in user and password must be %-encoded."


class Place(NamedTuple):
    """One host of the list. ``sslmode`` is what holds there: Unix sockets have no TLS."""

    host: str
    port: int
    sslmode: str

    @property
    def is_socket(self) -> bool:
        """True for a directory of Unix sockets."""
        return self.host.startswith("/")


def read_places(hosts: str, ports: str, sslmode: str) -> tuple[Place, ...]:
    """The places of the settings `host` and `port`, which are lists with commas; one port may be that of all hosts.

    Raises:
        LenswayError: INVALID_REQUEST naming the setting that is wrong, never its text.
    """
    names = [_host(each.strip()) for each in hosts.split(",")] if hosts else ["localhost"]
    numbers = [_port(each.strip()) for each in ports.split(",")] if ports else [_PORT]
    if len(names) > SOURCE_HOSTS_MAX:
        raise invalid_setting("host", f"must not list more than {SOURCE_HOSTS_MAX} hosts")
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names):
        raise invalid_setting(
            "port",
            f"lists {len(numbers)} ports for {'1 host' if len(names) == 1 else f'{len(names)} hosts'}",
            hint="One for each, or one for all.",
        )
    return tuple(Place(name, port, _sslmode(name, sslmode)) for name, port in zip(names, numbers, strict=True))


def _sslmode(host: str, given: str) -> str:
    if host.startswith("/"):
        return "disable"
    return given or ("prefer" if is_loopback(host) else "require")


def _host(text: str) -> str:
    if not text:
        raise invalid_setting("host", "lists a host without a name")
    if text.startswith("/"):
        return text.rstrip("/") or "/"
    if text.startswith("@"):
        raise invalid_setting(
            "host", "names an abstract socket", hint="Name the directory of a Unix socket by its path."
        )
    bare = text.removeprefix("[").removesuffix("]")
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            hint = "The port is a setting of its own, `port`; an IPv6 address stands alone or in brackets."
            raise invalid_setting("host", "is not a host name or address", hint=hint) from None
        return bare
    if not _HOST.fullmatch(text) or not text.isprintable():
        raise invalid_setting("host", "is not a host name, an address, or the absolute path of a socket's directory")
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > _PORT_CHARACTERS_MAX or not 0 < int(text) < 65536:
        raise invalid_setting("port", "must be a number from 1 to 65535")
    return int(text)


def places_of_authority(authority: str) -> tuple[str, str]:
    """The lists of hosts and ports in what stands between ``//`` (or the login's ``@``) and the path of a URL.

    Raises:
        LenswayError: INVALID_REQUEST that repeats nothing of the text, which may be a part of a password.
    """
    pairs = [_pair(each) for each in authority.split(",")] if authority else []
    ports: Sequence[str] = [port for _, port in pairs]
    if any(ports):
        ports = [port or str(_PORT) for port in ports]
    return ",".join(host for host, _ in pairs), ",".join(ports if any(ports) else ())


def _pair(text: str) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, colon, port = text, "", ""
    host = urllib.parse.unquote(host)
    if "," in host or (":" in host and not host.startswith("[")):
        raise invalid_setting("url", "is not a URL", hint=_ENCODED)
    if (colon and not port.isascii()) or (colon and port and not port.isdecimal()):
        raise invalid_setting("url", "has a port that is not a number from 1 to 65535", hint=_ENCODED)
    return host, port
