"""Attempts that the service executes itself."""

from __future__ import annotations

import asyncio

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import ExecutionLibrary
from lensway.dispatch.core.events import INLINE, AttemptFailed, Event, JobRequest, Release, SendCancel, SendOffer
from lensway.errors import ErrorCode
from lensway.ids import EnvironmentId, JobId, RequestId, SourceId
from lensway.inline.executor import InlineExecutor
from lensway.testing.memory_store import MemoryStore

REQUEST = JobRequest(
    request=RequestId("req"),
    environment=EnvironmentId("env"),
    source=SourceId("src"),
    kind="rows",
    payload=b"",
    format="json",
    deadline=10**9,
    release=Release.AT_END,
    rows_max=1,
    bytes_max=1,
    row_bytes_max=1,
)


def test_an_attempt_that_is_cancelled_before_its_first_step_is_answered_once() -> None:
    said: list[Event] = []

    async def story() -> None:
        executor = InlineExecutor(MemoryStore(), ExecutionLibrary(AddressPolicy()))
        executor.connect(said.append)
        for job in (JobId(1), JobId(2)):
            executor.offer(SendOffer(INLINE, job, 1, REQUEST, 0, 30.0, 1000))
        executor.cancel(SendCancel(INLINE, JobId(1), 1, "caller_gone"))
        await executor.close()

    asyncio.run(story())
    assert [(type(each), each.job) for each in said] == [(AttemptFailed, 1), (AttemptFailed, 2)]
    assert all(each.failure.code is ErrorCode.CANCELLED for each in said if isinstance(each, AttemptFailed))
