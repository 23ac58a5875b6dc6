"""The bugs that `tools.mutants` plants: each breaks a promise in one place, as a plausible slip would; and who must notice."""

from __future__ import annotations

import dataclasses
from typing import Final

SIMULATION: Final = "simulation"
"""Some hundred seeds of the simulation."""
FAILOVER: Final = "tests/dispatch/test_failover.py"
OVERFLOW: Final = "tests/dispatch/test_overflow.py"
MACHINE: Final = "tests/dispatch/test_core_machine.py"
SESSIONS: Final = "tests/protocol/test_sessions.py"
STREAM: Final = "tests/protocol/test_stream.py"
LINK: Final = "tests/gateway/test_link.py"
AUTH: Final = "tests/auth/test_auth.py"


@dataclasses.dataclass(frozen=True, slots=True)
class Planted:
    """One bug: in this file, ``old`` (found once) becomes ``new``; one of ``caught_by`` must fail."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...] = (SIMULATION,)


_STATE: Final = "src/lensway/dispatch/core/state.py"
_ATTEMPTS: Final = "src/lensway/dispatch/core/attempts.py"
_ROUTING: Final = "src/lensway/dispatch/core/routing.py"
_SESSIONS: Final = "src/lensway/dispatch/core/sessions.py"
_CORE: Final = "src/lensway/dispatch/core/core.py"
_FLEET: Final = "src/lensway/fleet/fleet.py"
_LOAD: Final = "src/lensway/fleet/load.py"
_GATEWAY: Final = "src/lensway/protocol/gateway_session.py"
_RUNNER: Final = "src/lensway/protocol/runner_session.py"
_STREAM: Final = "src/lensway/protocol/stream.py"
_LINK: Final = "src/lensway/gateway/link.py"

PLANTED: Final = (
    # --- fences -----------------------------------------------------------------------------------------------------------
    Planted(
        "no attempt check at the gateway",
        _STATE,
        "attempt = None if held is None else held.get((job, number))",
        "attempt = None if job not in self.jobs else self.jobs[job].attempt",
        (MACHINE, SIMULATION),
    ),
    Planted(
        "no attempt check at the runner",
        _RUNNER,
        "if attempt <= self._highest.get(job, 0):",
        "if attempt < 0:",
        (SESSIONS, SIMULATION),
    ),
    Planted(
        "rows may be repeated or overtaken",
        _STREAM,
        "if frame.offset != self.received_bytes:",
        "if frame.offset < 0:",
        (STREAM, SIMULATION),
    ),
    Planted(
        "a runner begins what waited while it stood still",
        "src/lensway/runner/agent.py",
        "return now < self._discard_until or now - self._ticked_at > limits.LOOP_STALL_SECONDS",
        "return now < 0.0",
        ("tests/runner/test_agent.py",),
    ),
    Planted(
        "the runner's fence is longer than the failover",
        _LINK,
        "fence_ms=int(timings.runner_fence_seconds * 1000)",
        "fence_ms=int(timings.dead_seconds * 2000)",
        (LINK,),
    ),
    # --- large pages ------------------------------------------------------------------------------------------------------
    Planted(
        "what was granted when it was spooled is granted again when it is taken",
        _ATTEMPTS,
        "self._grant(attempt, event.bytes - spooled)",
        "self._grant(attempt, event.bytes)",
        (OVERFLOW,),
    ),
    Planted(
        "a page that is streamed does not count as an export",
        _ATTEMPTS,
        "if not is_last and not attempt.turn_into_export():",
        "if is_last and not attempt.turn_into_export():",
        (OVERFLOW,),
    ),
    # --- failover ---------------------------------------------------------------------------------------------------------
    Planted(
        "a disconnect beats an end that has arrived",
        _LINK,
        "if self._over_cause is None and not tasks[0].done():",
        "if self._over_cause is not None and not tasks[0].done():",
        (LINK,),
    ),
    Planted(
        "repeated after rows were released",
        _ATTEMPTS,
        "            state.fail(job, failure, now)\n            return\n        job.move(JobStimulus.RETURN)\n        job.losses",
        "            job.state = JobState.EXECUTING\n        job.move(JobStimulus.RETURN)\n        job.losses",
        (MACHINE, SIMULATION),
    ),
    Planted(
        "a cut stream ends as if it were complete",
        _STATE,
        "self.out.append(Fail(job.id, failure, released, record))",
        'self.out.append(Complete(job.id, (), b"", record) if released else Fail(job.id, failure, released, record))',
        (MACHINE, SIMULATION),
    ),
    Planted(
        "released before it is held back",
        _ATTEMPTS,
        "if flow.held_bytes >= limits.HOLD_BACK_BYTES:",
        "if flow.held_bytes >= 0:",
        (FAILOVER,),
    ),
    Planted(
        "a page is released before its end",
        "src/lensway/dispatch/core/jobs.py",
        "return self.request.release is Release.AT_END",
        "return False",
        (MACHINE, SIMULATION),
    ),
    Planted(
        "bytes are not counted at the end",
        _ATTEMPTS,
        "if attempt.flow.received != event.sent_bytes:",
        "if attempt.flow.received < 0:",
        (FAILOVER,),
    ),
    Planted(
        "what must not be repeated is repeated",
        _ATTEMPTS,
        "        elif event.retryable:\n",
        "        elif event.failure:\n",
        (SIMULATION,),
    ),
    Planted(
        "retry never is repeated after a loss",
        _ATTEMPTS,
        "if is_over or not job.request.may_retry:",
        "if is_over:",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "retry never is offered again when unanswered",
        _ATTEMPTS,
        "            state.fail(job, failure, now)\n            return\n"
        "        job.excluded[attempt.session] = Verdict.UNANSWERED",
        "            pass\n        job.excluded[attempt.session] = Verdict.UNANSWERED",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "no poison", "src/lensway/limits.py", "RUNNERS_LOST_MAX: Final = 2", "RUNNERS_LOST_MAX: Final = 9", (FAILOVER,)
    ),
    Planted("no retry budget", _STATE, "        if tokens < 1.0:\n            return False\n", "", (FAILOVER,)),
    Planted(
        "one broken place uses up the retries of all",
        _ATTEMPTS,
        "or self._router.has_sound_candidate(job)",
        "or job.is_settled",
        (FAILOVER,),
    ),
    Planted(
        "unreachable before a second candidate was asked",
        _ATTEMPTS,
        "            not attempt.place.is_service\n            and job.request.may_retry",
        "            attempt.place.is_service\n            and job.request.may_retry",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "a timeout passes for an answer of the database",
        _ATTEMPTS,
        "elif failure.code in _FROM_THE_DATABASE:",
        "elif not event.handed_back:",
        (FAILOVER,),
    ),
    Planted("hand-backs count as attempts", _ATTEMPTS, "        job.record.executed -= 1\n", "", (FAILOVER,)),
    # --- routing ----------------------------------------------------------------------------------------------------------
    Planted(
        "inline when no runner is there",
        _ROUTING,
        "            state.fail(job, failures.no_runners_online(route, state.fleet, now), now)",
        "            self._place_inline(job, route, now)",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "assignments are cached for ever",
        "src/lensway/dispatch/routes.py",
        "if snapshot is not self._snapshot:",
        "if self._snapshot is None:",
    ),
    Planted(
        "a runner keeps what was taken from it",
        "src/lensway/runner/sources.py",
        "        before, self._served = self._served, fresh\n",
        "        before, self._served = self._served, self._served | fresh\n",
        ("tests/runner/test_sources.py",),
    ),
    Planted(
        "reports of an older set are believed",
        _FLEET,
        "reported is not None and session.revision is not None and session.revision >= ask.wanted[place]",
        "reported is not None",
        (FAILOVER,),
    ),
    Planted(
        "draining runners get new work",
        _FLEET,
        "    if session.is_draining:\n        return Verdict.DRAINING\n",
        "",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "the last candidate is ejected",
        _FLEET,
        "group = open_ or ejected or suspects",
        "group = open_ or suspects",
        (FAILOVER,),
    ),
    Planted(
        "a sole suspect is not tried",
        _FLEET,
        "group = open_ or ejected or suspects",
        "group = open_ or ejected",
        (FAILOVER,),
    ),
    Planted(
        "ejections do not grow",
        _LOAD,
        "max(limits.EJECT_SECONDS, 2 * self.eject_seconds)",
        "limits.EJECT_SECONDS",
        (FAILOVER,),
    ),
    Planted(
        "caps are not kept",
        _LOAD,
        "        if self.outstanding >= self.capacity:\n            return False\n",
        "",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "a reservation is kept for ever",
        _STATE,
        "attempt.place.load.give_back(attempt.pair, is_export=attempt.is_export)",
        "attempt.load.outstanding += 0",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "the queue has no bound",
        _ROUTING,
        "return others - (job.state in (JobState.QUEUED, JobState.WAITING)) >= limits.QUEUE_JOBS_MAX",
        "return False",
        (FAILOVER,),
    ),
    # --- liveness ---------------------------------------------------------------------------------------------------------
    Planted(
        "rows make a deaf session live",
        "src/lensway/dispatch/core/sessions.py",
        "self._state.fleet.heard(session, now)",
        "self._state.fleet.alive(session, now)",
        (FAILOVER,),
    ),
    Planted(
        "an old acknowledgement is a sign of life",
        _GATEWAY,
        "now - sent_at <= FRESH_HEARTBEATS * self._heartbeat_seconds",
        "now >= sent_at",
        (SESSIONS,),
    ),
    Planted(
        "no heartbeats while a runner drains",
        _GATEWAY,
        "        return [*self._late_report(), *self._beat(now)]",
        "        return [*self._late_report(), *(self._beat(now) if self._machine.state is GatewayState.OPEN else [])]",
        (LINK,),
    ),
    Planted(
        "silence is never noticed",
        _FLEET,
        "        if now >= dead_at:",
        "        if now < 0.0:",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "unanswered offers wait for ever",
        _ROUTING,
        "job.phase_due = now + limits.OFFER_TIMEOUT_SECONDS",
        "job.phase_due = None",
        (FAILOVER,),
    ),
    Planted(
        "backoff without jitter",
        "src/lensway/runner/backoff.py",
        "return ceiling * self._chance()",
        "return ceiling",
        ("tests/runner/test_backoff.py",),
    ),
    Planted(
        "backoff is reset at once",
        "src/lensway/runner/backoff.py",
        "if lived_seconds >= limits.RECONNECT_STABLE_SECONDS or told_seconds > 0:",
        "if lived_seconds >= 0.0:",
        ("tests/runner/test_backoff.py",),
    ),
    Planted(
        "lost pushes are not repeated",
        _GATEWAY,
        "instructions.append(Repush())",
        "instructions.extend(())",
        (SESSIONS, SIMULATION),
    ),
    Planted(
        "revocation waits for the runner to go", _LINK, "if runner is None or runner.is_revoked:", "if runner is None:"
    ),
    # --- deadlines and flow -----------------------------------------------------------------------------------------------
    Planted(
        "the deadline is not kept",
        _CORE,
        "elif now >= job.request.deadline:",
        "elif now >= job.request.deadline + 5.0:",
        (MACHINE, SIMULATION),
    ),
    Planted(
        "the place is not told to stop",
        _STATE,
        "        self.out.append(SendCancel(attempt.session, attempt.job.id, attempt.number, cause))\n",
        "",
        (FAILOVER, SIMULATION),
    ),
    Planted(
        "credit on arrival",
        _ATTEMPTS,
        "        elif job.state is JobState.RELEASED:\n",
        "        elif job.state is JobState.RELEASED:\n            self._grant(attempt, len(event.payload))\n",
        (FAILOVER,),
    ),
    Planted(
        "the sender needs no credit",
        _STREAM,
        "size = min(self._pending_bytes, self.credit_left, frame_bytes_max)",
        "size = min(self._pending_bytes, frame_bytes_max)",
        (STREAM, SIMULATION),
    ),
    Planted(
        "the receiver takes any amount",
        _STREAM,
        "if self.received_bytes + size > self._granted:",
        "if size < 0:",
        (STREAM,),
    ),
    # --- secrets ----------------------------------------------------------------------------------------------------------
    Planted(
        "a sealed config is good for any source",
        "src/lensway/auth/sealing.py",
        "    if meant != (environment, source, runner, version):",
        "    if meant[2:] != (runner, version):",
        (AUTH,),
    ),
    Planted(
        "a runner may report any code",
        "src/lensway/protocol/failures.py",
        "    if wire.code not in REPORTABLE:",
        "    if wire.code not in {code.value for code in ErrorCode}:",
        ("tests/protocol/test_failures.py",),
    ),
    Planted(
        "tokens are compared with ==",
        "src/lensway/auth/decisions.py",
        "matches = [hmac.compare_digest(each.hash, hashed) for each in good]",
        "matches = [each.hash == hashed for each in good]",
        (AUTH,),
    ),
    Planted(
        "a cancel that was lost is not repeated",
        _SESSIONS,
        "if attempt.state is AttemptState.STOPPING:",
        "if attempt.state is AttemptState.OVER:",
        (FAILOVER,),
    ),
    Planted(
        "an older session is lost before its successor is known",
        _SESSIONS,
        """        superseded = state.fleet.superseded_by(event.facts)
""",
        """        superseded = state.fleet.superseded_by(event.facts)
        for older in superseded:
            self._close(older, "superseded", now)
        superseded = []
""",
        (FAILOVER,),
    ),
    Planted(
        "the driver's text is passed on",
        "src/lensway/bridges/postgres/errors.py",
        '            return unreachable("tcp", "reset") if said is None else of_said(said, run)',
        "            raise LenswayError(ErrorCode.SOURCE_QUERY_FAILED, str(error)) from None",
        ("tests/bridges/test_bridges.py",),
    ),
)
