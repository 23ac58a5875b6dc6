"""Connections of a blocking driver, each used in a thread of a pool. Work that is cancelled or late is interrupted first.

The driver gives three things: how to open a connection, how to interrupt the statement that runs on one, and how to close it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from lensway import limits
from lensway.bridges.kit.failures import timed_out
from lensway.errors import LenswayError

_LOCKED_PAUSE_SECONDS: Final = 0.02
_INTERRUPT_AGAIN_SECONDS: Final = 0.01
_INTERRUPT_STRANDED_SECONDS: Final = 0.25


class Blocking(Protocol):
    """A connection of a blocking driver."""

    def interrupt(self) -> None:
        """End the statement that runs, from another thread."""

    def close(self) -> None:
        """Close the connection."""


Connection = TypeVar("Connection", bound=Blocking)
Result = TypeVar("Result")
Work = Callable[[Callable[[Connection], Result]], Awaitable[Result]]


class Driver(Generic[Connection]):
    """What `Threads` needs to know of a driver. Its errors are `errors`; `is_locked` says which of them may pass by waiting."""

    errors: type[Exception]

    def open(self) -> Connection:
        """A new connection; blocks. Raises one of `errors`, LenswayError."""
        raise NotImplementedError

    def lend(self, connection: Connection, deadline: float) -> None:
        """Prepare a connection for work until this deadline."""

    def is_locked(self, error: Exception) -> bool:
        """True for an error that ends when another process finishes."""
        raise NotImplementedError

    def failure(self, error: Exception, connection: Connection | None) -> LenswayError:
        """The failure that callers see; no connection for an error of `open`."""
        raise NotImplementedError

    def released(self) -> None:
        """Called when the last connection is closed."""


class Threads(Generic[Connection]):
    """The connections of one source and the threads that they are used in. For one event loop.

    ``keep_seconds`` is how long connections stay open when no work uses any of them; None keeps them until `close`.
    """

    def __init__(self, driver: Driver[Connection], name: str, *, keep_seconds: float | None = None) -> None:
        self._driver = driver
        self._keep_seconds = keep_seconds
        self._threads = concurrent.futures.ThreadPoolExecutor(
            limits.CONNECTIONS_PER_SOURCE_MAX, thread_name_prefix=name
        )
        self._idle: list[Connection] = []
        self._lent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def connection(self, deadline: float) -> AsyncIterator[_Lent[Connection]]:
        """A connection to do work on, until the deadline. Raises LenswayError as `Driver.failure`, and QUERY_TIMEOUT."""
        self._lent += 1
        lent: _Lent[Connection] | None = None
        is_clean = False
        try:
            lent = _Lent(self, self._idle.pop() if self._idle else await self._opened(deadline), deadline)
            self._driver.lend(lent.connection, deadline)
            yield lent
            is_clean = True
        finally:
            if lent is None:
                self._lent -= 1
            elif lent.is_busy:
                self._strand(lent)
            else:
                self._lent -= 1
                self._take_back(lent.connection, is_clean=is_clean)
            if not self._lent:
                self._rest(is_at_once=not is_clean)

    @property
    def count(self) -> int:
        """Connections that are open, idle ones included."""
        return self._lent + len(self._idle)

    def rest(self) -> None:
        """Close connections now that would be kept for a while, if no work uses any."""
        if self._keep_seconds is not None and not self._lent:
            self._close_idle()

    def close(self) -> None:
        """Close every connection that is not in use; those in use close when their work ends."""
        self._is_closed = True
        self._close_idle()

    def submit(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Do this in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def patiently(self, deadline: float, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Wait for a lock here and not in the library, whose wait nothing can interrupt."""
        give_up = time.monotonic() + limits.CONNECT_TIMEOUT_SECONDS
        while True:
            try:
                return await attempt()
            except self._driver.errors as error:
                if not self._driver.is_locked(error) or time.monotonic() >= give_up:
                    raise
            await within(deadline, asyncio.sleep(_LOCKED_PAUSE_SECONDS))

    def failure(self, error: Exception, connection: Connection | None = None) -> LenswayError:
        """The failure that callers see."""
        return self._driver.failure(error, connection)

    @property
    def errors(self) -> type[Exception]:
        """The driver's errors."""
        return self._driver.errors

    async def _opened(self, deadline: float) -> Connection:
        try:
            return await self.patiently(deadline, self._open)
        except self._driver.errors as error:
            raise self.failure(error) from None

    async def _open(self) -> Connection:
        opening = self.submit(self._driver.open)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Nothing interrupts it, and it takes some milliseconds: what is cancelled leaves nothing behind.
            await asyncio.wait({opening}, timeout=limits.CANCEL_SECONDS)
            opening.add_done_callback(self._close_late)
            await asyncio.sleep(0)
            raise

    def _close_late(self, opening: asyncio.Future[Connection]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        if not (self._lent or self._idle):
            self._driver.released()

    def _take_back(self, connection: Connection, *, is_clean: bool) -> None:
        # A statement may be left on one whose work did not end by itself.
        if self._is_closed or not (is_clean or self._keep_seconds is None):
            connection.close()
        else:
            self._idle.append(connection)

    def _strand(self, lent: _Lent[Connection]) -> None:
        """Keep a connection away from other work until its thread is done with it; then close it. Whatever touches it earlier
        waits for the thread, and the loop with it."""
        if lent.is_busy:
            lent.connection.interrupt()
            asyncio.get_running_loop().call_later(_INTERRUPT_STRANDED_SECONDS, self._strand, lent)
            return
        self._lent -= 1
        lent.connection.close()
        if not self._lent:
            self._rest(is_at_once=True)

    def _rest(self, *, is_at_once: bool) -> None:
        """No work uses a connection."""
        if self._is_closed or (self._keep_seconds is not None and is_at_once):
            self._close_idle()
        elif self._keep_seconds is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._keep_seconds, self._close_idle)

    def _close_idle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lent and not self._is_closed:
            return
        while self._idle:
            self._idle.pop().close()
        if not self._lent:
            self._driver.released()
            if self._is_closed:
                self._threads.shutdown(wait=False)


