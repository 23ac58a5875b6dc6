"""The one shell around the core: gives it events and the time, performs its instructions, and lets callers wait for outcomes.

Everything happens on one event loop. Events that arrive while instructions are performed (an executor that answers at once)
wait for their turn, so the core never sees one event inside another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, get_args

import msgspec

from lensway.clock import Clock
from lensway.dispatch.core.core import Core
from lensway.dispatch.core.events import (
    INLINE,
    Abandon,
    CallerGone,
    CancelWanted,
    CatalogChanged,
    CloseSession,
    Complete,
    Consumed,
    Deliver,
    Event,
    Fail,
    Instruction,
    JobRequest,
    OwnersEnded,
    PushSet,
    SendCancel,
    SendCredit,
    SendOffer,
    SessionOpened,
    StatusChanged,
    Stopping,
    Submitted,
    Tick,
)
from lensway.dispatch.core.ports import Link, Routes, RunnerLink
from lensway.dispatch.core.records import JobRecord
from lensway.dispatch.core.routing import Consideration
from lensway.dispatch.right_of_way import RightOfWay
from lensway.errors import Failure, LenswayError
from lensway.fleet import Fleet, SessionFacts
from lensway.ids import EnvironmentId, JobId, RequestId, SessionId, SourceId


class PageResult(msgspec.Struct, frozen=True, gc=False):
    """A complete result: its rows in order, and the encoded end mark."""

    chunks: tuple[bytes, ...]
    result: bytes
    record: JobRecord


class JobHandle:
    """One job as its caller sees it. Use `page` or `stream`, once; or `held_page`, and `stream` when that gives none."""

    __slots__ = (
        "_changed",
        "_chunks",
        "_dispatcher",
        "_end",
        "_held_bytes",
        "_is_counted",
        "_is_released",
        "_on_settled",
        "explain",
        "id",
        "record",
        "result",
    )

    def __init__(self, dispatcher: Dispatcher, job: JobId) -> None:
        self.id = job
        self.record: JobRecord | None = None
        self.result: bytes = b""
        self.explain: Callable[[Failure], Failure] | None = None
        """Says more of a failure than dispatch can know."""
        self._dispatcher = dispatcher
        self._chunks: deque[bytes] = deque()
        self._end: Complete | Fail | None = None
        self._changed: asyncio.Future[None] | None = None
        self._held_bytes = 0
        self._is_counted = True
        self._is_released = False
        self._on_settled: tuple[Callable[[bool], object], ...] = ()

    async def page(self) -> PageResult:
        """The whole result of a job that may not overflow. Cancelling this cancels the job.

        Raises:
            LenswayError: the job's one bad outcome.
        """
        page = await self.held_page()
        assert page is not None, "only a job that may overflow is more than a page"
        self.taken()
        return page

    async def held_page(self) -> PageResult | None:
        """The whole result, which counts against what the node may hold until `taken` is called; None when it is more than
        may be held: it comes as a `stream`. Cancelling this cancels the job.

        Raises:
            LenswayError: the job's one bad outcome.
        """
        await self.released()
        if self._is_released:
            return None
        chunks = tuple(self._chunks)
        self._chunks.clear()
        end = self._finish()
        if self._is_counted:
            self._held_bytes = sum(map(len, chunks))
        return PageResult(chunks, end.result, end.record)

    def taken(self) -> None:
        """The caller has the page that was held for it."""
        size, self._held_bytes = self._held_bytes, 0
        self._consumed(size)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The rows as they are released; each chunk counts as taken when the next one is asked for.

        Raises:
            LenswayError: the job's one bad outcome; what was yielded before it is then not complete.
        """
        is_over = False
        passage = self._dispatcher.way.passage(self.id)
        try:
            while True:
                while self._chunks:
                    if passage.must_wait(len(self._chunks[0])):
                        await passage.wait()
                        if not self._chunks:  # the caller is gone
                            continue
                    chunk = self._chunks.popleft()
                    yield chunk
                    self._consumed(len(chunk))
                if self._end is not None:
                    is_over = True
                    self.result = self._finish().result
                    return
                await self._change()
        finally:
            # A caller that stops early, by cancellation or by closing the iterator, wants no more of it; not even of
            # the chunk that it has in hand and never came back for.
            if not is_over:
                self.cancel()

    async def released(self) -> None:
        """Return when the first rows were released, or the job is over. Raises LenswayError when it failed before."""
        try:
            while self._end is None and not self._chunks:
                await self._change()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if isinstance(self._end, Fail) and not self._chunks:
            self._finish()

    def on_settled(self, callback: Callable[[bool], object]) -> None:
        """Call this with whether the job was completed, when it has its outcome, or now if it has."""
        if self._end is None:
            self._on_settled = (*self._on_settled, callback)
        else:
            callback(isinstance(self._end, Complete))

    def cancel(self) -> None:
        """The caller stopped waiting for the job. Does nothing when it is over."""
        self._chunks.clear()
        self._dispatcher.handle(CallerGone(self.id))

    def deliver(self, chunks: tuple[bytes, ...], record: JobRecord) -> None:
        """Rows were released (for the dispatcher)."""
        self.record = record
        self._is_released = True
        self._chunks.extend(chunks)
        self._wake()

    def settle(self, end: Complete | Fail) -> None:
        """The one outcome (for the dispatcher)."""
        assert self._end is None, "a job has one outcome"
        self._end = end
        self.record = end.record
        if isinstance(end, Complete):
            self._chunks.extend(end.chunks)
            self._is_counted = not end.is_taken
        for callback in self._on_settled:
            callback(isinstance(end, Complete))
        self._wake()

    def _finish(self) -> Complete:
        end = self._end
        assert end is not None
        if isinstance(end, Fail):
            raise LenswayError.of(end.failure if self.explain is None else self.explain(end.failure))
        return end

    def _consumed(self, size: int) -> None:
        if size and self._is_counted:
            self._dispatcher.handle(Consumed(self.id, size))

    def _change(self) -> asyncio.Future[None]:
        changed = self._changed = self._dispatcher.loop.create_future()
        return changed

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


