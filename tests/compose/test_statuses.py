"""A runner that flaps does not flood whoever watches, and what it said last is told all the same."""

from __future__ import annotations

import asyncio
import pathlib

from lensway import limits
from lensway.auth import tokens
from lensway.catalog import rules
from lensway.catalog.definitions import read_source
from lensway.catalog.ports import AuditEntry
from lensway.clock import SystemClock
from lensway.dispatch.core.events import StatusChanged
from lensway.fleet import Fleet, SessionFacts
from lensway.ids import InstanceId, SessionId, new_key_id, new_runner_id, new_source_id
from lensway.store.sqlite import SqliteStore
from lensway.usecases.events import EventHub, HubEvent
from lensway.usecases.statuses import Statuses

FLAPS = 2_000
ENTRY = AuditEntry(at="", environment=None, actor="", action="", object="", address="", outcome="ok", request_id="")


def test_a_flapping_runner_is_told_at_a_rate_and_its_last_word_is_not_lost(tmp_path: pathlib.Path) -> None:
    async def story() -> list[HubEvent]:
        clock = SystemClock()
        store = SqliteStore.open(tmp_path / "lensway.db", master_key=b"m" * 32, clock=clock)
        hub, fleet = EventHub(clock), Fleet()
        statuses = Statuses(store, hub, clock, lambda _entry: None)
        statuses.look_at(fleet)
        environment = store.current().environments()[0].id
        source, runner = new_source_id(), new_runner_id()
        draft = read_source("main", {"bridge": "sqlite", "credentials": "runner-local"})
        token = tokens.hash_token(tokens.mint("rk").reveal())
        await store.commit(
            lambda snapshot: (rules.create_source(snapshot, environment, draft, id=source, at="t"), ENTRY)
        )
        await store.commit(
            lambda snapshot: (
                rules.create_runner(snapshot, environment, "alpha", id=runner, token_hash=token, at="t"),
                ENTRY,
            )
        )
        session = fleet.open(
            SessionFacts(
                session=SessionId(1), environment=environment, runner=runner, runner_name="alpha",
                instance=InstanceId("ins"), bridges={}, capacity=1, software="", hostname="", address="", version=1,
            ),
            clock.monotonic(),
        )  # fmt: skip
        heard: list[HubEvent] = []
        async with asyncio.timeout(10):
            watched = hub.watch(environment, new_key_id(), after=0)
            for number in range(FLAPS):
                said = {source: ("ready" if number % 2 else "unreachable", str(number))}
                _, changed = fleet.report(session, 1, said, clock.monotonic(), is_draining=False)
                statuses.changed(StatusChanged(session.id, runner, "live", "connected", changed))
            async for event in watched:
                heard.append(event)
                if event.data.get("cause") == str(FLAPS - 1):
                    break
        await statuses.close()
        store.close()
        return heard

    heard = asyncio.run(story())
    assert {event.kind for event in heard} == {"session", "health"}
    assert len(heard) <= limits.SESSION_EVENTS_BURST + 50


def test_a_session_that_says_the_same_again_is_no_news(tmp_path: pathlib.Path) -> None:
    async def story() -> list[HubEvent]:
        clock = SystemClock()
        store = SqliteStore.open(tmp_path / "lensway.db", master_key=b"m" * 32, clock=clock)
        hub, fleet = EventHub(clock), Fleet()
        statuses = Statuses(store, hub, clock, lambda _entry: None)
        statuses.look_at(fleet)
        environment, runner = store.current().environments()[0].id, new_runner_id()
        token = tokens.hash_token(tokens.mint("rk").reveal())
        await store.commit(
            lambda snapshot: (
                rules.create_runner(snapshot, environment, "alpha", id=runner, token_hash=token, at="t"),
                ENTRY,
            )
        )
        session = fleet.open(
            SessionFacts(
                session=SessionId(1), environment=environment, runner=runner, runner_name="alpha",
                instance=InstanceId("ins"), bridges={}, capacity=1, software="", hostname="", address="", version=1,
            ),
            clock.monotonic(),
        )  # fmt: skip
        watched = hub.watch(environment, new_key_id(), after=0)
        for revision in (None, None, 3, 3, 3, 4):
            if revision is not None:
                fleet.report(session, revision, {}, clock.monotonic(), is_draining=False)
            statuses.changed(StatusChanged(session.id, runner, "live", "connected", ()))
        statuses.changed(StatusChanged(session.id, runner, "lost", "reset", ()))
        heard = []
        async with asyncio.timeout(10):
            async for event in watched:
                heard.append(event)
                if event.data["state"] == "lost":
                    break
        await statuses.close()
        store.close()
        return heard

    heard = [(event.data["state"], event.data.get("revision")) for event in asyncio.run(story())]
    assert heard == [("live", None), ("live", 3), ("live", 4), ("lost", None)]
