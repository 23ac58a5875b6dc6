"""The wall clock may be set to any time: it decides nothing about runners and sessions."""

from __future__ import annotations

import asyncio
import datetime
import pathlib

import pytest

from lensway import limits
from lensway.clock import SystemClock
from lensway.fleet.fleet import Fleet
from lensway.store.bootstrap import DataDirectory
from lensway.usecases.statuses import recall_sightings


class Known:
    """A store as far as sightings go, and a fleet."""

    def __init__(self, at: datetime.datetime, fleet: Fleet) -> None:
        self._at = at
        self.fleet = fleet

    async def sightings(self) -> dict[str, tuple[str, str]]:
        return {"run_a": (self._at.isoformat(), "going_away")}


@pytest.mark.parametrize("hours", [-1, 0, 1, 24 * 365])
def test_n4_a_runner_seen_in_the_future_was_not_lost_just_now(hours: int) -> None:
    clock = SystemClock()
    known = Known(clock.wall() + datetime.timedelta(hours=hours), Fleet())
    asyncio.run(recall_sightings(known, known.fleet, clock))
    loss = known.fleet.last_loss("run_a")
    assert loss.at <= clock.monotonic()
    assert loss.cause == "going_away"
    assert not known.fleet.lost_within(("run_a",), limits.LAST_SESSION_GRACE_SECONDS, clock.monotonic())


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3600.0])
def test_n4_the_stored_moment_is_shown_and_decides_nothing(seconds: float) -> None:
    clock = SystemClock()
    expected = clock.monotonic() - seconds
    known = Known(clock.wall() - datetime.timedelta(seconds=seconds), Fleet())
    asyncio.run(recall_sightings(known, known.fleet, clock))
    assert known.fleet.last_loss("run_a").at == pytest.approx(expected, abs=0.1)
    assert not known.fleet.lost_within(("run_a",), 2 * 3600.0, clock.monotonic())


def test_n4_generations_grow_with_every_start(tmp_path: pathlib.Path) -> None:
    seen = []
    for damage in (None, None, "", "rubbish", None):
        directory = DataDirectory.open(tmp_path)
        if damage is not None:
            (tmp_path / "generation").write_text(damage)
        seen.append(directory.next_generation())
        directory.close()
    assert seen[1] == seen[0] + 1
    assert seen[4] == seen[3] + 1
    assert seen[0] << 32 > 1_900_000_000_000, "beyond any epoch that came from a clock"
