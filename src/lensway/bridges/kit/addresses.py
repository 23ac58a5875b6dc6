"""Where an executing process may connect and what it may read: names are resolved once, every address is checked, and the
connection goes to an address that was checked, so that a name cannot change its meaning in between."""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import pathlib
import re
import socket
from collections.abc import Sequence
from typing import Final

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit import lookups
from lensway.bridges.kit.failures import invalid_setting, out_of_descriptors, unreachable
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import LOCAL_NAMES, is_this_machine
from lensway.protocol.policy import PATH, policy_hint

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA: Final[tuple[_Network, ...]] = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # link-local: AWS, Azure, Google, and most others
            "fe80::/10",
            "fd00:ec2::/32",  # AWS over IPv6
            "fd20:ce::/32",  # Google over IPv6
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure's host
            "192.0.0.192/32",  # Oracle
        ),
    )
)
"""Where clouds serve credentials and settings of a machine."""
_NOT_PUBLIC: Final[tuple[_Network, ...]] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",  # carriers and some clouds
            "192.0.0.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "::/96",  # these, to 2002::/16, hold an IPv4 address, which a translator on the way may be told
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2001::/32",
            "2002::/16",
            "fec0::/10",  # site-local, of old
            "3fff::/20",
            "5f00::/16",
        ),
    )
)
"""Beside what the library knows, which differs between versions of Python."""
_NUMERIC: Final = frozenset("0123456789*?")
_NUMBER: Final = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+)){0,3}\.?")
"""What the system's resolver takes for an address: ``127.1``, ``0x7f000001``, ``2130706433``."""


def is_loopback(host: str) -> bool:
    """True for names and addresses of the machine itself, in any spelling that the system's resolver takes."""
    address = _address_of(host)
    return is_this_machine(host if address is None else str(address))


def is_address_pattern(pattern: str) -> bool:
    """True for a pattern that looks as if it were to match addresses, such as ``10.*``. It would match names instead."""
    if _is_network(pattern):
        return False
    labels = re.sub(r"\[[^\]]*\]", "?", pattern).split(".")
    is_numeric = all(set(label) <= _NUMERIC for label in labels) and any(map(str.isdigit, pattern))
    return is_numeric or ":" in pattern or "/" in pattern


def check_host(host: str, policy: AddressPolicy, port: int | None = None) -> None:
    """Refuse what can be refused without resolving. Raises LenswayError SOURCE_UNREACHABLE class forbidden_address."""
    if policy.allowed_ports is not None and port is not None and port not in policy.allowed_ports:
        raise unreachable("dns", "forbidden_address")
    address = _address_of(host)
    if policy.allowed_hosts is not None and not _is_allowed(host, address, policy.allowed_hosts):
        raise unreachable("dns", "forbidden_address")
    if address is not None:
        _check(address, policy)
    elif policy.deny_private and _is_local_name(host):
        raise unreachable("dns", "forbidden_address")


def check_socket(directory: str, policy: AddressPolicy) -> None:
    """Refuse a directory of Unix sockets that the policy does not allow. Raises LenswayError class forbidden_address."""
    if not policy.allows_sockets:
        raise unreachable("dns", "forbidden_address", hint=_SOCKETS)
    real = os.path.realpath(directory)
    if any(pathlib.Path(real).is_relative_to(os.path.realpath(each)) for each in policy.forbidden_dirs):
        raise unreachable("dns", "forbidden_address")
    if policy.allowed_hosts is not None and not any(
        entry.startswith("/") and fnmatch.fnmatchcase(real, os.path.realpath(entry)) for entry in policy.allowed_hosts
    ):
        raise unreachable("dns", "forbidden_address")


async def resolve(host: str, port: int, policy: AddressPolicy) -> list[str]:
    """The addresses of a host, all of them allowed.

    Raises:
        LenswayError: SOURCE_UNREACHABLE at stage dns: unknown_host, or forbidden_address when any of them is.
    """
    check_host(host, policy, port)
    try:
        addresses = await lookups.PROCESS.addresses(host, port)
    except TimeoutError:
        raise unreachable("dns", "timeout") from None
    except socket.gaierror as error:
        if error.errno == socket.EAI_SYSTEM:
            # The resolver could not even ask; in practice no file descriptor was left.
            raise out_of_descriptors() from None
        raise unreachable("dns", "unknown_host") from None
    except (UnicodeError, ValueError):
        raise unreachable("dns", "unknown_host") from None
    except OSError:
        raise out_of_descriptors() from None
    for address in addresses:
        _check(ipaddress.ip_address(address.partition("%")[0]), policy)
    return addresses


