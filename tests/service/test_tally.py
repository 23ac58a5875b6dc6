"""The audit of what callers repeat at will: few rows, and every event is counted. On virtual time."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable

import pytest

from lensway import limits
from lensway.auth.events import access_entry
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import KeyKind
from lensway.dispatch.shell import Dispatcher
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_key_id
from lensway.testing.memory_store import MemoryStore
from lensway.testing.virtual_time import VirtualLoop, VirtualProcess, run_virtual
from lensway.usecases.endings import KeyEndings
from lensway.usecases.tally import AuditTally


class FailingStore(MemoryStore):
    """A store whose disk is full while ``is_full``."""

    is_full = False

    async def record_audits(self, entries) -> None:
        """Refuse while the disk is full."""
        if self.is_full:
            raise LenswayError(ErrorCode.INTERNAL, "the disk is full")
        await super().record_audits(entries)


def on_virtual_time(work: Callable[[VirtualProcess, FailingStore, AuditTally], Awaitable[None]]) -> list[AuditEntry]:
    """The rows that the work leaves in the audit."""
    loop = VirtualLoop()
    clock = VirtualProcess(loop)
    store = FailingStore()

    async def main() -> list[AuditEntry]:
        tally = AuditTally(store, clock)
        await work(clock, store, tally)
        await tally.close()
        return [entry for _, entry in reversed(await store.audit(None, limit=10**6))]

    return run_virtual(main(), loop)


def refusal(clock, number: int = 0, **facts: str) -> AuditEntry:
    return access_entry(clock, "authenticate", **{"outcome": "unauthenticated", "address": f"10.0.0.{number}"} | facts)


def counted(rows: list[AuditEntry]) -> int:
    return sum(row.count for row in rows)


def test_ten_minutes_of_one_caller_are_a_row_a_minute_and_all_is_counted() -> None:
    async def work(clock, _store, tally) -> None:
        for _ in range(6_000):
            for _ in range(11):
                tally.note(refusal(clock))
            await asyncio.sleep(0.1)

    rows = on_virtual_time(work)
    assert counted(rows) == 66_000
    assert len(rows) <= 12
    assert rows[0].count == 1
    assert all(row.at < row.until for row in rows[1:])
    assert [row.at for row in rows] == sorted(row.at for row in rows)


def test_the_first_one_is_there_within_a_second_and_what_is_over_is_forgotten() -> None:
    async def work(clock, store, tally) -> None:
        for _ in range(2):
            before = len(await store.audit(None, limit=99))
            tally.note(refusal(clock))
            await asyncio.sleep(1.1)
            assert len(await store.audit(None, limit=99)) == before + 1
            await asyncio.sleep(2 * limits.AUDIT_MERGE_SECONDS)

    assert [row.count for row in on_virtual_time(work)] == [1, 1]


def test_callers_with_many_addresses_fill_no_disk_and_hide_nobody() -> None:
    async def work(clock, _store, tally) -> None:
        for number in range(50_000):
            tally.note(refusal(clock, number))
        tally.note(_session(clock))
        await asyncio.sleep(120)

    rows = on_virtual_time(work)
    assert counted(rows) == 50_001
    assert len(rows) <= limits.AUDIT_DIFFERENT_MAX + 3
    assert sum(row.count for row in rows if row.actor == "others") == 50_000 - limits.AUDIT_DIFFERENT_MAX
    assert [row.actor for row in rows if row.action == "runner.connect"] == ["alpha (run_1)"]


def _session(clock) -> AuditEntry:
    return access_entry(
        clock, "runner.connect", outcome="ok", address="10.9.9.9", actor="alpha (run_1)", object="run_1"
    )


def test_different_outcomes_actors_and_environments_are_different_rows() -> None:
    async def work(clock, _store, tally) -> None:
        for _ in range(3):
            for facts in ({"outcome": "forbidden"}, {"actor": "a"}, {"environment": "env_1"}, {"object": "key_1"}):
                tally.note(refusal(clock, **facts))
        await asyncio.sleep(1)

    rows = on_virtual_time(work)
    assert sorted(row.count for row in rows) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_full_disk_loses_nothing() -> None:
    async def work(clock, store, tally) -> None:
        store.is_full = True
        for number in range(900):
            tally.note(refusal(clock, number % 10))
            await asyncio.sleep(0.5)
        store.is_full = False
        await asyncio.sleep(5)
        assert counted([entry for _, entry in await store.audit(None, limit=10**6)]) > 800

    assert counted(on_virtual_time(work)) == 900


# --- expiry ---------------------------------------------------------------------------------------------------------------


class NoExecutor:
    """Nothing is executed here."""

    def start(self, order) -> None: ...
    def cancel(self, order) -> None: ...
    def credit(self, order) -> None: ...


@pytest.mark.parametrize("seconds", [0.5, 29.0, 45.0, 86_400.0])
def test_a_key_ends_at_its_expiry_and_once(seconds: float) -> None:
    async def work(clock, store, tally) -> None:
        dispatcher = Dispatcher(None, NoExecutor(), clock)
        endings = KeyEndings(store, dispatcher, clock, tally.note)
        endings.start()
        key, at = new_key_id(), moment_text(clock.wall())
        expires = moment_text(clock.wall() + datetime.timedelta(seconds=seconds))
        environment = store.current().environments()[0].id
        await store.commit(
            lambda snapshot: (
                rules.create_key(
                    snapshot, environment, "k", kind=KeyKind.SERVICE, expires_at=expires, id=key, hash=b"h", at=at
                ),
                refusal(clock),
            )
        )
        ended: list[str] = []
        with endings.watched(lambda: ended.append(moment_text(clock.wall())), key):
            await asyncio.sleep(seconds - 0.1)
            assert (ended, endings.epoch, endings.is_good(key)) == ([], 0, True)
            await asyncio.sleep(0.2)
            assert len(ended) == 1
            assert expires <= ended[0]
            assert (endings.epoch, endings.is_good(key)) == (1, False)
            await asyncio.sleep(3_600)
            assert (len(ended), endings.epoch) == (1, 1)
        await endings.close()
        dispatcher.close()

    rows = on_virtual_time(work)
    assert [row.action for row in rows].count("key.expire") == 1


def test_uses_of_keys_are_written_once_a_minute() -> None:
    async def work(clock, store, tally) -> None:
        writes: list[dict] = []

        async def note(uses) -> None:
            writes.append(dict(uses))

        store.note_key_uses = note
        dispatcher = Dispatcher(None, NoExecutor(), clock)
        endings = KeyEndings(store, dispatcher, clock, tally.note)
        endings.start()
        for _ in range(1_000):
            endings.used("key_1")
            endings.used("key_2")
            await asyncio.sleep(0.5)
        await endings.close()
        dispatcher.close()
        assert 8 <= len(writes) <= 10
        assert endings.epoch == len(writes) - 1

    on_virtual_time(work)
