"""One link's message transport as both sides see it: a WebSocket, or memory in a simulation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class TransportClosedError(Exception):
    """The link is gone. ``cause`` is a short class (``closed``, ``reset``, ``message_too_large`` …), never a peer's text."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the link is closed: {cause}")
        self.cause = cause


class Transport(Protocol):
    """Ordered, reliable binary messages until it closes."""

    def send(self, message: bytes | bytearray) -> Awaitable[None]:
        """Send one message; waits while the peer does not take it. Raises TransportClosedError."""

    @property
    def is_ready(self) -> bool:
        """True while it is open and `send` would not wait."""

    def send_now(self, message: bytes | bytearray) -> None:
        """Send one message while it `is_ready`. What goes wrong then is found by `recv` and by the next `send`."""

    def recv(self) -> Awaitable[bytes]:
        """The next message. Raises TransportClosedError at the end."""

    def prove(self, arrived: Callable[[], None]) -> Awaitable[None]:
        """Ask the peer's end to say when it has all that was sent so far; call ``arrived`` then. Raises TransportClosedError."""

    def close(self) -> Awaitable[None]:
        """Close with the usual handshake, for at most CLOSE_TIMEOUT_SECONDS. Never raises."""

    def abort(self) -> None:
        """Cut the link now; a pending `send` or `recv` raises."""
