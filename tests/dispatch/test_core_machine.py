"""The core of dispatch under any order of events: one outcome for each job, in time; rows of one attempt; nothing left over."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from lensway import limits
from lensway.dispatch.core.core import Core
from lensway.dispatch.core.events import (
    INLINE,
    Abandon,
    Accepted,
    AttemptFailed,
    CallerGone,
    CancelWanted,
    CatalogChanged,
    CloseSession,
    Complete,
    Consumed,
    Deliver,
    Ended,
    Fail,
    JobRequest,
    OwnersEnded,
    RefusalKind,
    Refused,
    Release,
    Rows,
    SendCancel,
    SendCredit,
    SendOffer,
    SessionAlive,
    SessionDraining,
    SessionHeard,
    SessionLost,
    SessionOpened,
    SessionReported,
    Submitted,
    Tick,
)
from lensway.dispatch.core.ports import RunnerRoute, SourceRoute
from lensway.errors import ErrorCode, Failure
from lensway.fleet import SessionFacts
from lensway.ids import EnvironmentId, InstanceId, JobId, RequestId, RunnerId, SessionId, SourceId

ENVIRONMENT = EnvironmentId("env")
SOURCE = SourceId("src")
RUNNERS = tuple(RunnerId(f"run{number}") for number in range(3))


class Assignments:
    """Routes that the machine changes."""

    def __init__(self) -> None:
        self.assigned: set[RunnerId] = set()
        self.marked: set[RunnerId] = set()

    def source(self, environment, source):
        runners = tuple(sorted(self.assigned))
        return SourceRoute(
            source=SOURCE,
            name="main",
            bridge="postgres",
            needs_runner=False,
            runners=runners,
            runner_names=runners,
            wanted=(1,) * len(runners),
            marks=tuple("revoked" if runner in self.marked else "" for runner in runners),
            serving=tuple(runner not in self.marked for runner in runners),
        )

    def runner(self, environment, runner):
        return RunnerRoute(runner=runner, name=runner, wanted=1, mark="")


@dataclasses.dataclass
class Place:
    """An attempt as its place sees it."""

    session: int
    job: int
    number: int
    credit: int
    is_accepted: bool = False
    is_over: bool = False
    is_forgotten: bool = False
    is_cancelled: bool = False
    is_refused: bool = False
    is_handed_back: bool = False
    sent: int = 0
    parts: int = 0


@dataclasses.dataclass
class Caller:
    """A job as its caller sees it."""

    deadline: float
    is_stream: bool
    may_overflow: bool
    may_retry: bool
    got: list[bytes] = dataclasses.field(default_factory=list)
    untaken: int = 0
    outcome: str = ""
    at: float = 0.0


class Dispatch(RuleBasedStateMachine):
    """Callers, places and time, in any order."""

    attempts = Bundle("attempts")

    @initialize()
    def start(self) -> None:
        self.now = 100.0
        self.routes = Assignments()
        self.core = Core(self.routes, self.now)
        self.places: dict[tuple[int, int], Place] = {}
        self.callers: dict[int, Caller] = {}
        self.sessions: dict[int, RunnerId] = {}
        self.next_session = 1
        self.next_job = 1

    def give(self, event) -> None:
        for order in self.core.handle(event, self.now):
            self.obey(order)

    def obey(self, order) -> None:
        match order:
            case SendOffer():
                if order.session == INLINE:
                    assert not self.routes.assigned, "R4: inline only without assignments"
                else:
                    assert order.session in self.sessions
                    assert self.sessions[order.session] in self.routes.assigned, "R3: only to assigned runners"
                    assert self.sessions[order.session] not in self.routes.marked, "I6: nothing for revoked runners"
                caller = self.callers[order.job]
                before = [place for place in self.places.values() if place.job == order.job]
                assert caller.may_retry or all(place.is_refused for place in before), (
                    "retry never: something may have begun"
                )
                handed_back = sum(place.is_accepted and place.is_handed_back for place in before)
                executed = sum(place.is_accepted for place in before) - handed_back
                assert executed < limits.ATTEMPTS_MAX, "at most three attempts"
                assert not caller.outcome, "I6: nothing is offered for a job that is over"
                assert self.now < caller.deadline
                current = [place for place in self.places.values() if place.job == order.job and not place.is_over]
                assert all(place.is_cancelled for place in current), "I5: one attempt at a time"
                assert order.attempt == 1 + max(
                    (place.number for place in self.places.values() if place.job == order.job), default=0
                )
                self.places[order.job, order.attempt] = Place(order.session, order.job, order.attempt, order.credit)
            case SendCancel():
                place = self.places[order.job, order.attempt]
                place.is_cancelled = True
            case SendCredit():
                self.places[order.job, order.attempt].credit += order.bytes
            case Deliver():
                caller = self.callers[order.job]
                assert caller.is_stream or caller.may_overflow
                assert not caller.outcome
                caller.got += order.chunks
                caller.untaken += sum(map(len, order.chunks))
            case Complete():
                caller = self.callers[order.job]
                assert not caller.outcome, "I1: one outcome"
                caller.got += order.chunks
                caller.untaken += sum(map(len, order.chunks))
                caller.outcome, caller.at = "complete", self.now
                parts = b"".join(caller.got).split(b";")[:-1]
                attempts = {part.split(b".")[0] for part in parts}
                assert len(attempts) <= 1, "I3: rows of one attempt"
                assert [part.split(b".")[1] for part in parts] == [b"%d" % number for number in range(len(parts))]
            case Fail():
                caller = self.callers[order.job]
                assert not caller.outcome, "I1: one outcome"
                caller.outcome, caller.at = order.failure.code.value, self.now
                assert order.released == bool(caller.got)
                caller.untaken = 0
            case CloseSession():
                self.sessions.pop(order.session, None)
                self.forget_places(order.session)
            case Abandon():
                self.callers[order.job].untaken = 0
            case _:
                pass

    def forget_places(self, session: int) -> None:
        for place in self.places.values():
            if place.session == session and not place.is_over:
                place.is_over = place.is_forgotten = True

    # --- the world ----------------------------------------------------------------------------------------------------------

    @rule(runner=st.sampled_from(RUNNERS))
    def assign(self, runner: RunnerId) -> None:
        self.routes.assigned.add(runner)
        self.give(CatalogChanged())

    @rule(runner=st.sampled_from(RUNNERS))
    def unassign(self, runner: RunnerId) -> None:
        self.routes.assigned.discard(runner)
        self.give(CatalogChanged())

    @rule(runner=st.sampled_from(RUNNERS), is_marked=st.booleans())
    def mark(self, runner: RunnerId, is_marked: bool) -> None:
        (self.routes.marked.add if is_marked else self.routes.marked.discard)(runner)
        self.give(CatalogChanged())

    @rule(runner=st.sampled_from(RUNNERS), capacity=st.sampled_from((1, 8)), instance=st.sampled_from(("one", "two")))
    def connect(self, runner: RunnerId, capacity: int, instance: str) -> None:
        session = SessionId(self.next_session)
        self.next_session += 1
        self.sessions[session] = runner
        facts = SessionFacts(
            session=session,
            environment=ENVIRONMENT,
            runner=runner,
            runner_name=runner,
            instance=InstanceId(f"{runner}-{instance}"),
            bridges={"postgres": "x"},
            capacity=capacity,
            software="",
            hostname="",
            address="",
            version=1,
        )
        self.give(SessionOpened(facts))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def lose(self, data) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        del self.sessions[session]
        self.forget_places(session)
        self.give(SessionLost(SessionId(session), "reset"))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), draining=st.booleans(), knows=st.booleans())
    def report(self, data, draining: bool, knows: bool) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        held = tuple(
            (place.job, place.number)
            for place in self.places.values()
            if place.session == session and not place.is_over and knows
        )
        if not knows:
            self.forget_places(session)
        self.give(SessionReported(SessionId(session), 1, held, draining, {}))
        self.give(SessionAlive(SessionId(session)))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def hear(self, data) -> None:
        self.give(SessionHeard(SessionId(data.draw(st.sampled_from(sorted(self.sessions))))))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), is_draining=st.booleans())
    def drain(self, data, is_draining: bool) -> None:
        self.give(SessionDraining(SessionId(data.draw(st.sampled_from(sorted(self.sessions)))), is_draining))

    # --- callers ------------------------------------------------------------------------------------------------------------

    @rule(
        seconds=st.sampled_from((0.2, 3.0, 30.0)),
        kind=st.sampled_from(("page", "overflowing page", "stream")),
        may_retry=st.booleans(),
    )
    def submit(self, seconds: float, kind: str, may_retry: bool) -> None:
        is_stream, may_overflow = kind == "stream", kind == "overflowing page"
        job = JobId(self.next_job)
        self.next_job += 1
        self.callers[job] = Caller(self.now + seconds, is_stream, may_overflow, may_retry)
        request = JobRequest(
            request=RequestId(str(job)),
            environment=ENVIRONMENT,
            source=SOURCE,
            kind="rows",
            payload=b"",
            format="json",
            deadline=self.now + seconds,
            release=Release.STREAM if is_stream else Release.AT_END,
            rows_max=10,
            bytes_max=10**9,
            row_bytes_max=10**9,
            may_retry=may_retry,
            is_export=is_stream,
            page_bytes_max=2 * limits.DATA_FRAME_BYTES_MAX if may_overflow else None,
            may_overflow=may_overflow,
            owner=f"key_{job % 2}",
        )
        self.give(Submitted(job, request))

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def go_away(self, data) -> None:
        job = data.draw(st.sampled_from(sorted(self.callers)))
        self.give(CallerGone(JobId(job)))
        self.callers[job].untaken = 0

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        job = data.draw(st.sampled_from(sorted(self.callers)))
        was_over = bool(self.callers[job].outcome)
        self.give(CancelWanted(JobId(job)))
        assert was_over or self.callers[job].outcome == "cancelled"

    @precondition(lambda self: self.callers)
    @rule(owner=st.sampled_from(("key_0", "key_1", ENVIRONMENT, "key_of_nobody")))
    def end_owner(self, owner: str) -> None:
        before = {job: caller.outcome for job, caller in self.callers.items()}
        self.give(OwnersEnded(frozenset({owner})))
        for job, caller in self.callers.items():
            is_theirs = owner in (ENVIRONMENT, f"key_{job % 2}")
            assert caller.outcome == (before[job] or ("unauthenticated" if is_theirs else ""))

    @precondition(lambda self: any(caller.untaken for caller in self.callers.values()))
    @rule(data=st.data())
    def take(self, data) -> None:
        job = data.draw(st.sampled_from(sorted(job for job, caller in self.callers.items() if caller.untaken)))
        size, self.callers[job].untaken = self.callers[job].untaken, 0
        self.give(Consumed(JobId(job), size))

    # --- places -------------------------------------------------------------------------------------------------------------

    def alive(self) -> list[tuple[int, int]]:
        return sorted(
            key
            for key, place in self.places.items()
            if not place.is_over and (place.session == INLINE or place.session in self.sessions)
        )

    @precondition(lambda self: self.alive())
    @rule(
        data=st.data(),
        what=st.sampled_from(("accept", "rows", "rows", "end", "fail", "unreachable", "refuse", "hand back")),
    )
    def answer(self, data, what: str) -> None:
        place = self.places[data.draw(st.sampled_from(self.alive()))]
        ids = (SessionId(place.session), JobId(place.job), place.number)
        if not place.is_accepted:
            if what == "refuse" and place.session != INLINE:
                place.is_over = place.is_refused = True
                self.give(Refused(*ids, data.draw(st.sampled_from(list(RefusalKind))), 1))
                return
            place.is_accepted = True
            self.give(Accepted(*ids))
            return
        if what in ("accept", "refuse"):
            return
        size = data.draw(st.sampled_from((20, limits.DATA_FRAME_BYTES_MAX)))
        payload = (
            (b"%d.%d;" % (place.number, place.parts)).rjust(0) if size == 20 else b"%d.%d" % (place.number, place.parts)
        )
        if size != 20:
            payload = payload + b"." + b"x" * (size - len(payload) - 2) + b";"
        if what == "rows":
            if place.sent + len(payload) <= place.credit:
                place.sent += len(payload)
                place.parts += 1
                self.give(Rows(*ids, payload))
            return
        place.is_over = True
        if what == "end":
            self.give(Ended(*ids, b"end", place.sent))
            return
        code = ErrorCode.SOURCE_UNREACHABLE if what == "unreachable" else ErrorCode.SOURCE_QUERY_FAILED
        failure = Failure(code=code, message="it failed", details={"stage": "tcp", "class": "refused"})
        handed = place.is_handed_back = what == "hand back" and place.session != INLINE
        self.give(AttemptFailed(*ids, failure, retryable=what == "unreachable", handed_back=handed))

    @precondition(lambda self: self.places and self.sessions)
    @rule(data=st.data(), what=st.sampled_from(("accept", "rows", "end", "refuse")))
    def say_something_late(self, data, what: str) -> None:
        """I5: frames of attempts that are over, or of other sessions, change no outcome."""
        job, number = data.draw(st.sampled_from(sorted(self.places)))
        place = self.places[job, number]
        # What a place has forgotten it says nothing of; the core may count on it until it has missed it twice.
        if not place.is_over or place.is_forgotten or place.session not in self.sessions:
            return
        before = {job: caller.outcome for job, caller in self.callers.items()}
        ids = (SessionId(place.session), JobId(job), number)
        self.give(
            {
                "accept": Accepted(*ids),
                "rows": Rows(*ids, b"9.9;"),
                "end": Ended(*ids, b"end", 0),
                "refuse": Refused(*ids, RefusalKind.BUSY),
            }[what]
        )
        assert before == {job: caller.outcome for job, caller in self.callers.items()}

    # --- time ---------------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0, 0.06, 0.6, 2.5, 12.0, 70.0)))
    def wait(self, seconds: float) -> None:
        self.pass_until(self.now + seconds)

    def pass_until(self, until: float) -> None:
        for _ in range(10_000):
            wake = self.core.next_wake()
            if wake is None or wake > until:
                break
            self.now = max(self.now, wake)
            self.give(Tick())
        else:
            raise AssertionError("time does not pass: something is due for ever")
        self.now = max(self.now, until)

    @invariant()
    def outcomes_come_in_time(self) -> None:
        for job, caller in getattr(self, "callers", {}).items():
            if caller.outcome:
                assert caller.at <= caller.deadline + 1.0, f"I2: job {job}"
            else:
                assert self.now <= caller.deadline + 1.0, f"I2: job {job}"

    @invariant()
    def memory_is_bounded(self) -> None:
        core = getattr(self, "core", None)
        if core is not None:
            assert core.held_bytes <= limits.NODE_CREDIT_BYTES_MAX + limits.PAGE_BYTES_TOTAL_MAX

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        # Everybody is gone and everything answers: nothing may be left.
        for session in list(self.sessions):
            del self.sessions[session]
            self.forget_places(session)
            self.give(SessionLost(SessionId(session), "closed"))
        self.pass_until(self.now + 40.0)
        for job, caller in self.callers.items():
            assert caller.outcome, f"I1: job {job} has an outcome"
            self.give(CallerGone(JobId(job)))
        for place in self.places.values():
            if place.session == INLINE and not place.is_over:
                ids = (INLINE, JobId(place.job), place.number)
                self.give(AttemptFailed(*ids, Failure(code=ErrorCode.CANCELLED, message="stopped")))
        assert self.core.jobs_count == 0
        assert self.core.held_bytes == 0
        assert self.core._state.service.load.outstanding == 0


Dispatch.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestDispatch = Dispatch.TestCase
