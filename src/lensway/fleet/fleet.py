"""The fleet: every session of this node, whether it lives, and which one executes what. Owned by dispatch.

Time comes as an argument, always of one monotonic clock. Silence is looked at lazily: one entry per session in a heap, checked
when it falls due against the last sign of life, so that a heartbeat costs one assignment.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Callable, Iterator, Mapping

import msgspec

from lensway import limits
from lensway.fleet.choice import REVIVABLE, UNABLE, Ask, CandidateNote, Choice, Verdict
from lensway.fleet.facts import SessionFacts
from lensway.fleet.liveness import Timings, timings
from lensway.fleet.load import Load, Pair
from lensway.fleet.selection import Selection, Usable, select
from lensway.fleet.sessions import Session, SessionState, SessionStimulus
from lensway.fleet.standing import Standing
from lensway.ids import InstanceId, RunnerId, SessionId, SourceId

_REPORTED_UNABLE: Mapping[str, Verdict] = {
    "no_bridge": Verdict.NO_BRIDGE,
    "no_credentials": Verdict.NO_CREDENTIALS,
    "invalid_settings": Verdict.INVALID_SETTINGS,
    "credentials_ambiguous": Verdict.CREDENTIALS_AMBIGUOUS,
    "refused": Verdict.POLICY,
}


class Loss(msgspec.Struct, frozen=True):
    """When and why a runner's last session ended."""

    at: float
    cause: str
    is_recalled: bool = False
    """True when ``at`` comes from a wall clock, which may have been set since: it is for people to read, and decides nothing."""


class Finding(enum.Enum):
    """What a sweep found of one session."""

    SUSPECT = "suspect"
    DEAD = "dead"


