"""Keyset cursors: opaque, signed, bound to what was asked. The next page starts behind the values of the last row's keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query import values
from lensway.query.conditions import Node
from lensway.query.fields import FieldType
from lensway.query.plan import OrderBy

_MAC_BYTES: Final = 16
"""128 bits: a forger has no second try that costs nothing."""
_VERSION: Final = b"\x01"
_KEY_BYTES_MAX: Final = limits.CURSOR_BYTES_MAX * 3 // 4 - _MAC_BYTES - 16
"""Base64 makes four characters of three bytes; a row id and what stands around the values take less than 16."""
_SURELY_FITS: Final = _KEY_BYTES_MAX // 4 - 16 * limits.ORDER_TERMS_MAX
"""Characters of four bytes each, and numbers beside them."""


class CursorBinding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a cursor belongs to: environment, lens, filter and order, under the deployment's key.

    ``previous`` are keys that signed before it: they still read, and sign no more. A digest of the facts is made when a cursor
    is: most queries neither have nor get one.
    """

    key: bytes
    facts: tuple[object, ...]
    previous: Sequence[bytes] = ()

    @classmethod
    def of(
        cls,
        key: bytes,
        *,
        environment: str,
        lens: str,
        where: Node | None,
        params: tuple[object, ...],
        order: tuple[OrderBy, ...],
        previous: Sequence[bytes] = (),
    ) -> CursorBinding:
        """The binding of a query. ``where`` and ``params`` are the caller's filter, without any cursor's part."""
        return cls(key=key, facts=(environment, lens, where, params, order), previous=previous)

    def sign(self, last_key: tuple[object, ...], row_id: int | None = None) -> str:
        """The cursor behind a row with these key values, and this row id where rows may share them.

        Raises:
            LenswayError: LIMIT_EXCEEDED when they are so long that `read` would refuse it.
        """
        if not is_short(last_key):
            raise too_long()
        payload = _VERSION + msgspec.msgpack.encode(last_key if row_id is None else (*last_key, row_id))
        return _encoded(_mac(self.key, self._signed(payload)) + payload)

    def read(self, cursor: object, order: tuple[OrderBy, ...]) -> tuple[object, ...]:
        """The key values in a cursor of this binding, one for each term of the order, and a row id if it has one.

        Raises:
            LenswayError: INVALID_CURSOR when it was altered, or belongs to another environment, lens, filter or order.
        """
        if not isinstance(cursor, str) or len(cursor) > limits.CURSOR_BYTES_MAX:
            raise invalid("is not a Lensway cursor")
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid("is not a Lensway cursor") from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        # Base64 has several spellings of the same bytes; only the one that was given out is not altered.
        signed = self._signed(payload)
        is_ours = any(hmac.compare_digest(mac, _mac(key, signed)) for key in (self.key, *self.previous))
        if not is_ours or cursor != _encoded(raw) or payload[:1] != _VERSION:
            raise invalid("was altered, or belongs to another environment, lens, where or orderBy")
        # Signed by us, but the values in it came from wherever the page was executed.
        key = msgspec.msgpack.decode(payload[1:])
        if not isinstance(key, list) or len(key) not in (len(order), len(order) + 1):
            raise invalid("has another number of values than the order")
        if not all(
            value is None or values.fits(value, term.column.type) for value, term in zip(key, order, strict=False)
        ) or not all(values.fits(row_id, FieldType.INTEGER) for row_id in key[len(order) :]):
            raise invalid("holds values whose types do not match the order")
        return tuple(key)

    def _signed(self, payload: bytes) -> bytes:
        return hashlib.sha256(msgspec.msgpack.encode(self.facts)).digest() + payload


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")[:_MAC_BYTES]


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def is_short(last_key: tuple[object, ...]) -> bool:
    """Whether a cursor can hold this key."""
    size = sum(len(value) for value in last_key if isinstance(value, str | bytes))
    return size < _SURELY_FITS or (size <= _KEY_BYTES_MAX and len(msgspec.msgpack.encode(last_key)) <= _KEY_BYTES_MAX)


def too_long() -> LenswayError:
    """The error for a page with more behind it whose last row has a key that no cursor can hold."""
    return LenswayError(
        ErrorCode.LIMIT_EXCEEDED,
        f"the values that order the last row of this page are too long for a cursor of {limits.CURSOR_BYTES_MAX:,} bytes",
        hint="order by shorter fields, change `limit` so that the page ends at another row, or export the rows",
        details={"limit": limits.CURSOR_BYTES_MAX, "of": "bytes in a cursor"},
    )


def invalid(reason: str) -> LenswayError:
    """The error for a cursor that cannot be used."""
    return LenswayError(
        ErrorCode.INVALID_CURSOR,
        f"the cursor {reason}",
        hint="send the query again without a cursor to start from the first page",
    )
