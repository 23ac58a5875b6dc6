"""Both session machines: their tables, their rules one by one, and a stateful test of the two against each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lensway.limits import ATTEMPTS_REMEMBERED_MAX, HANDSHAKE_TIMEOUT_SECONDS
from lensway.protocol import frames, gateway_session, runner_session
from lensway.protocol.errors import ProtocolError
from lensway.protocol.gateway_session import GATEWAY_TABLE, GatewaySession, GatewayState, GatewayStimulus
from lensway.protocol.runner_session import RUNNER_TABLE, AttemptFence, RunnerSession, RunnerState, RunnerStimulus
from lensway.transitions import IllegalTransitionError, Table

HELLO = frames.Hello(
    runner="run_1", instance="ins_1", versions=(1,), software="0", public_key=bytes(32), bridges={}, capacity=4
)
WELCOME = frames.Welcome(
    version=1, session=1, runner_name="alpha", environment="env", heartbeat_ms=2_000, fence_ms=8_000, nonce=b""
)
SOURCE = frames.AssignedSource(source="src_1", name="main", bridge="sqlite", config_version=1)


def offer(job: int = 1, attempt: int = 1, credit: int = 100) -> frames.Offer:
    return frames.Offer(
        job=job,
        attempt=attempt,
        kind=frames.JobKind.ROWS,
        source="src_1",
        revision=1,
        payload=b"plan",
        format="json",
        deadline_ms=1_000,
        credit=credit,
        rows_max=1,
        bytes_max=1,
        row_bytes_max=1,
    )


def open_gateway(now: float = 0.0) -> GatewaySession:
    session = GatewaySession(now)
    assert session.handle(HELLO, now) == [gateway_session.Introduced(HELLO)]
    [welcome, beat] = session.handle(gateway_session.Admit(WELCOME), now)
    assert welcome == gateway_session.Send(WELCOME)
    assert isinstance(beat, gateway_session.Send)
    return session


def open_runner(now: float = 0.0) -> RunnerSession:
    session = RunnerSession(now)
    assert session.handle(runner_session.Begin(HELLO), now) == [runner_session.Send(HELLO)]
    assert session.handle(WELCOME, now) == [runner_session.Welcomed(WELCOME)]
    return session


def beat(sequence: int, ack: int, revision: int = 0, jobs: Sequence[tuple[int, int]] = ()) -> frames.Heartbeat:
    return frames.Heartbeat(sequence=sequence, ack=ack, revision=revision, jobs=tuple(jobs))


@pytest.mark.parametrize("table", [GATEWAY_TABLE, RUNNER_TABLE], ids=["gateway", "runner"])
def test_every_state_is_left_but_the_last_and_every_state_is_reached(table: Table) -> None:
    states = set(type(table.initial))
    assert set(table.rows.values()) | {table.initial} == states
    assert {state for state, _ in table.rows} | table.final_states() == states
    assert [state.value for state in table.final_states()] == ["closed"]


# --- gateway ---------------------------------------------------------------------------------------------------------------


def test_a_session_that_does_not_say_hello_in_time_is_a_broken_peer() -> None:
    session = GatewaySession(10.0)
    assert session.next_wake() == 10.0 + HANDSHAKE_TIMEOUT_SECONDS
    assert session.handle(gateway_session.Tick(), 10.0) == []
    with pytest.raises(ProtocolError, match="no_hello"):
        session.handle(gateway_session.Tick(), 10.0 + HANDSHAKE_TIMEOUT_SECONDS)


@pytest.mark.parametrize("frame", [beat(1, 0), frames.Accept(job=1, attempt=1), WELCOME, offer(), frames.Resume()])
def test_nothing_but_hello_opens_a_session(frame: frames.AnyFrame) -> None:
    session = GatewaySession(0.0)
    with pytest.raises(ProtocolError, match="unexpected_frame"):
        session.handle(frame, 0.0)
    assert session.state is GatewayState.AWAITING_HELLO
    with pytest.raises(ProtocolError):
        open_gateway().handle(HELLO, 0.0)


def test_an_illegal_word_raises_and_changes_nothing() -> None:
    session = GatewaySession(0.0)
    with pytest.raises(IllegalTransitionError, match=r"push is not possible in state awaiting_hello"):
        session.handle(gateway_session.Push(1, ()), 0.0)
    assert session.state is GatewayState.AWAITING_HELLO
    runner = RunnerSession(0.0)
    with pytest.raises(IllegalTransitionError):
        runner.handle(runner_session.Leave("x"), 0.0)
    assert runner.state is RunnerState.STARTING


def test_heartbeats_go_out_each_interval_and_only_a_fresh_acknowledgement_is_life() -> None:
    session = open_gateway()
    first = session.next_wake()
    assert first is not None
    assert 0.0 < first <= 2.0
    assert session.handle(gateway_session.Tick(), first - 0.1) == []
    [sent] = session.handle(gateway_session.Tick(), first)
    assert sent == gateway_session.Send(beat(2, 0))
    assert gateway_session.Alive() in session.handle(beat(1, 2), first + 0.1)
    assert gateway_session.Alive() not in session.handle(beat(2, 2), first + 0.2), "nothing new was acknowledged"
    assert session.next_wake() == first + 2.0
    session.handle(gateway_session.Tick(), first + 2.5)
    assert session.next_wake() == pytest.approx(first + 4.0), "a late one makes none of those that follow late"
    assert gateway_session.Alive() not in session.handle(beat(3, 3), first + 7.6), (
        "held back for longer than 2.5 intervals"
    )


def test_an_idle_runner_reports_what_is_new_and_is_alive_with_every_heartbeat() -> None:
    session = open_gateway()
    session.handle(gateway_session.Push(0, (SOURCE,)), 0.0)
    ready = frames.SourceState(source="src_1", state="ready")
    news = frames.Heartbeat(sequence=4, ack=4, revision=0, source_states=(ready,))
    said = []
    for number, heard in enumerate((beat(1, 1), beat(2, 2), beat(3, 3), news, beat(5, 5), beat(6, 6)), start=1):
        said.append(session.handle(heard, 2.0 * number))
        if number == 2:
            session.handle(frames.AssignmentInForce(revision=0), 2.0 * number)
        session.handle(gateway_session.Tick(), 2.0 * number + 2.0)
    assert all(gateway_session.Alive() in each for each in said)
    reported = [any(isinstance(each, gateway_session.Reported) for each in every) for every in said]
    assert reported == [True, False, True, True, True, False], "again after what came in between, and after news"


@pytest.mark.parametrize(("frame", "cause"), [(beat(1, 9), "ack_of_the_future"), (beat(0, 0), "sequence_repeated")])
def test_heartbeats_that_cannot_be_are_refused(frame: frames.Heartbeat, cause: str) -> None:
    with pytest.raises(ProtocolError, match=cause):
        open_gateway().handle(frame, 0.0)
    with pytest.raises(ProtocolError, match=cause):
        open_runner().handle(frame, 0.0)


def test_a_lost_push_is_pushed_again_when_the_echo_proves_it() -> None:
    session = open_gateway()
    session.handle(beat(1, 1), 0.1)
    assert session.handle(gateway_session.Push(5, (SOURCE,), is_lost=True), 1.0) == []
    repush = gateway_session.Repush()
    assert repush not in session.handle(beat(2, 1), 1.5), "sent before it could have read the set"
    session.handle(gateway_session.Tick(), 2.0)
    assert repush in session.handle(beat(3, 2), 2.1)
    assert session.handle(gateway_session.Push(5, (SOURCE,)), 2.1) == [
        gateway_session.Send(frames.AssignmentSet(revision=5, part=0, parts=1, sources=(SOURCE,)))
    ]
    session.handle(gateway_session.Tick(), 4.0)
    assert repush not in session.handle(beat(4, 3, revision=5), 4.1)


def test_a_report_names_what_the_runner_could_not_know_yet() -> None:
    session = open_gateway()
    session.handle(gateway_session.Give(offer(1)), 0.0)
    session.handle(frames.Accept(job=1, attempt=1), 0.0)
    session.handle(gateway_session.Tick(), 2.0)
    session.handle(gateway_session.Give(offer(2)), 2.05)
    reported = next(i for i in session.handle(beat(1, 2), 2.1) if isinstance(i, gateway_session.Reported))
    assert reported.jobs == ((2, 1),), "job 1 is provably lost, job 2 was offered behind the heartbeat"


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ([frames.Accept(job=2, attempt=1)], "answer_to_no_offer"),
        ([frames.Accept(job=1, attempt=2)], "answer_to_no_offer"),
        ([frames.Data(job=1, attempt=1, payload=b"x")], "answer_before_accept"),
        ([frames.Accept(job=1, attempt=1)] * 2, "offer_answered_twice"),
        (
            [
                frames.Accept(job=1, attempt=1),
                frames.Refuse(job=1, attempt=1, reason=frames.RefuseReason.BUSY, revision=0),
            ],
            "offer_answered_twice",
        ),
        ([frames.Accept(job=1, attempt=1), frames.Data(job=1, attempt=1, payload=bytes(101))], "credit_overrun"),
        (
            [frames.Accept(job=1, attempt=1)] + [frames.End(job=1, attempt=1, result=b"", sent_bytes=0)] * 2,
            "answer_to_no_offer",
        ),
    ],
)
def test_answers_that_nobody_asked_for_break_the_session(answers: list[frames.AnyFrame], cause: str) -> None:
    session = open_gateway()
    session.handle(gateway_session.Give(offer()), 0.0)
    with pytest.raises(ProtocolError, match=cause):
        for answer in answers:
            session.handle(answer, 0.0)


def test_rows_are_heard_but_not_with_every_frame_and_acknowledge_nothing() -> None:
    session = open_gateway()
    session.handle(gateway_session.Give(offer()), 0.0)
    session.handle(frames.Accept(job=1, attempt=1), 0.0)
    first, second, third = (frames.Data(job=1, attempt=1, payload=b"x", offset=number) for number in range(3))
    assert session.handle(first, 0.1) == [gateway_session.Answered(first)]
    assert session.handle(second, 1.0) == [gateway_session.Heard(), gateway_session.Answered(second)]
    assert session.handle(third, 1.1) == [gateway_session.Answered(third)]


def test_orders_for_an_attempt_that_has_ended_are_not_sent() -> None:
    session = open_gateway()
    session.handle(gateway_session.Give(offer()), 0.0)
    session.handle(frames.Accept(job=1, attempt=1), 0.0)
    credit = frames.Credit(job=1, attempt=1, bytes=5)
    assert session.handle(gateway_session.Give(credit), 0.0) == [gateway_session.Send(credit)]
    session.handle(frames.End(job=1, attempt=1, result=b"", sent_bytes=0), 0.0)
    assert session.handle(gateway_session.Give(credit), 0.0) == []
    assert session.handle(gateway_session.Give(frames.Cancel(job=1, attempt=1)), 0.0) == []
    assert session.open_attempts == 0


def test_an_operator_drains_and_resumes_but_a_leaving_runner_stays_leaving() -> None:
    session = open_gateway()
    session.handle(gateway_session.OrderDrain("operator"), 0.0)
    assert session.state is GatewayState.DRAINED
    session.handle(gateway_session.OrderResume(), 0.0)
    assert session.state is GatewayState.OPEN
    assert session.handle(frames.Drain(reason="SIGTERM"), 0.0) == [gateway_session.PeerLeaves("SIGTERM")]
    session.handle(gateway_session.OrderResume(), 0.0)
    assert session.state is GatewayState.LEAVING


def test_after_the_end_nothing_is_possible() -> None:
    session = open_gateway()
    finished = session.handle(gateway_session.Finish(frames.CloseReason.REVOKED, "revoked"), 0.0)
    assert finished[-1] == gateway_session.Over("revoked")
    assert session.next_wake() is None
    with pytest.raises(ProtocolError):
        session.handle(beat(1, 1), 0.0)
    for word in (gateway_session.Tick(), gateway_session.Give(offer()), gateway_session.Push(1, ())):
        with pytest.raises(IllegalTransitionError):
            session.handle(word, 0.0)


# --- runner ----------------------------------------------------------------------------------------------------------------


def test_the_fence_counts_from_sending_what_was_acknowledged() -> None:
    session = open_runner(now=0.0)
    assert session.next_wake() == 8.0
    assert session.handle(beat(1, 0), 0.5) == [runner_session.Beat(1, 1, 0, False)]
    assert session.next_wake() == 8.0, "an own heartbeat without acknowledgement proves nothing"
    session.handle(beat(2, 1), 2.5)
    assert session.next_wake() == 0.5 + 8.0
    assert session.handle(runner_session.Tick(), 8.4) == []
    over = session.handle(runner_session.Tick(), 8.5)
    assert over[-1] == runner_session.Over("heartbeat_lost")
    assert session.state is RunnerState.CLOSED
    assert session.next_wake() is None


def test_a_gateway_that_does_not_welcome_in_time_is_left() -> None:
    session = RunnerSession(0.0)
    session.handle(runner_session.Begin(HELLO), 1.0)
    over = session.handle(runner_session.Tick(), 1.0 + HANDSHAKE_TIMEOUT_SECONDS)
    assert over[-1] == runner_session.Over("no_welcome")


@pytest.mark.parametrize("changes", [{"version": 9}, {"heartbeat_ms": 0}, {"heartbeat_ms": 9_000}])
def test_a_welcome_that_cannot_be_served_is_refused(changes: dict[str, int]) -> None:
    session = RunnerSession(0.0)
    session.handle(runner_session.Begin(HELLO), 0.0)
    fields = {name: getattr(WELCOME, name) for name in WELCOME.__struct_fields__} | changes
    with pytest.raises(ProtocolError):
        session.handle(frames.Welcome(**fields), 0.0)
    assert session.state is RunnerState.AWAITING_WELCOME


def test_sets_arrive_in_parts_and_the_echo_follows_what_was_applied() -> None:
    session = open_runner()
    first = frames.AssignmentSet(revision=4, part=0, parts=2, sources=(SOURCE,))
    last = frames.AssignmentSet(revision=4, part=1, parts=2, sources=(SOURCE,))
    assert session.handle(first, 0.0) == []
    assert session.handle(first, 0.0) == [], "a first part starts again"
    assert session.handle(last, 0.0) == [runner_session.Assigned(4, (SOURCE, SOURCE))]
    assert session.handle(beat(1, 0), 0.0) == [runner_session.Beat(1, 1, 0, False)]
    assert session.handle(runner_session.Applied(4, ()), 0.0) == [
        runner_session.Send(frames.AssignmentInForce(revision=4))
    ]
    assert session.handle(beat(2, 0), 0.0) == [runner_session.Beat(2, 2, 4, False)]


@pytest.mark.parametrize(
    "parts",
    [
        [(4, 1, 2)],
        [(4, 0, 3), (4, 2, 3)],
        [(4, 0, 2), (5, 1, 2)],
        [(4, 0, 0)],
        [(4, 2, 2)],
        [(4, 0, 1), (4, 1, 1)],
        [(4, 0, 2), (4, 1, 3)],
        [(4, 0, 100_000)],
    ],
)
def test_parts_that_do_not_fit_together_are_refused(parts: list[tuple[int, int, int]]) -> None:
    session = open_runner()
    with pytest.raises(ProtocolError, match="assignment_part"):
        for revision, part, count in parts:
            session.handle(frames.AssignmentSet(revision=revision, part=part, parts=count, sources=()), 0.0)


def test_an_older_attempt_is_refused_as_stale() -> None:
    session = open_runner()
    session.revision_in_force = 3
    assert session.handle(offer(1, 2), 0.0) == [runner_session.Offered(offer(1, 2))]
    refusal = frames.Refuse(job=1, attempt=1, reason=frames.RefuseReason.STALE, revision=3)
    assert session.handle(offer(1, 1), 0.0) == [runner_session.Send(refusal)]
    assert session.handle(offer(1, 3), 0.0) == [runner_session.Offered(offer(1, 3))]


def test_the_fence_remembers_a_bounded_number_of_jobs() -> None:
    fence = AttemptFence()
    for job in range(ATTEMPTS_REMEMBERED_MAX + 10):
        assert fence.passes(job, 5)
    assert not fence.passes(ATTEMPTS_REMEMBERED_MAX, 5)
    assert fence.passes(0, 5), "so old that it is forgotten"


def test_a_leaving_runner_says_so_in_every_heartbeat_and_keeps_answering() -> None:
    session = open_runner()
    assert session.handle(runner_session.Leave("SIGTERM"), 0.0) == [runner_session.Send(frames.Drain(reason="SIGTERM"))]
    assert session.handle(beat(1, 0), 0.0) == [runner_session.Beat(1, 1, 0, True)]
    session.handle(frames.Resume(), 0.0)
    assert session.state is RunnerState.LEAVING


def test_the_gateways_close_is_handed_on() -> None:
    close = frames.Close(reason=frames.CloseReason.REVOKED, message="revoked")
    assert open_runner().handle(close, 0.0) == [runner_session.Over("closed_by_gateway_revoked", close=close)]


@pytest.mark.parametrize("frame", [HELLO, frames.Accept(job=1, attempt=1), frames.Data(job=1, attempt=1, payload=b"x")])
def test_the_runner_takes_no_frames_that_only_runners_send(frame: frames.AnyFrame) -> None:
    with pytest.raises(ProtocolError, match="unexpected_frame"):
        open_runner().handle(frame, 0.0)


# --- both, over a link that keeps order --------------------------------------------------------------------------------------


class SessionPair(RuleBasedStateMachine):
    """A gateway and a runner with an ordered link that may stand still in either direction for any time."""

    @initialize()
    def connect(self) -> None:
        self.now = 0.0
        self.gateway = GatewaySession(self.now)
        self.runner = RunnerSession(self.now)
        self.up: deque[frames.AnyFrame] = deque()
        self.down: deque[frames.AnyFrame] = deque()
        self.wanted = 0
        self.job = 0
        self.accepted: set[tuple[int, int]] = set()
        self.last_life = 0.0
        self._runner_does(self.runner.handle(runner_session.Begin(HELLO), self.now))

    def _gateway_does(self, instructions: list[gateway_session.GatewayInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case gateway_session.Send(frame):
                    self.down.append(frame)
                case gateway_session.Introduced():
                    self._gateway_does(self.gateway.handle(gateway_session.Admit(WELCOME), self.now))
                case gateway_session.Repush():
                    self._gateway_does(self.gateway.handle(gateway_session.Push(self.wanted, (SOURCE,)), self.now))
                case gateway_session.Alive():
                    self.last_life = self.now
                case gateway_session.Reported(jobs=jobs):
                    assert self.accepted <= set(jobs), "nothing that the runner holds ever seems lost"
                case gateway_session.Answered(frames.End(job=job, attempt=attempt)):
                    self.accepted.discard((job, attempt))

    def _runner_does(self, instructions: list[runner_session.RunnerInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case runner_session.Send(frame):
                    self.up.append(frame)
                case runner_session.Beat(sequence, ack, revision, draining):
                    jobs = tuple(self.holding)
                    self.up.append(
                        frames.Heartbeat(sequence=sequence, ack=ack, revision=revision, draining=draining, jobs=jobs)
                    )
                case runner_session.Assigned(revision, _):
                    self._runner_does(self.runner.handle(runner_session.Applied(revision, ()), self.now))
                case runner_session.Offered(order):
                    self.holding[order.job, order.attempt] = None
                    self.up.append(frames.Accept(job=order.job, attempt=order.attempt))

    @property
    def holding(self) -> dict[tuple[int, int], None]:
        self.__dict__.setdefault("_holding", {})
        return self.__dict__["_holding"]

    @property
    def is_open(self) -> bool:
        return (
            GATEWAY_TABLE.has(self.gateway.state, GatewayStimulus.TICK)
            and self.gateway.state is not GatewayState.AWAITING_HELLO
            and self.runner.state is not RunnerState.CLOSED
        )

    @precondition(lambda self: self.up and self.gateway.state is not GatewayState.CLOSED)
    @rule()
    def deliver_up(self) -> None:
        frame = self.up.popleft()
        if isinstance(frame, frames.Accept):
            self.accepted.add((frame.job, frame.attempt))
        self._gateway_does(self.gateway.handle(frame, self.now))

    @precondition(lambda self: self.down and self.runner.state is not RunnerState.CLOSED)
    @rule()
    def deliver_down(self) -> None:
        self._runner_does(self.runner.handle(self.down.popleft(), self.now))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        wake = self.gateway.next_wake()
        if wake is not None and wake <= self.now and self.is_open:
            self._gateway_does(self.gateway.handle(gateway_session.Tick(), self.now))
        wake = self.runner.next_wake()
        if wake is not None and wake <= self.now:
            self._runner_does(self.runner.handle(runner_session.Tick(), self.now))
            assert self.runner.state is RunnerState.CLOSED

    @precondition(lambda self: self.is_open)
    @rule(is_lost=st.booleans())
    def change_set(self, is_lost: bool) -> None:
        self.wanted += 1
        self._gateway_does(self.gateway.handle(gateway_session.Push(self.wanted, (SOURCE,), is_lost), self.now))

    @precondition(lambda self: self.is_open)
    @rule()
    def give_offer(self) -> None:
        self.job += 1
        self._gateway_does(self.gateway.handle(gateway_session.Give(offer(self.job)), self.now))

    @precondition(lambda self: self.runner.state is not RunnerState.CLOSED and self.holding)
    @rule()
    def end_job(self) -> None:
        job, attempt = next(iter(self.holding))
        del self.holding[job, attempt]
        self.up.append(frames.End(job=job, attempt=attempt, result=b"", sent_bytes=0))

    @precondition(lambda self: self.is_open)
    @rule()
    def settle(self) -> None:
        """With a working link one heartbeat brings the wanted set in force, whatever was lost before."""
        for _ in range(3):
            self.pass_time(2.0)
            while (self.up or self.down) and self.runner.state is not RunnerState.CLOSED:
                if self.up:
                    self.deliver_up()
                else:
                    self.deliver_down()
        if self.runner.state is not RunnerState.CLOSED:
            assert self.runner.revision_in_force == self.wanted

    @invariant()
    def the_runner_gives_up_before_the_gateway_does(self) -> None:
        # Dead at 10 s without life, the runner's fence at 8 s from sending: at no time is a session dead on the gateway and
        # still served by the runner (its timer is exact here).
        if self.is_open and self.runner.state not in (RunnerState.STARTING, RunnerState.AWAITING_WELCOME):
            assert self.now - self.runner.proven_at < 8.0


SessionPair.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestSessionPair = SessionPair.TestCase


def test_all_stimuli_are_used() -> None:
    assert {stimulus for _, stimulus in GATEWAY_TABLE.rows} == set(GatewayStimulus)
    assert {stimulus for _, stimulus in RUNNER_TABLE.rows} == set(RunnerStimulus)