_SOCKETS: Final = (
    "Runners reach databases over Unix sockets; the server itself does so only when it is started with --unix-sockets."
)
_OUTSIDE: Final = (
    "Start the server with --source-dir DIR, the directory of the file; symbolic links count as what they point to. Or let a "
    'runner read the file: credentials = "runner-local", with LENSWAY_SOURCE_<NAME>_PATH on the runner.'
)
_NEVER: Final = "Move the file: the server's data directory, /proc, /sys and /dev are never opened as a source."


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
            raise _forbidden_file(_NEVER)
    if policy.source_dirs is not None and not any(
        real.is_relative_to(os.path.realpath(each)) for each in policy.source_dirs
    ):
        raise _forbidden_file(policy_hint(PATH) if policy.is_runner else _OUTSIDE)
    return real


def _forbidden_file(hint: str) -> LenswayError:
    return LenswayError(
        ErrorCode.SOURCE_UNREACHABLE,
        "The policy of the process that executes this source does not allow its file",
        hint=hint,
        details={"stage": "login", "class": "forbidden_address", "rule": PATH},
    )


def _is_allowed(host: str, address: _IPAddress | None, allowed: Sequence[str]) -> bool:
    """Whether an entry names it: a network in CIDR form an address, a pattern a name, and neither ever the other."""
    if address is not None:
        reached = _meanings(address)[-1]
        return any(reached in network for entry in allowed if (network := _network_of(entry)) is not None)
    name = host.lower().rstrip(".")
    return any(
        fnmatch.fnmatchcase(name, entry.lower())
        for entry in allowed
        if not _is_network(entry) and not is_address_pattern(entry)
    )


def _is_local_name(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name in LOCAL_NAMES or name.endswith(".localhost")


def _network_of(entry: str) -> _Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _is_network(entry: str) -> bool:
    return _network_of(entry) is not None


def _check(address: _IPAddress, policy: AddressPolicy) -> None:
    meanings = _meanings(address)
    is_forbidden = (
        meanings[-1].is_multicast
        or meanings[-1].is_unspecified
        or (policy.deny_link_local and any(each in network for each in meanings for network in _METADATA))
        or (policy.deny_private and not all(map(_is_public, meanings)))
    )
    if is_forbidden:
        raise unreachable("dns", "forbidden_address")


def _is_public(address: _IPAddress) -> bool:
    if address.is_private or address.is_loopback or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _meanings(address: _IPAddress) -> list[_IPAddress]:
    """What a connection to it may reach: the address, and the IPv4 addresses that its bits stand for; the likeliest last."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]  # to the kernel it is that one
    bits = int(address)
    found: list[int] = []
    if any(address in network for network in _EMBEDDING):
        found.append(bits & 0xFFFFFFFF)
    if address.sixtofour is not None:
        found.append(int(address.sixtofour))
    if address.teredo is not None:
        found += map(int, address.teredo)
    if address in _LOCAL_NAT64:
        # An operator's own prefix may be of 48, 56, 64 or 96 bits; the bits 64 to 71 are left out.
        without = (bits >> 64 << 56) | (bits & ((1 << 56) - 1))
        found += [without >> (120 - prefix - 32) & 0xFFFFFFFF for prefix in (48, 56, 64)]
    if (bits >> 32) & 0xFCFFFFFF == 0x5EFE:  # ISATAP
        found.append(bits & 0xFFFFFFFF)
    if address.is_loopback or address.is_unspecified:
        return [address]
    return [*map(ipaddress.IPv4Address, found), address]


_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_EMBEDDING: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))


def _address_of(host: str) -> _IPAddress | None:
    """The address that this is, in any spelling that the system's resolver takes; None for a name."""
    text = host.partition("%")[0].strip("[]")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text.rstrip(".")))
    except (OSError, ValueError):
        return None
