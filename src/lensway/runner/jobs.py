"""The attempts that this instance executes in one session: accept or refuse at once, execute, stream under credit, end.

Rows wait in the stream of their attempt until there is credit and room in the outbox; streams take turns, so that a large
result never delays a small one. What ends an attempt travels behind its rows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import msgspec
import structlog

from lensway import limits
from lensway.bridges.contract import Execution
from lensway.bridges.library import shapes_of
from lensway.clock import Clock
from lensway.errors import POLICY_LIMIT, ErrorCode, Failure, LenswayError
from lensway.observe.trace import Tracer
from lensway.protocol.failures import encode_failure
from lensway.protocol.frames import Accept, Cancel, Credit, Fail, JobKind, Offer, Refuse, RefuseReason
from lensway.protocol.outbox import Outbox
from lensway.protocol.policy import policy_hint, policy_refusal
from lensway.protocol.stream import SendStream
from lensway.query.plan import Shape, UnknownPlanError
from lensway.query.result import ResultEnd, ResultLimits, RowFormat, encode_end
from lensway.runner import tracing
from lensway.runner.journal import JobNote, asked
from lensway.runner.library import Library
from lensway.runner.policy import PolicyInForce
from lensway.runner.sources import READY, UNREACHABLE, AssignedSources, ServedSource

_log = structlog.get_logger("lensway.runner")

_OUTBOX_BYTES_MAX = 2 * limits.DATA_FRAME_BYTES_MAX
"""Rows handed to the outbox ahead of the socket: enough to keep it busy, little enough that turns are short."""
_PENDING_BYTES_MAX = 2 * limits.DATA_FRAME_BYTES_MAX
"""Rows of one attempt that wait for credit before its bridge is made to wait."""
_PLAN_KINDS = frozenset({JobKind.ROWS, JobKind.EXPORT})
_KINDS = frozenset({JobKind.ROWS, JobKind.EXPORT, JobKind.TEST, JobKind.TABLES, JobKind.TABLE})


class _Attempt:
    """One accepted attempt: its stream, and the sink that its bridge writes to."""

    def __init__(
        self, offer: Offer, served: ServedSource, shapes: Sequence[Shape], wake: Callable[[], None], now: float
    ) -> None:
        self.offer = offer
        self.served = served
        self.shapes = shapes
        self.accepted_at = now
        self.rows = 0
        self.stream = SendStream(job=offer.job, attempt=offer.attempt, credit=offer.credit)
        self.result: bytes | None = None
        self.is_over = False
        self.is_flushing = False
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        self.refusal: Failure | None = None
        """Set when the local policy ends it."""
        self.trace: tracing.AttemptTrace | None = None
        self._wake = wake
        self._room = asyncio.Event()
        self._flush: asyncio.TimerHandle | None = None

    async def write(self, chunk: bytes) -> None:
        """Take rows; waits while too many of this attempt wait already."""
        self.stream.put(chunk)
        if self.stream.pending_bytes >= limits.DATA_FRAME_BYTES_MAX:
            self._wake()
        elif self.offer.kind is JobKind.EXPORT and self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(limits.FLUSH_SECONDS, self._flush_now)
        while self.stream.pending_bytes >= _PENDING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def wants_out(self) -> bool:
        """True when a frame of rows should go."""
        pending = self.stream.pending_bytes
        return bool(pending) and (pending >= limits.DATA_FRAME_BYTES_MAX or self.is_flushing or self.result is not None)

    def moved(self) -> None:
        """Rows went out: a bridge that waits for room may look again."""
        self.is_flushing = False
        if self.stream.pending_bytes < _PENDING_BYTES_MAX:
            self._room.set()

    def close(self) -> None:
        """No timer outlives the attempt."""
        if self._flush is not None:
            self._flush.cancel()

    def _flush_now(self) -> None:
        self._flush = None
        self.is_flushing = True
        self._wake()


class Jobs:
    """Every attempt of one session."""

    def __init__(
        self,
        library: Library,
        sources: AssignedSources,
        policy: PolicyInForce,
        *,
        capacity: int,
        clock: Clock,
        outbox: Outbox,
        wake: Callable[[], None],
        report: Callable[[], None],
        forget: Callable[[Hashable], None],
        tracer: Tracer | None = None,
        note: Callable[[JobNote], None] | None = None,
    ) -> None:
        self._library = library
        self._sources = sources
        self._policy = policy
        self._capacity = capacity
        self._clock = clock
        self._outbox = outbox
        self._wake = wake
        self._report = report
        self._forget_source = forget
        self._tracer = tracer
        self._note = note
        self._attempts: OrderedDict[tuple[int, int], _Attempt] = OrderedDict()
        self._done_lately: list[_Attempt] = []
        self._handing_back = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def held(self) -> tuple[tuple[int, int], ...]:
        """The attempts whose last frame has not left."""
        return (*self._attempts, *(key for key in self._outbox.held if key not in self._attempts))

    @property
    def count(self) -> int:
        """Attempts that are being executed."""
        return len(self._attempts)

    # --- offers -----------------------------------------------------------------------------------------------------------

    def answer(self, offer: Offer, *, revision: int, spec: ServedSource | None) -> Accept | Refuse:
        """Accept and begin, or refuse. ``spec`` is the source of a test that needs no assignment."""
        served = spec or self._sources.get(offer.source)
        reason, message = self._obstacle(offer, served)
        shapes: Sequence[Shape] = ()
        if reason is None:
            shapes, reason, message = self._read(offer)
        if reason is not None or served is None:
            why = reason or RefuseReason.NOT_ASSIGNED
            if self._note is not None:
                self._note(self._refused(offer, served, shapes, why))
            return Refuse(job=offer.job, attempt=offer.attempt, reason=why, revision=revision, message=message)
        attempt = _Attempt(offer, served, shapes, self._wake, self._clock.monotonic())
        if self._tracer is not None:
            attempt.trace = tracing.begin(self._tracer, self._clock, offer)
        self._attempts[offer.job, offer.attempt] = attempt
        self._idle.clear()
        attempt.task = asyncio.create_task(self._execute(attempt), name=f"attempt {offer.job}/{offer.attempt}")
        return Accept(job=offer.job, attempt=offer.attempt)

    def _obstacle(self, offer: Offer, served: ServedSource | None) -> tuple[RefuseReason | None, str]:
        if self._handing_back:
            return RefuseReason.DRAINING, ""
        if offer.kind not in _KINDS:
            return RefuseReason.UNKNOWN_KIND, ""
        if served is None:
            return RefuseReason.NOT_ASSIGNED, ""
        if served.refusal is not None:
            return served.refusal, policy_hint(served.cause) if served.state == "refused" else ""
        if len(self._attempts) >= min(self._capacity, self._policy.now.jobs_max or self._capacity):
            return RefuseReason.BUSY, ""
        return None, ""

    def _read(self, offer: Offer) -> tuple[Sequence[Shape], RefuseReason | None, str]:
        """What the plans of this offer ask for, and why this runner does not execute them, if there is a reason."""
        try:
            shapes = shapes_of(offer.kind.value, offer.payload)
            part = self._forbidden_part(offer, shapes)
            if part is not None:
                _log.warning("job refused by policy", part=part, **asked(offer))
                return shapes, RefuseReason.POLICY, f"the local policy does not allow {part}"
            for shape in shapes:
                shape.require_executed()
        except UnknownPlanError as error:
            return (), RefuseReason.UNKNOWN_KIND, error.message
        except LenswayError:
            return (), None, ""  # executing says what is wrong with it
        return shapes, None, ""

    def _forbidden_part(self, offer: Offer, shapes: Sequence[Shape]) -> str | None:
        if offer.kind not in _PLAN_KINDS:
            return None  # A test reads no rows, and says itself which lenses the policy keeps it from.
        return next((part for shape in shapes if (part := self._policy.now.forbidden_part(shape)) is not None), None)

    def obey_policy(self) -> None:
        """End what the policy, which has changed, does not allow any more."""
        for attempt in list(self._attempts.values()):
            now = self._sources.get(attempt.served.id)
            part = self._forbidden_part(attempt.offer, attempt.shapes)
            refusal = None if part is None else f"does not allow {part}"
            if refusal is None and now is not None and now.refusal is RefuseReason.POLICY:
                refusal = policy_refusal(now.cause)
            if refusal is not None and attempt.refusal is None:
                _log.warning("job ended by policy", refusal=refusal, **asked(attempt.offer))
                attempt.refusal = Failure(
                    code=ErrorCode.REFUSED_BY_RUNNER,
                    message=f"The local policy of the runner changed and {refusal}",
                    hint="Ask the owner of the runner's network to allow it in the policy file.",
                )
                self._stop(attempt)

    # --- orders -----------------------------------------------------------------------------------------------------------

    def order(self, order: Credit | Cancel) -> None:
        """More credit for an attempt, or its end. One that is over already needs neither."""
        attempt = self._attempts.get((order.job, order.attempt))
        if attempt is None:
            return
        if isinstance(order, Credit):
            attempt.stream.grant(order.bytes)
            self._wake()
        else:
            self._stop(attempt)

    def hand_back(self) -> None:
        """End everything; the gateway gives it to others without counting it as failed."""
        self._handing_back = True
        for attempt in list(self._attempts.values()):
            self._stop(attempt)

    def _stop(self, attempt: _Attempt) -> None:
        if attempt.task is not None and not attempt.task.done():
            if not attempt.task.cancelling():  # a second time would disturb it while it ends its statement
                attempt.task.cancel()
            if attempt.has_begun:
                return  # it says so itself, when its statement is gone
        # Executed, and its waiting rows are not wanted any more; or cancelled before its first step, which then never runs.
        self._end_early(attempt)

    async def stop(self) -> None:
        """The session is over: cancel every statement and wait until it is gone."""
        tasks = [attempt.task for attempt in self._attempts.values() if attempt.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limits.CANCEL_SECONDS + 1.0)
        for attempt in self._attempts.values():
            attempt.close()
            self._drop_unassigned(attempt)
        self._attempts.clear()
        self._done_lately.clear()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Return when nothing is being executed and every last frame was taken."""
        while self._attempts or self._outbox.held:
            self._idle.clear()
            await self._idle.wait()

    # --- flow -------------------------------------------------------------------------------------------------------------

    def fill(self, frame_bytes_max: int) -> None:
        """Move rows into the outbox, one frame of each attempt in turns, until it holds enough; none with 0."""
        while self._done_lately:
            # Short results wait neither for other rows nor for room on the link.
            self._finish(self._done_lately.pop(), limits.SHORT_RESULT_BYTES_MAX)
        moved = frame_bytes_max > 0
        while moved and self._outbox.data_bytes < _OUTBOX_BYTES_MAX:
            moved = False
            for key in list(self._attempts):
                attempt = self._attempts[key]
                if self._finish(attempt, frame_bytes_max):
                    moved = True
                elif attempt.wants_out() and (frame := attempt.stream.take(frame_bytes_max)) is not None:
                    self._outbox.put_data(frame)
                    attempt.moved()
                    moved = True
                if self._outbox.data_bytes >= _OUTBOX_BYTES_MAX:
                    # The next turn begins behind the one that filled it.
                    self._attempts.move_to_end(key) if key in self._attempts else None
                    break
        if not self._attempts and not self._outbox.held:
            self._idle.set()

    def _finish(self, attempt: _Attempt, frame_bytes_max: int) -> bool:
        if attempt.result is None or attempt.is_over:
            return False
        end = attempt.stream.end(attempt.result, frame_bytes_max)
        if end is None:
            return False
        self._outbox.put_data(end)
        self._forget(attempt, "completed")
        return True

    def _end_early(self, attempt: _Attempt) -> None:
        if attempt.refusal is not None:
            # Another runner may be allowed to.
            self._end(attempt, attempt.refusal, retryable=True)
        else:
            self._end(attempt, _cancelled(), handed_back=self._handing_back)

    def _end(self, attempt: _Attempt, failure: Failure, *, retryable: bool = False, handed_back: bool = False) -> None:
        offer = attempt.offer
        if attempt.trace is not None:
            attempt.trace.code = failure.code.value
        self._outbox.drop(offer.job, offer.attempt)
        fail = Fail(
            job=offer.job,
            attempt=offer.attempt,
            failure=encode_failure(failure),
            retryable=retryable,
            handed_back=handed_back,
        )
        self._outbox.put_data(fail)
        self._forget(attempt, "handed_back" if handed_back else failure.code.value)
        self._wake()

    def _forget(self, attempt: _Attempt, outcome: str) -> None:
        attempt.is_over = True
        if self._note is not None:
            self._note(self._finished(attempt, outcome))
        attempt.close()
        self._attempts.pop((attempt.offer.job, attempt.offer.attempt), None)
        if attempt.trace is not None:
            attempt.trace.over(attempt.offer, attempt.served.name, attempt.stream.sent_bytes)
        self._drop_unassigned(attempt)

    def _finished(self, attempt: _Attempt, outcome: str) -> JobNote:
        seconds = self._clock.monotonic() - attempt.accepted_at
        return JobNote(
            offer=attempt.offer,
            source=attempt.served.name,
            shapes=attempt.shapes,
            outcome=outcome,
            rows=attempt.rows,
            bytes=attempt.stream.sent_bytes,
            seconds=seconds,
        )

    @staticmethod
    def _refused(offer: Offer, served: ServedSource | None, shapes: Sequence[Shape], why: RefuseReason) -> JobNote:
        source = offer.source if served is None else served.name
        outcome = ErrorCode.REFUSED_BY_RUNNER.value if why is RefuseReason.POLICY else f"refused: {why.value}"
        return JobNote(offer=offer, source=source, shapes=shapes, outcome=outcome)

    def _drop_unassigned(self, attempt: _Attempt) -> None:
        """The settings of a source that was only tested, not assigned, stay no longer than the test."""
        if attempt.offer.kind is JobKind.TEST and not self._sources.is_used(attempt.served.key):
            self._forget_source(attempt.served.key)

    # --- execution ----------------------------------------------------------------------------------------------------------

    async def _execute(self, attempt: _Attempt) -> None:
        attempt.has_begun = True
        offer = attempt.offer
        policy = self._policy.now
        seconds = min(offer.deadline_ms / 1000, policy.seconds_max or math.inf)
        try:
            execution = Execution(
                deadline=self._clock.monotonic() + seconds,
                format=RowFormat.named(offer.format),
                limits=ResultLimits(
                    rows_max=min(offer.rows_max, policy.rows_max or offer.rows_max),
                    bytes_max=min(offer.bytes_max, policy.bytes_max or offer.bytes_max),
                    row_bytes_max=offer.row_bytes_max,
                ),
                tag=f"{offer.request or offer.job}/{offer.attempt}",
                is_export=offer.kind is JobKind.EXPORT,
                watch=None if attempt.trace is None else attempt.trace.statement,
                allows_table=policy.allows_table,
                allows_column=policy.allows_column if policy.withhold else None,
                may_repeat=offer.may_repeat,
            )
            end = await self._perform(attempt, execution)
        except asyncio.CancelledError:
            self._end_early(attempt)
            raise
        except LenswayError as error:
            is_cut = error.code is ErrorCode.QUERY_TIMEOUT and seconds < offer.deadline_ms / 1000
            self._failed(attempt, _cut_by_policy(seconds) if is_cut else self._with_policy(error.failure, offer))
        except Exception as error:  # noqa: BLE001 - the task boundary of one attempt: its defect must not take the others down
            _log.error("attempt failed by a defect", job=offer.job, attempt=offer.attempt, error=type(error).__name__)
            self._end(
                attempt, Failure(code=ErrorCode.INTERNAL, message="The runner failed while executing this request")
            )
        else:
            self._done(attempt, end)

    async def _perform(self, attempt: _Attempt, execution: Execution) -> ResultEnd:
        """Do it; once more with fresh settings when the login failed and a file has brought others meanwhile."""
        if attempt.offer.kind is JobKind.TEST:
            self._refresh(attempt)
        try:
            return await self._try(attempt, execution)
        except LenswayError as error:
            is_untouched = not (attempt.stream.sent_bytes or attempt.stream.pending_bytes)
            is_login = error.failure.details.get("stage") == "login"
            if not (is_login and is_untouched and self._refresh(attempt)):
                raise
        return await self._try(attempt, execution)

    async def _try(self, attempt: _Attempt, execution: Execution) -> ResultEnd:
        served = attempt.served
        return await self._library.perform(
            served.key,
            served.bridge,
            served.config,
            kind=attempt.offer.kind.value,
            payload=attempt.offer.payload,
            execution=execution,
            sink=attempt,
        )

    def _refresh(self, attempt: _Attempt) -> bool:
        """Read the files of local settings again; True when this source has others now."""
        if not self._sources.has_files:
            return False
        for key in self._sources.refresh(has_failed=True):
            self._forget_source(key)
        now = self._sources.get(attempt.served.id)
        if now is None or now.key == attempt.served.key or now.refusal is not None:
            return False
        attempt.served = now
        return True

    def _done(self, attempt: _Attempt, end: ResultEnd) -> None:
        if attempt.offer.kind in _PLAN_KINDS:
            condition = self._library.condition(attempt.served.key)
            if self._sources.note(attempt.served.id, READY, condition):
                self._report()
        attempt.rows = end.rows
        attempt.result = encode_end(end)
        if len(attempt.result) > limits.END_MARK_BYTES_MAX:
            # No cursor can be made of so long a key, as in `planner.next_cursor`.
            attempt.result = encode_end(msgspec.structs.replace(end, last_key=None))
        self._done_lately.append(attempt)
        self._wake()

    def _with_policy(self, failure: Failure, offer: Offer) -> Failure:
        """The failure; where the local policy is stricter than what was asked for, it says that its limit was met."""
        policy = self._policy.now
        rules = {
            "rows": ("rows_max", policy.rows_max, offer.rows_max),
            "bytes": ("bytes_max", policy.bytes_max, offer.bytes_max),
        }
        rule = rules.get(str(failure.details.get("of")))
        if failure.code is not ErrorCode.LIMIT_EXCEEDED or rule is None or rule[1] is None or rule[1] >= rule[2]:
            return failure
        _log.info("policy limit met", **asked(offer), rule=rule[0], limit=rule[1])
        return dataclasses.replace(failure, details={**failure.details, "limitOf": POLICY_LIMIT})

    def _failed(self, attempt: _Attempt, failure: Failure) -> None:
        is_unreachable = failure.code is ErrorCode.SOURCE_UNREACHABLE
        _log.info(
            "attempt failed",
            source=attempt.served.name,
            code=failure.code.value,
            stage=failure.details.get("stage"),
            cause=failure.details.get("class"),
        )
        if is_unreachable:
            cause = f"{failure.details.get('stage', '')} {failure.details.get('class', '')}".strip()
            if self._sources.note(attempt.served.id, UNREACHABLE, cause):
                self._report()
        self._end(attempt, failure, retryable=is_unreachable or failure.code is ErrorCode.OVERLOADED)


def _cut_by_policy(seconds: float) -> Failure:
    return Failure(
        code=ErrorCode.QUERY_TIMEOUT,
        message=f"The local policy of the runner ends each job after {seconds:g} s",
        hint="Ask for less, or ask the owner of the runner's network to raise `seconds_max` in the policy file.",
        details={"class": "policy"},
    )


def _cancelled() -> Failure:
    return Failure(code=ErrorCode.CANCELLED, message="The attempt was cancelled")
