"""The ports of dispatch, and the table it routes by. The gateway implements `RunnerLink`, the service's executor `Link`; both
answer by handing events to the dispatcher."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lensway.dispatch.core.events import SendCancel, SendCredit, SendOffer
from lensway.ids import EnvironmentId, RunnerId, SourceId


class Link(Protocol):
    """One place as dispatch sees it: a session of a runner, or the service's own executor.

    Nothing here waits and nothing raises: a link that cannot send is about to be lost. A place answers by events that carry its
    session. Every attempt that it accepted is answered by `Ended` or `AttemptFailed` in the end, also after a cancel: only then
    is its reservation given back.
    """

    def offer(self, order: SendOffer) -> None:
        """Write the offer behind the assignment set it depends on. A link that is closed already and so does not write it
        answers `Refused` with `RefusalKind.UNWRITTEN`, so that even a job that is never repeated can go elsewhere.

        The service begins the attempt: dispatch counts its offers as accepted and expects no `Accepted`."""

    def cancel(self, order: SendCancel) -> None:
        """Write the cancel: stop the attempt and its statement."""

    def credit(self, order: SendCredit) -> None:
        """Write the credit: the attempt may send so many bytes more."""


class RunnerLink(Link, Protocol):
    """The link to a session of a runner."""

    def push_set(self) -> None:
        """Write the wanted assignment set again."""

    def close(self, cause: str) -> None:
        """Abort the connection. `SessionLost` may follow; dispatch has already ended the session."""


class SourceRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What routing needs of one source: made from the snapshot, one look-up per query.

    ``wanted`` and ``marks`` stand beside ``runners``: the revision of each one's set, and ``revoked`` or ``draining`` for a
    runner that is out of service by order ("" otherwise).
    """

    source: SourceId
    name: str
    bridge: str
    needs_runner: bool
    """Runner-local credentials or `execution = "runner_required"`: never inline."""
    runners: tuple[RunnerId, ...]
    runner_names: tuple[str, ...]
    wanted: tuple[int, ...]
    marks: tuple[str, ...]
    serving: tuple[bool, ...]


class RunnerRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What routing needs of one runner that a job is pinned to."""

    runner: RunnerId
    name: str
    wanted: int
    mark: str


class Routes(Protocol):
    """The catalog as routing sees it, always the newest."""

    def source(self, environment: EnvironmentId, source: SourceId) -> SourceRoute | None:
        """The source's route, or None when it is gone."""

    def runner(self, environment: EnvironmentId, runner: RunnerId) -> RunnerRoute | None:
        """The runner of this environment, or None when it is gone."""
