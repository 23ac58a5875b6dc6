"""Rows under way on a link: few on a slow one, as many as it takes on a fast one."""

from __future__ import annotations

import pytest

from lensway import limits
from lensway.protocol.pace import Pace


def carried(bytes_per_second: float, latency_seconds: float, total: int) -> tuple[float, float]:
    """Send over a link that keeps everything it cannot pass on: seconds for all of it, and the longest that a byte took."""
    pace, now, free_at, longest = Pace(), 0.0, 0.0, 0.0
    proofs: list[tuple[float, int, float]] = []
    while total > 0:
        room = min(pace.room_bytes, total)
        if not room:
            arrived, mark, asked = proofs.pop(0)
            now = max(now, arrived)
            pace.proven(mark, arrived - asked)
            if (mark := pace.ask()) is not None:
                proofs.append((max(free_at, now) + latency_seconds, mark, now))
            continue
        total -= room
        free_at = max(free_at, now) + room / bytes_per_second
        longest = max(longest, free_at - now)
        pace.sent(room)
        if (mark := pace.ask()) is not None:
            proofs.append((free_at + latency_seconds, mark, now))
    return free_at, longest


@pytest.mark.parametrize("bytes_per_second", [6_250, 25_000, 125_000])
def test_on_a_slow_link_nothing_waits_long_behind_rows(bytes_per_second: int) -> None:
    took, longest = carried(bytes_per_second, 0.05, 2_000_000)
    assert longest < limits.RUNNER_FENCE_SECONDS - limits.HEARTBEAT_SECONDS
    assert took < 2_000_000 / bytes_per_second * 1.3, "the link is used"


@pytest.mark.parametrize("bytes_per_second", [250_000, 1_000_000, 2_500_000, 10_000_000])
def test_short_results_wait_little_behind_rows_on_a_link_of_some_megabits(bytes_per_second: int) -> None:
    took, longest = carried(bytes_per_second, 0.01, 10 * bytes_per_second)
    assert longest < 4 * limits.PACE_PROMPT_SECONDS
    assert took < 10.5, "the link is used"


@pytest.mark.parametrize("latency_seconds", [0.0005, 0.02, 0.3])
def test_a_fast_link_is_used_after_a_few_round_trips(latency_seconds: float) -> None:
    took, _ = carried(1e9, latency_seconds, limits.MIB)
    assert took < 9 * latency_seconds + 0.01


def test_without_a_proof_rows_stay_and_the_window_is_bounded() -> None:
    pace = Pace()
    while room := pace.room_bytes:
        pace.sent(room)
    assert pace.room_bytes == 0
    for _ in range(40):
        pace.proven(10**12, 0.001)
    assert pace.window_bytes == limits.PACE_WINDOW_BYTES_MAX
    for _ in range(40):
        pace.proven(10**12, 60.0)
    assert pace.window_bytes == limits.PACE_WINDOW_BYTES_MIN
    assert pace.room_bytes > 0
