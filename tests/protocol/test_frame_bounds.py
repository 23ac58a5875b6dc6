"""No frame of a peer, at its largest or strangest, takes long to read and handle, and no report keeps what was not asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest

from lensway import limits
from lensway.protocol import codec, frames, gateway_session
from lensway.protocol.allowance import Allowance
from lensway.protocol.errors import ProtocolError
from lensway.protocol.failures import decode_failure, encode_failure
from lensway.protocol.gateway_session import GatewaySession, InForce, Reported, Repush, Send
from lensway.protocol.runner_session import Begin, RunnerSession
from lensway.protocol.session import SetAssembler, parts_of

FRAME_MS_MAX = 5.0
NAME = "😀" * 255
HELLO = frames.Hello(
    runner="run_1", instance="ins_1", versions=(1,), software="0", public_key=bytes(32), bridges={}, capacity=4
)
WELCOME = frames.Welcome(
    version=1, session=1, runner_name="alpha", environment="env", heartbeat_ms=2_000, fence_ms=8_000, nonce=b""
)
STATE = frames.SourceState(source="src_1", state="ready")
SOURCES = tuple(
    frames.AssignedSource(source=f"src_{n}", name=f"s{n}", bridge="sqlite", config_version=1) for n in range(1_000)
)
KINDS = [codec.kind_of(each) for each in codec.FRAME_TYPES if each is not frames.Data]


def gateway(sources: Sequence[frames.AssignedSource] = SOURCES) -> GatewaySession:
    session = GatewaySession(0.0)
    session.handle(HELLO, 0.0)
    session.handle(gateway_session.Admit(WELCOME), 0.0)
    session.handle(gateway_session.Push(1, tuple(sources)), 0.0)
    return session


def states(count: int, prefix: str = "src_") -> tuple[frames.SourceState, ...]:
    return tuple(frames.SourceState(source=f"{prefix}{n}", state="ready", cause="c" * 200) for n in range(count))


def quickest_ms(data: bytes, session: GatewaySession | RunnerSession) -> float:
    """Thread time of reading the frames and handling them, the least of three: others use this machine too."""

    def once() -> float:
        begun = time.thread_time()
        decoder = codec.Decoder()
        try:
            read = decoder.feed(data, limits.FRAMES_AT_ONCE_MAX)
            for frame in read:
                session.handle(frame, 1.0)
        except ProtocolError:
            pass
        return (time.thread_time() - begun) * 1000

    return min(once() for _ in range(3))


def raw(kind: int, payload: bytes) -> bytes:
    return codec.HEADER.pack(kind, len(payload)) + payload


BIGGEST: dict[str, bytes] = {
    "hello": codec.encode(
        [
            frames.Hello(
                runner=NAME, instance=NAME[:40], versions=tuple(range(64)), software=NAME, public_key=bytes(32),
                bridges={f"{n}{'x' * 200}": NAME[:200] for n in range(64)}, capacity=10_000,
                features=tuple(NAME[:200] for _ in range(64)), hostname=NAME, started_at=NAME,
            )
        ]
    ),
    "heartbeat": codec.encode(
        [
            frames.Heartbeat(
                sequence=1, ack=1, revision=1, jobs=tuple((n, 1) for n in range(limits.ATTEMPTS_OPEN_MAX)),
                source_states=states(limits.SOURCE_STATES_MAX),
            )
        ]
    ),
    "in force": codec.encode([frames.AssignmentInForce(revision=1, source_states=states(limits.SOURCE_STATES_MAX))]),
    "invented": codec.encode(
        [frames.AssignmentInForce(revision=1, source_states=states(limits.SOURCE_STATES_MAX, "made_up_"))]
    ),
    "8,000 states": codec.encode([frames.AssignmentInForce(revision=1, source_states=(STATE,) * 8_000)]),
    "65,000 jobs": codec.encode([frames.Heartbeat(sequence=1, ack=1, revision=1, jobs=((1, 1),) * 65_000)]),
    "refuse": codec.encode(
        [
            frames.Refuse(
                job=1, attempt=1, reason=frames.RefuseReason.POLICY, revision=1, message="x" * 262_000
            )
        ]
    ),
    "fail": codec.encode([frames.Fail(job=1, attempt=1, failure=b"[" * 262_000)]),
    "end": codec.encode([frames.End(job=1, attempt=1, result=b"x" * 196_000, sent_bytes=65_536, tail=b"x" * 65_536)]),
    "data": codec.encode([frames.Data(job=1, attempt=1, payload=b"x" * limits.DATA_FRAME_BYTES_MAX)]),
    "drain": codec.encode([frames.Drain(reason="x" * 262_000)]),
    "close": codec.encode([frames.Close(reason=frames.CloseReason.GOING_AWAY, message="x" * 262_000)]),
    "packed": codec.encode([frames.AssignmentInForce(revision=1)] * 40_000),
    "optional": raw(0xFF, b"") * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", BIGGEST)
def test_no_frame_of_a_runner_takes_long_at_its_largest(name: str) -> None:
    def offered() -> GatewaySession:
        session = gateway()
        session.handle(
            gateway_session.Give(
                frames.Offer(
                    job=1, attempt=1, kind=frames.JobKind.ROWS, source="src_1", revision=1, payload=b"", format="json",
                    deadline_ms=1, credit=2**40, rows_max=1, bytes_max=1, row_bytes_max=1,
                )
            ),
            0.0,
        )  # fmt: skip
        return session

    assert quickest_ms(BIGGEST[name], GatewaySession(0.0)) <= FRAME_MS_MAX
    assert quickest_ms(BIGGEST[name], offered()) <= FRAME_MS_MAX
    accepted = offered()
    accepted.handle(frames.Accept(job=1, attempt=1), 0.5)
    assert quickest_ms(BIGGEST[name], accepted) <= FRAME_MS_MAX


@pytest.mark.parametrize("kind", KINDS)
def test_no_payload_of_any_kind_takes_long_to_refuse(kind: int) -> None:
    for payload in (
        b"\x91" * 262_000,
        b"\xdd\xff\xff\xff\xff",
        msgspec.msgpack.encode([kind, *([[]] * 200_000)])[:262_000],
        msgspec.msgpack.encode([kind, *([{"a": [1] * 50}] * 4_000)]),
        msgspec.msgpack.encode([kind, "x" * 260_000]),
        msgspec.msgpack.encode([kind, *([0] * 250_000)]),
    ):
        session = RunnerSession(0.0)
        session.handle(Begin(HELLO), 0.0)
        session.handle(WELCOME, 0.0)
        assert quickest_ms(raw(kind, payload), session) <= FRAME_MS_MAX
        assert quickest_ms(raw(kind, payload), gateway()) <= FRAME_MS_MAX


def test_a_message_is_read_a_few_frames_at_a_time_and_none_is_lost() -> None:
    spoken = [frames.Accept(job=number, attempt=1) for number in range(100)]
    decoder = codec.Decoder()
    whole = codec.encode(spoken)
    read = [decoder.feed(whole[:-3], 32)]
    while decoder.has_more:
        read.append(decoder.feed(b"", 32))
    assert [len(each) for each in read] == [32, 32, 32, 3]
    read.append(decoder.feed(whole[-3:], 32))
    assert [frame for each in read for frame in each] == spoken


def test_states_of_sources_that_were_never_pushed_are_dropped() -> None:
    session = gateway()
    [in_force] = session.handle(
        frames.AssignmentInForce(revision=1, source_states=(*states(2), *states(500, "x"))), 1.0
    )
    assert in_force == InForce(1, states(2))
    beat = frames.Heartbeat(sequence=1, ack=1, revision=1, source_states=(*states(1), *states(500, "x")))
    [reported] = [each for each in session.handle(beat, 1.0) if isinstance(each, Reported)]
    assert reported.source_states == states(1)


def test_reports_beyond_the_rate_are_merged_and_told_with_the_next_heartbeat() -> None:
    session = gateway(SOURCES[:3])
    told = 0
    for number in range(2_000):
        state = frames.SourceState(source=f"src_{number % 3}", state="ready", cause=str(number))
        told += len(session.handle(frames.AssignmentInForce(revision=number, source_states=(state,)), 1.0))
    assert told == limits.REPORTS_BURST
    [late, *_] = session.handle(gateway_session.Tick(), session.next_wake() or 0.0)
    assert isinstance(late, InForce)
    assert late.revision == 1_999
    assert sorted(state.cause for state in late.source_states) == ["1997", "1998", "1999"]
    assert session.handle(frames.AssignmentInForce(revision=7), 60.0) == [InForce(7, ())], "the rate is earned again"


def test_a_heartbeat_that_was_not_asked_for_says_nothing() -> None:
    session = gateway()
    said = [
        session.handle(frames.Heartbeat(sequence=number, ack=1, revision=number, jobs=((number, 1),)), 1.0)
        for number in range(1, 100)
    ]
    assert said[0]
    assert not any(said[1:])


def test_a_runner_that_never_has_the_set_is_pushed_it_at_a_rate() -> None:
    session = gateway()
    now, pushes = 0.0, 0
    for number in range(1, 200):
        now = max(now, session.next_wake() or 0.0)
        [beat] = [each for each in session.handle(gateway_session.Tick(), now) if isinstance(each, Send)]
        assert isinstance(beat.frame, frames.Heartbeat)
        said = session.handle(frames.Heartbeat(sequence=number, ack=beat.frame.sequence, revision=0), now)
        pushes += Repush() in said
    assert 5 <= pushes <= limits.PUSHES_BURST + now * limits.PUSHES_PER_SECOND + 1


def test_an_allowance_is_spent_earned_and_bounded() -> None:
    allowance = Allowance(0.0, per_second=10.0, burst=5.0)
    assert allowance.spend(5, 0.0) == 0.0
    assert allowance.spend(5, 0.0) == pytest.approx(0.5)
    assert allowance.spend(0, 0.5) == pytest.approx(0.0)
    assert not allowance.take(0.5)
    assert allowance.take(0.65)
    allowance.earn(1_000)
    assert allowance.spend(6, 0.65) == pytest.approx(0.1), "no more than the burst is kept"


def test_a_failure_is_cut_to_what_people_can_read() -> None:
    huge = {"code": "SOURCE_QUERY_FAILED", "message": "m" * 30_000, "hint": "h" * 30_000}
    failure = decode_failure(msgspec.json.encode(huge))
    assert (len(failure.message), len(failure.hint or "")) == (2_000, 2_000)
    assert decode_failure(msgspec.json.encode({**huge, "details": {"x": [[]] * 9_000}})).details == {}
    odd = {"code": "internal", "message": "m", "details": {"stage": ["x"], "class": "c" * 1_000, "other": 1}}
    assert decode_failure(msgspec.json.encode(odd)).details == {"other": 1}
    too_large = decode_failure(b'{"code":"SOURCE_QUERY_FAILED","message":"' + b"m" * 100_000 + b'"}')
    assert too_large.code.value == "internal"
    largest = failure.__class__(
        code=failure.code, message="\x01" * 9_000, hint="\x01" * 9_000, details={"x": "\x01" * 2_700}
    )
    assert len(encode_failure(largest)) <= limits.FAILURE_BYTES_MAX
    assert decode_failure(encode_failure(largest)).details == {"x": "\x01" * 2_700}


def test_a_set_of_too_many_sources_ends_the_session() -> None:
    source = SOURCES[0]
    with pytest.raises(ProtocolError, match="assignment_set_too_large"):
        parts_of(1, (source,) * (limits.SOURCES_PER_RUNNER_MAX + 1))
    assembler = SetAssembler()
    part = (source,) * 1_000
    with pytest.raises(ProtocolError, match="assignment_set_too_large"):
        for number in range(limits.SOURCES_PER_RUNNER_MAX // 1_000 + 1):
            assembler.add(frames.AssignmentSet(revision=1, part=number, parts=200, sources=part))


@pytest.mark.parametrize(("heartbeat_ms", "fence_ms"), [(1, 2**53 - 1), (2**52, 2**53 - 1), (0, 1), (5, 5)])
def test_absurd_intervals_end_the_session(heartbeat_ms: int, fence_ms: int) -> None:
    session = RunnerSession(0.0)
    session.handle(Begin(HELLO), 0.0)
    with pytest.raises(ProtocolError, match="welcome_timings"):
        session.handle(msgspec.structs.replace(WELCOME, heartbeat_ms=heartbeat_ms, fence_ms=fence_ms), 0.0)
