"""The two ports of dispatch, and the table it routes by. The gateway implements `RunnerLink`, the execution library (wired by
`compose`) implements `Executor`; both answer by handing events to the dispatcher."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lensway.dispatch.events import SendCancel, SendCredit, SendOffer
from lensway.ids import EnvironmentId, RunnerId, SourceId


class RunnerLink(Protocol):
    """One session as dispatch sees it. Nothing here waits and nothing raises: a link that cannot send is about to be lost."""

    def offer(self, order: SendOffer) -> None:
        """Write the offer behind the assignment set it depends on."""

    def cancel(self, order: SendCancel) -> None:
        """Write the cancel."""

    def credit(self, order: SendCredit) -> None:
        """Write the credit."""

    def push_set(self) -> None:
        """Write the wanted assignment set again."""

    def close(self, cause: str) -> None:
        """Abort the connection; the link reports `SessionLost` once."""


class Executor(Protocol):
    """The inline place. Answers with the same events as a session, with ``session`` INLINE."""

    def start(self, order: SendOffer) -> None:
        """Begin the attempt: Accepted at once, then Rows, Ended or AttemptFailed."""

    def cancel(self, order: SendCancel) -> None:
        """Stop the attempt and its statement."""

    def credit(self, order: SendCredit) -> None:
        """The attempt may write so many bytes more."""


class SourceRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What routing needs of one source: made from the snapshot, one look-up per query."""

    source: SourceId
    name: str
    bridge: str
    needs_runner: bool
    """Runner-local credentials or `execution = "runner_required"`: never inline."""
    runners: tuple[RunnerId, ...]
    runner_names: tuple[str, ...]


class Routes(Protocol):
    """The catalog as routing sees it, always the newest."""

    revision_of: RevisionOf

    def source(self, environment: EnvironmentId, source: SourceId) -> SourceRoute | None:
        """The source's route, or None when it is gone."""

    def is_serving(self, runner: RunnerId) -> bool:
        """True when the runner exists, is not revoked and not drained by an operator."""


class RevisionOf(Protocol):
    """The wanted revision of a runner's set."""

    def __call__(self, runner: RunnerId) -> int: ...
