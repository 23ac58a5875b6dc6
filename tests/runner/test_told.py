"""When a runner dials again after a gateway's word."""

from __future__ import annotations

import pytest

from lensway.limits import TOLD_SECONDS_MAX
from lensway.runner.session import told_seconds


@pytest.mark.parametrize(("after_ms", "seconds"), [(0, 0.0), (1_500, 1.5), (2**53 - 1, TOLD_SECONDS_MAX)])
def test_no_gateway_sends_a_runner_away_for_good(after_ms: int, seconds: float) -> None:
    assert told_seconds(after_ms) == seconds
