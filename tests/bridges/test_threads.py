"""Connections that are used in threads: none is lent or closed while a thread still uses it, however its work was cancelled."""

from __future__ import annotations

import asyncio
import threading
import time

from lensway.bridges.kit.threads import Driver, Threads
from lensway.errors import ErrorCode, LenswayError


class Recorded:
    """A connection that notices when it is touched while a thread uses it."""

    def __init__(self, faults: list[str]) -> None:
        self._faults = faults
        self._is_used = False
        self.closed = threading.Event()

    def use(self, started: threading.Event, go_on: threading.Event) -> None:
        self._is_used = True
        started.set()
        assert go_on.wait(10)
        self._is_used = False

    def touched(self, how: str) -> None:
        if self._is_used:
            self._faults.append(how)

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.touched("closed")
        self.closed.set()


class RecordingDriver(Driver[Recorded]):
    errors = RuntimeError

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.opened: list[Recorded] = []

    def open(self) -> Recorded:
        self.opened.append(Recorded(self.faults))
        return self.opened[-1]

    def lend(self, connection: Recorded, deadline: float) -> None:
        connection.touched("lent")

    def is_locked(self, error: Exception) -> bool:
        return False

    def failure(self, error: Exception, connection: Recorded | None) -> LenswayError:
        return LenswayError(ErrorCode.INTERNAL, str(error))


def test_a_connection_is_left_alone_until_its_thread_ends_even_if_its_work_is_cancelled_twice() -> None:
    async def story(keep_seconds: float | None) -> None:
        driver = RecordingDriver()
        threads: Threads[Recorded] = Threads(driver, "test", keep_seconds=keep_seconds)
        started, go_on = threading.Event(), threading.Event()

        async def work() -> None:
            async with threads.connection(time.monotonic() + 60) as lent:
                await lent(lambda connection: connection.use(started, go_on))

        task = asyncio.create_task(work())
        await asyncio.to_thread(started.wait, 10)
        for _ in range(2):
            task.cancel()
            await asyncio.wait({task}, timeout=0.05)
        assert task.cancelled()
        async with threads.connection(time.monotonic() + 60) as lent:
            assert lent.connection is not driver.opened[0]
        assert not driver.opened[0].closed.is_set()
        go_on.set()
        assert await asyncio.to_thread(driver.opened[0].closed.wait, 10)
        threads.close()
        assert driver.faults == []

    for keep_seconds in (None, 60.0):
        asyncio.run(story(keep_seconds))
