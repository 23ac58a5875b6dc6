"""Where an executing process may connect and what it may read: names are resolved once, every address is checked, and the
connection goes to an address that was checked, so that a name cannot change its meaning in between."""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import os
import pathlib
import socket
from typing import Final

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.failures import invalid_setting, out_of_descriptors, unreachable

_METADATA: Final = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200"})
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(host: str) -> bool:
    """True for names and addresses of the machine itself."""
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        return _unwrapped(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, policy: AddressPolicy) -> None:
    """Refuse what can be refused without resolving. Raises LenswayError SOURCE_UNREACHABLE class forbidden_address."""
    if policy.allowed_hosts is not None and not any(
        fnmatch.fnmatchcase(host.lower(), each.lower()) for each in policy.allowed_hosts
    ):
        raise unreachable("dns", "forbidden_address")
    try:
        address = _unwrapped(host)
    except ValueError:
        if policy.deny_private and host.lower() in _LOCAL_NAMES:
            raise unreachable("dns", "forbidden_address") from None
        return
    _check(address, policy)


async def resolve(host: str, port: int, policy: AddressPolicy) -> list[str]:
    """The addresses of a host, all of them allowed.

    Raises:
        LenswayError: SOURCE_UNREACHABLE at stage dns: unknown_host, or forbidden_address when any of them is.
    """
    check_host(host, policy)
    try:
        async with asyncio.timeout(limits.RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise unreachable("dns", "timeout") from None
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_SYSTEM:
            # The resolver could not even ask; in practice no file descriptor was left.
            raise out_of_descriptors() from None
        raise unreachable("dns", "unknown_host") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        _check(_unwrapped(address), policy)
    return addresses


_OUTSIDE: Final = (
    "File-backed sources lie in directories that are named where they are opened: start the server with --source-dir DIR, or "
    "name `source_dirs` in the runner's local policy."
)


def confined_path(path: str, policy: AddressPolicy) -> pathlib.Path:
    """The real path of a file-backed source, symbolic links resolved, if the policy lets it be read.

    Raises:
        LenswayError: SOURCE_UNREACHABLE class forbidden_address, or INVALID_REQUEST for a path that is not absolute.
    """
    if "\0" in path or not path.startswith("/"):
        raise invalid_setting("path", "must be an absolute path")
    real = pathlib.Path(os.path.realpath(path))
    for forbidden in policy.forbidden_dirs:
        if real.is_relative_to(os.path.realpath(forbidden)):
            raise unreachable("login", "forbidden_address")
    if policy.source_dirs is not None and not any(
        real.is_relative_to(os.path.realpath(each)) for each in policy.source_dirs
    ):
        raise unreachable("login", "forbidden_address", hint=_OUTSIDE)
    return real


def _check(address: ipaddress.IPv4Address | ipaddress.IPv6Address, policy: AddressPolicy) -> None:
    is_forbidden = (
        (policy.deny_link_local and (address.is_link_local or str(address) in _METADATA))
        or address.is_multicast
        or address.is_unspecified
        or (policy.deny_private and (address.is_private or address.is_loopback))
    )
    if is_forbidden:
        raise unreachable("dns", "forbidden_address")


def _unwrapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address
