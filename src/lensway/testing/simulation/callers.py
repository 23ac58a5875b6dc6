"""The callers of one simulated deployment: they ask, wait, read slowly, go away, and look at what they get."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

from lensway import limits
from lensway.dispatch.core.events import JobRequest, Release
from lensway.dispatch.core.records import Cause, EndKind, JobRecord
from lensway.dispatch.shell import JobHandle
from lensway.errors import LenswayError
from lensway.ids import RequestId, RunnerId
from lensway.query.result import decode_end
from lensway.testing.simulation.database import Ask, decode_ask, encode_ask
from lensway.testing.simulation.deployment import Deployment

_SHAPES: Final = ((1, 40), (1, 40), (3, 2_000), (3, 2_000), (6, 30_000), (12, 60_000))
"""Parts and bytes of a part: within one frame, within the hold-back, and beyond the window."""
_PAGE_BYTES_MAX: Final = 100_000
"""Of every other page, so that some are more than may be held: most of these go on as streams, some are refused."""
_CALM: Final = Ask(job=0, parts=1, size=40, milliseconds=1)


class Callers:
    """Every caller of one deployment."""

    def __init__(self, deployment: Deployment, rng: random.Random) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._deployment = deployment
        self._witness = deployment.witness
        self._random = rng
        self._jobs = 0

    def come(self) -> None:
        """One more caller, of some kind."""
        rng = self._random
        parts, size = rng.choice(_SHAPES)
        ask = Ask(
            job=0,
            parts=parts,
            size=size,
            milliseconds=rng.choice((1, 5, 40, 300, 900)),
            is_wrong=rng.random() < 0.05,
        )
        is_stream = rng.random() < 0.4
        seconds = rng.choice((0.3, 2.0, 5.0, 10.0))
        if rng.random() < 0.01:
            # One that outlasts the time until a silent runner is given up.
            ask, seconds = Ask(job=0, parts=12, size=40, milliseconds=1_500), 30.0
        patience = seconds * rng.random() if rng.random() < 0.15 else None
        pause = rng.choice((0.0, 0.0, 0.2)) if is_stream else 0.0
        self._start(ask, seconds, is_stream=is_stream, patience=patience, pause=pause, may_retry=rng.random() < 0.85)

    def come_in_crowds(self, count: int, seconds: float, *, milliseconds: int) -> None:
        """Many short queries at once."""
        for _ in range(count):
            ask = Ask(job=0, parts=1, size=40, milliseconds=milliseconds)
            self._start(ask, seconds, is_stream=False, patience=None, pause=0.0, may_retry=True)

    async def must_be_served(self, source: int = 0) -> None:
        """Liveness: a deployment without faults serves. A crash of the server's process is excluded."""
        request = self._request(_CALM, 10.0, source=source, is_stream=False, may_retry=True)
        handle = self._deployment.server.dispatcher.submit(request)
        try:
            await handle.page()
        except LenswayError as error:
            self._witness.check(False, f"liveness: a healed deployment serves, not {error.code.value} ({error})")
        self._explain(handle.record)

    def _start(
        self, ask: Ask, seconds: float, *, is_stream: bool, patience: float | None, pause: float, may_retry: bool
    ) -> None:
        server = self._deployment.server
        if server.dispatcher.is_dead or server.process.paused_at is not None:
            self._witness.note("no listener")
            return
        request = self._request(
            ask, seconds, source=int(self._random.random() < 0.3), is_stream=is_stream, may_retry=may_retry
        )
        work = self._call(request, patience, pause)
        self.tasks.append(server.start(work, f"caller {request.request}"))

    def _request(self, ask: Ask, seconds: float, *, source: int, is_stream: bool, may_retry: bool) -> JobRequest:
        self._jobs += 1
        return JobRequest(
            request=RequestId(str(self._jobs)),
            environment=self._deployment.environment,
            source=self._deployment.sources[source],
            kind="export" if is_stream else "rows",
            payload=encode_ask(Ask(self._jobs, ask.parts, ask.size, ask.milliseconds, ask.is_wrong)),
            format="ndjson" if is_stream else "json",
            deadline=self._deployment.loop.virtual_now + seconds,
            release=Release.STREAM if is_stream else Release.AT_END,
            rows_max=10**6,
            bytes_max=10**9,
            row_bytes_max=10**9,
            may_retry=may_retry,
            is_export=is_stream,
            page_bytes_max=None if is_stream else (limits.PAGE_BYTES_MAX, _PAGE_BYTES_MAX)[self._jobs % 2],
            may_overflow=not is_stream and self._jobs % 4 != 1,
        )

    async def _call(self, request: JobRequest, patience: float | None, pause: float) -> None:
        handle = self._deployment.server.dispatcher.submit(request)
        got: list[bytes] = []
        try:
            async with asyncio.timeout(patience):
                await self._read(handle, got, pause, is_stream=request.release is Release.STREAM)
        except TimeoutError:
            self._witness.note("gave up")
        except LenswayError as error:
            self._failed(request, error, got, handle)
        except asyncio.CancelledError:
            # Only a crash of the server cancels a caller: its connection is cut, and its client asks again.
            self._witness.note("connection cut")
            self._deployment.loop.call_later(1.0, self.come)
            raise
        else:
            self._complete(request, got, handle)
        self._explain(handle.record)

    async def _read(self, handle: JobHandle, got: list[bytes], pause: float, *, is_stream: bool) -> None:
        if not is_stream and (page := await handle.held_page()) is not None:
            handle.taken()
            handle.result = page.result
            got += page.chunks
            return
        if not is_stream:
            self._witness.note("a page overflowed")
        async with contextlib.aclosing(handle.stream()) as chunks:
            async for chunk in chunks:
                got.append(chunk)
                if pause:
                    await asyncio.sleep(pause)

    def _assigned(self, record: JobRecord) -> Sequence[RunnerId]:
        return tuple(self._deployment.store.current().runners_of(record.environment, record.source))

    # --- what they get ----------------------------------------------------------------------------------------------------

    def _failed(self, request: JobRequest, error: LenswayError, got: list[bytes], handle: JobHandle) -> None:
        self._witness.note(error.code.value, request.request)
        body = b"".join(got)
        if body:
            self._witness.note("cut after rows were released")
            ask, attempt = self._belongs(request, body)
            self._witness.check(
                ask.rows(attempt).startswith(body), "I3: released rows are the beginning of one attempt"
            )
        wrong = (
            [each for each in handle.record.attempts if each.cause == Cause(EndKind.FAILED, "SOURCE_QUERY_FAILED")]
            if handle.record
            else []
        )
        self._witness.check(len(wrong) <= 1, "a query that the database refuses is not repeated")

    def _complete(self, request: JobRequest, got: list[bytes], handle: JobHandle) -> None:
        body = b"".join(got)
        ask, attempt = self._belongs(request, body)
        self._witness.check(body == ask.rows(attempt), "I3: rows of exactly one attempt, in order and complete")
        self._witness.check(decode_end(handle.result).rows == ask.parts, "I3: the end mark counts them")
        self._witness.check(not ask.is_wrong, "a wrong query does not succeed")

    def _belongs(self, request: JobRequest, body: bytes) -> tuple[Ask, int]:
        job, attempt, _ = body[: body.index(b";")].split(b".")
        self._witness.check(job.decode() == request.request, "rows are those of the caller's own job")
        return decode_ask(request.payload), int(attempt)

    def _explain(self, record: JobRecord | None) -> None:
        """Count the turns that the job took."""
        if record is None:
            return
        note = self._witness.note
        self._witness.check(record.executed <= limits.ATTEMPTS_MAX, "at most three attempts")
        causes = [each.cause for each in record.attempts]
        is_complete = record.outcome == "completed"
        end = "then completed" if is_complete else "then failed"
        for cause in dict.fromkeys(causes[:-1] if is_complete else causes):
            is_summed = cause is not None and cause.kind in (EndKind.LOST, EndKind.STOPPED)
            note(f"{cause.kind.value if cause is not None and is_summed else cause} {end}", record.request)
        if is_complete:
            placed = record.placed_at()
            note(
                "completed by " + ("inline" if placed is None or placed.runner is None else "a runner"), record.request
            )
            if placed is not None and placed.runner is not None and placed.runner not in self._assigned(record):
                note("completed after it was unassigned", record.request)
            if any(
                each.cause is not None and each.cause.kind is EndKind.LOST and each.first_row_at is not None
                for each in record.attempts
            ):
                note("repeated after rows were held")
        if record.waited_at is not None:
            note(f"waited {end}")
        if record.queued_at is not None:
            note(f"queued {end}")
