"""The outbox: control before rows, order within a lane, bounded, and honest about what it still holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensway.limits import CONTROL_QUEUE_BYTES_MAX, DATA_FRAME_BYTES_MAX, MESSAGE_BYTES_MAX
from lensway.protocol import frames
from lensway.protocol.codec import Decoder
from lensway.protocol.errors import ProtocolError
from lensway.protocol.outbox import Outbox


def rows(job: int, size: int) -> frames.Data:
    return frames.Data(job=job, attempt=1, payload=bytes(size))


def end(job: int) -> frames.End:
    return frames.End(job=job, attempt=1, result=b"", sent_bytes=0)


def drain(outbox: Outbox, data_bytes_max: int = DATA_FRAME_BYTES_MAX) -> list[list[frames.AnyFrame]]:
    messages = []
    while (message := outbox.take(data_bytes_max)) is not None:
        assert len(message) <= MESSAGE_BYTES_MAX
        messages.append(Decoder().feed(bytes(message)))
    return messages


def test_control_goes_first_and_small_frames_share_a_message() -> None:
    outbox = Outbox()
    outbox.put_data(rows(1, 10))
    outbox.put_data(end(1))
    outbox.put(frames.Accept(job=2, attempt=1))
    assert drain(outbox) == [[frames.Accept(job=2, attempt=1), rows(1, 10), end(1)]]
    assert not outbox
    assert outbox.take() is None


def test_a_message_holds_few_rows_so_that_control_never_waits_long() -> None:
    outbox = Outbox()
    for _ in range(3):
        outbox.put_data(rows(1, 16_000))
    assert [len(message) for message in drain(outbox, 16_384)] == [1, 1, 1]


def test_an_attempt_is_held_until_its_last_frame_is_taken() -> None:
    outbox = Outbox()
    outbox.put_data(rows(1, DATA_FRAME_BYTES_MAX))
    outbox.put_data(end(1))
    assert outbox.held == {(1, 1)}
    outbox.take()
    assert outbox.held == {(1, 1)}
    outbox.take()
    assert outbox.held == frozenset()


def test_dropping_an_attempt_forgets_its_rows_only() -> None:
    outbox = Outbox()
    outbox.put_data(rows(1, 10))
    outbox.put_data(rows(2, 20))
    outbox.put_data(end(1))
    outbox.drop(1, 1)
    assert outbox.held == frozenset()
    assert drain(outbox) == [[rows(2, 20)]]
    assert outbox.data_bytes == 0


def test_a_short_result_overtakes_the_rows_of_others_and_never_its_own() -> None:
    outbox = Outbox()
    outbox.put_data(rows(1, 60_000))
    outbox.put_data(rows(2, 20))
    ends = [frames.End(job=job, attempt=1, result=b"r", sent_bytes=20, tail=bytes(20)) for job in (2, 3)]
    for end in ends:
        outbox.put_data(end)
    assert outbox.held == {(2, 1), (3, 1)}
    # Also while the link has no room for rows.
    first = outbox.take(0)
    assert first is not None
    assert Decoder().feed(bytes(first)) == [ends[1]]
    assert outbox.take(0) is None
    assert outbox.held == {(2, 1)}
    assert [frame for message in drain(outbox) for frame in message] == [rows(1, 60_000), rows(2, 20), ends[0]]
    assert outbox.held == frozenset()


def test_large_sets_travel_in_several_messages() -> None:
    outbox = Outbox()
    source = frames.AssignedSource(source="s", name="s", bridge="b", config_version=1, sealed_config=bytes(120_000))
    parts = [frames.AssignmentSet(revision=1, part=n, parts=8, sources=(source,)) for n in range(8)]
    for part in parts:
        outbox.put(part)
    assert [frame for message in drain(outbox) for frame in message] == parts


def test_a_peer_that_reads_nothing_is_overloaded_and_not_a_leak() -> None:
    outbox = Outbox()
    with pytest.raises(ProtocolError) as caught:
        for _ in range(CONTROL_QUEUE_BYTES_MAX):
            outbox.put(frames.Resume())
    assert caught.value.reason is frames.CloseReason.OVERLOADED


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 3), st.integers(1, 70_000)), max_size=30), st.integers(1, 70_000)
)
def test_each_lane_keeps_its_order(puts: list[tuple[bool, int, int]], data_bytes_max: int) -> None:
    outbox = Outbox()
    control, data = [], []
    for is_control, job, size in puts:
        if is_control:
            control.append(frames.Accept(job=job, attempt=size))
            outbox.put(control[-1])
        else:
            data.append(rows(job, min(size, DATA_FRAME_BYTES_MAX)))
            outbox.put_data(data[-1])
    sent = [frame for message in drain(outbox, data_bytes_max) for frame in message]
    assert [frame for frame in sent if isinstance(frame, frames.Accept)] == control
    assert [frame for frame in sent if isinstance(frame, frames.Data)] == data
    assert outbox.data_bytes == 0
