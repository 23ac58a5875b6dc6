"""The catalog's store: the fake and the real one alike; crashes at any point; what lies at rest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pathlib
import stat
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from lensway.auth import tokens
from lensway.catalog import rules
from lensway.catalog.definitions import read_lens, read_source
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import KeyKind, KeyLimits
from lensway.clock import SystemClock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_key_id, new_lens_id, new_runner_id, new_source_id
from lensway.store.bootstrap import DataDirectory, first_admin_key
from lensway.store.sqlite import SqliteStore
from lensway.store.tables import METADATA
from lensway.testing.canaries import leaks
from lensway.testing.memory_store import MemoryStore

KEY = b"m" * 32
SECRET = "canary/p@ss:word?" * 2


def opened(path: pathlib.Path, key: bytes = KEY) -> SqliteStore:
    return SqliteStore.open(path, master_key=key, clock=SystemClock())


def entry(action: str = "test") -> AuditEntry:
    return AuditEntry(
        at="2026-01-01T00:00:00Z",
        environment=None,
        actor="tester",
        action=action,
        object="x",
        address="",
        outcome="ok",
        request_id="",
    )


def source_rule(store, name: str, secret: str = SECRET):
    environment = store.current().environments()[0].id
    id = new_source_id()
    draft = read_source(name, {"bridge": "postgres", "config": {"host": "h", "user": "u", "password": secret}})
    return id, lambda snapshot: (rules.create_source(snapshot, environment, draft, id=id, at="t"), entry())


def runner_rule(store, name: str):
    environment = store.current().environments()[0].id
    token = tokens.mint("rk")
    return lambda snapshot: (
        rules.create_runner(
            snapshot, environment, name, id=new_runner_id(), token_hash=tokens.hash_token(token.reveal()), at="t"
        ),
        entry(),
    )


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request, tmp_path: pathlib.Path):
    made: list[SqliteStore] = []

    def make():
        if request.param == "memory":
            return MemoryStore()
        made.append(opened(tmp_path / f"store{len(made)}.db"))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_a_change_is_published_with_the_next_revision_and_its_audit_entry(make_store: Callable) -> None:
    async def run() -> None:
        store = make_store()
        heard: list[tuple[int, int]] = []
        forget = store.subscribe(lambda snapshot, changes: heard.append((snapshot.revision, len(changes))))
        before = store.current().revision
        id, rule = source_rule(store, "main")
        after = await store.commit(rule)
        assert store.current() is after
        assert after.revision == before + 1
        assert heard == [(before + 1, 1)]
        environment = after.environments()[0].id
        assert b"canary" in store.source_config(environment, id)
        forget()
        await store.commit(lambda snapshot: (rules.delete_source(snapshot, environment, "main"), entry("delete")))
        assert len(heard) == 1
        assert store.source_config(environment, id) is None
        newest = await store.audit(None, limit=1)
        assert newest[0][1].action == "delete"

    asyncio.run(run())


def test_a_refused_or_empty_decision_changes_nothing(make_store: Callable) -> None:
    async def run() -> None:
        store = make_store()
        before = store.current()

        def refuse(_snapshot):
            raise LenswayError(ErrorCode.CONFLICT, "no")

        with pytest.raises(LenswayError):
            await store.commit(refuse)
        assert await store.commit(lambda _snapshot: ((), entry("nothing"))) is before
        assert store.current() is before
        assert (await store.audit(None, limit=9))[0][1].action == "nothing"

    asyncio.run(run())


def test_a_caller_that_is_cancelled_does_not_lose_what_became_durable(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = opened(tmp_path / "s.db")
        published = asyncio.Event()
        store.subscribe(lambda _snapshot, _changes: published.set())
        task = asyncio.create_task(store.commit(runner_rule(store, "alpha")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(published.wait(), 10)
        assert store.current().runners(store.current().environments()[0].id)[0].name == "alpha"
        store.close()

    asyncio.run(run())


STEPS = ("source", "runner", "lens", "assign", "unassign", "drop", "drain", "rotate", "key")
FIELDS = {"b": {"type": "text"}, "a": {"type": "integer", "primaryKey": True}}


def step(store, what: str, source: str, runner: str):
    """A decision of one kind; it may be refused."""
    env = store.current().environments()[0].id
    hashed = tokens.hash_token(tokens.mint("rk").reveal())
    if what == "source":
        return source_rule(store, source)[1]
    if what == "runner":
        return runner_rule(store, runner)

    def decide(snapshot):
        match what:
            case "lens":
                draft = read_lens(f"lens-{runner}", {"source": source, "table": "t", "fields": FIELDS})
                changes = rules.put_lens(snapshot, env, draft, id=new_lens_id(), at="t")
            case "assign":
                changes = rules.assign(snapshot, env, runner, [source], at="t")
            case "unassign":
                changes = rules.unassign(snapshot, env, runner, [source])
            case "drop":
                changes = rules.delete_runner(snapshot, env, runner, force=True)
            case "drain":
                changes = rules.drain_runner(snapshot, env, runner)
            case "key":
                bounds = KeyLimits(max_rows=len(source), requests_per_minute=7)
                changes = rules.create_key(
                    snapshot, env, source, kind=KeyKind.SERVICE, limits=bounds, id=new_key_id(), hash=hashed, at="t"
                )
            case _:
                at, until = "2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"
                changes = rules.rotate_runner(snapshot, env, runner, token_hash=hashed, at=at, overlap_until=until)
        return changes, entry()

    return decide


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 2)), max_size=25))
def test_what_is_read_back_is_what_was_in_memory(tmp_path_factory, steps) -> None:
    path = tmp_path_factory.mktemp("store") / "s.db"

    async def run() -> None:
        store = opened(path)
        for what, one, two in steps:
            with contextlib.suppress(LenswayError):
                await store.commit(step(store, what, f"s{one}", f"r{two}"))
        kept = store.current()
        store.close()
        again = opened(path)
        assert sorted(map(repr, again.current().records())) == sorted(map(repr, kept.records()))
        assert again.current().revision == kept.revision
        assert (await again.verify_audit()).ok
        again.close()

    asyncio.run(run())


_WRITER = """
import asyncio, pathlib, sys
sys.path.insert(0, {tests!r})
from lensway.clock import SystemClock
from lensway.store.sqlite import SqliteStore
import test_store_helpers as helpers

