"""The bulk path of PostgreSQL: Arrow batches over COPY, in threads; for Arrow, Parquet, and exports as NDJSON.

The loop only waits for threads and for the sink. While one piece is written the next is read, so that two are in memory, and
a caller that takes nothing stops the database.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lensway import limits
from lensway.bridges.contract import AddressPolicy, Execution, RowSink
from lensway.bridges.encoding.writer import Meter
from lensway.bridges.kit.failures import query_failed, row_too_large, unreachable
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.bulk.adbc import Home, Session, SessionError
from lensway.bridges.postgres.bulk.job import BulkJob, UnknownTypeError
from lensway.bridges.postgres.bulk.sql import NESTED_LIST_STATE, ROW_TOO_LARGE_STATE
from lensway.bridges.postgres.connecting import connect
from lensway.bridges.postgres.endpoints import Endpoint, endpoints_of
from lensway.bridges.postgres.pool import Pool
from lensway.bridges.postgres.pulse import Pulse, Wait
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.states import Said
from lensway.bridges.postgres.watch import lost_backends
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.plan import Plan
from lensway.query.result import ResultEnd

_CANCEL_AGAIN_SECONDS: Final = 0.05
"""A cancel that comes between two statements is lost; it is sent again, ever more rarely."""
_HOME_SECONDS: Final = 60.0
"""Types that were made in the database longer ago are known to a new session."""

_TYPES_MET_MAX: Final = 1_000
"""Unknown types of one database that are remembered."""
_BULK_NICENESS: Final = 5
"""As measured: the slowest of 100 small queries beside an export take a tenth less."""

Result = TypeVar("Result")


class _StaleTypesError(Exception):
    """The driver read the catalog before a type of the statement was made."""

    def __init__(self, mismatch: LenswayError) -> None:
        super().__init__()
        self.mismatch = mismatch


class _NotBegunError(SessionError):
    """Not even a transaction began: the session was dead, or there is no transaction to be had."""


class BulkConnection:
    """One session, the thread that it is used in, and what runs there.

    Always the same thread: allocators keep memory for each, and it would be held as often as there are threads.
    """

    def __init__(
        self, session: Session, thread: concurrent.futures.Executor, cancels: concurrent.futures.Executor, wait: Wait
    ) -> None:
        self.session = session
        self.wait = wait
        self.idle_since = 0.0
        self.is_lost = False
        self._thread = thread
        self._cancels = cancels
        self._running: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Do this in a thread; one at a time. Await it with `finished`: the thread always runs to its end."""
        self._running = future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        return future

    async def finished(self, future: asyncio.Future[Result], pulse: Pulse) -> Result:
        """What the thread gives. Raises what it raises, and SessionError when the server does not answer any more."""
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wait.cut = functools.partial(lost.set_result, None)
        either: set[asyncio.Future[Any]] = {future, lost}
        pulse.began(self.wait)
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pulse.over(self.wait)
        if not future.done():
            self.is_lost = True
            raise SessionError(None)
        self.wait.has_answered = True
        return future.result()

    def is_usable(self) -> bool:
        """False once it was cancelled, or lost."""
        return not (self.session.is_canceled or self.is_lost)

    async def discard(self, seconds: float = limits.CANCEL_SECONDS) -> None:
        """Close it; a statement that runs is cancelled first and waited for, at most so long."""
        loop = asyncio.get_running_loop()
        running = self._running
        give_up = loop.time() + seconds
        pause = _CANCEL_AGAIN_SECONDS
        cancelling: asyncio.Future[None] | None = None
        # A lost connection does not take a cancel; its thread ends when the connection does.
        while not self.is_lost and running is not None and not running.done() and loop.time() < give_up:
            if cancelling is None or cancelling.done():
                cancelling = loop.run_in_executor(self._cancels, self.session.cancel)
            await asyncio.wait({running}, timeout=pause)
            pause *= 2
        if running is not None and running.done() and not running.cancelled():
            running.exception()
        closing = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        if running is None or running.done():
            # It waits for a cancel that is still on its way, and this task must not wait for a network.
            await asyncio.wait({asyncio.wrap_future(closing)}, timeout=limits.CANCEL_SECONDS)

    def _close(self) -> None:
        if self.session.is_streaming and not self.is_lost:
            self.session.cancel()
        self.session.close()


