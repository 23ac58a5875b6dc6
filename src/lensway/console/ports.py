"""What the pages need of the use cases; the service's fit, and `compose` joins them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from lensway import limits
from lensway.auth.caller import Caller
from lensway.auth.decisions import Identity
from lensway.catalog.ports import SignIn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a list shows: rows with this text, only problems, which page. ``opened`` are the rows that show everything."""

    text: str = ""
    only_problems: bool = False
    page: int = 1
    opened: tuple[str, ...] = ()
    size: int = limits.CONSOLE_ROWS_MAX


class FleetUse(Protocol):
    """Pages of runners and sources."""

    def mark(self) -> tuple[int, int]:
        """A value that differs as soon as something changed or happened."""

    def changes(self, caller: Caller) -> AsyncIterator[None]:
        """One item for each thing that happens."""

    async def runners(self, caller: Caller, query: ListQuery) -> dict[str, Any]:
        """One page of runners."""

    async def sources(self, caller: Caller, query: ListQuery) -> dict[str, Any]:
        """One page of sources."""

    def free_sources(self, caller: Caller, runner: str, text: str, *, limit: int) -> dict[str, Any]:
        """Names of sources that the runner does not serve yet."""

    def consequences(
        self, caller: Caller, runner: str, sources: Sequence[str], *, is_assigning: bool
    ) -> dict[str, Any]:
        """The warnings that a change would add."""


class RunnerUse(Protocol):
    """Runners and assignments."""

    async def assign(self, caller: Caller, name: str, source: str, *, verify: bool = False) -> dict[str, Any]:
        """The runner serves the source from now on."""

    async def unassign(self, caller: Caller, name: str, source: str) -> dict[str, Any]:
        """The runner serves the source no more."""

    async def resume(self, caller: Caller, name: str) -> dict[str, Any]:
        """The runner takes new work again."""


class SourceUse(Protocol):
    """Connection tests of sources."""

    async def test(self, caller: Caller, name: str, *, runner: str | None = None) -> dict[str, Any]:
        """Test the connection from where it is executed."""


class SignInUse(Protocol):
    """Sign-ins to the Console."""

    async def open(self, identity: Identity, address: str) -> str:
        """Sign in; the cookie's value."""

    def find(self, cookie: str) -> tuple[SignIn, Identity] | None:
        """The sign-in of this cookie and its key as it is now."""

    def used(self, sign_in: SignIn) -> None:
        """Note that a person used it."""

    async def close(self, sign_in: SignIn) -> None:
        """Sign out."""