async def main():
    store = SqliteStore.open(pathlib.Path({path!r}), master_key=b"m" * 32, clock=SystemClock())
    number = len(store.current().runners(store.current().environments()[0].id))
    while True:
        number += 1
        snapshot = await store.commit(helpers.runner_rule(store, f"runner-{{number}}"))
        print(snapshot.revision, number, flush=True)

asyncio.run(main())
"""


def test_killed_at_any_moment_no_acknowledged_change_is_lost(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"
    (tmp_path / "test_store_helpers.py").write_text(pathlib.Path(__file__).read_text())
    program = _WRITER.format(tests=str(tmp_path), path=str(path))
    for kill in range(20):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        acknowledged = (0, 0)
        # Another moment each time: after so many acknowledgements, in the middle of whatever comes next.
        for _ in range(1 + kill % 7):
            revision, number = process.stdout.readline().split()
            acknowledged = (int(revision), int(number))
        killer = threading.Timer(0.0007 * kill, process.kill)
        killer.start()
        rest = process.stdout.read().splitlines()
        killer.join()
        process.wait()
        process.stdout.close()
        if rest and len(rest[-1].split()) == 2:
            acknowledged = tuple(int(word) for word in rest[-1].split())
        store = opened(path)
        snapshot = store.current()
        names = {runner.name for runner in snapshot.runners(snapshot.environments()[0].id)}
        assert snapshot.revision >= acknowledged[0]
        assert {f"runner-{number}" for number in range(1, acknowledged[1] + 1)} <= names
        assert snapshot.revision == 1 + len(names), "one revision for each change, whole or not at all"
        assert asyncio.run(store.verify_audit()).ok
        store.close()


def test_a_failure_at_any_statement_leaves_the_state_of_before(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = opened(tmp_path / "s.db")
        before = store.current()
        for fail_at in range(1, 7):
            count = 0

            def fail(_connection, _cursor, statement, *_rest, fail_at: int = fail_at) -> None:
                nonlocal count
                count += 1
                if count == fail_at:
                    raise sqlalchemy.exc.OperationalError(statement, {}, Exception("disk full"))

            sqlalchemy.event.listen(store._engine, "before_cursor_execute", fail)
            try:
                with pytest.raises(LenswayError, match="nothing was changed"):
                    await store.commit(source_rule(store, "main")[1])
            finally:
                sqlalchemy.event.remove(store._engine, "before_cursor_execute", fail)
            assert store.current() is before
        await store.commit(source_rule(store, "main")[1])
        assert (await store.verify_audit()).ok
        store.close()

    asyncio.run(run())


# --- at rest --------------------------------------------------------------------------------------------------------------


def test_i9_settings_at_rest_are_encrypted_and_bound_to_their_source(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"

    async def write() -> None:
        store = opened(path)
        await store.commit(source_rule(store, "one")[1])
        await store.commit(source_rule(store, "two", secret="another")[1])
        files = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
        assert leaks(files, {"password": SECRET}) == []
        store.close()

    asyncio.run(write())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(LenswayError, match="master key"):
        opened(path, b"x" * 32)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT source, sealed FROM source_configs")).all()
        for (source, _), (_, sealed) in zip(rows, reversed(rows), strict=True):
            connection.execute(
                sqlalchemy.text("UPDATE source_configs SET sealed = :sealed WHERE source = :source"),
                {"sealed": sealed, "source": source},
            )
    engine.dispose()
    with pytest.raises(LenswayError, match="another source"):
        opened(path)


def test_the_migrations_make_what_the_tables_say(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path / "s.db")
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    store.close()


def test_a_database_of_a_newer_release_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"
    opened(path).close()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(LenswayError, match="newer release"):
        opened(path)


def test_an_altered_audit_entry_breaks_the_chain(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.db"

    async def run() -> None:
        store = opened(path)
        for name in ("a", "b", "c"):
            await store.commit(runner_rule(store, f"runner-{name}"))
        assert (await store.verify_audit()).ok
        with store._engine.begin() as connection:
            connection.execute(
                sqlalchemy.text("UPDATE audit SET entry = replace(entry, 'tester', 'nobody') WHERE sequence = 2")
            )
        assert (await store.verify_audit()).broken == 2
        store.close()

    asyncio.run(run())


def test_the_data_directory_is_private_and_for_one_server(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    directory = DataDirectory.open(path)
    key = directory.master_key(None)
    assert key == directory.master_key(None)
    assert stat.S_IMODE((path / "master.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(LenswayError) as error:
        DataDirectory.open(path)
    assert error.value.code is ErrorCode.CONFLICT
    given_key = base64.b64encode(b"k" * 32).decode()
    assert directory.master_key(given_key) == b"k" * 32
    for wrong in ("", "short", base64.b64encode(b"k" * 16).decode(), "!" * 44):
        with pytest.raises(LenswayError, match="32 bytes"):
            directory.master_key(wrong)
    directory.close()
    DataDirectory.open(path).close()


def test_the_first_admin_key_is_made_once(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        store = opened(tmp_path / "s.db")
        clock = SystemClock()
        minted = await first_admin_key(store, None, clock)
        assert store.current().key_by_hash(tokens.hash_token(minted.reveal())).role.value == "admin"
        assert await first_admin_key(store, None, clock) is None
        chosen = tokens.check_admin_key("ak_" + "c" * 32)
        for _ in range(2):
            assert await first_admin_key(store, chosen, clock) is None
        assert len(store.current().keys(None)) == 2
        store.close()

    asyncio.run(run())