class Fleet:
    """Sessions by id and by runner, their liveness, and selection among them."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self._by_runner: dict[RunnerId, dict[SessionId, Session]] = {}
        self._losses: dict[RunnerId, Loss] = {}
        self._before: dict[RunnerId, tuple[dict[InstanceId, Standing], float]] = {}
        self._due: list[tuple[float, SessionId]] = []
        self._rounded = (0.0, 0.0)
        self._turn = 0

    # --- life of a session ------------------------------------------------------------------------------------------------

    def timings_for_next(self) -> Timings:
        """The windows to tell the next session in its welcome."""
        return timings(len(self.sessions))

    def open(self, facts: SessionFacts, now: float) -> Session:
        """A new session. The caller has ended older ones of the same instance (see `superseded_by`)."""
        standings, until = self._before.get(facts.runner, ({}, now))
        before = standings.pop(facts.instance, None)
        session = Session(facts, now, before=before if now < until else None)
        assert facts.session not in self.sessions, "session ids are never used twice"
        self.sessions[facts.session] = session
        self._by_runner.setdefault(facts.runner, {})[facts.session] = session
        heapq.heappush(self._due, (now + session.timings.suspect_seconds, facts.session))
        return session

    def superseded_by(self, facts: SessionFacts) -> list[Session]:
        """Older sessions of the same instance: a process that connects again has given up its old connection."""
        siblings = self._by_runner.get(facts.runner, {}).values()
        return [session for session in siblings if session.facts.instance == facts.instance]

    def lose(self, session: Session, cause: str, now: float) -> None:
        """The session is over; its epoch is never valid again."""
        session.move(SessionStimulus.LOSE, cause, now)
        del self.sessions[session.id]
        siblings = self._by_runner[session.facts.runner]
        del siblings[session.id]
        if not siblings:
            del self._by_runner[session.facts.runner]
        self._losses.pop(session.facts.runner, None)
        self._losses[session.facts.runner] = Loss(now, cause)
        if len(self._losses) > limits.RUNNER_HISTORY_ENTRIES_MAX:
            del self._losses[next(iter(self._losses))]

    def alive(self, session: Session, now: float) -> bool:
        """A sign of life that proves both directions; True when that changed the state."""
        session.last_alive = now
        return session.is_suspect and session.move(SessionStimulus.ALIVE, "answered again", now)

    def heard(self, session: Session, now: float) -> None:
        """Bytes came in: it is not dead, but that says nothing of the way there."""
        session.last_alive = now

    def offer_unanswered(self, session: Session, now: float) -> bool:
        """It did not answer an offer in time; True when that changed the state."""
        return not session.is_suspect and session.move(SessionStimulus.OFFER_UNANSWERED, "offer_unanswered", now)

    def order_drain(self, session: Session, now: float, *, is_draining: bool) -> bool:
        """The runner or an operator takes it out of service or back; True when that changed the state."""
        session.drain_is_ordered = is_draining
        return self._apply_drain(session, now)

    def report(
        self,
        session: Session,
        revision: int,
        source_states: Mapping[SourceId, tuple[str, str]],
        now: float,
        *,
        is_draining: bool,
    ) -> tuple[bool, tuple[SourceId, ...]]:
        """A heartbeat's content: whether that changed the state, and the sources of which it said something new."""
        session.last_alive = now
        changed = session.learn(revision, source_states, now)
        session.drain_is_reported = is_draining
        return self._apply_drain(session, now), changed

    def sweep(self, now: float) -> list[tuple[Session, Finding]]:
        """Sessions that are newly suspect, or dead, by their silence. Dead ones are to be lost by the caller."""
        found: list[tuple[Session, Finding]] = []
        while self._due and self._due[0][0] <= now:
            _, session_id = heapq.heappop(self._due)
            session = self.sessions.get(session_id)
            if session is None:
                continue
            dead_at = session.last_alive + session.timings.dead_seconds
            suspect_at = session.last_alive + session.timings.suspect_seconds
            if now >= dead_at:
                found.append((session, Finding.DEAD))
                continue
            if now >= suspect_at:
                if not session.is_suspect and session.move(SessionStimulus.SILENT, "silent", now):
                    found.append((session, Finding.SUSPECT))
                heapq.heappush(self._due, (dead_at, session_id))
            else:
                heapq.heappush(self._due, (suspect_at, session_id))
        return found

    def next_sweep(self) -> float | None:
        """When to `sweep`: up to a grid's step later than the first that is due, so that many are looked at together."""
        if not self._due:
            return None
        due = self._due[0][0]
        if due != self._rounded[0]:
            # Never before it is due, not by a last digit either: nothing would be found, and looked at again at once.
            late = max(due, math.ceil(due / limits.HEARTBEAT_GRID_SECONDS) * limits.HEARTBEAT_GRID_SECONDS)
            self._rounded = (due, late)
        return self._rounded[1]

    def recall(self, runner: RunnerId, at: float, cause: str) -> None:
        """What an earlier process of this node knew, for people to read: when and why the runner's last session ended."""
        if runner not in self._by_runner:
            self._losses.setdefault(runner, Loss(at, cause, is_recalled=True))

    def recall_connected(self, runner: RunnerId, standings: Mapping[InstanceId, Standing], now: float) -> None:
        """An earlier process of this node ended while these instances were connected: each goes on if it is back soon."""
        self.recall(runner, now, "server_stopped")
        if runner not in self._by_runner:
            self._before[runner] = (dict(standings), now + limits.RUNNER_RETURN_SECONDS)

    # --- questions --------------------------------------------------------------------------------------------------------

    def sessions_of(self, runner: RunnerId) -> Iterator[Session]:
        """The runner's sessions, oldest first."""
        return iter(self._by_runner.get(runner, {}).values())

    def standings_of(self, runner: RunnerId) -> dict[InstanceId, Standing]:
        """What the next process of this node may go on with, by instance."""
        found = {session.facts.instance: session.standing() for session in self.sessions_of(runner)}
        return {instance: standing for instance, standing in found.items() if standing is not None}

    def last_loss(self, runner: RunnerId) -> Loss | None:
        """When and why the runner's last session ended, if it was ever here."""
        return self._losses.get(runner)

    def lost_within(self, runners: tuple[RunnerId, ...], seconds: float, now: float) -> bool:
        """True when one of the runners lost a session of this process less than ``seconds`` ago."""
        losses = (loss for runner in runners if (loss := self._losses.get(runner)) is not None)
        return any(not loss.is_recalled and now - loss.at < seconds for loss in losses)

    def choose(self, ask: Ask, now: float) -> Choice:
        """Pick a session, or say why there is none, and spend its turn. Reserves nothing.

        Order of preference: live ones; live but ejected ones (the last candidate is never ejected); suspects.
        """
        choice, selection = self._decide(ask, now, pair_of=Load.pair)
        if selection is not None:
            self._turn += 1
            selection.spend(self._turn)
        return choice

    def consider(self, ask: Ask, now: float) -> Choice:
        """What `choose` would answer now. Changes nothing: no turn is taken and no probe spent."""
        return self._decide(ask, now, pair_of=Load.peek)[0]

    def _decide(
        self, ask: Ask, now: float, *, pair_of: Callable[[Load, SourceId], Pair]
    ) -> tuple[Choice, Selection | None]:
        notes: list[CandidateNote] = []
        open_: list[Usable] = []
        ejected: list[Usable] = []
        suspects: list[Usable] = []
        for place, runner in enumerate(ask.runners):
            name = ask.runner_names[place]
            sessions = self._by_runner.get(runner)
            if not sessions:
                notes.append(CandidateNote(runner, name, None, Verdict.NOT_CONNECTED))
                continue
            for session in sessions.values():
                pair = pair_of(session.load, ask.source)
                verdict = _obstacle(session, pair, ask, place, now)
                notes.append(CandidateNote(runner, name, session.id, verdict or Verdict.WORSE))
                if verdict is None:
                    open_.append(Usable(len(notes) - 1, session, pair))
                elif verdict is Verdict.EJECTED or verdict is Verdict.UNREACHABLE:
                    ejected.append(Usable(len(notes) - 1, session, pair))
                elif verdict is Verdict.SUSPECT and not ask.live_only:
                    suspects.append(Usable(len(notes) - 1, session, pair))
        group = open_ or ejected or suspects
        return self._pick(ask, notes, group, now) if group else (_nobody(notes), None)

    def _pick(
        self, ask: Ask, notes: list[CandidateNote], group: list[Usable], now: float
    ) -> tuple[Choice, Selection | None]:
        with_room = []
        for entry in group:
            if now >= entry.pair.busy_until and entry.session.load.has_room(entry.pair, is_export=ask.is_export):
                with_room.append(entry)
            else:
                entry.verdict = Verdict.BUSY
        selection = select(with_room) if with_room else None
        for entry in group:
            note = notes[entry.index]
            notes[entry.index] = CandidateNote(
                note.runner, note.runner_name, note.session, entry.verdict, entry.score or None
            )
        if selection is None:
            return Choice(None, tuple(notes), is_busy=True), None
        return Choice(selection.chosen.session, tuple(notes)), selection

    def _apply_drain(self, session: Session, now: float) -> bool:
        should = session.drain_is_ordered or session.drain_is_reported
        if should == session.is_draining or session.state is SessionState.LOST:
            return False
        cause = ("drain_ordered" if session.drain_is_ordered else "drain_reported") if should else "drain_over"
        return session.move(SessionStimulus.DRAIN if should else SessionStimulus.RESUME, cause, now)