class BulkSource:
    """Runs plans of one source through sessions of its own."""

    def __init__(self, settings: PostgresSettings, policy: AddressPolicy) -> None:
        self._settings = settings
        self._policy = policy
        size = settings.export_pool_size
        self._cancels = concurrent.futures.ThreadPoolExecutor(2 * size, thread_name_prefix="postgres-cancel")
        self._homes: dict[tuple[Endpoint, str], Home] = {}
        self._making = threading.Lock()
        self._first_met: dict[int, float] = {}
        self._pages = Pool(settings, policy, size=size, connect=self._connected)
        self._exports = Pool(settings, policy, size=size, connect=self._connected)
        self._pulse = Pulse(functools.partial(lost_backends, settings), self._found_silent)

    async def run(self, compiled: Compiled, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan and write its rows. Cancelling the task cancels the statement first.

        Raises:
            LenswayError: as `OpenSource.run`; bound it by the deadline.
        """
        pool = self._exports if execution.is_export else self._pages
        for is_last_try in (False, True):
            meter = Meter(execution.limits)
            began_at = time.monotonic()
            try:
                return await self._on_connection(pool, compiled, plan, execution, sink, meter, fresh=is_last_try)
            except _StaleTypesError as error:
                if is_last_try:
                    raise error.mismatch from None
            except SessionError as error:
                if is_last_try and error.is_broken and isinstance(error, _NotBegunError):
                    await self._tell_why()
                if is_last_try or meter.bytes or not _can_repeat(error, execution):
                    own_ms = error.own_timeout_ms
                    run = errors.Run(deadline=execution.deadline, began_at=began_at, own_timeout_ms=own_ms)
                    raise _failure(error, execution, run) from None
        raise AssertionError("the second try returns or raises")

    def answered(self) -> None:
        """The server has just answered another connection."""
        self._pulse.answered()

    async def close(self) -> None:
        """Close every connection."""
        self._pulse.close()
        await self._pages.close()
        await self._exports.close()
        self._cancels.shutdown(wait=False)
        while self._homes:
            self._homes.popitem()[1].leave()

    def _found_silent(self, _endpoint: Endpoint) -> None:
        self._pages.drop_idle()
        self._exports.drop_idle()

    async def _on_connection(
        self,
        pool: Pool[BulkConnection],
        compiled: Compiled,
        plan: Plan,
        execution: Execution,
        sink: RowSink,
        meter: Meter,
        *,
        fresh: bool,
    ) -> ResultEnd:
        connection = await pool.acquire(fresh=fresh)
        is_clean = False
        job = BulkJob(connection.session, compiled, plan, execution)
        try:
            end = await _streamed(connection, job, sink, meter, self._pulse)
            is_clean = True
            connection.wait.has_answered = False
            return end
        except UnknownTypeError as error:
            if not self._may_learn(error.oid, connection.session.types_known_at):
                raise error.mismatch from None
            raise _StaleTypesError(error.mismatch) from None
        except SessionError as error:
            error.own_timeout_ms = job.own_timeout_ms
            raise
        finally:
            if is_clean:
                pool.release(connection)
            else:
                await pool.discard(connection)

    async def _connected(
        self, settings: PostgresSettings, policy: AddressPolicy, *, is_again: bool = False
    ) -> BulkConnection:
        failure = unreachable("tcp", "unreachable")
        has_asked = False
        endpoints = await endpoints_of(settings, policy)
        for attributes, endpoint in itertools.product(settings.attributes_in_turn(), endpoints):
            if self._pulse.is_silent(endpoint):
                failure = unreachable("tcp", "timeout")
                continue
            has_asked = True
            thread = concurrent.futures.ThreadPoolExecutor(
                1, thread_name_prefix="postgres-bulk", initializer=_be_patient
            )
            opening = asyncio.get_running_loop().run_in_executor(thread, self._opened, endpoint, attributes)
            try:
                session = await asyncio.shield(opening)
                return BulkConnection(session, thread, self._cancels, Wait(endpoint, lambda: None))
            except SessionError:
                thread.shutdown(wait=False)
                failure = unreachable("login", "login")
            except asyncio.CancelledError:
                opening.add_done_callback(_close_late)
                thread.shutdown(wait=False)
                raise
        if has_asked:
            await self._tell_why()
            # The other driver could log in: what was in the way, such as a full login, may have passed.
            if not is_again:
                return await self._connected(settings, policy, is_again=True)
        raise failure

    async def _tell_why(self) -> None:
        """libpq tells why in words only. The other driver fails for the same reason, and tells it by class."""
        probe = await connect(self._settings, self._policy)
        await probe.discard()

    def _may_learn(self, oid: int, known_at: float) -> bool:
        """True when a driver that reads the catalog again may know this type: it was not read since the type was first met."""
        first_met_at = self._first_met.get(oid)
        if first_met_at is None:
            if len(self._first_met) >= _TYPES_MET_MAX:
                self._first_met.clear()
            self._first_met[oid] = time.monotonic()
            with self._making:
                while self._homes:
                    self._homes.popitem()[1].leave()
            return True
        return known_at < first_met_at

    def _opened(self, endpoint: Endpoint, attributes: str) -> Session:
        return Session(self._home(endpoint, attributes))

    def _home(self, endpoint: Endpoint, attributes: str) -> Home:
        """The home at this address, entered."""
        with self._making:
            home = self._homes.get((endpoint, attributes))
            if home is None or time.monotonic() - home.made_at > _HOME_SECONDS:
                made = Home(self._settings.at(endpoint, attributes), endpoint.address)
                self._homes[endpoint, attributes] = made
                if home is not None:
                    home.leave()
                home = made
            home.enter()
            return home


def _be_patient() -> None:
    """Let the system run this thread behind the event loop, which serves small queries too. Only Linux has threads with
    priorities of their own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(
                os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _BULK_NICENESS
            )


async def _streamed(connection: BulkConnection, job: BulkJob, sink: RowSink, meter: Meter, pulse: Pulse) -> ResultEnd:
    try:
        connection.wait.pid = await connection.finished(connection.begin(job.begin), pulse)
    except SessionError as error:
        raise _NotBegunError(error.sqlstate, error.said) from None
    await connection.finished(connection.begin(job.start), pulse)
    ahead = connection.begin(job.next)
    while (piece := await connection.finished(ahead, pulse)) is not None:
        ahead = connection.begin(job.next)
        meter.count(piece.rows, len(piece.data))
        if piece.data:
            await sink.write(piece.data)
    tail = await connection.finished(connection.begin(job.finish), pulse)
    if tail:
        meter.count(0, len(tail))
        await sink.write(tail)
    return ResultEnd(
        rows=meter.rows,
        bytes=meter.bytes,
        has_more=job.has_more,
        last_key=job.last_key,
        total=job.total,
        row_id=job.row_id,
    )


def _close_late(opening: asyncio.Future[Session]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _can_repeat(error: SessionError, execution: Execution) -> bool:
    """True when the statement may be tried a second time. One that was never begun may always be tried."""
    if isinstance(error, _NotBegunError):
        return error.is_broken
    return execution.may_repeat and (error.is_broken or errors.is_repeatable_state(error.sqlstate or ""))


def _failure(error: SessionError, execution: Execution, run: errors.Run) -> LenswayError:
    match error.sqlstate:
        case None:
            return unreachable("tcp", "reset")
        case state if state == ROW_TOO_LARGE_STATE:
            return row_too_large(execution.limits.row_bytes_max)
        case state if state == NESTED_LIST_STATE:
            return query_failed(
                "not_representable",
                f"A field holds a list of lists, which {execution.format.value} cannot hold",
                hint="Request application/x-ndjson or text/csv, which hold every value.",
            )
        case state:
            return errors.of_said(error.said or Said(sqlstate=state), run)
