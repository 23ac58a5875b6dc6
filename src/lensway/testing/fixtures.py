"""Fixtures of real servers. The root `conftest.py` of the tests names this module in `pytest_plugins`."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import secrets
from collections.abc import Iterator

import pytest

from lensway.testing.postgres import Database, PostgresCluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """A running PostgreSQL cluster, one per test process."""
    directory = tmp_path_factory.mktemp("postgres")
    let_pass(directory)
    with PostgresCluster(directory / "cluster") as cluster:
        yield cluster


@pytest.fixture
def database(postgres: PostgresCluster) -> Database:
    """A fresh, empty database with a login that can only read."""
    return asyncio.run(fresh_database(postgres))


async def fresh_database(cluster: PostgresCluster) -> Database:
    """A new, empty database with a login that can only read, under a name that was never used in this process.

    Fixtures of a module need one too: where tests run in several processes, a process may come back to a module.
    """
    name = f"test_{next(_numbers)}"
    password = "reader:" + secrets.token_urlsafe(12)
    reader = f"lens_reader_{name}"
    await cluster.create_role_and_database(reader, password, name)
    return Database(
        cluster=cluster,
        name=name,
        owner_url=cluster.superuser_dsn(name),
        reader_url=cluster.url(reader, password, name),
        reader_password=password,
    )


def let_pass(directory: pathlib.Path) -> None:
    """Let the user whom PostgreSQL runs as pass through pytest's private directories down to this one."""
    for parent in (directory, *directory.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o711)
