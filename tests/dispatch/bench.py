"""A core of dispatch on a table: runners that answer as a test tells them to, and a clock that it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lensway.dispatch.core.core import Core
from lensway.dispatch.core.events import (
    Accepted,
    AttemptFailed,
    CloseSession,
    Complete,
    Consumed,
    Ended,
    Event,
    Fail,
    Instruction,
    JobRequest,
    RefusalKind,
    Refused,
    Release,
    Rows,
    SendCancel,
    SendCredit,
    SendOffer,
    SessionAlive,
    SessionOpened,
    Submitted,
    Tick,
)
from lensway.dispatch.core.ports import RunnerRoute, SourceRoute
from lensway.errors import ErrorCode, Failure
from lensway.fleet import SessionFacts
from lensway.ids import EnvironmentId, InstanceId, JobId, RequestId, RunnerId, SessionId, SourceId

SOURCE = SourceId("src")
UNREACHABLE = Failure(
    code=ErrorCode.SOURCE_UNREACHABLE, message="refused", details={"stage": "tcp", "class": "refused"}
)


class Bench:
    """One core, the runners assigned to one source, and everything that was ordered."""

    def __init__(self, *runners: str, up_for: float = 60.0) -> None:
        self.now = 1000.0
        self.assigned: list[str] = list(runners)
        self.marks: dict[str, str] = {}
        self.core = Core(self, self.now - up_for)
        self.orders: list[Instruction] = []
        self._session = 0
        self._job = 0

    # --- routes -----------------------------------------------------------------------------------------------------------

    def source(self, _environment: EnvironmentId, source: SourceId) -> SourceRoute:
        runners = tuple(RunnerId(name) for name in self.assigned)
        marks = tuple(self.marks.get(name, "") for name in self.assigned)
        return SourceRoute(
            source=source,
            name="main",
            bridge="postgres",
            needs_runner=False,
            runners=runners,
            runner_names=runners,
            wanted=(1,) * len(runners),
            marks=marks,
            serving=tuple(not mark for mark in marks),
        )

    def runner(self, _environment: EnvironmentId, runner: RunnerId) -> RunnerRoute:
        return RunnerRoute(runner=runner, name=runner, wanted=1, mark="")

    # --- what happens -----------------------------------------------------------------------------------------------------

    def give(self, event: Event) -> list[Instruction]:
        made = self.core.handle(event, self.now)
        self.orders += made
        return made

    def connect(
        self,
        runner: str,
        *,
        capacity: int = 64,
        instance: str = "",
        encodings: tuple[str, ...] = (),
        features: frozenset[str] = frozenset(),
    ) -> SessionId:
        self._session += 1
        session = SessionId(self._session)
        facts = SessionFacts(
            session=session,
            environment=EnvironmentId("env"),
            runner=RunnerId(runner),
            runner_name=runner,
            instance=InstanceId(instance or f"{runner}-{session}"),
            bridges={"postgres": "x"},
            capacity=capacity,
            software="",
            hostname="",
            address="",
            version=1,
            timings=self.core.fleet.timings_for_next(),
            encodings=frozenset(encodings),
            features=features,
        )
        self.give(SessionOpened(facts))
        return session

    def submit(self, *, seconds: float = 30.0, source: SourceId = SOURCE, format: str = "json", **other: Any) -> JobId:
        self._job += 1
        request = JobRequest(
            request=RequestId(str(self._job)),
            environment=EnvironmentId("env"),
            source=source,
            kind="rows",
            payload=b"",
            format=format,
            deadline=self.now + seconds,
            rows_max=10,
            bytes_max=10**9,
            row_bytes_max=10**9,
            **({"release": Release.AT_END} | other),
        )
        self.give(Submitted(JobId(self._job), request))
        return JobId(self._job)

    def accept(self, offer: SendOffer) -> SendOffer:
        self.give(Accepted(offer.session, offer.job, offer.attempt))
        return offer

    def refuse(self, offer: SendOffer, reason: RefusalKind) -> None:
        self.give(Refused(offer.session, offer.job, offer.attempt, reason, 1))

    def rows(self, offer: SendOffer, payload: bytes) -> None:
        self.give(Rows(offer.session, offer.job, offer.attempt, payload))

    def end(self, offer: SendOffer, sent: int = 0) -> None:
        self.give(Ended(offer.session, offer.job, offer.attempt, b"end", sent))

    def end_with(self, offer: SendOffer, tail: bytes, sent: int) -> None:
        """The end, with the last rows in it."""
        self.give(Ended(offer.session, offer.job, offer.attempt, b"end", sent, tail))

    def fail(self, offer: SendOffer, failure: Failure = UNREACHABLE, **flags: bool) -> None:
        self.give(AttemptFailed(offer.session, offer.job, offer.attempt, failure, **flags))

    def serve(self, session: SessionId | None = None, *, seconds: float = 0.01) -> SendOffer:
        """One query from beginning to end, with a row."""
        job = self.submit()
        offer = self.accept(self.offer_of(job))
        assert session is None or offer.session == session
        self.wait(seconds)
        self.rows(offer, b"row;")
        self.end(offer, 4)
        self.give(Consumed(job, 4))
        return offer

    def alive(self, *sessions: SessionId) -> None:
        for session in sessions:
            self.give(SessionAlive(session))

    def wait(self, seconds: float) -> None:
        """Let time pass; what falls due is done when it does."""
        until = self.now + seconds
        while (wake := self.core.next_wake()) is not None and wake <= until:
            self.now = max(self.now, wake)
            self.give(Tick())
        self.now = until

    # --- what was ordered -------------------------------------------------------------------------------------------------

    def offers(self, job: JobId) -> list[SendOffer]:
        return [order for order in self.orders if isinstance(order, SendOffer) and order.job == job]

    def offer_of(self, job: JobId) -> SendOffer:
        """The last offer of the job."""
        return self.offers(job)[-1]

    def cancels(self, job: JobId) -> list[SendCancel]:
        return [order for order in self.orders if isinstance(order, SendCancel) and order.job == job]

    def granted(self, job: JobId) -> int:
        """Bytes of credit given beyond the window."""
        return sum(order.bytes for order in self.orders if isinstance(order, SendCredit) and order.job == job)

    def outcome(self, job: JobId) -> Complete | Fail | None:
        ends = [order for order in self.orders if isinstance(order, Complete | Fail) and order.job == job]
        assert len(ends) <= 1, "I1: one outcome"
        return ends[0] if ends else None

    def code(self, job: JobId) -> str:
        """The code of the job's failure, ``completed``, or "" while it has no outcome."""
        end = self.outcome(job)
        return "" if end is None else end.record.outcome

    def closed(self) -> Sequence[SessionId]:
        return [order.session for order in self.orders if isinstance(order, CloseSession)]
