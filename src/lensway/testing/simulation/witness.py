"""Looks at every step of a simulated deployment and raises as soon as a promise is broken. Decides nothing, changes nothing.

It hears every event and every instruction of the dispatcher, and every statement that a place begins; it keeps a picture of its
own of each job, made from these alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lensway import limits
from lensway.catalog.records import Runner
from lensway.clock import Clock
from lensway.dispatch.core.core import Core
from lensway.dispatch.core.events import (
    INLINE,
    Accepted,
    AttemptFailed,
    CloseSession,
    Complete,
    Deliver,
    Event,
    Fail,
    Instruction,
    JobRequest,
    RefusalKind,
    Refused,
    Release,
    SendCancel,
    SendOffer,
    SessionLost,
    StatusChanged,
    Submitted,
)
from lensway.dispatch.core.ports import Link, Routes
from lensway.dispatch.core.records import Cause, EndKind
from lensway.dispatch.shell import Dispatcher
from lensway.errors import ErrorCode, Failure
from lensway.fleet import Session, SessionState
from lensway.ids import JobId, RunnerId, SessionId

if TYPE_CHECKING:
    from lensway.testing.memory_store import MemoryStore
    from lensway.testing.virtual_time import VirtualLoop

_BALANCE_EVERY: Final = 16
"""The books of the core are compared each time after so many events: cheap, and never far from the cause."""
_STOP_CAUSES: Final = frozenset({"caller_gone", "deadline", "repeated", "settled", "stalled", "unanswered"})
"""Why a statement may be stopped. A change of assignments is no reason (R11)."""


class ViolationError(AssertionError):
    """A promise was broken; the message names it and how to replay the seed."""


class JobView:
    """One job as the witness sees it."""

    __slots__ = (
        "accepted",
        "current",
        "executions",
        "last",
        "offered_at",
        "outcome",
        "place",
        "released",
        "request",
        "rights",
    )

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.outcome = ""
        self.last = 0
        self.offered_at = 0.0
        self.current: int | None = None
        self.place = INLINE
        self.released: int | None = None
        self.accepted: dict[int, SessionId] = {}
        self.executions: set[int] = set()
        self.rights = True
        """For a job that is never repeated: it may be offered (again), because nothing can have begun."""


class Witness:
    """The promises of one deployment."""

    def __init__(self, seed: int, loop: VirtualLoop, store: MemoryStore, tell: Callable[[str], None] | None) -> None:
        self.reached: Counter[str] = Counter()
        self.steps = 0
        self.step: Callable[[str], None] = self._count_step
        self.dispatcher: WatchedDispatcher | None = None
        self.violation: asyncio.Future[None] = loop.create_future()
        """Never done, unless a promise was broken: a link or a caller may swallow what is raised under it."""
        self.pause_seconds = 0.0
        """For how long the server itself has stood still: no caller gets an answer then."""
        self.is_stopping = False
        self.may_begin: Callable[[str, JobRequest, float], str] = lambda _place, _request, _offered_at: ""
        self.watch_cancel: Callable[[SessionId, int, int], None] = lambda _session, _job, _attempt: None
        self.watch_fence: Callable[[SessionId], None] = lambda _session: None
        self._seed = seed
        self._loop = loop
        self._store = store
        self._tell = tell
        self._trace = hashlib.sha256()
        self._views: dict[int, JobView] = {}
        self._by_job: dict[int, JobView] = {}
        self._deadlines: list[tuple[float, float, int]] = []
        self._events = 0

    # --- words ----------------------------------------------------------------------------------------------------------

    def check(self, holds: bool, promise: str) -> None:
        """Raise unless it holds. The scenario fails even when other code catches that."""
        if not holds:
            error = ViolationError(
                f"{promise} (at {self._loop.virtual_now - 1000:.3f} s; replay: "
                f"python -m lensway.testing.simulation {self._seed})"
            )
            if not self.violation.done():
                self.violation.set_exception(error)
            raise error

    def note(self, what: str, about: object = "") -> None:
        """Something happened that tests want to know was reached."""
        self.reached[what] += 1
        self._trace.update(f"{self._loop.virtual_now:.6f} {what} {about}\n".encode())
        if self._tell is not None:
            self._tell(f"{self._loop.virtual_now - 1000:9.3f}  {what} {about}")

    def digest(self) -> str:
        """A digest of all that was noted, with the times."""
        return self._trace.hexdigest()

    def _count_step(self, _place: str) -> None:
        self.steps += 1

    # --- the server -----------------------------------------------------------------------------------------------------

    def restart(self, dispatcher: WatchedDispatcher) -> None:
        """A new process of the server: nothing of the one before is owed by it."""
        self.dispatcher = dispatcher
        self._by_job = {}
        self._deadlines = []

    def event(self, event: Event) -> None:
        """The dispatcher is about to hear this."""
        match event:
            case Submitted():
                view = self._by_job[event.job] = self._views[int(event.request.request)] = JobView(event.request)
                due = view.request.deadline + limits.DEADLINE_SLACK_SECONDS
                heapq.heappush(self._deadlines, (due, self.pause_seconds, event.job))
            case Accepted():
                self._accepted(event)
            case Refused() | AttemptFailed():
                self._gone(event.session, event.job, event.attempt, is_refusal=isinstance(event, Refused))
                if isinstance(event, Refused) and event.reason is RefusalKind.UNWRITTEN:
                    self.note("offer unwritten")
            case SessionLost():
                self._lost(event.session)
            case _:
                pass

    def after(self) -> None:
        """The dispatcher has done what the event asked for."""
        now = self._loop.virtual_now
        while self._deadlines and self._deadlines[0][0] < now:
            due, paused, job = heapq.heappop(self._deadlines)
            stood_still = self.pause_seconds - paused
            if stood_still and now <= due + stood_still:
                heapq.heappush(self._deadlines, (due + stood_still, self.pause_seconds, job))
                continue
            self.check(bool(self._by_job[job].outcome), f"I2: an outcome by deadline + 1 s, job {job}")
        self._events += 1
        if self._events % _BALANCE_EVERY == 0:
            self.balance()

    def balance(self) -> None:
        """The books of the core: reservations, credit and pages are those of the attempts that it holds."""
        assert self.dispatcher is not None
        core = self.dispatcher.core
        state = core._state
        for session in core.fleet.sessions.values():
            self._balance_of(session, len(state.held[session.id]))
        self.check(
            state.service.load.outstanding == len(state.held[INLINE]), "reservations inline are those of its attempts"
        )
        windows = sum(job.has_credit for job in state.jobs.values()) * limits.CREDIT_WINDOW_BYTES
        self.check(state.credit_bytes == windows <= limits.NODE_CREDIT_BYTES_MAX, "I8: credit is that of open windows")
        pages = sum(job.page_bytes for job in state.jobs.values())
        self.check(state.page_bytes == pages <= limits.PAGE_BYTES_TOTAL_MAX, "I8: pages are those of open jobs")
        self.check(state.queue.count + len(state.waiting) <= limits.QUEUE_JOBS_MAX, "the queue is bounded")

    def _balance_of(self, session: Session, held: int) -> None:
        load = session.load
        self.check(load.outstanding == held, f"reservations of session {session.id} are those of its attempts")
        self.check(load.outstanding <= load.capacity, "the cap of a runner is never passed")
        for pair in load.pairs.values():
            self.check(pair.outstanding - pair.exports <= limits.JOBS_PER_PAIR_MAX, "the cap of a pair is never passed")
            self.check(pair.exports <= limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX, "exports have a cap of their own")

    def instruction(self, order: Instruction) -> None:
        """The dispatcher is about to do this."""
        match order:
            case SendOffer():
                self._offer(order)
            case SendCancel():
                self._cancel(order)
            case Deliver():
                view = self._by_job[order.job]
                self._releases(view)
                may_leave = view.request.release is Release.STREAM or view.request.may_overflow
                self.check(may_leave, "I4: a page leaves when it is complete")
                view.released = view.current
            case Complete():
                view = self._by_job[order.job]
                self._releases(view)
                self.check(view.current in view.accepted, "I5: only an accepted attempt completes a job")
                self._settle(view, "completed")
            case Fail():
                view = self._by_job[order.job]
                self._settle(view, order.failure.code.value)
                self._judge(view, order)
            case CloseSession():
                self._lost(order.session)
                self.note("closed by the gateway", order.cause)
            case StatusChanged():
                self._status(order)
            case _:
                pass

    # --- attempts -------------------------------------------------------------------------------------------------------

    def _offer(self, order: SendOffer) -> None:
        view, request, now = self._by_job[order.job], order.request, self._loop.virtual_now
        self.check(not view.outcome, "I6: nothing is offered for a job that is over")
        self.check(now < request.deadline, "I6: nothing is offered after the deadline")
        self.check(view.current is None or self._is_forgotten(order.job), "I5: at most one attempt at a time")
        self.check(order.attempt == view.last + 1, "I5: the number of attempts only grows")
        self.check(request.may_retry or view.rights, "retry never: offered again although something may have begun")
        self.check(order.remaining_seconds <= request.deadline - now + 1e-6, "the deadline is not stretched")
        view.last = view.current = order.attempt
        view.place, view.rights, view.offered_at = order.session, False, now
        snapshot = self._store.current()
        assigned = snapshot.runners_of(request.environment, request.source)
        if order.session == INLINE:
            self.check(not assigned, "R4: executed inline although runners are assigned")
            self._accepted(Accepted(INLINE, order.job, order.attempt))  # by being offered
            return
        assert self.dispatcher is not None
        session = self.dispatcher.fleet.sessions[order.session]
        runner = snapshot.runner_by_id(session.facts.runner)
        self.check(session.facts.runner in assigned, "R1: offered only where it is assigned")
        assert isinstance(runner, Runner)
        self.check(not runner.is_revoked, "I6: nothing is offered to a revoked runner")
        self.check(not session.is_draining and not runner.is_draining, "nothing new is offered to who drains")
        if session.is_suspect:
            self.note("a suspect was tried")
        self._note_choice(order, session)

    def _is_forgotten(self, job: JobId) -> bool:
        """The runner says by its reports that it does not have the attempt any more: no event of its own tells that."""
        assert self.dispatcher is not None
        return self.dispatcher.core._state.jobs[job].record.attempts[-2].cause == Cause(EndKind.LOST, "forgotten")

    def _note_choice(self, order: SendOffer, session: Session) -> None:
        assert self.dispatcher is not None
        pair = session.load.pair(order.request.source)
        if pair.eject_seconds:
            self.note("an ejected pair was tried")
        if pair.eject_seconds > limits.EJECT_SECONDS:
            self.note("an ejection grew")
        latencies = [
            latency
            for other in self.dispatcher.fleet.sessions.values()
            if (latency := other.load.pair(order.request.source).latency_seconds) is not None
        ]
        mine = pair.latency_seconds
        if mine is not None and mine > limits.SLOW_PAIR_FACTOR * min(latencies):
            self.note("a slow pair was chosen")

    def _accepted(self, event: Accepted) -> None:
        view = self._by_job.get(event.job)
        if view is None:
            return
        before = view.accepted.setdefault(event.attempt, event.session)
        self.check(before == event.session, "I5: an attempt is accepted by at most one session")
        if view.current != event.attempt:
            self.note("late accept")

    def _gone(self, session: SessionId, job: int, attempt: int, *, is_refusal: bool) -> None:
        view = self._by_job.get(job)
        if view is not None and (view.current, view.place) == (attempt, session):
            view.current = None
            view.rights = is_refusal

    def _lost(self, session: SessionId) -> None:
        for view in self._by_job.values():
            if view.place == session and not view.outcome:
                view.current = None

    def _cancel(self, order: SendCancel) -> None:
        view = self._by_job[order.job]
        self.check(order.reason in _STOP_CAUSES, f"R11: stopped for {order.reason}")
        if view.current == order.attempt:
            view.current = None
        self.watch_cancel(order.session, int(view.request.request), order.attempt)

    def _releases(self, view: JobView) -> None:
        self.check(not view.outcome, "I1: nothing is given after the outcome")
        self.check(view.current is not None, "I5: nothing of an attempt that was given up is released")
        self.check(view.released in (None, view.current), "I3: rows of one attempt only")

    # --- outcomes -------------------------------------------------------------------------------------------------------

    def _settle(self, view: JobView, outcome: str) -> None:
        self.check(not view.outcome, "I1: exactly one outcome")
        view.outcome = outcome
        view.current = None

    def _judge(self, view: JobView, end: Fail) -> None:
        """A failure must have the cause that it names."""
        failure, request, record = end.failure, view.request, end.record
        self.check(end.released == (view.released is not None), "a cut stream is told from one that never began")
        live = [] if self.dispatcher is None else self._live_for(request)
        match failure.code:
            case ErrorCode.RUNNER_FAILED:
                lost = sum(
                    each.accepted_at is not None and each.cause is not None and each.cause.kind is EndKind.LOST
                    for each in record.attempts
                )
                if lost >= limits.RUNNERS_LOST_MAX and request.may_retry and not end.released:
                    self.note("poison")
                is_due = lost >= limits.RUNNERS_LOST_MAX or record.executed >= limits.ATTEMPTS_MAX
                self.check(is_due or not request.may_retry or end.released, "runner_failed has its reason")
                self.check(lost <= limits.RUNNERS_LOST_MAX, "no third runner is risked")
            case ErrorCode.NO_RUNNERS_ONLINE:
                untried = [one for one in live if all(each.session != one.id for each in record.attempts)]
                self.check(not untried, "no_runners_online although a runner is live")
            case ErrorCode.SOURCE_UNREACHABLE if request.may_retry and not end.released:
                self._judge_unreachable(request, end, live)
            case ErrorCode.QUERY_TIMEOUT:
                # A runner's clock may be a tenth fast.
                whole = request.deadline - record.submitted_at
                self.check(self._loop.virtual_now >= record.submitted_at + 0.85 * whole, "no timeout before its time")
            case ErrorCode.SOURCE_REQUIRES_RUNNER:
                assigned = self._store.current().runners_of(request.environment, request.source)
                self.check(not assigned, "source_requires_runner only with zero assignments")
            case ErrorCode.CANCELLED:
                self.check(
                    self.is_stopping or failure.details.get("reason") in ("caller_gone", "stalled"),
                    f"cancelled without a reason: {failure.details}",
                )
            case ErrorCode.LIMIT_EXCEEDED:
                self.check(not request.may_overflow, "a page that may overflow is not refused for its size")
            case ErrorCode.OVERLOADED | ErrorCode.SOURCE_QUERY_FAILED | ErrorCode.SOURCE_UNREACHABLE:
                pass
            case _:
                self.check(False, f"I1: an outcome that nothing explains: {_told(failure)}")

    def _judge_unreachable(self, request: JobRequest, end: Fail, live: list[Session]) -> None:
        tried = {each.session for each in end.record.attempts}
        if INLINE in tried or end.record.executed >= limits.ATTEMPTS_MAX:
            return
        sound = [one for one in live if one.id not in tried and one.load.pair(request.source).is_sound]
        room = [one for one in sound if one.load.has_room(one.load.pair(request.source), is_export=request.is_export)]
        self.check(not room, "SOURCE_UNREACHABLE although a second candidate answers")

    def _live_for(self, request: JobRequest) -> list[Session]:
        assert self.dispatcher is not None
        snapshot = self._store.current()
        fleet = self.dispatcher.fleet
        found: list[Session] = []
        for runner in snapshot.runners_of(request.environment, request.source):
            record = snapshot.runner_by_id(runner)
            if record is not None and not record.is_revoked and not record.is_draining:
                found += [one for one in fleet.sessions_of(RunnerId(runner)) if one.state is SessionState.LIVE]
        return found

    def session_of(self, job: int, attempt: int) -> SessionId | None:
        """The session that has accepted this attempt, as far as the server that runs now knows."""
        return self._views[job].accepted.get(attempt)

    def _status(self, order: StatusChanged) -> None:
        self.note(f"session {order.state}", order.cause if order.state in ("lost", "suspect") else "")
        if order.state == "lost":
            self.note(f"lost by {order.cause}")
            if order.cause == "heartbeat_lost":
                self.watch_fence(order.session)
        if order.state == "suspect" and order.cause == "offer_unanswered":
            self.note("offer unanswered")
        if order.state == "live" and order.cause == "answered again":
            self.note("a suspect is back")

    # --- statements -----------------------------------------------------------------------------------------------------

    def statement_begins(self, place: str, job: int, attempt: int) -> None:
        """A place begins to execute this attempt."""
        self.step(place)
        view = self._views[job]
        self.check(attempt not in view.executions, "I5: an attempt is executed at most once")
        self.check(view.request.may_retry or not view.executions, "retry never: executed twice")
        if place == "inline":
            self.check(not view.outcome, "I6: begun although the job is over")
        if attempt == view.last:
            why = self.may_begin(place, view.request, view.offered_at)
            self.check(not why, why)
        view.executions.add(attempt)


def _told(failure: Failure) -> str:
    return f"{failure.code.value} ({failure.message})"


class _WatchedCore(Core):
    def __init__(self, routes: Routes, started_at: float, witness: Witness) -> None:
        super().__init__(routes, started_at)
        self._witness = witness

    def handle(self, event: Event, now: float) -> list[Instruction]:
        self._witness.event(event)
        orders = super().handle(event, now)
        for order in orders:
            self._witness.instruction(order)
        self._witness.after()
        return orders


class WatchedDispatcher(Dispatcher):
    """The real dispatcher, with a witness beside its core. A crashed one does nothing any more."""

    def __init__(self, witness: Witness, routes: Routes, executor: Link, clock: Clock, *, first_session: int) -> None:
        super().__init__(routes, executor, clock, first_session=first_session)
        self._core = _WatchedCore(routes, clock.monotonic(), witness)
        self._witness = witness
        self._performers = {kind: self._watched(perform) for kind, perform in self._performers.items()}
        self.is_dead = False
        witness.restart(self)

    def handle(self, event: Event) -> None:
        """Take an event."""
        if not self.is_dead:
            super().handle(event)

    def _watched(self, perform: Callable[[Any], None]) -> Callable[[Any], None]:
        def watched(order: Instruction) -> None:
            if not self.is_dead:
                perform(order)
                self._witness.step("server")

        return watched
