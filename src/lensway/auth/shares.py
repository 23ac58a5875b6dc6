"""Which strangers a listener keeps: connections that have not shown a good key or token yet. Pure: time is an argument.

Strangers share what there is by address (a /64 of IPv6 is one). When there are too many, the oldest of the address with the most
goes, so that a newcomer from elsewhere is never kept out by a crowd. Where the newcomer's own address is the crowd, its oldest
one goes if it had time to do something; else the newcomer is refused, because thousands of honest ones that come back at once
must not push each other out. Known ones always keep their places.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from lensway.auth.address import Network, block_of

Evict: TypeAlias = Callable[[], None]


class _Stranger(msgspec.Struct, gc=False):
    block: str
    at: float
    evict: Evict


class Shares:
    """The connections of one listener."""

    def __init__(
        self,
        *,
        in_all_max: int,
        strangers_max: int,
        per_address_max: int,
        patience_seconds: float,
        trusted: Sequence[Network] = (),
        note: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._in_all_max, self._strangers_max, self._per_address_max = in_all_max, strangers_max, per_address_max
        self._patience_seconds = patience_seconds
        self._trusted = trusted
        self._note = note
        self._strangers: dict[object, _Stranger] = {}
        self._blocks: dict[str, dict[object, None]] = {}
        self._known: set[object] = set()

    @property
    def count(self) -> int:
        """Connections that are kept."""
        return len(self._strangers) + len(self._known)

    def enter(self, guest: object, address: str, now: float, evict: Evict) -> bool:
        """Keep a connection, maybe in the place of another one, which is evicted; False when there is no room for it. Asked again
        for one that is kept, it says so."""
        if guest in self._strangers or guest in self._known:
            return True
        if self._trusted and _is_in(address, self._trusted):
            # A proxy of our own: who is behind it cannot be told apart here.
            if self.count >= self._in_all_max and not self._make_room("", now):
                return self._refuse()
            self._known.add(guest)
            return True
        block = block_of(address)
        mine = self._blocks.get(block, {})
        if len(mine) >= self._per_address_max:
            has_room = self._evict_oldest(block, now, self._patience_seconds)
        elif self.count >= self._in_all_max or len(self._strangers) >= self._strangers_max:
            has_room = self._make_room(block, now)
        else:
            has_room = True
        if not has_room:
            return self._refuse()
        self._strangers[guest] = _Stranger(block, now, evict)
        self._blocks.setdefault(block, {})[guest] = None
        return True

    def know(self, guest: object) -> None:
        """The connection has shown a good key or token: it stays."""
        if self._drop(guest) is not None:
            self._known.add(guest)

    def leave(self, guest: object) -> None:
        """The connection is over."""
        self._known.discard(guest)
        self._drop(guest)

    def _make_room(self, block: str, now: float) -> bool:
        if not self._blocks:
            return False
        crowd = max(self._blocks, key=lambda each: len(self._blocks[each]))
        if len(self._blocks[crowd]) > len(self._blocks.get(block, ())) + 1:
            return self._evict_oldest(crowd, now, 0.0)
        return self._evict_oldest(crowd, now, self._patience_seconds)

    def _evict_oldest(self, block: str, now: float, patience_seconds: float) -> bool:
        oldest = next(iter(self._blocks[block]))
        if now - self._strangers[oldest].at < patience_seconds:
            return False
        stranger = self._drop(oldest)
        assert stranger is not None, "it was found a moment ago"
        self._note("evicted")
        stranger.evict()
        return True

    def _refuse(self) -> bool:
        self._note("refused")
        return False

    def _drop(self, guest: object) -> _Stranger | None:
        stranger = self._strangers.pop(guest, None)
        if stranger is not None:
            members = self._blocks[stranger.block]
            del members[guest]
            if not members:
                del self._blocks[stranger.block]
        return stranger


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return any((mapped or parsed) in network for network in networks)
