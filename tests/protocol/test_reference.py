"""docs/reference/protocol.md names every frame with every field, every reason, and shows the diagrams as the tables draw them."""

from __future__ import annotations

import pathlib

import pytest

from lensway.protocol import codec, frames
from lensway.protocol.gateway_session import GATEWAY_TABLE, GatewayState
from lensway.protocol.runner_session import RUNNER_TABLE, RunnerState
from lensway.protocol.session import draw

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text()


@pytest.mark.parametrize("frame_type", codec.FRAME_TYPES, ids=lambda frame_type: frame_type.__name__)
def test_every_frame_and_field_is_in_the_reference(frame_type: type[frames.AnyFrame]) -> None:
    row = next(
        line
        for line in PAGE.splitlines()
        if line.startswith(f"| {codec.kind_of(frame_type)} | `{frame_type.__name__}`")
    )
    fields = row.split("|")[4]
    assert fields.strip() == (", ".join(f"`{name}`" for name in frame_type.__struct_fields__) or "none")


@pytest.mark.parametrize("record", [frames.SourceState, frames.AssignedSource, frames.Asker])
def test_every_nested_record_is_in_the_reference(record: type) -> None:
    assert f"`{record.__name__}`: " + ", ".join(f"`{name}`" for name in record.__struct_fields__) in PAGE


@pytest.mark.parametrize("words", [frames.JobKind, frames.RefuseReason, frames.CloseReason])
def test_every_word_is_in_the_reference(words: type) -> None:
    for word in words:
        assert f"`{word.value}`" in PAGE, word


def test_the_diagrams_are_drawn_from_the_tables() -> None:
    assert draw(GATEWAY_TABLE, GatewayState) in PAGE
    assert draw(RUNNER_TABLE, RunnerState) in PAGE
