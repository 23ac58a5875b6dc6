"""Credit: a stateful test of sender and receiver over an ordered link, and the edges one by one."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lensway.limits import DATA_FRAME_BYTES_MAX
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import Credit, Data, End
from lensway.protocol.stream import ReceiveStream, SendStream

WINDOW = 40


class CreditMachine(RuleBasedStateMachine):
    """A sender with a small window, a receiver, and the two directions of a link between them."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = SendStream(job=1, attempt=1, credit=WINDOW)
        self.receiver = ReceiveStream(credit=WINDOW)
        self.forward: deque[Data | End] = deque()
        self.back: deque[Credit] = deque()
        self.put = bytearray()
        self.got = bytearray()
        self.consumed = 0
        self.ended = False

    @precondition(lambda self: not self.ended)
    @rule(chunk=st.binary(max_size=60))
    def write(self, chunk: bytes) -> None:
        self.sender.put(chunk)
        self.put += chunk

    @precondition(lambda self: not self.ended)
    @rule(limit=st.integers(1, 30))
    def send(self, limit: int) -> None:
        before = self.sender.credit_left
        frame = self.sender.take(limit)
        if frame is None:
            assert before == 0 or self.sender.pending_bytes == 0
        else:
            assert 0 < len(frame.payload) <= min(limit, before)
            self.forward.append(frame)

    @precondition(lambda self: not self.ended)
    @rule(tail=st.integers(0, 30))
    def finish(self, tail: int) -> None:
        fits = self.sender.pending_bytes <= min(tail, self.sender.credit_left)
        frame = self.sender.end(b"", tail)
        assert (frame is not None) == fits
        if frame is not None:
            self.forward.append(frame)
            self.ended = True

    @precondition(lambda self: self.forward)
    @rule()
    def arrive(self) -> None:
        frame = self.forward.popleft()
        if isinstance(frame, End):
            self.receiver.end(frame)
            self.got += frame.tail
        else:
            self.receiver.data(frame)
            self.got += frame.payload

    @rule(count=st.integers(0, 50))
    def consume(self, count: int) -> None:
        count = min(count, len(self.got) - self.consumed)
        self.consumed += count
        self.receiver.grant(count)
        self.back.append(Credit(job=1, attempt=1, bytes=count))

    @precondition(lambda self: self.back)
    @rule()
    def granted(self) -> None:
        self.sender.grant(self.back.popleft().bytes)

    @invariant()
    def bytes_are_in_order_and_bounded(self) -> None:
        assert self.put.startswith(self.got)
        under_way = sum(len(f.tail if isinstance(f, End) else f.payload) for f in self.forward)
        assert under_way + len(self.got) - self.consumed <= WINDOW
        assert len(self.got) + under_way + self.sender.pending_bytes == len(self.put)

    def teardown(self) -> None:
        """From any state the rest arrives when the caller takes it."""
        for _ in range(10 * (len(self.put) + 10)):
            if self.ended and not self.forward:
                break
            while self.forward:
                self.arrive()
            self.consume(WINDOW)
            while self.back:
                self.granted()
            if not self.ended:
                self.send(WINDOW)
                self.finish(0)
        assert self.got == self.put


CreditMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestCredit = CreditMachine.TestCase


def test_the_receiver_refuses_more_than_it_granted_and_counts_nothing_of_it() -> None:
    stream = ReceiveStream(credit=3)
    stream.data(Data(job=1, attempt=1, payload=b"ab"))
    with pytest.raises(ProtocolError) as caught:
        stream.data(Data(job=1, attempt=1, payload=b"cd", offset=2))
    assert caught.value.cause == "credit_overrun"
    assert stream.received_bytes == 2


@pytest.mark.parametrize("offset", [0, 1, 4], ids=["repeated", "overlapping", "one lost before it"])
def test_rows_that_are_not_the_next_ones_are_refused(offset: int) -> None:
    stream = ReceiveStream(credit=100)
    stream.data(Data(job=1, attempt=1, payload=b"ab"))
    with pytest.raises(ProtocolError) as caught:
        stream.data(Data(job=1, attempt=1, payload=b"cd", offset=offset))
    assert caught.value.cause == "data_out_of_order"
    assert stream.received_bytes == 2


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End(job=1, attempt=1, result=b"", sent_bytes=3), "byte_count_differs"),
        (End(job=1, attempt=1, result=b"", sent_bytes=2, tail=b"x"), "byte_count_differs"),
        (End(job=1, attempt=1, result=b"", sent_bytes=12, tail=b"x" * 10), "credit_overrun"),
    ],
)
def test_the_receiver_refuses_an_end_that_does_not_add_up(end: End, cause: str) -> None:
    stream = ReceiveStream(credit=10)
    stream.data(Data(job=1, attempt=1, payload=b"ab"))
    with pytest.raises(ProtocolError) as caught:
        stream.end(end)
    assert caught.value.cause == cause


def test_the_receiver_refuses_a_tail_larger_than_a_data_frame() -> None:
    tail = bytes(DATA_FRAME_BYTES_MAX + 1)
    with pytest.raises(ProtocolError) as caught:
        ReceiveStream(credit=10**6).end(End(job=1, attempt=1, result=b"", sent_bytes=len(tail), tail=tail))
    assert caught.value.cause == "data_frame_size"


def test_frames_are_as_large_as_they_may_be() -> None:
    stream = SendStream(job=1, attempt=1, credit=10**6)
    stream.put(bytes(DATA_FRAME_BYTES_MAX))
    stream.put(b"tail")
    first = stream.take()
    assert first is not None
    assert len(first.payload) == DATA_FRAME_BYTES_MAX
    end = stream.end(b"mark")
    assert end == End(job=1, attempt=1, result=b"mark", sent_bytes=DATA_FRAME_BYTES_MAX + 4, tail=b"tail")


def test_an_empty_result_ends_without_credit() -> None:
    assert SendStream(job=1, attempt=1, credit=0).end(b"m") == End(job=1, attempt=1, result=b"m", sent_bytes=0)
