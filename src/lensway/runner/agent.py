"""The runner as a whole: dial, serve a session, wait, dial again, for ever; until it is told to stop or dialling cannot help."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import socket
from collections.abc import Callable, Hashable
from typing import Final

import structlog

import lensway
from lensway import limits
from lensway.auth.sealing import InstanceKeys
from lensway.bridges.contract import Execution
from lensway.clock import Clock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import InstanceId
from lensway.observe.trace import Tracer
from lensway.protocol.frames import FATAL_CLOSES, CloseReason, Hello, Welcome
from lensway.protocol.policy import policy_hint, policy_refusal
from lensway.protocol.transport import Transport
from lensway.protocol.version import FEATURES, VERSIONS_SPOKEN
from lensway.query.plan import FEATURES as PLAN_FEATURES
from lensway.query.result import ResultLimits, RowFormat
from lensway.runner.backoff import Backoff
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import Dial, DialError
from lensway.runner.journal import JobNote
from lensway.runner.library import Library
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.probes import Probes
from lensway.runner.session import Session, SessionParts
from lensway.runner.sources import READY, UNREACHABLE, AssignedSources, ServedSource

_log = structlog.get_logger("lensway.runner")

_NAMES_ANNOUNCED_MAX: Final = 100
"""Sources named in one announcement; the others are counted."""
REFUSED: Final = "refused"
"""The state of a runner that the gateway refuses, and that waits for another token."""


class LoopWatch:
    """Notices when this process's event loop stood still (paused, starved, blocked)."""

    def __init__(self, clock: Clock, tick_seconds: float) -> None:
        assert 2 * tick_seconds <= limits.LOOP_STALL_SECONDS, "a loop that runs never counts as one that stood still"
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._ticked_at = clock.monotonic()
        self._discard_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.lag_seconds = 0.0

    def stood_still(self) -> bool:
        """True while what is read now may have waited through a stall."""
        now = self._clock.monotonic()
        return now < self._discard_until or now - self._ticked_at > limits.LOOP_STALL_SECONDS

    def start(self) -> None:
        """Tick until `stop`. A timer and no task: it is all that an idle runner does ten times a second."""
        self._ticked_at = self._clock.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def stop(self) -> None:
        """No more ticks."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self.lag_seconds = max(0.0, now - self._ticked_at - self._tick_seconds)
        if self.lag_seconds > limits.LOOP_STALL_SECONDS:
            self._discard_until = now + limits.RUNNER_STALL_GRACE_SECONDS
            _log.warning("this process stood still", seconds=round(self.lag_seconds, 3))
        self.start()


class DialFailures:
    """The log of dials that failed: one line for each change of cause, with the number of repetitions of the one before."""

    def __init__(self) -> None:
        self._cause = ""
        self._count = 0

    def failed(self, cause: str, hint: str) -> bool:
        """One more; True when its cause is a new one."""
        if cause == self._cause:
            self._count += 1
            return False
        self._say_repetitions()
        _log.warning("cannot connect", cause=cause, hint=hint)
        self._cause, self._count = cause, 1
        return True

    def over(self) -> None:
        """The gateway welcomed this runner."""
        self._say_repetitions()
        self._cause, self._count = "", 0

    def _say_repetitions(self) -> None:
        if self._cause and self._count > 1:
            _log.warning("could not connect", cause=self._cause, dials=self._count)


class Agent:
    """One instance of a runner. Implements `lensway.runner.session.Observer`."""

    def __init__(
        self,
        *,
        runner: str,
        instance: InstanceId,
        capacity: int,
        dial: Dial,
        library: Library,
        local: LocalCredentials,
        policy: PolicyInForce,
        clock: Clock,
        chance: Callable[[], float],
        announce: Callable[[str], None] = lambda _line: None,
        hostname: str | None = None,
        drain_seconds: float = limits.DRAIN_SECONDS,
        watch_seconds: float = limits.RUNNER_WATCH_SECONDS,
        tracer: Tracer | None = None,
        token_mark: Callable[[], Hashable | None] = lambda: None,
        note: Callable[[JobNote], None] | None = None,
    ) -> None:
        self.sources = AssignedSources(library, local, policy)
        self.state = "connecting"
        self.since = clock.monotonic()
        self.cause = self.hint = self.runner_name = ""
        self.revision = 0
        self._runner = runner
        self._instance = instance
        self._dial = dial
        self._library = library
        self._clock = clock
        self._announce = announce
        self._drain_seconds = drain_seconds
        self._backoff = Backoff(chance)
        self._failures = DialFailures()
        self._token_mark = token_mark
        self._policy = policy
        self._watch = LoopWatch(clock, watch_seconds)
        self._stopping = asyncio.Event()
        self._session: Session | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._probes = Probes()
        self._keys = InstanceKeys.generate()
        self._parts = SessionParts(
            library=library,
            sources=self.sources,
            policy=policy,
            keys=self._keys,
            hello=_hello(runner, instance, self._keys, library, capacity, hostname, clock),
            clock=clock,
            observer=self,
            loop_lag=lambda: self._watch.lag_seconds,
            stood_still=self._watch.stood_still,
            forget=self._forget,
            tracer=tracer,
            note=note,
        )

    @property
    def instance(self) -> InstanceId:
        """The id of this process."""
        return self._instance

    @property
    def runner_id(self) -> str:
        """The id of the runner that this process is an instance of."""
        return self._runner

    def seconds_in_state(self) -> float:
        """For how long the present state has lasted."""
        return self._clock.monotonic() - self.since

    @property
    def policy_problem(self) -> str:
        """Why the policy file as it is cannot be used; empty when it is in force."""
        return "" if self._policy.problem is None else str(self._policy.problem)

    @property
    def jobs_count(self) -> int:
        """Attempts that are executed now."""
        return 0 if self._session is None else self._session.jobs.count

    # --- life -------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`. Returns after a drain.

        Raises:
            LenswayError: UNAUTHENTICATED or CONFLICT when dialling again cannot help.
        """
        self._watch.start()
        self._start(self._probe_for_ever(), "source probes")
        try:
            while not self._stopping.is_set():
                mark = self._token_mark()
                pause = await self._once()
                if self.state == REFUSED:
                    await self._wait_for_token(mark)
                else:
                    await self._wait_or_stop(pause)
        finally:
            self._watch.stop()
            for task in list(self._background):
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            self.sources.clear()
            await self._library.close()
            self._is("stopped", self.cause)

    def stop(self) -> None:
        """Drain: take nothing new, finish what runs (or hand it back after the grace), then `run` returns."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._is("draining", "stopping")
        if self._session is not None:
            self._start(self._session.leave("the runner stops", self._drain_seconds), "leave")

    async def _once(self) -> float:
        """One connection, from dialling to its end; the seconds to wait before the next."""
        if self.state != REFUSED:
            self._is("connecting", self.cause)
        try:
            transport = await self._dial_or_stop()
        except DialError as error:
            return self._not_connected(error)
        if transport is None:
            return 0.0
        session = self._session = Session(transport, self._parts)
        if self._stopping.is_set():
            self._start(session.leave("the runner stops", 0.0), "leave")
        try:
            cause = await session.serve()
        except Exception as error:  # noqa: BLE001 - the boundary of one session: no peer ends the runner
            _log.error("session failed by a defect", error=type(error).__name__, exc_info=error)
            transport.abort()
            cause = "internal"
        finally:
            self._session = None
        return self._after_session(session, cause)

    def _after_session(self, session: Session, cause: str) -> float:
        now = self._clock.monotonic()
        lived = 0.0 if session.welcomed_at is None else now - session.welcomed_at
        _log.info("session over", cause=cause, lived_seconds=round(lived, 1))
        if session.close is not None and session.close.reason in FATAL_CLOSES:
            self._fatal(session.close.reason, session.close.message)
            return 0.0
        if not self._stopping.is_set():
            self._is("connecting", cause)
            if session.welcomed_at is None:
                self._failures.failed(cause, "The connection closes before the gateway accepts this runner.")
            else:
                self._announce(f"connection lost ({cause}), dialling again")
        return self._backoff.after_session(lived, session.told_seconds)

    async def _dial_or_stop(self) -> Transport | None:
        dialling = asyncio.ensure_future(self._dial())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({dialling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                return None
            if dialling.cancelled():
                # By the library or the loop, not by us: no reason to end.
                raise DialError("internal", "Dialling was cancelled unexpectedly.")
            return dialling.result()
        finally:
            stopping.cancel()
            if not dialling.done():
                dialling.cancel()

    def _not_connected(self, error: DialError) -> float:
        if error.is_final:
            self._refuse(error.cause, f"the gateway refused this runner ({error.cause})", error.hint)
            return 0.0
        self._is("connecting", error.cause)
        self.hint = error.hint
        self._failures.failed(error.cause, error.hint)
        wait = self._backoff.after_refusal() if error.is_brief else self._backoff.after_failure()
        return max(wait, error.retry_after)

    def _fatal(self, reason: CloseReason, message: str) -> None:
        hints = {
            CloseReason.REVOKED: "An operator revoked or deleted this runner; rotate its token to use it again.",
            CloseReason.UNAUTHENTICATED: "The token does not match LENSWAY_RUNNER_ID, or a rotation has ended it.",
            CloseReason.VERSION: "Upgrade the older of runner and server.",
        }
        self._refuse(reason.value, f"the gateway ended the session: {reason.value}", hints.get(reason, message))

    def _refuse(self, cause: str, message: str, hint: str) -> None:
        """Wait for another token, if a file may bring one. Raises LenswayError UNAUTHENTICATED otherwise."""
        if self._token_mark() is None:
            raise LenswayError(ErrorCode.UNAUTHENTICATED, message, hint=hint)
        if self._failures.failed(cause, hint):
            self._announce(f"{message}; dialling again when LENSWAY_RUNNER_TOKEN_FILE changes")
        self._is(REFUSED, cause)
        self.hint = hint

    async def _wait_for_token(self, mark: Hashable | None) -> None:
        """Return when the token's file has changed since ``mark`` was taken, after a while, or when told to stop."""
        until = self._clock.monotonic() + limits.REFUSED_AGAIN_SECONDS
        while self._clock.monotonic() < until and not self._stopping.is_set() and self._token_mark() == mark:
            await self._wait_or_stop(limits.TOKEN_LOOK_SECONDS)

    async def _wait_or_stop(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _is(self, state: str, cause: str) -> None:
        if state != self.state:
            self.since = self._clock.monotonic()
        self.state, self.cause, self.hint = state, cause, ""

    # --- what the session tells -------------------------------------------------------------------------------------------

    def welcomed(self, welcome: Welcome) -> None:
        """The session is open."""
        self.runner_name = welcome.runner_name
        self._failures.over()
        if self.state == REFUSED:
            self._is("connecting", "")

    def set_applied(self, revision: int, sources: AssignedSources) -> None:
        """A set is in force: from now on there may be jobs."""
        self.revision = revision
        if self.state == "connecting":
            self._is("connected", "")
            self._announce("connected, awaiting jobs")
        served = sources.served()
        shown = ", ".join(_plain(source.name) for source in served[:_NAMES_ANNOUNCED_MAX]) or "none yet"
        more = f" and {len(served) - _NAMES_ANNOUNCED_MAX} more" if len(served) > _NAMES_ANNOUNCED_MAX else ""
        self._announce(f"assigned sources (revision {revision}): {shown}{more}")
        refused = [source for source in served if source.refusal is not None]
        for source in refused[:_NAMES_ANNOUNCED_MAX]:
            why = f"{source.state} {_plain(source.cause)}".rstrip()
            if source.state == "refused":
                why = f"the local policy {policy_refusal(source.cause)}. {policy_hint(source.cause)}"
            self._announce(f"  {_plain(source.name)} cannot be served: {why}")
        for source in self._probes.due(served):
            if source.state == READY:
                self._start(self._probe(source), f"probe of {source.name}")

    def drained(self, reason: str, after_ms: int) -> None:
        """The gateway gives no new work."""
        self._announce(f"draining: {_plain(reason)}")

    def resumed(self) -> None:
        """The gateway's drain is over."""
        self._announce("resumed")

    # --- sources ------------------------------------------------------------------------------------------------------------

    def _forget(self, key: Hashable) -> None:
        self._start(self._library.forget(key), "close source")

    async def _probe_for_ever(self) -> None:
        """Look at every source that no query tells of: its state must not stay wrong until the next query."""
        while True:
            await asyncio.sleep(limits.PROBE_SECONDS)
            await self._read_files()
            for source in self._probes.due(self.sources.served()):
                self._start(self._probe(source), f"probe of {source.name}")

    def read_files_soon(self) -> None:
        """Read the policy and the files of local settings again, now."""
        self._start(self._read_files(), "read files again")

    async def _read_files(self) -> None:
        await self.read_policy_again()
        if await self.sources.files_changed():
            self._refresh(has_failed=False)

    async def read_policy_again(self) -> None:
        """Put the policy file as it is now into force; one that is not valid leaves the policy before in force, and is shown."""
        before = self._policy.now
        if not self._policy.take(await asyncio.to_thread(self._policy.read)):
            return
        problem = self._policy.problem
        if problem is not None:
            self._announce(f"{problem}; the policy read before stays in force")
            _log.error("policy not valid", path=str(self._policy.path), problem=problem.message)
        if self._policy.now is not before:
            self._obey_policy(before)
            self._announce(f"the policy file {self._policy.path} is in force as it is now")
        if self._session is not None:
            self._session.report()

    def _obey_policy(self, before: LocalPolicy) -> None:
        now = self._policy.now.address_policy()
        self._library.restrict(now)
        unused = self.sources.obey_policy()
        if self._session is not None:
            self._session.jobs.obey_policy()
        if now != before.address_policy():
            # A name may lead to an address that is forbidden now: only new connections find out.
            unused += [source.key for source in self.sources.served()]
        for key in dict.fromkeys(unused):
            self._forget(key)

    def _refresh(self, *, has_failed: bool) -> None:
        """Serve what the settings in files name now."""
        for key in self.sources.refresh(has_failed=has_failed):
            self._forget(key)
        if self._session is not None:
            self._session.report()

    async def _probe(self, source: ServedSource) -> None:
        with self._probes.under_way(source):
            await self._look_at(source)

    async def _look_at(self, source: ServedSource) -> None:
        execution = Execution(
            deadline=self._clock.monotonic() + limits.CONNECT_TIMEOUT_SECONDS,
            format=RowFormat.DOCUMENT,
            limits=ResultLimits(rows_max=1, bytes_max=limits.MIB, row_bytes_max=limits.MIB),
            tag="probe",
        )
        state, cause = READY, ""
        try:
            await self._library.perform(
                source.key,
                source.bridge,
                source.config,
                kind="probe",
                payload=b"",
                execution=execution,
                sink=_Nowhere(),
            )
            cause = self._library.condition(source.key)
        except LenswayError as error:
            details = error.failure.details
            if error.code is not ErrorCode.SOURCE_UNREACHABLE:
                return
            state, cause = UNREACHABLE, f"{details.get('stage', '')} {details.get('class', '')}".strip()
            if details.get("stage") == "login" and self.sources.has_files:
                self._refresh(has_failed=True)
        if self.sources.get(source.id) is not source:
            return
        if self.sources.note(source.id, state, cause) and self._session is not None:
            self._session.report()

    def _start(self, work: object, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", task=task.get_name(), error=type(error).__name__, exc_info=error)


def _hello(
    runner: str,
    instance: InstanceId,
    keys: InstanceKeys,
    library: Library,
    capacity: int,
    hostname: str | None,
    clock: Clock,
) -> Hello:
    return Hello(
        runner=runner,
        instance=instance,
        versions=VERSIONS_SPOKEN,
        software=f"lensway {lensway.__version__} python {platform.python_version()}",
        public_key=keys.public_bytes,
        bridges=dict(library.installed()),
        capacity=capacity,
        features=(*FEATURES, *sorted(PLAN_FEATURES)),
        hostname=(hostname if hostname is not None else socket.gethostname())[:255],
        started_at=clock.wall().isoformat(timespec="seconds"),
        encodings=tuple(library.encodings()),
    )


class _Nowhere:
    async def write(self, chunk: bytes) -> None:
        """Take rows and drop them."""


def _plain(text: str) -> str:
    """A text of the gateway, fit for a line on a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[: limits.RUNNER_TEXT_CHARACTERS_MAX])
