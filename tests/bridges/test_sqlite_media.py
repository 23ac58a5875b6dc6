"""SQLite files in WAL mode where nothing can be written: named as what it is, with the ways out, which work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
from collections.abc import Iterator

import pytest

from lensway.bridges.contract import AddressPolicy
from lensway.errors import ErrorCode, LenswayError
from tests.bridges.asking import Asked

FIELDS = {"id": {"type": "integer", "primaryKey": True}}
_NOBODY = 65534


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without the rights of root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """Nothing in the folder can be written, nor made."""
    parents = [each for each in folder.parents if each.stat().st_uid == os.geteuid()]
    for parent in parents:
        parent.chmod(parent.stat().st_mode | 0o011)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def made(path: pathlib.Path, *, mode: str, with_log: bool) -> pathlib.Path:
    """A file with one row; with a log that holds another one, if it is to have one."""
    path.parent.mkdir()
    origin = path.with_name("origin.db")
    with contextlib.closing(sqlite3.connect(origin)) as file:
        file.execute(f"PRAGMA journal_mode = {mode}")
        file.execute("PRAGMA wal_autocheckpoint = 0")
        file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        file.execute("INSERT INTO t VALUES (1)")
        file.commit()
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if with_log:
            file.execute("INSERT INTO t VALUES (2)")
            file.commit()
        for end in ("", "-wal"):
            if (found := origin.with_name(origin.name + end)).exists():
                shutil.copy(found, path.with_name(path.name + end))
    for left in path.parent.glob("origin*"):
        left.unlink()
    return path


def ask(path: pathlib.Path, **config: object) -> list[dict]:
    """The rows; the connection test says the same as the query."""

    async def run() -> list[dict]:
        policy = AddressPolicy(source_dirs=(str(path.parent),))
        async with Asked("sqlite", {"path": str(path), **config}, policy) as asked:
            report = json.loads(await asked.job("test", b"\x90"))
            told = [(stage["error"], stage["hint"]) for stage in report["stages"] if stage["ok"] is False]
            lens = asked.declared("t", FIELDS)
            if told:
                with pytest.raises(LenswayError) as failed:
                    await asked.rows(lens)
                assert told == [(failed.value.failure.details["class"], failed.value.failure.hint)]
                raise failed.value
            return await asked.rows(lens)

    return asyncio.run(run())


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nobody may not be able to read the modules that the first query imports."""
    ask(made(tmp_path_factory.mktemp("plain") / "media" / "x.db", mode="DELETE", with_log=False))


@pytest.mark.parametrize("with_log", [False, True])
def test_a_wal_file_on_read_only_media_names_wal_and_the_ways_out(tmp_path: pathlib.Path, with_log: bool) -> None:
    path = made(tmp_path / "media" / "shop.db", mode="WAL", with_log=with_log)
    with read_only(path.parent), unprivileged():
        with pytest.raises(LenswayError) as failed:
            ask(path)
        assert failed.value.code is ErrorCode.SOURCE_UNREACHABLE
        assert failed.value.failure.details["class"] == "wal_read_only"
        for word in ("WAL", "immutable", "checkpoint"):
            assert word in (failed.value.failure.hint or "")
        if with_log:
            with pytest.raises(LenswayError) as failed:
                ask(path, immutable=True)
            assert failed.value.failure.details["class"] == "wal_not_checkpointed"
        else:
            assert ask(path, immutable=True) == ask(path, immutable="true") == [{"id": 1}]


def test_a_file_without_wal_is_read_from_read_only_media(tmp_path: pathlib.Path) -> None:
    path = made(tmp_path / "media" / "shop.db", mode="DELETE", with_log=False)
    with read_only(path.parent), unprivileged():
        assert ask(path) == [{"id": 1}]


def test_a_wal_file_that_can_be_written_is_read_with_its_log(tmp_path: pathlib.Path) -> None:
    path = made(tmp_path / "media" / "shop.db", mode="WAL", with_log=True)
    assert ask(path) == [{"id": 1}, {"id": 2}]
    with pytest.raises(LenswayError) as failed:
        ask(tmp_path / "media" / "none.db")
    assert failed.value.failure.details["class"] == "no_file"


@pytest.mark.parametrize("value", ["yes", 2, None, [], ""])
def test_immutable_is_true_or_false(tmp_path: pathlib.Path, value: object) -> None:
    with pytest.raises(LenswayError) as refused:
        ask(tmp_path / "x.db", immutable=value)
    assert refused.value.failure.details["path"] == "config.immutable"
