"""The chain over the audit: each row's value depends on a key, on its text and on every row before it.

A row that is altered, inserted or removed does not fit, and only the key makes it fit again. Rows at the end can be cut off, and
an older copy can be put back: a head that was kept elsewhere shows that. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

GENESIS: Final = bytes(32)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest row and its value. ``chain`` in hexadecimal digits."""

    sequence: int
    chain: str


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Where verification begins: behind row ``sequence``, whose value was ``chain``. Rows before ``keyed_from`` were written by a
    release whose chain had no key. ``mac`` proves that this program wrote it."""

    sequence: int
    chain: str
    keyed_from: int
    mac: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a verification found. ``broken`` is the first row that does not fit, None when all do."""

    ok: bool
    rows: int
    keyed_from: int
    broken: int | None
    reason: str
    head: Head


def link(key: bytes, before: bytes, text: str, *, is_keyed: bool = True) -> bytes:
    """The value of a row behind the row with the value ``before``."""
    data = before + text.encode()
    return hmac.digest(key, data, "sha256") if is_keyed else hashlib.sha256(data).digest()


def anchored(key: bytes, *, sequence: int, chain: bytes, keyed_from: int) -> Anchor:
    """An anchor with its proof."""
    plain = Anchor(sequence=sequence, chain=chain.hex(), keyed_from=keyed_from)
    return msgspec.structs.replace(plain, mac=_mac(key, plain))


class Verifier:
    """Goes along the rows, oldest first. ``known`` is a head that was kept elsewhere: the chain must pass through it."""

    def __init__(self, key: bytes, anchor: Anchor | None, known: Head | None = None) -> None:
        self._key = key
        self._anchor = anchor
        self._known = known
        self._at = 0 if anchor is None else anchor.sequence
        self._chain = GENESIS if anchor is None else bytes.fromhex(anchor.chain)
        self._rows = 0
        self._broken: tuple[int, str] | None = None
        if anchor is None or not hmac.compare_digest(_mac(key, anchor), anchor.mac):
            self._broken = self._at + 1, "the record of where the audit begins was altered"
        self._look_at_known()

    @property
    def after(self) -> int:
        """The row behind which the next ones are wanted."""
        return self._at

    @property
    def is_broken(self) -> bool:
        """True once a row did not fit: more of them tell nothing."""
        return self._broken is not None

    def feed(self, sequence: int, text: str, chain: bytes) -> None:
        """The next row."""
        if self._broken is not None:
            return
        assert self._anchor is not None
        self._rows += 1
        self._at += 1
        is_keyed = self._at >= self._anchor.keyed_from
        self._chain = link(self._key, self._chain, text, is_keyed=is_keyed)
        if sequence != self._at:
            self._broken = self._at, "a row was removed"
        elif not hmac.compare_digest(self._chain, chain):
            self._broken = self._at, "this row, or the one before it, was altered"
        else:
            self._look_at_known()

    def verdict(self) -> Verdict:
        """What was found; behind the last row."""
        known, broken = self._known, self._broken
        if broken is None and known is not None and known.sequence > self._at:
            broken = self._at + 1, f"rows were cut off: the saved head is row {known.sequence}"
        return Verdict(
            ok=broken is None,
            rows=self._rows,
            keyed_from=0 if self._anchor is None else self._anchor.keyed_from,
            broken=None if broken is None else broken[0],
            reason="" if broken is None else broken[1],
            head=Head(sequence=self._at, chain=self._chain.hex()),
        )

    def _look_at_known(self) -> None:
        known = self._known
        if known is not None and known.sequence == self._at and known.chain != self._chain.hex():
            self._broken = self._broken or (self._at, "the head belongs to another audit")


def _mac(key: bytes, anchor: Anchor) -> str:
    text = f"audit anchor\n{anchor.sequence}\n{anchor.chain}\n{anchor.keyed_from}"
    return hmac.digest(key, text.encode(), "sha256").hex()
