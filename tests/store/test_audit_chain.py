"""The audit's chain: whatever is done to its rows without the key shows, old rows go, and the release before left rows too."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib

import pytest
import sqlalchemy
from alembic import command

from lensway.auth.chain import Head
from lensway.catalog.ports import AuditEntry
from lensway.clock import SystemClock
from lensway.store import migrate
from lensway.store.sqlite import SqliteStore
from lensway.testing.memory_store import MemoryStore

KEY = b"m" * 32
ROWS = 8


def entry(number: int, *, year: int = 2026) -> AuditEntry:
    return AuditEntry(
        at=f"{year}-01-01T00:00:{number:02}.000+00:00",
        environment=None,
        actor="tester",
        action="test",
        object=f"object {number}",
        address="",
        outcome="ok",
        request_id="",
    )


def opened(path: pathlib.Path) -> SqliteStore:
    return SqliteStore.open(path, master_key=KEY, clock=SystemClock())


async def filled(path: pathlib.Path, rows: int = ROWS, *, year: int = 2026) -> SqliteStore:
    store = opened(path)
    await store.record_audits([entry(number, year=year) for number in range(1, rows + 1)])
    return store


def attack(path: pathlib.Path, *statements: str) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def rechained(path: pathlib.Path, first: int) -> None:
    """Make the rows from ``first`` fit as the release before did, which needs no key."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT sequence, entry, chain FROM audit ORDER BY sequence")).all()
        chain = bytes(32)
        for sequence, text, present in rows:
            chain = hashlib.sha256(chain + text.encode()).digest() if sequence >= first else present
            connection.execute(
                sqlalchemy.text("UPDATE audit SET chain = :chain WHERE sequence = :sequence"),
                {"chain": chain, "sequence": sequence},
            )
    engine.dispose()


