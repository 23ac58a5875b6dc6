"""What happened in a chaos run, seen from four sides: the callers, the request log, the database's log, and the nemesis.

Plain records. Every time is wall-clock seconds of one machine, so that the four can be laid beside each other.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

INLINE: Final = "inline"
"""The executor of attempts that the service ran itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as its caller saw it, to its end.

    ``id`` is the request id of the answer, "" when none came. ``status`` is 0 without an answer; ``is_cut`` means that the
    answer began and broke off. ``is_right`` says that the rows are those of the database, in order; ``backends`` are the
    database processes that the rows say they were read by.
    """

    id: str
    kind: str
    may_retry: bool = True
    timeout_seconds: float = 30.0
    sent_at: float
    ended_at: float
    status: int
    code: str = ""
    is_cut: bool = False
    has_end: bool = False
    rows: int = 0
    rows_wanted: int = 0
    is_right: bool = True
    backends: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True for an answer that claims to be complete."""
        return self.status == 200 and not self.is_cut


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt as the request log shows it. ``runner`` is `INLINE` for the service."""

    number: int
    runner: str
    offered_at: float
    accepted_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the request log shows it; ``outcome`` is ``completed`` or a code."""

    id: str
    outcome: str
    attempts: tuple[Attempt, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement as the database logged its beginning; ``user`` tells the executor, ``backend`` the process."""

    request: str
    attempt: int
    user: str
    backend: int
    at: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Something that was broken on purpose, until all was well again. ``runner`` None is the server or every process."""

    kind: str
    runner: str | None
    began_at: float
    ended_at: float


@dataclasses.dataclass(slots=True, kw_only=True)
class History:
    """Everything that one run left. ``executors`` gives the executor of each database login."""

    calls: list[Call] = dataclasses.field(default_factory=list)
    requests: dict[str, Request] = dataclasses.field(default_factory=dict)
    rewritten: list[str] = dataclasses.field(default_factory=list)
    """Requests whose outcome changed after it was final."""
    statements: list[Statement] = dataclasses.field(default_factory=list)
    disturbances: list[Disturbance] = dataclasses.field(default_factory=list)
    executors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def note_request(self, document: Mapping[str, Any]) -> None:
        """Take one entry of `GET /v1/requests`; unfinished ones are left for the next look."""
        request = read_request(document)
        if request.outcome == "running":
            return
        known = self.requests.get(request.id)
        if known is not None and known.outcome != request.outcome:
            self.rewritten.append(request.id)
        self.requests[request.id] = request

    def explains(self, runner: str, begin: float, end: float) -> bool:
        """True when this runner, the server or every process was disturbed at some moment between the two."""
        return any(
            each.began_at <= end and each.ended_at >= begin and each.runner in (runner, None)
            for each in self.disturbances
        )


def read_request(document: Mapping[str, Any]) -> Request:
    """A request from its document of the API."""
    submitted = datetime.datetime.fromisoformat(document["at"]).timestamp()

    def moment(milliseconds: float | None) -> float | None:
        return None if milliseconds is None else submitted + milliseconds / 1000

    attempts: Sequence[Mapping[str, Any]] = document.get("attempts", ())
    return Request(
        id=document["id"],
        outcome=document["outcome"],
        attempts=tuple(
            Attempt(
                number=each["number"],
                runner=each["runner"] or INLINE,
                offered_at=moment(each["offeredMs"]) or submitted,
                accepted_at=moment(each["acceptedMs"]),
                ended_at=moment(each["endedMs"]),
                outcome=each["outcome"],
            )
            for each in attempts
        ),
    )
