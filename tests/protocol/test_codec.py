"""The codec: any split of the bytes gives the same frames, and nothing malformed escapes as anything but ProtocolError."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lensway.limits import CONTROL_FRAME_BYTES_MAX, DATA_FRAME_BYTES_MAX
from lensway.protocol import codec, frames
from lensway.protocol.errors import ProtocolError
from lensway.testing import frame_strategies

some_frames = st.lists(frame_strategies.any_frame, max_size=6)


def _raw(kind: int, payload: bytes) -> bytes:
    return codec.HEADER.pack(kind, len(payload)) + payload


@given(some_frames)
def test_frames_survive_in_one_piece(sent: list[frames.AnyFrame]) -> None:
    decoder = codec.Decoder()
    assert decoder.feed(codec.encode(sent)) == sent
    assert decoder.pending_bytes == 0


@given(some_frames)
def test_frames_survive_one_byte_at_a_time(sent: list[frames.AnyFrame]) -> None:
    decoder = codec.Decoder()
    received = [frame for byte in codec.encode(sent) for frame in decoder.feed(bytes([byte]))]
    assert received == sent


@given(some_frames, st.lists(st.integers(min_value=0, max_value=5_000), max_size=5))
def test_frames_survive_any_split_with_a_tail(sent: list[frames.AnyFrame], cuts: list[int]) -> None:
    message = codec.encode([*sent, frames.Resume()])
    edges = sorted({0, *(min(cut, len(message) - 1) for cut in cuts), len(message) - 1})
    decoder = codec.Decoder()
    received = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(message[start:end])]
    assert received == sent
    assert decoder.pending_bytes > 0
    assert decoder.feed(message[-1:]) == [frames.Resume()]
    assert decoder.pending_bytes == 0


@given(st.lists(st.binary(max_size=64), max_size=8))
@example([_raw(1, b"\x91" * 5_000)])
@example([_raw(7, b"\x93\x07\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01")])
@example([_raw(14, b"\x92\x0e\xa2\xff\xfe")])
@settings(max_examples=400)
def test_any_bytes_give_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    decoder = codec.Decoder()
    first = _first_error(decoder, chunks)
    if first is not None:
        assert _first_error(decoder, [codec.encode([frames.Resume()])]) is first, "nothing behind an error is trusted"


def _first_error(decoder: codec.Decoder, chunks: list[bytes]) -> ProtocolError | None:
    try:
        for chunk in chunks:
            assert all(isinstance(each, frames.Frame) for each in decoder.feed(chunk))
    except ProtocolError as error:
        return error
    return None


@given(frame_strategies.any_frame, st.data())
@settings(max_examples=400)
def test_a_mutated_frame_gives_frames_or_a_protocol_error(frame: frames.AnyFrame, data: st.DataObject) -> None:
    message = bytearray(codec.encode([frame]))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    error = _first_error(codec.Decoder(), [bytes(message)])
    causes = {"malformed_frame", "unknown_frame_kind", "control_frame_too_large", "data_frame_size"}
    assert error is None or error.cause in causes


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (_raw(0, b""), "unknown_frame_kind"),
        (_raw(0x7F, b""), "unknown_frame_kind"),
        (_raw(codec.DATA_KIND, b"short"), "data_frame_size"),
        (_raw(codec.DATA_KIND, codec.DATA_HEADER.pack(1, 1, 0)), "data_frame_size"),
        (_raw(codec.DATA_KIND, codec.DATA_HEADER.pack(1, 0, 0) + b"x"), "malformed_frame"),
        (_raw(codec.DATA_KIND, codec.DATA_HEADER.pack(2**63, 1, 0) + b"x"), "malformed_frame"),
        (_raw(codec.DATA_KIND, codec.DATA_HEADER.pack(1, 1, 2**63) + b"x"), "malformed_frame"),
        (codec.HEADER.pack(1, CONTROL_FRAME_BYTES_MAX + 1), "control_frame_too_large"),
        (codec.HEADER.pack(0x80, CONTROL_FRAME_BYTES_MAX + 1), "control_frame_too_large"),
        (codec.HEADER.pack(9, codec.DATA_HEADER.size + DATA_FRAME_BYTES_MAX + 1), "data_frame_size"),
        (codec.HEADER.pack(9, 2**32 - 1), "data_frame_size"),
        (_raw(7, msgspec.msgpack.encode([8, 1, 1])), "malformed_frame"),
        (_raw(7, msgspec.msgpack.encode([7, -1, 1])), "malformed_frame"),
        (_raw(7, msgspec.msgpack.encode([7, 1])), "malformed_frame"),
        (_raw(7, msgspec.msgpack.encode({"job": 1})), "malformed_frame"),
        (_raw(7, msgspec.msgpack.encode([7, 1.5, 1])), "malformed_frame"),
        (_raw(7, b""), "malformed_frame"),
        (_raw(7, msgspec.msgpack.encode([7, 1, 1]) + b"\x00"), "malformed_frame"),
    ],
)
def test_malformed_input_is_refused_by_class(message: bytes, cause: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.Decoder().feed(message)
    assert caught.value.cause == cause
    assert caught.value.reason is frames.CloseReason.PROTOCOL_ERROR


def test_an_error_never_quotes_the_peer() -> None:
    secret = "hunter2hunter2"
    message = _raw(14, msgspec.msgpack.encode([14, {"reason": secret}]))
    with pytest.raises(ProtocolError) as caught:
        codec.Decoder().feed(message)
    assert secret not in repr(caught.value) + str(caught.value) + repr(caught.value.failure)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_length_is_refused_before_its_payload_arrives() -> None:
    decoder = codec.Decoder()
    with pytest.raises(ProtocolError):
        decoder.feed(codec.HEADER.pack(1, 2**32 - 1))
    assert decoder.pending_bytes == 0


def test_unknown_optional_frames_are_skipped_and_counted() -> None:
    decoder = codec.Decoder()
    message = _raw(0x80, b"anything") + codec.encode([frames.Resume()]) + _raw(0xFF, b"")
    assert decoder.feed(message) == [frames.Resume()]
    assert decoder.ignored == 2


def test_fields_that_a_newer_peer_appends_are_ignored() -> None:
    message = _raw(7, msgspec.msgpack.encode([7, 5, 2, "from", {"the": "future"}]))
    assert codec.Decoder().feed(message) == [frames.Accept(job=5, attempt=2)]


def test_fields_that_an_older_peer_does_not_send_have_defaults() -> None:
    message = _raw(8, msgspec.msgpack.encode([8, 5, 2, "busy", 7]))
    expected = frames.Refuse(job=5, attempt=2, reason=frames.RefuseReason.BUSY, revision=7)
    assert codec.Decoder().feed(message) == [expected]


def test_words_of_a_newer_peer_have_a_safe_reading() -> None:
    refuse = _raw(8, msgspec.msgpack.encode([8, 5, 2, "on_holiday", 7]))
    close = _raw(16, msgspec.msgpack.encode([16, "on_holiday"]))
    [refused, closed] = codec.Decoder().feed(refuse + close)
    assert isinstance(refused, frames.Refuse)
    assert refused.reason is frames.RefuseReason.UNKNOWN_KIND
    assert isinstance(closed, frames.Close)
    assert closed.reason not in frames.FATAL_CLOSES


def test_the_encoder_refuses_what_no_peer_would_take_and_leaves_the_message_whole() -> None:
    buffer = bytearray()
    codec.write_frame(buffer, frames.Resume())
    before = bytes(buffer)
    with pytest.raises(ProtocolError):
        codec.write_frame(buffer, frames.Close(reason=frames.CloseReason.GOING_AWAY, message="x" * 300_000))
    with pytest.raises(ProtocolError):
        codec.write_frame(buffer, frames.Data(job=1, attempt=1, payload=bytes(DATA_FRAME_BYTES_MAX + 1)))
    with pytest.raises(ProtocolError):
        codec.write_frame(buffer, frames.Data(job=1, attempt=1, payload=b""))
    assert bytes(buffer) == before


def test_every_kind_is_distinct_and_mandatory() -> None:
    kinds = [codec.kind_of(frame_type) for frame_type in codec.FRAME_TYPES]
    assert len(set(kinds)) == len(kinds)
    assert max(kinds) < codec.OPTIONAL_KINDS_FROM


def test_wire_examples_stay_as_they_are() -> None:
    """Golden bytes: a change here is a change that running peers of yesterday see."""
    heartbeat = frames.Heartbeat(sequence=3, ack=2, revision=7, jobs=((1, 1),))
    assert codec.encode([heartbeat]).hex() == "030000000d" + "99030302079192010100c29090"
    data = frames.Data(job=1, attempt=2, payload=b"{}", offset=5)
    header = "0900000016" + "0000000000000001" + "00000002" + "0000000000000005"
    assert codec.encode([data]).hex() == header + "7b7d"
