"""What a response may do with its connection, for what ASGI has no word for. The HTTP server puts one into each scope."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

WIRE: Final = "lensway.wire"
"""Where a response finds its `Wire` in the ASGI scope."""


class Wire(Protocol):
    """The connection below one response. After `answer`, `finish`, `cut` or `abort` the response is over."""

    @property
    def is_gone(self) -> bool:
        """True when nothing that is written reaches the caller any more."""

    @property
    def is_blocked(self) -> bool:
        """True while the caller does not take what was written."""

    memory: object
    """Per-connection scratch slot of the handler, initially None."""

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once, as soon as the caller is gone, also if it is gone by now; None for nothing. Use it after the body was
        read, and take it back when the answer does not depend on it any more."""

    def take_body(self) -> bytes | None:
        """The body of the request, once, when all of it is there already; None when it is not, or was taken: then it is
        received as ASGI has it."""

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | memoryview) -> None:
        """Write a whole answer at once, instead of sending it in parts: what goes out in one packet costs one system call here
        and wakes the caller once. Its length is among the headers; names and values are our own."""

    async def drained(self) -> None:
        """Return when the caller has taken all but a little of what was written, or is gone."""

    def finish(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End a chunked response well: its last chunk, and behind it the trailers. Names and values are our own."""

    def cut(self) -> None:
        """End the response without its last chunk. What was written still goes out, if the caller takes it."""

    def abort(self) -> None:
        """Drop the connection, with everything written to it that has not arrived yet."""
