"""Which hosts are this machine: what is sent there passes no network."""

from __future__ import annotations

import ipaddress
from typing import Final

LOCAL_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"}
)


def is_this_machine(host: str) -> bool:
    """True for the names and addresses of the machine itself; ``host`` may have brackets and a zone, as URLs write IPv6."""
    if host.lower().rstrip(".") in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback  # to the kernel it is that one
    return address.is_loopback


def host_and_port(text: str) -> tuple[str, int] | None:
    """The parts of ``HOST:PORT``, where IPv6 stands in brackets; None for any other text."""
    host, _, port = text.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not host or (":" in host and not is_bracketed) or not (port.isascii() and port.isdecimal()) or len(port) > 5:
        return None
    number = int(port)
    return (host[1:-1] if is_bracketed else host, number) if 0 < number < 65536 else None
