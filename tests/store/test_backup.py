"""Copies of the store: whole while it is written, put back with a new revision, kept before each migration."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
import stat
import threading

import pytest
from alembic import command

from lensway.catalog import rules
from lensway.clock import SystemClock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_environment_id
from lensway.store.backup import back_up, restore
from lensway.store.bootstrap import _entry
from lensway.store.migrate import configuration
from lensway.store.sqlite import SqliteStore, _engine

KEY = b"m" * 32


def opened(path: pathlib.Path) -> SqliteStore:
    return SqliteStore.open(path, master_key=KEY, clock=SystemClock())


async def add(store: SqliteStore, name: str) -> None:
    note = _entry("2026-01-01T00:00:00.000Z", "tester", "environment.create", name, {})
    await store.commit(
        lambda snapshot: (rules.create_environment(snapshot, name, id=new_environment_id(), at=note.at), note)
    )


def names(path: pathlib.Path) -> list[str]:
    store = opened(path)
    try:
        return [each.name for each in store.current().environments()]
    finally:
        store.close()


def test_a_backup_taken_while_the_store_is_written_is_a_prefix_of_its_history(tmp_path: pathlib.Path) -> None:
    database = tmp_path / "lensway.db"
    store = opened(database)
    is_over = threading.Event()
    failures: list[Exception] = []

    def take() -> None:
        number = 0
        try:
            while not is_over.is_set():
                number += 1
                back_up(database, tmp_path / f"copy-{number}")
        except Exception as error:  # noqa: BLE001 - for the assertion below
            failures.append(error)

    taker = threading.Thread(target=take)
    taker.start()

    async def write() -> None:
        for number in range(60):
            await add(store, f"env-{number:02}")

    asyncio.run(write())
    is_over.set()
    taker.join()
    store.close()
    assert failures == []
    copies = sorted(tmp_path.glob("copy-*"))
    assert copies
    written = [f"env-{number:02}" for number in range(60)]
    for copy in copies:
        found = [name for name in names(copy) if name != "default"]
        assert found == written[: len(found)]
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_restore_brings_the_past_back_under_a_revision_that_was_never_used(tmp_path: pathlib.Path) -> None:
    database, copy = tmp_path / "lensway.db", tmp_path / "copy"
    store = opened(database)
    asyncio.run(add(store, "before"))
    back_up(database, copy)
    asyncio.run(add(store, "after"))
    newest = store.current().revision
    store.close()
    kept = restore(copy, database)
    assert kept is not None
    assert names(kept) == ["after", "before", "default"]
    restored = opened(database)
    assert [each.name for each in restored.current().environments()] == ["before", "default"]
    assert restored.current().revision > newest
    assert asyncio.run(restored.verify_audit()).ok
    restored.close()


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, None])
def test_what_is_no_backup_changes_nothing(tmp_path: pathlib.Path, content: bytes | None) -> None:
    database, file = tmp_path / "lensway.db", tmp_path / "file"
    opened(database).close()
    before = database.read_bytes()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LenswayError) as caught:
        restore(file, database)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.failure.hint
    assert database.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("lensway.db")) == ["lensway.db"]


def test_another_database_is_no_backup(tmp_path: pathlib.Path) -> None:
    database, file = tmp_path / "lensway.db", tmp_path / "other.db"
    opened(database).close()
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE t (id INTEGER)")
    other.close()
    with pytest.raises(LenswayError, match="not those of a Lensway database"):
        restore(file, database)


def test_no_backup_is_overwritten_and_none_is_half_made(tmp_path: pathlib.Path) -> None:
    database = tmp_path / "lensway.db"
    opened(database).close()
    back_up(database, tmp_path / "copy")
    with pytest.raises(LenswayError, match="exists"):
        back_up(database, tmp_path / "copy")
    with pytest.raises(LenswayError, match="cannot be written"):
        back_up(database, tmp_path / "missing" / "copy")


def test_a_migration_keeps_the_store_of_before(tmp_path: pathlib.Path) -> None:
    database = tmp_path / "lensway.db"
    engine = _engine(database)
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head-1")
    engine.dispose()
    opened(database).close()
    (kept,) = tmp_path.glob("lensway.db.before-*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    opened(database).close()
    assert list(tmp_path.glob("lensway.db.before-*")) == [kept], "nothing was missing the second time"
