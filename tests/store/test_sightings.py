"""When runners were last seen is remembered across restarts, and writing it down holds up nobody."""

from __future__ import annotations

import asyncio
import pathlib

from lensway import limits
from lensway.auth import tokens
from lensway.catalog import rules
from lensway.catalog.ports import AuditEntry, Sighting
from lensway.clock import SystemClock
from lensway.dispatch.core.events import StatusChanged
from lensway.fleet import Fleet
from lensway.ids import SessionId, new_runner_id
from lensway.store.sqlite import SqliteStore
from lensway.usecases.events import EventHub
from lensway.usecases.statuses import Statuses, recall_sightings

RUNNERS = 3 * limits.SIGHTINGS_PER_WRITE_MAX
ENTRY = AuditEntry(
    at="2026-01-01T00:00:00Z",
    environment=None,
    actor="tester",
    action="test",
    object="x",
    address="",
    outcome="ok",
    request_id="",
)


def test_a_change_of_the_catalog_does_not_wait_for_the_sightings_of_all_runners_that_come_back(
    tmp_path: pathlib.Path,
) -> None:
    async def story() -> tuple[int, int]:
        store = SqliteStore.open(tmp_path / "lensway.db", master_key=b"m" * 32, clock=SystemClock())
        try:
            environment = store.current().environments()[0].id

            def create(snapshot):
                changes = []
                for number in range(RUNNERS):
                    token = tokens.hash_token(tokens.mint("rk").reveal())
                    changes += rules.create_runner(
                        snapshot, environment, f"runner-{number}", id=new_runner_id(), token_hash=token, at="t"
                    )
                return changes, ENTRY

            runners = (await store.commit(create)).runners(environment)
            statuses = Statuses(store, EventHub(SystemClock()), SystemClock(), lambda _entry: None)
            for number, runner in enumerate(runners):
                statuses.changed(StatusChanged(SessionId(number + 1), runner.id, "live", "connected"))
            await asyncio.sleep(0)  # they begin to be written
            await store.commit(lambda _snapshot: ((), ENTRY))
            before = len(await store.sightings())
            await statuses.close()
            return before, len(await store.sightings())
        finally:
            store.close()

    written_before_the_change, written = asyncio.run(story())
    assert written == RUNNERS
    assert 0 < written_before_the_change < RUNNERS


def test_what_another_release_wrote_of_a_connected_runner_stops_no_start(tmp_path: pathlib.Path) -> None:
    async def story(cause: str) -> tuple[str, bool]:
        clock = SystemClock()
        store = SqliteStore.open(tmp_path / "lensway.db", master_key=b"m" * 32, clock=clock)
        try:
            environment = store.current().environments()[0].id
            if not store.current().runners(environment):
                token = tokens.hash_token(tokens.mint("rk").reveal())
                id = new_runner_id()
                await store.commit(
                    lambda snapshot: (
                        rules.create_runner(snapshot, environment, "alpha", id=id, token_hash=token, at="t"),
                        ENTRY,
                    )
                )
            (runner,) = store.current().runners(environment)
            await store.note_sightings([Sighting(runner, clock.wall().isoformat(), cause)])
            fleet = Fleet()
            await recall_sightings(store, fleet, clock)
            loss = fleet.last_loss(runner.id)
            assert loss is not None
            return loss.cause, loss.is_recalled
        finally:
            store.close()

    for cause in ("connected", "connected {", 'connected {"ins_a": {"since": 1}}', 'connected {"ins_a": 5}'):
        assert asyncio.run(story(cause)) == ("server_stopped", True)
    assert asyncio.run(story("heartbeat_lost")) == ("heartbeat_lost", True)
