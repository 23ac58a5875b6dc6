"""Where a job goes next: to a place, into the queue, into waiting, or to a typed refusal. Every dispatch routes again on the
newest snapshot: the number of assignments alone decides between inline and runners."""

from __future__ import annotations

import msgspec

from lensway import limits
from lensway.dispatch.core import failures
from lensway.dispatch.core.events import SendOffer
from lensway.dispatch.core.jobs import Attempt, Job, JobState, JobStimulus, Place, attempt_record
from lensway.dispatch.core.ports import SourceRoute
from lensway.dispatch.core.state import State
from lensway.errors import Failure
from lensway.fleet import Ask, CandidateNote, Choice, SessionState, Verdict
from lensway.fleet.choice import UNABLE
from lensway.ids import EnvironmentId, SourceId
from lensway.protocol.policy import policy_hint


class Router:
    """Places jobs. The only code that makes an attempt."""

    def __init__(self, state: State) -> None:
        self._state = state

    def route(self, job: Job, now: float) -> bool:
        """Decide on the job; True unless it has to stay in the queue or in waiting, where it was."""
        before = job.state
        if now >= job.request.deadline:
            self._state.fail(job, failures.timed_out(job, now), now)
            return True
        target = self._target(job)
        if isinstance(target, Failure):
            self._state.fail(job, target, now)
            return True
        route, is_inline = target
        if is_inline:
            self._place_inline(job, route, now)
        else:
            self._place_on_runner(job, route, now)
        return job.state is not before

    # --- which runners ----------------------------------------------------------------------------------------------------

    def _target(self, job: Job) -> tuple[SourceRoute, bool] | Failure:
        """The route to choose by, narrowed to the runner that the job is pinned to, and whether it is inline."""
        request = job.request
        route = self._state.routes.source(request.environment, request.source)
        if route is None:
            return failures.source_gone()
        if request.runner is not None or request.session is not None:
            pinned = self._pinned(job, route)
            return pinned if isinstance(pinned, Failure) else (pinned, False)
        return _place_of(route)

    def _pinned(self, job: Job, route: SourceRoute) -> SourceRoute | Failure:
        request = job.request
        runner = request.runner
        if runner is None and request.session is not None:
            session = self._state.fleet.sessions.get(request.session)
            runner = None if session is None else session.facts.runner
        if runner is None:
            return failures.runner_gone()
        record = self._state.routes.runner(request.environment, runner)
        if record is None:
            return failures.runner_gone()
        if runner not in route.runners and not request.unassigned:
            return failures.not_assigned(route, record.name)
        return SourceRoute(
            source=route.source,
            name=route.name,
            bridge=route.bridge,
            needs_runner=route.needs_runner,
            runners=(runner,),
            runner_names=(record.name,),
            wanted=(record.wanted,),
            marks=(record.mark,),
            serving=(not record.mark,),
        )

    def has_sound_candidate(self, job: Job) -> bool:
        """True when a runner that this job has not failed on answers for its source, as far as is known."""
        request = job.request
        route = self._state.routes.source(request.environment, request.source)
        return route is not None and any(
            session.id not in job.excluded
            and session.state is SessionState.LIVE
            and session.load.pair(request.source).is_sound
            for runner in route.runners
            for session in self._state.fleet.sessions_of(runner)
        )

    # --- placing ----------------------------------------------------------------------------------------------------------

    def _place_inline(self, job: Job, route: SourceRoute, now: float) -> None:
        load = self._state.service.load
        pair = load.pair(route.source)
        if load.has_room(pair, is_export=job.request.is_export) and self._has_credit(job):
            self._offer(job, self._state.service, (), 0, now)
        else:
            self._enqueue(job, now)

    def _place_on_runner(self, job: Job, route: SourceRoute, now: float) -> None:
        request = job.request
        ask = Ask(
            route.source,
            route.bridge,
            route.runners,
            route.runner_names,
            route.wanted,
            route.serving,
            request.is_export,
            request.session,
            job.excluded,
            job.pending_failure is not None,
            request.format,
            request.needs,
        )
        choice = self._state.fleet.choose(ask, now)
        session = choice.session
        if session is not None:
            if self._has_credit(job):
                wanted = route.wanted[route.runners.index(session.facts.runner)]
                self._offer(job, Place(session.id, session.load, session.facts), choice.notes, wanted, now)
            else:
                self._enqueue(job, now)
            return
        job.record.undecided = choice.notes
        if choice.is_busy:
            self._enqueue(job, now)
        else:
            self._place_nowhere(job, route, choice, now)

    def _place_nowhere(self, job: Job, route: SourceRoute, choice: Choice, now: float) -> None:
        state = self._state
        if job.pending_failure is not None:
            # Without a second candidate, also in a moment, the first one's word stands.
            if len(route.runners) > 1 and self._may_wait(job, route, choice, now):
                self._wait(job, now)
            else:
                state.fail(job, failures.with_runners(job.pending_failure, job.unreachable), now)
        elif choice.unable is not None:
            refusal = job.refusal_message or _policy_hint(state, route, choice.notes)
            state.fail(job, _unable(route, choice.notes, refusal, request_format=job.request.format), now)
        elif self._may_wait(job, route, choice, now):
            self._wait(job, now)
        else:
            state.fail(job, failures.no_runners_online(route, state.fleet, now), now)

    def _may_wait(self, job: Job, route: SourceRoute, choice: Choice, now: float) -> bool:
        """Wait a moment for a runner that may come back. A pinned job asks about this moment and does not wait."""
        if job.request.runner is not None or job.request.session is not None:
            return False
        is_hopeful = (
            choice.may_revive
            or now - self._state.started_at < limits.STARTUP_GRACE_SECONDS
            or self._state.fleet.lost_within(route.runners, limits.LAST_SESSION_GRACE_SECONDS, now)
        )
        if job.wait_until is None:
            if not is_hopeful:
                return False
            job.wait_until = now + min(limits.REVIVAL_SECONDS_MAX, (job.request.deadline - now) / 4)
            job.record.waited_at = now
        return now < job.wait_until

    # --- moves ------------------------------------------------------------------------------------------------------------

    def _offer(self, job: Job, place: Place, notes: tuple[CandidateNote, ...], wanted: int, now: float) -> None:
        state = self._state
        if job.offers >= limits.OFFERS_PER_JOB_MAX:
            state.fail(job, failures.overloaded(f"{job.offers} offers were not taken"), now)
            return
        self._leave(job)
        job.offers += 1
        job.attempt_number += 1
        pair = place.load.pair(job.request.source)
        record = attempt_record(job, place, notes, now)
        job.record.attempts.append(record)
        attempt = Attempt(job, place, pair, record)
        place.load.reserve(pair, is_export=attempt.is_export)
        state.held[place.session][job.id, attempt.number] = attempt
        job.attempt = attempt
        job.move(JobStimulus.OFFER)
        if not job.has_credit:
            job.has_credit = True
            state.credit_bytes += limits.CREDIT_WINDOW_BYTES
        if place.is_service:
            # The service does not refuse what it gives itself: there is nothing to wait for.
            attempt.accept(now)
        else:
            job.phase_due = now + limits.OFFER_TIMEOUT_SECONDS
        state.timers.schedule(job)
        remaining = job.request.deadline - now
        credit = attempt.flow.granted
        state.out.append(SendOffer(place.session, job.id, attempt.number, job.request, wanted, remaining, credit))

    def _has_credit(self, job: Job) -> bool:
        return job.has_credit or self._state.credit_bytes + limits.CREDIT_WINDOW_BYTES <= limits.NODE_CREDIT_BYTES_MAX

    def _enqueue(self, job: Job, now: float) -> None:
        state = self._state
        if job.state is JobState.QUEUED:
            return
        if self._is_full(job):
            state.fail(job, gave_up(job, failures.overloaded("the queue is full")), now)
            return
        self._leave(job)
        job.move(JobStimulus.ENQUEUE)
        if job.queue_until is None:
            job.queue_until = now + state.queue.patience(job, now)
            job.record.queued_at = now
        job.phase_due = job.queue_until
        state.queue.push(job, now)
        state.timers.schedule(job)

    def enqueue_behind(self, job: Job, now: float) -> bool:
        """Put a new job behind the ones that already wait for the same places; False when no job does."""
        if not self._state.queue.has_line(job):
            return False
        self._state.has_room_again = True
        self._enqueue(job, now)
        return True

    def _wait(self, job: Job, now: float) -> None:
        state = self._state
        if job.state is JobState.WAITING:
            return
        if self._is_full(job):
            state.fail(job, gave_up(job, failures.overloaded("too many wait for a runner to come back")), now)
            return
        self._leave(job)
        job.move(JobStimulus.WAIT)
        job.phase_due = job.wait_until
        state.waiting[job.id] = job
        state.timers.schedule(job)

    def _is_full(self, job: Job) -> bool:
        """One bound for all that wait, for a busy place or for one to come back; who waits already has its place."""
        others = self._state.queue.count + len(self._state.waiting)
        return others - (job.state in (JobState.QUEUED, JobState.WAITING)) >= limits.QUEUE_JOBS_MAX

    def _leave(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self._state.queue.left()
        elif job.state is JobState.WAITING:
            del self._state.waiting[job.id]


class Consideration(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new job on a source would go now. ``choice`` is None inline, and where nothing was there to choose from."""

    is_inline: bool = False
    choice: Choice | None = None
    failure: Failure | None = None


def consider(
    state: State, environment: EnvironmentId, source: SourceId, now: float, *, needs: frozenset[str] = frozenset()
) -> Consideration:
    """Decide as for a new job on this source that needs these features of a runner, and change nothing.

    A job might wait a moment for a runner that is about to come back; this speaks of the present moment.
    """
    route = state.routes.source(environment, source)
    if route is None:
        return Consideration(failure=failures.source_gone())
    target = _place_of(route)
    if isinstance(target, Failure):
        return Consideration(failure=target)
    if target[1]:
        return Consideration(is_inline=True)
    ask = Ask(route.source, route.bridge, route.runners, route.runner_names, route.wanted, route.serving, needs=needs)
    choice = state.fleet.consider(ask, now)
    failure = None
    if choice.unable is not None:
        failure = _unable(route, choice.notes, _policy_hint(state, route, choice.notes))
    elif choice.session is None and not choice.is_busy:
        failure = failures.no_runners_online(route, state.fleet, now)
    return Consideration(choice=choice, failure=failure)


def _place_of(route: SourceRoute) -> tuple[SourceRoute, bool] | Failure:
    """The route of a job that is pinned to nothing, and whether it is inline."""
    if route.runners:
        return route, False
    return failures.requires_runner(route) if route.needs_runner else (route, True)


def _unable(
    route: SourceRoute, notes: tuple[CandidateNote, ...], refusal_message: str, *, request_format: str = ""
) -> Failure:
    found = {note.runner_name: note.verdict for note in notes if note.verdict in UNABLE}
    if set(found.values()) == {Verdict.NO_ENCODING}:
        return failures.no_encoding(route, tuple(found), request_format)
    return failures.unable(route, list(found.items()), refusal_message)


def _policy_hint(state: State, route: SourceRoute, notes: tuple[CandidateNote, ...]) -> str:
    """What the first runner whose local policy refuses the source reported of it."""
    for note in notes:
        session = None if note.session is None else state.fleet.sessions.get(note.session)
        if note.verdict is Verdict.POLICY and session is not None and route.source in session.source_states:
            return policy_hint(session.source_states[route.source][1])
    return ""


def gave_up(job: Job, failure: Failure) -> Failure:
    """The failure for a job that can wait no longer: what a place that was tried has said wins over what is said here."""
    return failure if job.pending_failure is None else failures.with_runners(job.pending_failure, job.unreachable)
