"""Version choice: the common subset, or a typed refusal."""

from __future__ import annotations

import pytest

from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import CloseReason
from lensway.protocol.version import choose_features, choose_version


@pytest.mark.parametrize(("theirs", "ours", "chosen"), [((1,), (1,), 1), ((1, 2, 3), (2, 1), 2), ((2, 3), (1, 2), 2)])
def test_the_highest_common_version_is_chosen(theirs: tuple[int, ...], ours: tuple[int, ...], chosen: int) -> None:
    assert choose_version(theirs, ours) == chosen


@pytest.mark.parametrize("theirs", [(), (7,)])
def test_no_common_version_is_a_fatal_close(theirs: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError) as caught:
        choose_version(theirs)
    assert caught.value.reason is CloseReason.VERSION


def test_features_are_the_common_ones() -> None:
    assert choose_features(("b", "x", "a"), ("a", "b", "c")) == ("a", "b")
