"""Keys that end: deleted admin keys stay deleted, keys expire, and the last use of each is kept. Fake and real store alike."""

from __future__ import annotations

import asyncio
import pathlib
import resource
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy
from alembic import command

from lensway.auth import tokens
from lensway.catalog import rules
from lensway.catalog.moments import read_moment
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import KeyKind, Role
from lensway.clock import SystemClock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_key_id
from lensway.store import migrate
from lensway.store.bootstrap import DataDirectory, admin_key_notice, first_admin_key
from lensway.store.sqlite import SqliteStore
from lensway.testing.memory_store import MemoryStore

KEY = b"m" * 32
AT = "2026-01-01T00:00:00.000+00:00"
LATER = "2026-06-01T00:00:00.000+00:00"


def opened(path: pathlib.Path) -> SqliteStore:
    return SqliteStore.open(path, master_key=KEY, clock=SystemClock())


def entry() -> AuditEntry:
    return AuditEntry(
        at=AT, environment=None, actor="tester", action="test", object="x", address="", outcome="ok", request_id=""
    )


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path: pathlib.Path):
    if request.param == "memory":
        yield MemoryStore()
        return
    made = opened(tmp_path / "store.db")
    yield made
    made.close()


async def add(store, text: str, *, environment=None, kind=KeyKind.ADMIN, expires_at=None, at=AT) -> str:
    id = new_key_id()
    await store.commit(
        lambda snapshot: (
            rules.create_key(
                snapshot,
                environment,
                "k",
                kind=kind,
                expires_at=expires_at,
                id=id,
                hash=tokens.hash_token(text),
                at=at,
            ),
            entry(),
        )
    )
    return id


async def delete(store, id: str, *, environment=None, at=AT) -> None:
    await store.commit(lambda snapshot: (rules.delete_key(snapshot, environment, id, at=at), entry()))


def test_the_text_of_a_deleted_admin_key_is_never_accepted_again(store) -> None:
    async def run() -> None:
        environment = store.current().environments()[0].id
        keeper = await add(store, "ak_keeper")
        for scope in (None, environment):
            text = f"ak_{scope}"
            await delete(store, await add(store, text, environment=scope), environment=scope)
            assert store.current().key_by_hash(tokens.hash_token(text)) is None
            for other in (None, environment):
                with pytest.raises(LenswayError, match="stays deleted") as error:
                    await add(store, text, environment=other)
                assert error.value.code is ErrorCode.CONFLICT
        assert [key.id for key in store.current().keys(None)] == [keeper]

    asyncio.run(run())


def test_the_last_admin_key_stays_and_an_expired_one_does_not_count(store) -> None:
    async def run() -> None:
        await add(store, "ak_expiring", expires_at=LATER)
        lasting = await add(store, "ak_lasting")
        with pytest.raises(LenswayError, match="the last key"):
            await delete(store, lasting, at="2026-06-01T00:00:00.001+00:00")
        await delete(store, lasting, at="2026-05-31T23:59:59.999+00:00")

    asyncio.run(run())


def test_a_key_cannot_be_made_expired(store) -> None:
    for past in (AT, "2025-12-31T23:59:59.999+00:00"):
        with pytest.raises(LenswayError, match="is in the past"):
            asyncio.run(add(store, "ak_late", expires_at=past))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31", "2030-01-31T00:00:00.000+00:00"),
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00.000+00:00"),
        ("2030-01-31T12:00:00.5+02:00", "2030-01-31T10:00:00.500+00:00"),
    ],
)
def test_moments_have_one_form(text: str, moment: str) -> None:
    assert read_moment(text, "expiresAt") == moment


@pytest.mark.parametrize(
    "wrong", ["2030-01-31T12:00:00", "soon", "90d", "", 1893456000, None, "9999-12-31T23:59:59-12:00"]
)
def test_other_moments_are_refused_with_the_forms_that_are_taken(wrong: object) -> None:
    with pytest.raises(LenswayError, match="expiresAt") as error:
        read_moment(wrong, "expiresAt")
    assert "2030-01-31" in str(error.value.failure.hint)