class _NoLink:
    """Stands for a session whose link is gone."""

    def offer(self, order: SendOffer) -> None: ...
    def cancel(self, order: SendCancel) -> None: ...
    def credit(self, order: SendCredit) -> None: ...
    def push_set(self) -> None: ...
    def close(self, cause: str) -> None: ...


_NO_LINK: Final = _NoLink()


class Dispatcher:
    """Dispatch as the rest of the program sees it. All methods are called on its event loop."""

    def __init__(
        self,
        routes: Routes,
        executor: Link,
        clock: Clock,
        *,
        on_status: Callable[[StatusChanged], None] = lambda _status: None,
        on_record: Callable[[JobRecord, bytes], None] = lambda _record, _result: None,
        first_session: int = 1,
    ) -> None:
        self._core = Core(routes, clock.monotonic())
        self._clock = clock
        self._on_status = on_status
        self._on_record = on_record
        self._next_job = 0
        self._next_session = first_session - 1
        self._handles: dict[JobId, JobHandle] = {}
        self._links: dict[SessionId, RunnerLink] = {}
        self._places: dict[SessionId, Link] = {INLINE: executor}
        """Every place that takes offers: the service itself, and the links."""
        self._events: deque[Event] = deque()
        self._is_performing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.way = RightOfWay(lambda: self.loop)
        self._performers: Mapping[type[Instruction], Callable[[Any], None]] = {
            SendOffer: self._offer,
            SendCredit: self._credit,
            SendCancel: self._cancel,
            PushSet: self._push_set,
            Complete: self._settle,
            Fail: self._settle,
            Deliver: self._deliver,
            Abandon: self._abandon,
            CloseSession: self._close_session,
            StatusChanged: self._status_changed,
        }
        assert set(self._performers) == set(get_args(Instruction)), "every instruction is performed"

    @property
    def fleet(self) -> Fleet:
        """The sessions of this node, to read."""
        return self._core.fleet

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of this dispatcher. Kept, since asking for the running one is a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def core(self) -> Core:
        """The core, to read."""
        return self._core

    @property
    def jobs_in_flight(self) -> int:
        """Jobs without an outcome."""
        return len(self._handles)

    @property
    def jobs_queued(self) -> int:
        """Jobs that wait for a place on a runner, or for a runner to return."""
        return self._core.queued

    # --- callers ----------------------------------------------------------------------------------------------------------

    def consider(
        self, environment: EnvironmentId, source: SourceId, *, needs: frozenset[str] = frozenset()
    ) -> Consideration:
        """Where a new job on this source would go now. Changes nothing."""
        return self._core.consider(environment, source, self._clock.monotonic(), needs=needs)

    def submit(self, request: JobRequest) -> JobHandle:
        """Take a job; never waits and never raises: every failure is the job's outcome."""
        self._next_job += 1
        job = JobId(self._next_job)
        handle = self._handles[job] = JobHandle(self, job)
        self._idle.clear()
        self.way.begin(job)
        self.handle(Submitted(job, request))
        return handle

    def cancel(self, request: RequestId) -> None:
        """End the job of this request, whose caller gets `cancelled`. Does nothing when it is over."""
        job = self._core.job_of(request)
        if job is not None:
            self.handle(CancelWanted(job))

    def end_owners(self, owners: frozenset[str]) -> None:
        """End the jobs of these keys and environments, whose callers get `unauthenticated`."""
        self.handle(OwnersEnded(owners))

    def running(self) -> Mapping[RequestId, JobRecord]:
        """What has become so far of all requests that are under way."""
        return self._core.running()

    # --- links ------------------------------------------------------------------------------------------------------------

    def next_session_id(self) -> SessionId:
        """A number greater than all before: a session's id is its epoch."""
        self._next_session += 1
        return SessionId(self._next_session)

    def open_session(self, facts: SessionFacts, link: RunnerLink) -> None:
        """A runner is connected; orders for it go to this link from now on."""
        self._links[facts.session] = self._places[facts.session] = link
        self.handle(SessionOpened(facts))

    def catalog_changed(self) -> None:
        """There is a newer snapshot."""
        self.handle(CatalogChanged())

    # --- the loop ---------------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Give the core an event and do what it says."""
        self._events.append(event)
        if self._is_performing:
            return
        self._is_performing = True
        try:
            while self._events:
                for instruction in self._core.handle(self._events.popleft(), self._clock.monotonic()):
                    self._performers[type(instruction)](instruction)
        finally:
            self._is_performing = False
        self._set_timer()

    async def stop(self, seconds: float) -> None:
        """Take nothing new; return when every job has its outcome, or after this time."""
        self.handle(Stopping())
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            for job in list(self._handles):
                self.handle(CallerGone(job))

    def close(self) -> None:
        """No timer outlives the dispatcher."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deliver(self, rows: Deliver) -> None:
        if (handle := self._handles.get(rows.job)) is not None:
            handle.deliver(rows.chunks, rows.record)

    def _abandon(self, _order: Abandon) -> None:
        """The handle has its outcome, and what it still holds goes with its caller."""

    def _close_session(self, order: CloseSession) -> None:
        self._places.pop(order.session, None)
        self._links.pop(order.session, _NO_LINK).close(order.cause)

    def _status_changed(self, status: StatusChanged) -> None:
        if status.state == "lost":
            self._places.pop(status.session, None)
            self._links.pop(status.session, None)
        self._on_status(status)

    def _offer(self, order: SendOffer) -> None:
        self._places.get(order.session, _NO_LINK).offer(order)

    def _cancel(self, order: SendCancel) -> None:
        self._places.get(order.session, _NO_LINK).cancel(order)

    def _credit(self, order: SendCredit) -> None:
        self._places.get(order.session, _NO_LINK).credit(order)

    def _push_set(self, order: PushSet) -> None:
        self._links.get(order.session, _NO_LINK).push_set()

    def _settle(self, end: Complete | Fail) -> None:
        handle = self._handles.pop(end.job)
        self.way.end(end.job)
        handle.settle(end)
        if not self._handles:
            self._idle.set()
        self._on_record(end.record, end.result if isinstance(end, Complete) else b"")

    def _set_timer(self) -> None:
        due = self._core.next_wake()
        if due is None:
            return
        if self._timer is not None:
            # One that comes too early only ticks in vain; moving it for every job would cost more.
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        pause = max(0.0, due - self._clock.monotonic())
        self._timer = self.loop.call_later(pause, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.handle(Tick())
