"""Keyset cursors: opaque, signed, bound to what was asked. The next page starts behind the values of the last row's keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.plan import Node, OrderBy

_MAC_BYTES: Final = 16
"""128 bits: a forger has no second try that costs nothing."""
_VERSION: Final = b"\x01"


class CursorBinding(msgspec.Struct, frozen=True, kw_only=True):
    """What a cursor belongs to: environment, lens, filter and order, as one digest under the deployment's key."""

    key: bytes
    digest: bytes

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
    ) -> CursorBinding:
        """The binding of a query. ``where`` and ``params`` are the caller's filter, without any cursor's part."""
        facts = msgspec.msgpack.encode((environment, lens, where, params, order))
        return cls(key=key, digest=hashlib.sha256(facts).digest())

    def sign(self, last_key: tuple[object, ...]) -> str:
        """The cursor behind a row with these key values."""
        payload = _VERSION + msgspec.msgpack.encode(last_key)
        return base64.urlsafe_b64encode(self._mac(payload) + payload).decode().rstrip("=")

    def read(self, cursor: object, count: int) -> tuple[object, ...]:
        """The key values in a cursor of this binding.

        Raises:
            LenswayError: INVALID_CURSOR when it was altered, or belongs to another environment, lens, filter or order.
        """
        if not isinstance(cursor, str) or len(cursor) > limits.CURSOR_BYTES_MAX:
            raise invalid("is not one of ours")
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid("is not one of ours") from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)) or payload[:1] != _VERSION:
            raise invalid("was altered, or belongs to another environment, lens, where or orderBy")
        values = msgspec.msgpack.decode(payload[1:])
        if not isinstance(values, list) or len(values) != count:
            raise invalid("has another shape than the order")
        return tuple(values)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self.key, self.digest + payload, "sha256")[:_MAC_BYTES]


def invalid(reason: str) -> LenswayError:
    """The error for a cursor that cannot be used."""
    return LenswayError(
        ErrorCode.INVALID_CURSOR,
        f"the cursor {reason}",
        hint="send the query again without a cursor to start from the first page",
    )
