"""What the pages need of the use cases; the service's fit, and `compose` joins them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from lensway.auth.caller import Caller


class RunnerUse(Protocol):
    """Runners and assignments."""

    def list(self, caller: Caller) -> dict[str, Any]:
        """Every runner with its state."""

    def preview(self, caller: Caller, name: str, source: str, *, is_assigning: bool) -> Sequence[dict[str, Any]]:
        """The warnings that a change would give."""

    async def assign(self, caller: Caller, name: str, source: str, *, verify: bool = False) -> dict[str, Any]:
        """The runner serves the source from now on."""

    async def unassign(self, caller: Caller, name: str, source: str) -> dict[str, Any]:
        """The runner serves the source no more."""


class SourceUse(Protocol):
    """Sources and their tests."""

    def list(self, caller: Caller) -> dict[str, Any]:
        """Every source."""

    async def test(self, caller: Caller, name: str, *, runner: str | None = None) -> dict[str, Any]:
        """Test the connection from where it is executed."""


class EventSource(Protocol):
    """What happens, live."""

    def stream(self, caller: Caller) -> AsyncIterator[bytes]:
        """Server-sent events of the caller's environment."""