def _nobody(notes: list[CandidateNote]) -> Choice:
    verdicts = {note.verdict for note in notes}
    may_revive = not verdicts.isdisjoint(REVIVABLE)
    unable = next((note.verdict for note in notes if note.verdict in UNABLE), None)
    return Choice(None, tuple(notes), unable=None if may_revive else unable, may_revive=may_revive)


def _obstacle(session: Session, pair: Pair, ask: Ask, place: int, now: float) -> Verdict | None:
    """Why this session should not execute this, or None. The order is that of what a person would want to hear first."""
    excluded = ask.excluded.get(session.id)
    if ask.session is not None and session.id != ask.session:
        return Verdict.NOT_PINNED
    if session.is_draining:
        return Verdict.DRAINING
    if not ask.serving[place]:
        return Verdict.NOT_SERVING
    # An offer that this job left unanswered there stops counting once the session has shown life since.
    if excluded is not None and not (excluded is Verdict.UNANSWERED and session.state is SessionState.LIVE):
        return excluded
    if ask.bridge not in session.facts.bridges:
        return Verdict.NO_BRIDGE
    if ask.format and session.facts.encodings and ask.format not in session.facts.encodings:
        return Verdict.NO_ENCODING
    if not ask.needs <= session.facts.features:
        return Verdict.UNKNOWN_KIND
    reported = session.source_states.get(ask.source)
    if reported is not None and session.revision is not None and session.revision >= ask.wanted[place]:
        unable = _REPORTED_UNABLE.get(reported[0])
        if unable is not None:
            return unable
        if reported[0] == "unreachable":
            return Verdict.SUSPECT if session.is_suspect else Verdict.UNREACHABLE
    if session.is_suspect:
        return Verdict.SUSPECT
    return Verdict.EJECTED if pair.is_ejected(now) else None
