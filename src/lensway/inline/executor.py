"""Inline execution: the same library that runners use, for sources without assignments. Answers dispatch by events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import structlog

from lensway import limits
from lensway.bridges.contract import Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.catalog.ports import CatalogStore
from lensway.catalog.records import Change, Source
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.events import (
    INLINE,
    AttemptFailed,
    Ended,
    Event,
    Rows,
    SendCancel,
    SendCredit,
    SendOffer,
)
from lensway.errors import ErrorCode, Failure, LenswayError
from lensway.ids import EnvironmentId, JobId, SourceId
from lensway.observe.trace import StatementWatch, Tracer, read_text
from lensway.query.result import ResultLimits, RowFormat, encode_end

_log = structlog.get_logger("lensway.inline")

_SourceKey: TypeAlias = tuple[EnvironmentId, SourceId, int]


class _Attempt:
    """One attempt and its credit: its bridge waits while there is none."""

    __slots__ = (
        "_credit",
        "_emit",
        "_more",
        "_tail",
        "_tail_bytes",
        "has_begun",
        "order",
        "sent_bytes",
        "task",
        "watch",
    )

    def __init__(self, order: SendOffer, emit: Callable[[Event], None]) -> None:
        self.order = order
        self.sent_bytes = 0
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        self.watch = StatementWatch() if order.request.trace else None
        self._emit = emit
        self._credit = order.credit
        self._more: asyncio.Future[None] | None = None
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def grant(self, count: int) -> None:
        """The caller took so many bytes more."""
        self._credit += count
        more, self._more = self._more, None
        if more is not None and not more.done():
            more.set_result(None)

    async def write(self, chunk: bytes) -> None:
        """Take rows. Small results leave with their end, in one event."""
        if self._tail_bytes + len(chunk) <= limits.DATA_FRAME_BYTES_MAX and not self.order.request.is_export:
            self._tail.append(chunk)
            self._tail_bytes += len(chunk)
            return
        await self._send(b"".join((*self._tail, chunk)))
        self._tail, self._tail_bytes = [], 0

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            size = min(len(view), self._credit, limits.DATA_FRAME_BYTES_MAX)
            if size <= 0:
                self._more = asyncio.get_running_loop().create_future()
                await self._more
                continue
            self._credit -= size
            self.sent_bytes += size
            self._emit(Rows(INLINE, self.order.job, self.order.attempt, bytes(view[:size])))
            view = view[size:]

    async def take_tail(self) -> bytes:
        """What leaves with the end."""
        tail = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
        if len(tail) > self._credit:
            await self._send(tail)
            return b""
        self.sent_bytes += len(tail)
        return tail


class InlineExecutor:
    """Implements `lensway.dispatch.core.ports.Link`."""

    def __init__(self, store: CatalogStore, library: ExecutionLibrary, *, tracer: Tracer | None = None) -> None:
        self._tracer = tracer
        self._store = store
        self._library = library
        self._attempts: dict[tuple[JobId, int], _Attempt] = {}
        self._emit: Callable[[Event], None] = lambda _event: None
        self._closing: set[asyncio.Task[None]] = set()
        self._configs: dict[_SourceKey, Mapping[str, object]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        store.subscribe(self._on_change)

    def connect(self, emit: Callable[[Event], None]) -> None:
        """Where answers go: the dispatcher, which is made after its executor."""
        self._emit = emit

    def offer(self, order: SendOffer) -> None:
        """Begin the attempt."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        attempt = self._attempts[order.job, order.attempt] = _Attempt(order, self._emit)
        # Not by asyncio's own function: it asks the system for the running loop, and makes a name.
        attempt.task = self._loop.create_task(self._execute(attempt))

    def cancel(self, order: SendCancel) -> None:
        """Stop the attempt and its statement."""
        attempt = self._attempts.get((order.job, order.attempt))
        if attempt is not None:
            self._stop(attempt)

    def credit(self, order: SendCredit) -> None:
        """The attempt may write so many bytes more."""
        attempt = self._attempts.get((order.job, order.attempt))
        if attempt is not None:
            attempt.grant(order.bytes)

    def condition(self, source: Source) -> str:
        """What holds this source back here although it answers; empty for nothing."""
        return self._library.condition(_key(source))

    async def close(self) -> None:
        """Cancel what runs, and close every connection."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            self._stop(attempt)
        tasks = [attempt.task for attempt in attempts if attempt.task is not None]
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)
        await self._library.close()

    def _stop(self, attempt: _Attempt) -> None:
        if attempt.task is not None:
            attempt.task.cancel()
        if not attempt.has_begun:
            # A task that is cancelled before its first step never runs its own code, so its end is reported here.
            order = attempt.order
            failure = Failure(code=ErrorCode.CANCELLED, message="The attempt was cancelled")
            self._answer(attempt, AttemptFailed(INLINE, order.job, order.attempt, failure))

    async def _execute(self, attempt: _Attempt) -> None:
        attempt.has_begun = True
        order = attempt.order
        ids = (INLINE, order.job, order.attempt)
        event: Event
        try:
            event = await self._run(attempt)
        except asyncio.CancelledError:
            event = AttemptFailed(*ids, Failure(code=ErrorCode.CANCELLED, message="The attempt was cancelled"))
        except LenswayError as error:
            event = AttemptFailed(*ids, error.failure)
        except Exception as error:  # noqa: BLE001 - the boundary of one attempt: its defect must not take the others down
            _log.exception("attempt failed by a defect", job=order.job, error=type(error).__name__)
            event = AttemptFailed(
                *ids, Failure(code=ErrorCode.INTERNAL, message="The service failed while executing this request")
            )
        self._answer(attempt, event)

    def _answer(self, attempt: _Attempt, event: Event) -> None:
        if self._attempts.pop((attempt.order.job, attempt.order.attempt), None) is not None:
            if attempt.watch is not None:
                self._trace(attempt.order, attempt.watch)
            self._emit(event)

    def _trace(self, order: SendOffer, watch: StatementWatch) -> None:
        job = read_text(order.request.trace)
        span = None if job is None else watch.span(job.of_attempt(order.attempt))
        if self._tracer is not None and span is not None:
            self._tracer.export(span)

    async def _run(self, attempt: _Attempt) -> Event:
        order, request = attempt.order, attempt.order.request
        source = self._store.current().source(request.environment, request.source)
        if source is None:
            raise _without_settings()
        key = _key(source)
        config = self._configs.get(key)
        if config is None:
            config = self._configs[key] = self._config(request.environment, request.source)
        execution = Execution(
            deadline=request.deadline,
            format=RowFormat.named(request.format),
            limits=ResultLimits(
                rows_max=request.rows_max, bytes_max=request.bytes_max, row_bytes_max=request.row_bytes_max
            ),
            tag=f"{request.request}/{order.attempt}",
            is_export=request.is_export,
            watch=attempt.watch,
            may_repeat=request.may_retry,
        )
        end = await self._library.perform(
            key,
            source.bridge,
            config,
            kind=request.kind,
            payload=request.payload,
            execution=execution,
            sink=attempt,
        )
        tail = await attempt.take_tail()
        return Ended(INLINE, order.job, order.attempt, encode_end(end), attempt.sent_bytes, tail)

    def _config(self, environment: EnvironmentId, source: SourceId) -> Mapping[str, object]:
        config = self._store.source_config(environment, source)
        if config is None:
            raise _without_settings()
        settings: Mapping[str, object] = msgspec.json.decode(config)
        return settings

    def _on_change(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        """Close the connections of settings that are not the present ones any more."""
        for change in changes:
            if isinstance(change.record, Source):
                self._forget_others(snapshot, change.record.environment, change.record.id)

    def _forget_others(self, snapshot: Snapshot, environment: EnvironmentId, source: SourceId) -> None:
        present = snapshot.source(environment, source)
        kept = None if present is None else _key(present)
        for old in [each for each in self._configs if each[:2] == (environment, source) and each != kept]:
            del self._configs[old]
        for key in self._library.open_keys():
            if isinstance(key, tuple) and key[:2] == (environment, source) and key != kept:
                task = asyncio.create_task(self._library.forget(key), name="close source")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


def _without_settings() -> LenswayError:
    return LenswayError(
        ErrorCode.SOURCE_UNREACHABLE,
        "The source has no settings",
        hint="Give it a config: `lensway push`, or PATCH the source.",
        details={"stage": "login", "class": "no_credentials"},
    )


def _key(source: Source) -> _SourceKey:
    return source.environment, source.id, source.config_version