ALTER = "UPDATE audit SET entry = replace(entry, 'tester', 'nobody') WHERE sequence = {}"
ATTACKS = {
    "alter": ([ALTER.format(3)], 3),
    "alter the first": ([ALTER.format(1)], 1),
    "alter the last": ([ALTER.format(ROWS)], ROWS),
    "remove one": (["DELETE FROM audit WHERE sequence = 4"], 4),
    "remove the first": (["DELETE FROM audit WHERE sequence = 1"], 1),
    "renumber": (
        ["DELETE FROM audit WHERE sequence = 4", "UPDATE audit SET sequence = sequence - 1 WHERE sequence > 4"],
        4,
    ),
    "swap": (
        [
            "UPDATE audit SET sequence = -1 WHERE sequence = 2",
            "UPDATE audit SET sequence = 2 WHERE sequence = 3",
            "UPDATE audit SET sequence = 3 WHERE sequence = -1",
        ],
        2,
    ),
    "insert": (
        [
            "INSERT INTO audit (sequence, environment, entry, chain) SELECT 9, environment, entry, chain FROM audit LIMIT 1"
        ],
        9,
    ),
    "remove the anchor's proof": (["UPDATE deployment SET audit_anchor = replace(audit_anchor, 'mac', 'mac ')"], 1),
    "begin later": (
        [
            "DELETE FROM audit WHERE sequence < 5",
            "UPDATE deployment SET audit_anchor = replace(audit_anchor, '\"sequence\":0', '\"sequence\":4')",
        ],
        5,
    ),
    "pretend it had no key": (
        ["UPDATE deployment SET audit_anchor = replace(audit_anchor, '\"keyed_from\":1', '\"keyed_from\":99')"],
        1,
    ),
    "unreadable anchor": (["UPDATE deployment SET audit_anchor = '{'"], 1),
    "no anchor": (["UPDATE deployment SET audit_anchor = NULL"], 1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_whatever_is_done_without_the_key_shows(tmp_path: pathlib.Path, name: str) -> None:
    statements, broken = ATTACKS[name]

    async def run() -> None:
        store = await filled(tmp_path / "s.db")
        before = await store.verify_audit()
        assert (before.ok, before.rows, before.keyed_from, before.broken) == (True, ROWS, 1, None)
        attack(tmp_path / "s.db", *statements)
        found = await store.verify_audit()
        assert (found.ok, found.broken) == (False, broken)
        assert found.reason
        store.close()

    asyncio.run(run())


def test_rows_cannot_be_made_to_fit_again_without_the_key(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = await filled(tmp_path / "s.db")
        attack(tmp_path / "s.db", ALTER.format(3))
        rechained(tmp_path / "s.db", 1)
        assert not (await store.verify_audit()).ok
        store.close()

    asyncio.run(run())


def test_a_head_that_was_kept_shows_what_was_cut_off_or_put_back(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = await filled(tmp_path / "s.db")
        head = (await store.verify_audit()).head
        await store.record_audit(entry(9))
        assert (await store.verify_audit(head)).ok, "it goes on from there"
        attack(tmp_path / "s.db", f"DELETE FROM audit WHERE sequence >= {ROWS}")
        assert (await store.verify_audit()).ok, "by itself it shows nothing"
        cut = await store.verify_audit(head)
        assert (cut.ok, cut.broken) == (False, ROWS)
        await store.record_audits([entry(50), entry(51)])
        other = await store.verify_audit(head)
        assert (other.ok, other.broken) == (False, ROWS)
        unknown = Head(sequence=10**9, chain=head.chain)
        assert not (await store.verify_audit(unknown)).ok
        store.close()

    asyncio.run(run())


def test_the_chain_goes_on_over_restarts_and_another_key_does_not_continue_it(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        (await filled(tmp_path / "s.db")).close()
        store = await filled(tmp_path / "s.db")
        found = await store.verify_audit()
        assert (found.ok, found.rows, found.keyed_from) == (True, 2 * ROWS, 1)
        store.close()

    asyncio.run(run())


def test_rows_of_the_release_before_are_verified_as_they_were_chained(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrate.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for sequence in range(1, 4):
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO audit (sequence, environment, entry, chain) VALUES (:sequence, '', :entry, x'00')"
                ),
                {
                    "sequence": sequence,
                    "entry": f'{{"action":"old","actor":"tester","address":"","at":"2025-01-01T00:00:0{sequence}Z",'
                    '"details":{},"environment":null,"object":"","outcome":"ok","request_id":""}',
                },
            )
    engine.dispose()
    rechained(path, 1)

    async def run() -> None:
        store = opened(path)
        await store.record_audit(entry(4))
        found = await store.verify_audit()
        assert (found.ok, found.rows, found.keyed_from) == (True, 4, 4)
        assert [row.entry.count for row in await store.audit_rows(after=0, limit=9)] == [1, 1, 1, 1]
        attack(path, ALTER.format(2))
        assert (await store.verify_audit()).broken == 2
        rechained(path, 1)
        assert not (await store.verify_audit()).ok, "the first keyed row holds the rows before it"
        store.close()

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_old_rows_go_and_the_rest_stays_whole(tmp_path: pathlib.Path, kind: str) -> None:
    async def run() -> None:
        store = MemoryStore() if kind == "memory" else opened(tmp_path / "s.db")
        await store.record_audits([entry(number % 60, year=2024) for number in range(1_500)])
        await store.record_audits([entry(1), entry(2)])
        went = [await store.prune_audit("2025-01-01T00:00:00.000+00:00") for _ in range(3)]
        assert sum(count for count, _ in went) == 1_500
        assert went[-1] == (0, 0)
        assert [row.sequence for row in await store.audit_rows(after=0, limit=9)] == [1_501, 1_502]
        if kind == "sqlite":
            assert (await store.verify_audit()).ok
        assert await store.prune_audit("2030-01-01T00:00:00.000+00:00") == (2, 1_502)
        await store.record_audit(entry(3))
        assert [row.sequence for row in await store.audit_rows(after=0, limit=9)] == [1_503]
        if kind == "sqlite":
            found = await store.verify_audit()
            assert (found.ok, found.rows, found.head.sequence) == (True, 1, 1_503)
            attack(tmp_path / "s.db", ALTER.format(1_503))
            assert (await store.verify_audit()).broken == 1_503
            store.close()

    asyncio.run(run())


def test_a_long_audit_is_verified_in_steps(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = await filled(tmp_path / "s.db", 50)
        await store.record_audits([entry(number % 60) for number in range(2_500)])
        verifying = asyncio.create_task(store.verify_audit())
        await asyncio.sleep(0)
        await store.record_audit(entry(1))
        found = await verifying
        assert found.ok
        assert found.rows >= 2_550
        store.close()

    asyncio.run(run())