def test_the_last_use_of_keys_is_kept_while_they_exist(store) -> None:
    async def run() -> None:
        await add(store, "ak_keeper")
        id = await add(store, "ak_used")
        revision = store.current().revision
        await store.note_key_uses({id: AT, "key_00000000000000000000": AT})
        assert dict(store.key_uses()) == {id: AT}
        await store.note_key_uses({id: LATER})
        assert dict(store.key_uses()) == {id: LATER}
        assert store.current().revision == revision, "the last use is no change of the catalog"
        await delete(store, id)
        assert dict(store.key_uses()) == {}

    asyncio.run(run())


def test_all_of_it_survives_a_restart(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"

    async def write() -> str:
        store = opened(path)
        keeper = await add(store, "ak_keeper", expires_at=LATER)
        other = await add(store, "ak_other")
        gone = await add(store, "ak_gone")
        await delete(store, gone)
        await store.note_key_uses({keeper: AT, other: LATER})
        store.close()
        return keeper

    keeper = asyncio.run(write())
    store = opened(path)
    assert store.current().key(keeper).expires_at == LATER
    assert store.key_uses()[keeper] == AT
    with pytest.raises(LenswayError, match="stays deleted"):
        asyncio.run(add(store, "ak_gone"))
    store.close()


def test_a_database_of_the_release_before_is_brought_up(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrate.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO keys (environment, id, kind, name, hash, role, created_at) "
                "VALUES ('', 'key_1', 'ak', 'old', x'00', 'admin', '2026-01-01T00:00:00.000+00:00')"
            )
        )
    engine.dispose()
    store = opened(path)
    assert store.current().key("key_1").expires_at is None
    store.close()


# --- starting -------------------------------------------------------------------------------------------------------------


