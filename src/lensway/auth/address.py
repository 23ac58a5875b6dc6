"""From which address somebody asks: the peer's, or what proxies of our own say of it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of whoever asks. ``forwarded`` are the X-Forwarded-For headers, in their order.

    A proxy appends the address that it sees, in the last header or in one of its own: from the nearest hop outwards, the first
    that is not one of our own proxies is who asks. What stands before that anybody may have written.
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


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
