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
    for parent in (directory, *directory.parents):
        # The server may run as another user, who has to pass through pytest's private directories.
        if parent == pathlib.Path("/") or parent.stat().st_mode & 0o001:
            break
        parent.chmod(parent.stat().st_mode | 0o711)
    with PostgresCluster(directory / "cluster") as cluster:
        yield cluster


@pytest.fixture
def database(postgres: PostgresCluster) -> Database:
    """A fresh, empty database with a login that can only read."""
    name = f"test_{next(_numbers)}"
    password = "reader:" + secrets.token_urlsafe(12)
    reader = f"lens_reader_{name}"
    asyncio.run(postgres.create_role_and_database(reader, password, name))
    return Database(
        cluster=postgres,
        name=name,
        owner_url=postgres.superuser_dsn(name),
        reader_url=postgres.url(reader, password, name),
        reader_password=password,
    )
