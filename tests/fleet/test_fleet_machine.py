"""The fleet under any order of events: who is live, suspect or dead, and who is chosen."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lensway import limits
from lensway.fleet import Ask, Fleet, SessionFacts, SessionState, Verdict
from lensway.fleet.fleet import Finding
from lensway.fleet.load import Pair
from lensway.ids import EnvironmentId, InstanceId, RunnerId, SessionId, SourceId

SOURCE = SourceId("src")
RUNNERS = tuple(RunnerId(f"run{number}") for number in range(3))


class FleetMachine(RuleBasedStateMachine):
    """Sessions, their life, their load and the health of one source on them."""

    @initialize()
    def start(self) -> None:
        self.fleet = Fleet()
        self.now = 1000.0
        self.next_id = 1
        self.serving = dict.fromkeys(RUNNERS, True)
        self.heard_at: dict[int, float] = {}
        self.reserved: list[tuple[int, bool]] = []

    def sessions(self) -> list[int]:
        return sorted(getattr(self, "fleet", Fleet()).sessions)

    def draw(self, data):
        return self.fleet.sessions[SessionId(data.draw(st.sampled_from(self.sessions())))]

    # --- life -------------------------------------------------------------------------------------------------------------

    @rule(
        runner=st.sampled_from(RUNNERS), capacity=st.sampled_from((1, 3)), bridge=st.sampled_from(("postgres", "other"))
    )
    def connect(self, runner, capacity, bridge) -> None:
        session = SessionId(self.next_id)
        self.next_id += 1
        facts = SessionFacts(
            session=session,
            environment=EnvironmentId("env"),
            runner=runner,
            runner_name=runner,
            instance=InstanceId(f"{runner}-{session}"),
            bridges={bridge: "x"},
            capacity=capacity,
            software="",
            hostname="",
            address="",
            version=1,
        )
        assert self.fleet.superseded_by(facts) == []
        self.fleet.open(facts, self.now)
        self.heard_at[session] = self.now

    @precondition(lambda self: self.sessions())
    @rule(data=st.data(), proves=st.booleans())
    def hear(self, data, proves: bool) -> None:
        session = self.draw(data)
        was_suspect = session.is_suspect
        if proves:
            assert self.fleet.alive(session, self.now) == was_suspect
            assert not session.is_suspect
        else:
            self.fleet.heard(session, self.now)
            assert session.is_suspect == was_suspect, "bytes alone make nobody live again"
        self.heard_at[session.id] = self.now

    @precondition(lambda self: self.sessions())
    @rule(data=st.data(), draining=st.booleans(), state=st.sampled_from(("ready", "unreachable", "no_credentials")))
    def report(self, data, draining: bool, state: str) -> None:
        session = self.draw(data)
        self.fleet.report(session, data.draw(st.integers(0, 1)), {SOURCE: (state, "")}, self.now, is_draining=draining)
        assert session.is_draining == (draining or session.drain_is_ordered)
        self.heard_at[session.id] = self.now

    @precondition(lambda self: self.sessions())
    @rule(data=st.data(), is_draining=st.booleans())
    def order(self, data, is_draining: bool) -> None:
        session = self.draw(data)
        self.fleet.order_drain(session, self.now, is_draining=is_draining)
        assert session.is_draining == (is_draining or session.drain_is_reported)

    @precondition(lambda self: self.sessions())
    @rule(data=st.data())
    def leave_unanswered(self, data) -> None:
        session = self.draw(data)
        self.fleet.offer_unanswered(session, self.now)
        assert session.is_suspect

    @precondition(lambda self: self.sessions())
    @rule(data=st.data())
    def lose(self, data) -> None:
        self.lose_one(self.draw(data))

    def lose_one(self, session) -> None:
        self.fleet.lose(session, "reset", self.now)
        assert session.state is SessionState.LOST
        assert self.fleet.last_loss(session.facts.runner).at == self.now
        self.reserved = [entry for entry in self.reserved if entry[0] != session.id]

    @rule(seconds=st.sampled_from((0.1, 1.0, 2.6, 6.0)))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.fleet.next_sweep()) is not None and due <= until:
            self.now = max(self.now, due)
            for session, finding in self.fleet.sweep(self.now):
                silent = self.now - self.heard_at[session.id] + 1e-9  # sums of tenths
                if finding is Finding.DEAD:
                    assert silent >= limits.DEAD_SECONDS, "nobody is called dead who was heard"
                    self.lose_one(session)
                else:
                    assert silent >= limits.SUSPECT_SECONDS, "nobody is suspected who was heard"
        self.now = until

    @rule(runner=st.sampled_from(RUNNERS), is_serving=st.booleans())
    def mark(self, runner, is_serving: bool) -> None:
        self.serving[runner] = is_serving

    # --- the source -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.sessions())
    @rule(data=st.data(), is_reached=st.booleans(), seconds=st.sampled_from((0.001, 0.01, 0.5)))
    def answer(self, data, is_reached: bool, seconds: float) -> None:
        pair = self.draw(data).load.pair(SOURCE)
        if is_reached:
            pair.record_latency(seconds, self.now)
            pair.record_reached()
            assert not pair.is_ejected(self.now)
            assert pair.is_sound
        else:
            pair.record_unreachable(self.now)
            assert not pair.is_sound

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def give_back(self, data) -> None:
        place = data.draw(st.integers(0, len(self.reserved) - 1))
        session, is_export = self.reserved.pop(place)
        load = self.fleet.sessions[SessionId(session)].load
        load.give_back(load.pair(SOURCE), is_export=is_export)

    @rule(data=st.data(), is_export=st.booleans(), live_only=st.booleans())
    def choose(self, data, is_export: bool, live_only: bool) -> None:
        excluded = {}
        if self.sessions() and data.draw(st.booleans()):
            excluded = {self.draw(data).id: data.draw(st.sampled_from((Verdict.FAILED, Verdict.UNANSWERED)))}
        ask = Ask(
            SOURCE,
            "postgres",
            RUNNERS,
            RUNNERS,
            (1, 1, 1),
            tuple(self.serving[runner] for runner in RUNNERS),
            is_export,
            None,
            excluded,
            live_only,
        )
        before = self.everything_of_pairs()
        considered = self.fleet.consider(ask, self.now)
        assert self.fleet.consider(ask, self.now) == considered, "to ask twice changes nothing"
        assert self.everything_of_pairs() == before, "to ask spends no turn and no probe"
        choice = self.fleet.choose(ask, self.now)
        assert choice == considered, "what is explained is what then happens"
        able = [one for one in self.fleet.sessions.values() if self.is_able(one, excluded)]
        live = [one for one in able if not one.is_suspect]
        shown = [note.session for note in choice.notes if note.session is not None]
        assert sorted(shown) == sorted(self.fleet.sessions), "everybody is named, with a reason"
        assert sum(note.verdict is Verdict.CHOSEN for note in choice.notes) == (choice.session is not None)
        if choice.session is None:
            self.nobody(choice, live if live_only else able, is_export)
            return
        chosen = choice.session
        assert chosen in able
        assert chosen in live or not (live_only or live), "a suspect only when nobody is live"
        pair = chosen.load.pair(SOURCE)
        is_off = pair.is_ejected(self.now) or self.is_unreachable(chosen)
        sound = [one for one in live if not one.load.pair(SOURCE).is_ejected(self.now) and not self.is_unreachable(one)]
        assert not is_off or chosen.is_suspect or not sound, "an ejected pair only when it is the last candidate"
        assert chosen.load.has_room(pair, is_export=is_export)
        chosen.load.reserve(pair, is_export=is_export)
        self.reserved.append((chosen.id, is_export))

    def everything_of_pairs(self):
        return {
            (session.id, source): {name: getattr(pair, name) for name in Pair.__slots__}
            for session in self.fleet.sessions.values()
            for source, pair in session.load.pairs.items()
        }

    def nobody(self, choice, candidates, is_export: bool) -> None:
        if choice.is_busy:
            assert candidates
        else:
            assert not candidates, "whoever could serve is chosen, or is busy"

    def is_able(self, session, excluded) -> bool:
        why = excluded.get(session.id)
        is_let = why is None or (why is Verdict.UNANSWERED and session.state is SessionState.LIVE)
        knows = session.revision is not None and session.revision >= 1
        lacks = knows and session.source_states.get(SOURCE, ("",))[0] == "no_credentials"
        return (
            self.serving[session.facts.runner]
            and not session.is_draining
            and is_let
            and "postgres" in session.facts.bridges
            and not lacks
        )

    def is_unreachable(self, session) -> bool:
        knows = session.revision is not None and session.revision >= 1
        return knows and session.source_states.get(SOURCE, ("",))[0] == "unreachable"

    # --- always -----------------------------------------------------------------------------------------------------------

    @invariant()
    def silence_shows_in_time(self) -> None:
        for session in getattr(self, "fleet", Fleet()).sessions.values():
            silent = self.now - self.heard_at[session.id]
            assert silent <= limits.DEAD_SECONDS
            assert session.is_suspect or silent <= limits.SUSPECT_SECONDS

    @invariant()
    def reservations_are_counted(self) -> None:
        for session in getattr(self, "fleet", Fleet()).sessions.values():
            mine = [is_export for id, is_export in self.reserved if id == session.id]
            assert session.load.outstanding == len(mine) <= session.load.capacity
            assert session.load.exports == sum(mine)


FleetMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestFleet = FleetMachine.TestCase
