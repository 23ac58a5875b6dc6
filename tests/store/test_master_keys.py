"""The master key is a ring: what a previous key encrypted is encrypted anew at a start, all of it or nothing."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import sqlite3
from collections.abc import Callable

import pytest

from lensway.auth.derive import derive
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import Credentials, Environment, ExecutionMode, Put, Source
from lensway.cli.given import secret_given
from lensway.clock import SystemClock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_source_id
from lensway.store.sqlite import SqliteStore
from lensway.testing.deployment import Deployment

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def opened(path: pathlib.Path, key: bytes, *previous: bytes) -> SqliteStore:
    return SqliteStore.open(path, master_key=key, clock=SystemClock(), previous_keys=previous)


def entry() -> AuditEntry:
    return AuditEntry(
        at="2026-01-01T00:00:00.000+00:00",
        environment=None,
        actor="t",
        action="test",
        object="x",
        address="",
        outcome="ok",
        request_id="",
    )


async def add_source(store: SqliteStore) -> Source:
    environment: Environment = store.current().environments()[0]
    source = Source(
        environment=environment.id,
        id=new_source_id(),
        name="main",
        bridge="postgres",
        credentials=Credentials.MANAGED,
        execution=ExecutionMode.AUTO,
        config_version=1,
        created_at="2026-01-01T00:00:00.000+00:00",
    )
    await store.commit(lambda _snapshot: ([Put(record=source, config=b"{}")], entry()))
    return source


def test_a_rotated_key_opens_everything_and_the_old_one_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    store = opened(path, OLD)
    source = asyncio.run(add_source(store))
    store.close()
    for ring in ((NEW,), (NEW, OTHER)):
        with pytest.raises(LenswayError) as caught:
            opened(path, *ring)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
        assert "LENSWAY_MASTER_KEY_PREVIOUS" in (caught.value.failure.hint or "")
    for ring in ((NEW, OTHER, OLD), (NEW, OLD), (NEW,)):
        store = opened(path, *ring)
        assert store.source_config(source.environment, source.id) == b"{}"
        asyncio.run(store.record_audit(entry()))
        verdict = asyncio.run(store.verify_audit())
        assert verdict.ok, verdict
        store.close()
    assert verdict.rows == 4, "one chain over the rotation"
    with pytest.raises(LenswayError):
        opened(path, OLD)


def test_a_rotation_that_fails_midway_changes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    store = opened(path, OLD)
    source = asyncio.run(add_source(store))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON source_configs BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    connection.close()
    with pytest.raises(LenswayError):
        opened(path, NEW, OLD)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER full")
    connection.close()
    store = opened(path, OLD)
    assert store.source_config(source.environment, source.id) == b"{}"
    store.close()


def test_a_walk_goes_on_over_a_rotation(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "files" / "rows.db"
    source.parent.mkdir()
    with sqlite3.connect(source) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5)])
    connection.close()
    old, new = (base64.b64encode(key).decode() for key in (OLD, NEW))
    (tmp_path / "old.key").write_bytes(b"\xef\xbb\xbf" + f'"{old}"\r\n'.encode())
    (tmp_path / "new.key").write_text(new + "\n")
    deployment = Deployment(
        tmp_path,
        environment={"LENSWAY_MASTER_KEY_FILE": str(tmp_path / "old.key")},
        serve_options=("--source-dir", str(source.parent)),
    )

    def pages(cursor: str | None) -> tuple[list[int], str | None]:
        client = deployment.client()
        body = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        answer = client.post("/v1/query/t", json=body)
        if answer.status_code != 200:
            return [], answer.json()["error"]["code"]
        return [row["id"] for row in answer.json()["rows"]], answer.json()["meta"]["nextCursor"]

    with deployment:
        client = deployment.client()
        client.post("/v1/sources", json={"name": "s", "bridge": "sqlite", "config": {"path": str(source)}})
        lens = {"source": "s", "table": "t", "fields": {"id": {"type": "integer", "primaryKey": True}}}
        assert client.put("/v1/lenses/t", json=lens).status_code in (200, 201)
        first, cursor = pages(None)
        deployment.server.stop()
        deployment._environment = {
            "LENSWAY_MASTER_KEY_FILE": str(tmp_path / "new.key"),
            "LENSWAY_MASTER_KEY_PREVIOUS_FILE": str(tmp_path / "old.key"),
        }
        deployment.start_server()
        second, later = pages(cursor)
        altered = pages(cursor[:-1] + ("A" if cursor[-1] != "A" else "B"))
        deployment.server.stop()
        deployment._environment = {"LENSWAY_MASTER_KEY": new}
        deployment.start_server()
        third, _ = pages(later)
        assert first + second + third == [0, 1, 2, 3, 4]
        assert altered == ([], "invalid_cursor")
        assert pages(cursor) == ([], "invalid_cursor"), "the old key is gone, and what it signed"


@pytest.mark.parametrize(
    "dressed",
    [
        lambda key: key,
        lambda key: key + "\n",
        lambda key: key + "\r\n",
        lambda key: "\ufeff" + key,
        lambda key: f'"{key}"\n',
        lambda key: f"'{key}'",
        lambda key: f"  {key}\t\n\n",
    ],
)
def test_what_editors_leave_around_a_secret_is_no_part_of_it(
    tmp_path: pathlib.Path, dressed: Callable[[str], str]
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(dressed("ak_secret").encode())
    assert secret_given({"A_FILE": str(file)}, "A") == "ak_secret"
    assert secret_given({"A": dressed("ak_secret")}, "A") == "ak_secret"


def test_a_secret_file_that_cannot_be_used_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in ("absent", "empty", "binary", "."):
        with pytest.raises(LenswayError) as caught:
            secret_given({"A_FILE": str(tmp_path / path)}, "A")
        assert "A_FILE" in str(caught.value)
    with pytest.raises(LenswayError):
        secret_given({"A_FILE": str(tmp_path / "empty"), "A": "x"}, "A")
    assert secret_given({}, "A") is None
    assert secret_given({"A": "", "A_FILE": ""}, "A") is None


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert len({derive(OLD, purpose) for purpose in ("cursor", "sign-in", "at-rest", "audit")}) == 4
