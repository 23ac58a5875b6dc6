"""A protocol between the transport and the driver's own, which sees what the server sends before the driver does."""

from __future__ import annotations

import asyncio
from typing import Any


class Relay(asyncio.Protocol):
    """Hands everything on. Subclasses look at the bytes in `data_received`."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def eof_received(self) -> bool | None:
        """As the driver wants it."""
        answer: bool | None = self._protocol.eof_received()
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand it on."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self._protocol.resume_writing()