class _Lent(Generic[Connection]):
    """A connection while work uses it."""

    def __init__(self, threads: Threads[Connection], connection: Connection, deadline: float) -> None:
        self.connection = connection
        self._threads = threads
        self._deadline = deadline
        self._running: asyncio.Future[Any] | None = None
        self._is_over = False

    @property
    def is_busy(self) -> bool:
        """True while a thread uses the connection: also after the work was given up, in a function that nothing interrupts."""
        return self._running is not None and not self._running.done()

    async def __call__(self, do: Callable[[Connection], Result]) -> Result:
        """What this gives, done in a thread. Raises LenswayError."""
        try:
            return await self._threads.patiently(self._deadline, lambda: self._once(do))
        except self._threads.errors as error:
            raise self._threads.failure(error, self.connection) from None

    async def _once(self, do: Callable[[Connection], Result]) -> Result:
        future = self._running = self._threads.submit(lambda: self._unless_over(do))
        future.add_done_callback(_retrieved)
        try:
            return await within(self._deadline, asyncio.shield(future))
        finally:
            # Interrupt again and again: one that comes before the statement has begun is lost. Some functions of the library
            # notice none; the connection then stays with its thread.
            self._is_over = not future.done()
            give_up = time.monotonic() + limits.CANCEL_SECONDS
            while not future.done() and time.monotonic() < give_up:
                self.connection.interrupt()
                await asyncio.wait({future}, timeout=_INTERRUPT_AGAIN_SECONDS)

    def _unless_over(self, do: Callable[[Connection], Result]) -> Result:
        """Do it, unless it was given up while it waited for a thread."""
        if self._is_over:
            raise timed_out()
        return do(self.connection)


def _retrieved(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


async def within(deadline: float, awaited: Awaitable[Result]) -> Result:
    """Await this until the deadline. Raises LenswayError QUERY_TIMEOUT."""
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await awaited
    except TimeoutError:
        raise timed_out() from None
