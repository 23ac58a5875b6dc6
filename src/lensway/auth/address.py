"""The caller's address: the peer's, or the one that trusted proxies report. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, TypeAlias

from lensway.limits import PROXY_WARNING_REQUESTS, PROXY_WARNINGS_MAX

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

HIDDEN_HINT: Final = (
    "Failed attempts of all callers at this address count together. If the address is your proxy, start the server with "
    "--trusted-proxies and that address."
)


def address_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The caller's address. ``forwarded`` are the X-Forwarded-For headers, in their order.

    A proxy appends the address that it sees, in the last header or in one of its own: from the nearest hop outwards, the first
    that is not a trusted proxy is the caller. Entries before it prove nothing: the caller may have written them.
    """
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    nearest = peer
    for hop in [peer, *reversed(hops)]:
        address = _parsed(hop)
        if address is None:
            return nearest
        nearest = str(address)
        if not any(address in network for network in trusted):
            return nearest
    return nearest


def block_of(address: str) -> str:
    """What is limited together: an IPv4 address, or the /64 that one owner of IPv6 addresses has at least."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return address if parsed is None else str(parsed)


class ProxyWatch:
    """Notices a proxy that hides who asks: it says so in headers that are not believed, since it is not trusted."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._peer = ""
        self._requests = 0
        self._told: set[str] = set()
        self.is_watching = True

    def is_hidden(self, peer: str) -> bool:
        """Count a request of this peer that carries forwarding headers; True when the log should name the peer."""
        address = _parsed(peer)
        if address is None or any(address in network for network in self._trusted):
            return False
        if peer != self._peer:
            self._peer, self._requests = peer, 0
        self._requests += 1
        if self._requests < PROXY_WARNING_REQUESTS or peer in self._told:
            return False
        self._told.add(peer)
        self.is_watching = len(self._told) < PROXY_WARNINGS_MAX
        return True


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
