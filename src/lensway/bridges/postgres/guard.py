"""Cuts a connection whose answer is larger than anybody will take, before the driver has gathered it in memory.

The driver hands a row on when all of it is there, and PostgreSQL sends rows of up to a gigabyte. So bytes are counted on their
way, and lengths of messages are read once an answer is long; short answers cost one addition for each packet.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import asyncpg

from lensway import limits
from lensway.bridges.postgres.relay import Relay

_LOOK_FROM_BYTES: Final = 256 * limits.KIB
_HEADER_BYTES: Final = 5
_WIRE_FACTOR: Final = 4
"""A row can be longer on the wire than encoded, lists of small numbers most of all."""


class Cut(enum.Enum):
    """Why the connection was cut."""

    ROW = "row"
    ANSWER = "answer"


class Guard(Relay):
    """Stands between the transport and the driver's protocol."""

    def __init__(self, protocol: Any, transport: Any) -> None:
        super().__init__(protocol)
        self._transport = transport
        self._forward = protocol.data_received
        self._row_max = self._answer_max = 0
        self._size = 0
        self._unread: list[bytes] | None = None
        self._skip = 0
        self._head = b""
        self.cut: Cut | None = None

    def expect(self, *, row_bytes_max: int, answer_bytes_max: int) -> None:
        """The answer that begins now is bounded by these, as they are encoded."""
        self._row_max = _WIRE_FACTOR * row_bytes_max
        self._answer_max = _WIRE_FACTOR * answer_bytes_max
        self._size = 0
        self._unread = []
        self._skip = 0
        self._head = b""

    def relax(self) -> None:
        """Whatever comes is welcome."""
        self._row_max = 0
        self._unread = None

    def data_received(self, data: bytes) -> None:
        """Count, and hand on what is not too much."""
        if self._row_max:
            self._size += len(data)
            if self._size > _LOOK_FROM_BYTES:
                self._look(data)
                if self.cut is not None:
                    return
            elif self._unread is not None:
                self._unread.append(data)
        self._forward(data)

    def _look(self, data: bytes) -> None:
        if self.cut is None and self._size > self._answer_max:
            self._end(Cut.ANSWER)
        unread, self._unread = self._unread, None
        for piece in (*(unread or ()), data):
            self._read(piece)

    def _read(self, data: bytes) -> None:
        """Go from message to message: a letter, and a length that counts itself."""
        if self._head:
            data, self._head = self._head + data, b""
        at, end = self._skip, len(data)
        while at + _HEADER_BYTES <= end:
            length = int.from_bytes(data[at + 1 : at + _HEADER_BYTES], "big")
            if length > self._row_max:
                self._end(Cut.ROW)
                return
            at += length + 1
        if at < end:
            self._head, self._skip = data[at:], 0
        else:
            self._skip = at - end

    def _end(self, cut: Cut) -> None:
        self.cut = cut
        self._transport.abort()


class GuardedConnection(asyncpg.Connection):  # type: ignore[misc]
    """The driver's connection with a guard."""

    __slots__ = ("guard", "is_ending")

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        self.guard = Guard(protocol, transport)
        self.is_ending = False
        transport.set_protocol(self.guard)

    def take_as_text(self, oid: int, name: str, schema: str) -> None:
        """Read and send values of this type as PostgreSQL writes them. The driver's own method refuses that for ranges, which it
        reads as objects of Python; statements that were prepared before are to be prepared again."""
        self._protocol.get_settings().add_python_codec(oid, name, schema, [], "scalar", str, str, "text")

    def cancel_again(self) -> None:
        """Ask the server once more to end what runs; nobody waits for that."""
        self._cancel_current_command(self._loop.create_future())