def test_a_deleted_first_key_does_not_come_back_and_the_server_says_so(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store, clock = opened(tmp_path / "s.db"), SystemClock()
        given = tokens.check_admin_key("ak_" + "g" * 32)
        await first_admin_key(store, given, clock)
        assert admin_key_notice(store.current(), given, clock) is None
        first = store.current().keys(None)[0]
        await add(store, "ak_successor")
        await delete(store, first.id)
        assert await first_admin_key(store, given, clock) is None
        assert store.current().key_by_hash(tokens.hash_token(given.reveal())) is None
        newest = (await store.audit(None, limit=1))[0][1]
        assert (newest.action, newest.object, newest.outcome) == ("key.create", first.id, "conflict")
        notice = admin_key_notice(store.current(), given, clock)
        assert "was deleted on" in notice
        assert "lensway keys recover" in notice
        assert given.reveal() not in notice
        store.close()

    asyncio.run(run())


def test_an_expired_first_key_is_named_and_does_not_make_another_one(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store, clock = opened(tmp_path / "s.db"), SystemClock()
        given = tokens.check_admin_key("ak_" + "e" * 32)
        await add(store, given.reveal(), expires_at="2026-01-01T00:00:00.001+00:00")
        assert await first_admin_key(store, given, clock) is None
        assert await first_admin_key(store, None, clock) is None, "a lock-out is no first start"
        assert "expired at 2026-01-01" in admin_key_notice(store.current(), given, clock)
        assert "lensway keys recover" in admin_key_notice(store.current(), None, clock)
        store.close()

    asyncio.run(run())


def test_a_first_key_that_administers_one_environment_only_is_named(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store, clock = opened(tmp_path / "s.db"), SystemClock()
        given = tokens.check_admin_key("ak_" + "n" * 32)
        await add(store, "ak_keeper")
        await add(store, given.reveal(), environment=store.current().environments()[0].id)
        assert await first_admin_key(store, given, clock) is None
        assert "not an instance-wide admin key" in admin_key_notice(store.current(), given, clock)
        assert admin_key_notice(store.current(), None, clock) is None
        store.close()

    asyncio.run(run())


def recover(directory: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", "keys", "recover", "--data-dir", str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def test_keys_recover_makes_an_admin_key_and_is_audited(tmp_path: pathlib.Path) -> None:
    directory = DataDirectory.open(tmp_path / "data")
    master = directory.master_key(None)
    SqliteStore.open(directory.database, master_key=master, clock=SystemClock()).close()
    while_it_runs = recover(directory.path)
    directory.close()
    done = recover(directory.path)
    assert (while_it_runs.returncode, while_it_runs.stdout) == (2, "")
    assert "Stop the server" in while_it_runs.stderr
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in while_it_runs.stderr + done.stderr

    async def look() -> None:
        store = SqliteStore.open(directory.database, master_key=master, clock=SystemClock())
        made = store.current().key_by_hash(tokens.hash_token(done.stdout.strip()))
        assert (made.environment, made.kind, made.role) == (None, KeyKind.ADMIN, Role.ADMIN)
        audited = (await store.audit(None, limit=1))[0][1]
        assert (audited.actor, audited.action, audited.object) == ("local recovery", "key.create", made.id)
        store.close()

    asyncio.run(look())


def test_keys_recover_makes_no_directory_and_no_master_key(tmp_path: pathlib.Path) -> None:
    absent = recover(tmp_path / "absent")
    assert absent.returncode == 2
    assert "--data-dir" in absent.stderr
    assert not (tmp_path / "absent").exists()
    directory = DataDirectory.open(tmp_path / "data")
    SqliteStore.open(directory.database, master_key=KEY, clock=SystemClock()).close()
    directory.close()
    keyless = recover(directory.path)
    assert keyless.returncode == 2
    assert "LENSWAY_MASTER_KEY" in keyless.stderr
    assert not (directory.path / "master.key").exists()
    wrong = recover(directory.path, LENSWAY_MASTER_KEY="eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=")
    assert wrong.returncode == 2
    assert "Traceback" not in absent.stderr + keyless.stderr + wrong.stderr


# --- files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o722])
def test_a_directory_that_others_can_write_to_is_refused_with_the_remedy(tmp_path: pathlib.Path, mode: int) -> None:
    path = tmp_path / "data dir"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(LenswayError, match=f"{mode:04o}") as error:
        DataDirectory.open(path)
    assert error.value.failure.hint == f"chmod 700 '{path}'"
    assert list(path.iterdir()) == [], "nothing was written into it"


@pytest.mark.parametrize("name", ["master.key", "lensway.db"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_files_that_others_can_read_are_refused_with_the_remedy(tmp_path: pathlib.Path, name: str, mode: int) -> None:
    (tmp_path / name).write_text("x")
    tmp_path.chmod(0o700)
    (tmp_path / name).chmod(mode)
    with pytest.raises(LenswayError, match=f"{mode:04o}") as error:
        DataDirectory.open(tmp_path)
    assert error.value.failure.hint == f"chmod 600 {tmp_path / name}"


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o2770, 0o2775])
def test_private_directories_and_volumes_given_to_a_group_are_fine(tmp_path: pathlib.Path, mode: int) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(mode)
    DataDirectory.open(path).close()


def test_a_full_disk_leaves_no_half_made_master_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    directory = DataDirectory.open(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(LenswayError, match="too large") as error:
            directory.master_key(None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free space" in error.value.failure.hint
    assert [each.name for each in path.iterdir()] == ["lock"]
    assert len(directory.master_key(None)) == 32
    directory.close()


def test_an_empty_master_key_of_before_is_made_good_unless_it_is_missed(tmp_path: pathlib.Path) -> None:
    directory = DataDirectory.open(tmp_path / "data")
    file = directory.path / "master.key"
    file.touch(mode=0o600)
    key = directory.master_key(None)
    SqliteStore.open(directory.database, master_key=key, clock=SystemClock()).close()
    file.write_text("")
    with pytest.raises(LenswayError, match="missing or empty"):
        directory.master_key(None)
    directory.close()


def _locked(path: pathlib.Path) -> object:
    opened(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def _overwritten(path: pathlib.Path) -> None:
    opened(path).close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 16384] = b"\xff" * 16384
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_locked, "locked"),
        (lambda path: path.write_bytes(b"no database at all " * 500), "not a Lensway database"),
        (_overwritten, "damaged"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
    ids=["locked", "foreign", "damaged", "directory"],
)
def test_a_store_that_cannot_be_used_is_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, spoil, says: str
) -> None:
    monkeypatch.setattr("lensway.store.sqlite._BUSY_MS", 50)
    path = tmp_path / "s.db"
    kept = spoil(path)
    with pytest.raises(LenswayError, match=says) as error:
        opened(path)
    assert error.value.code is ErrorCode.INVALID_REQUEST
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    del kept
