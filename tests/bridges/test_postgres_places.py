"""Where a PostgreSQL source is: several hosts, wanted attributes, Unix sockets; settings are checked by name, never quoted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import encode_probes
from lensway.bridges.postgres.endpoints import check_places
from lensway.bridges.postgres.settings import read_settings
from lensway.errors import ErrorCode, LenswayError
from lensway.query.planner import plan_probe
from lensway.runner.policy import LocalPolicy
from lensway.testing.postgres import PostgresCluster
from tests.bridges.asking import Asked

FIELDS = {"id": {"type": "integer", "primaryKey": True}}
ANYWHERE = AddressPolicy(allows_sockets=True)


def places(**config: object) -> list[tuple[str, int]]:
    return [(each.host, each.port) for each in read_settings({"user": "u", **config}).places]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, [("localhost", 5432)]),
        ({"host": "db", "port": 6000}, [("db", 6000)]),
        ({"host": "a,b", "port": "1,2"}, [("a", 1), ("b", 2)]),
        ({"host": "a, b ,c", "port": "7"}, [("a", 7), ("b", 7), ("c", 7)]),
        ({"host": "::1"}, [("::1", 5432)]),
        ({"host": "[::1],10.0.0.1"}, [("::1", 5432), ("10.0.0.1", 5432)]),
        ({"host": "/var/run/postgresql/"}, [("/var/run/postgresql", 5432)]),
        ({"host": "/run,db"}, [("/run", 5432), ("db", 5432)]),
        ({"url": "postgresql://u:p@a:1,b:2/d"}, [("a", 1), ("b", 2)]),
        ({"url": "postgresql://u:p@a,b:2/d"}, [("a", 5432), ("b", 2)]),
        ({"url": "postgresql://u:p@[::1]:7,db/d"}, [("::1", 7), ("db", 5432)]),
        ({"url": "postgresql://u@[2001:db8::1]/d"}, [("2001:db8::1", 5432)]),
        ({"url": "postgresql:///d?host=/var/run/postgresql&port=6000"}, [("/var/run/postgresql", 6000)]),
        ({"url": "postgresql://u@%2Fvar%2Frun:6000/d"}, [("/var/run", 6000)]),
        ({"url": "postgresql:///d?host=a,b&port=1,2"}, [("a", 1), ("b", 2)]),
        ({"url": "postgresql://u:p@a/d", "host": "b"}, [("b", 5432)]),
    ],
)
def test_where_it_is(config: dict, found: list) -> None:
    assert places(**config) == found


def test_transport_security_is_chosen_for_each_place() -> None:
    found = read_settings({"user": "u", "host": "127.0.0.1,db.example,/run"})
    assert [each.sslmode for each in found.places] == ["prefer", "require", "disable"]
    found = read_settings({"user": "u", "host": "127.0.0.1,/run", "sslmode": "verify-full"})
    assert [each.sslmode for each in found.places] == ["verify-full", "disable"]


SECRET = "hush"
WRONG = [
    ("connect_timeout", {"connect_timeout": "banana"}),
    ("connect_timeout", {"connect_timeout": 0}),
    ("connect_timeout", {"connect_timeout": -1}),
    ("connect_timeout", {"connect_timeout": "1.5"}),
    ("connect_timeout", {"connect_timeout": "9" * 5000}),
    ("connect_timeout", {"connect_timeout": limits.CONNECT_TIMEOUT_SECONDS_MAX + 1}),
    ("connect_timeout", {"url": "postgresql://u@h/d?connect_timeout=soon"}),
    ("target_session_attrs", {"target_session_attrs": "master"}),
    ("port", {"port": 0}),
    ("port", {"port": "65536"}),
    ("port", {"port": "9" * 5000}),
    ("port", {"port": "x"}),
    ("port", {"port": "٣"}),
    ("port", {"host": "a,b,c", "port": "1,2"}),
    ("port", {"host": "a", "port": "1,2"}),
    ("port", {"host": "a,b", "port": "1,"}),
    ("port", {"url": f"postgresql://u:{SECRET}@h:0/d"}),
    ("port", {"url": f"postgresql://u:{SECRET}@h:70000/d"}),
    ("port", {"url": f"postgresql://u:{SECRET}@a:1,b:0/d"}),
    ("url", {"url": f"postgresql://u:{SECRET}@h:1x/d"}),
    ("url", {"url": f"postgresql://u:{SECRET}/x@h/d"}),
    ("url", {"url": f"postgresql://u:{SECRET}@h/d?host=other"}),
    ("url", {"url": f"postgresql://u:{SECRET}@h:1/d?port=2"}),
    ("url", {"url": "postgresql://u@h/d?application_name=x"}),
    ("host", {"host": "a,,b"}),
    ("host", {"host": ","}),
    ("host", {"host": "db:5432"}),
    ("host", {"host": "http://db"}),
    ("host", {"host": "my host"}),
    ("host", {"host": "@abstract"}),
    ("host", {"host": ":::"}),
    ("host", {"host": ",".join(f"h{n}" for n in range(limits.SOURCE_HOSTS_MAX + 1))}),
    ("sslmode", {"sslmode": "allow"}),
    ("statement_tags", {"statement_tags": "yes"}),
    ("pooler", {"pooler": "pgbouncer"}),
]


@pytest.mark.parametrize(("key", "config"), WRONG)
def test_a_setting_that_cannot_work_is_refused_by_name(key: str, config: dict) -> None:
    with pytest.raises(LenswayError) as refused:
        read_settings({"user": "u", **config})
    failure = refused.value.failure
    assert failure.code is ErrorCode.INVALID_REQUEST
    assert failure.message.startswith(f"config.{key}: "), failure.message
    assert SECRET not in f"{failure.message} {failure.hint} {failure.details}"


def test_sockets_are_for_those_who_allow_them(tmp_path) -> None:
    settings = read_settings({"user": "u", "host": str(tmp_path)})
    check_places(settings, LocalPolicy().address_policy())
    check_places(settings, LocalPolicy(hosts=(str(tmp_path),)).address_policy())
    for policy in (
        AddressPolicy(),
        AddressPolicy(allows_sockets=True, forbidden_dirs=(str(tmp_path),)),
        LocalPolicy(hosts=("db", "10.0.0.0/8", "/elsewhere")).address_policy(),
    ):
        with pytest.raises(LenswayError) as refused:
            check_places(settings, policy)
        assert refused.value.failure.details["class"] == "forbidden_address"
    with pytest.raises(LenswayError, match="forbidden address") as refused:
        check_places(settings, AddressPolicy())
    assert "--unix-sockets" in (refused.value.failure.hint or "")


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses: bound, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="module")
def login(postgres: PostgresCluster) -> dict[str, object]:
    return made_login(postgres)


def made_login(postgres: PostgresCluster) -> dict[str, object]:
    async def make() -> None:
        await postgres.create_role_and_database("placed", "secret", "places")
        await postgres.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (7)", database="places")
        await postgres.create_role_and_database("placed", "secret", "resting")
        await postgres.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (7)", database="resting")
        await postgres.execute("ALTER DATABASE resting SET default_transaction_read_only = on")

    asyncio.run(make())
    return {"user": "placed", "password": "secret", "database": "places"}


async def works(config: dict) -> list[dict]:
    """Pages, the bulk path and introspection give the row; the connection test is good. Its warnings."""
    async with Asked("postgres", config, ANYWHERE) as asked:
        lens = asked.declared("public.t", FIELDS)
        assert await asked.rows(lens) == [{"id": 7}]
        assert b"7" in await asked.export(lens, "ndjson")
        assert await asked.export(lens, "arrow")
        assert await asked.tables() == ["public.t"]
        report = json.loads(await asked.job("test", encode_probes([plan_probe(lens).encode()])))
        assert report["ok"], report
        return report["warnings"]


async def fails(config: dict) -> str:
    """The class of the failure, the same for pages and for the bulk path."""
    classes = set()
    async with Asked("postgres", config, ANYWHERE) as asked:
        lens = asked.declared("public.t", FIELDS)
        for ask in (lambda: asked.rows(lens), lambda: asked.export(lens, "arrow")):
            with pytest.raises(LenswayError) as failed:
                await ask()
            assert failed.value.code is ErrorCode.SOURCE_UNREACHABLE
            classes.add(failed.value.failure.details["class"])
    assert len(classes) == 1, classes
    return classes.pop()


def test_several_hosts_are_tried_in_turn(postgres: PostgresCluster, login) -> None:
    with closed_port() as closed:
        hosts = {"host": "127.0.0.1,nowhere.invalid,127.0.0.1", "port": f"{closed},1,{postgres.port}"}
        warnings = asyncio.run(works(login | hosts))
        assert [each["code"] for each in warnings if "nowhere.invalid" in each["message"]] == ["host_silent"]
        url = f"postgresql://placed:secret@127.0.0.1:{closed},127.0.0.1:{postgres.port}/places?target_session_attrs=primary"
        asyncio.run(works({"url": url, "connect_timeout": 3}))
        assert asyncio.run(fails(login | {"host": "127.0.0.1,127.0.0.1", "port": f"{closed},{closed}"})) == "refused"
        wrong = login | hosts | {"password": "wrong"}
        assert asyncio.run(fails(wrong)) == "password"


@pytest.mark.parametrize(
    ("database", "attributes", "is_found"),
    [
        ("places", "any", True),
        ("places", "primary", True),
        ("places", "read-write", True),
        ("places", "prefer-standby", True),
        ("places", "standby", False),
        ("places", "read-only", False),
        ("resting", "read-only", True),
        ("resting", "read-write", False),
    ],
)
def test_only_a_server_that_is_wanted_is_taken(postgres, login, database: str, attributes: str, is_found: bool) -> None:
    config = login | {
        "host": "127.0.0.1,127.0.0.1",
        "port": str(postgres.port),
        "database": database,
        "target_session_attrs": attributes,
    }
    if is_found:
        asyncio.run(works(config))
    else:
        assert asyncio.run(fails(config)) == "session_attributes"


def test_unix_sockets(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("sock")
    directory.chmod(0o755)
    folder = str(directory / "c" / "data")
    with PostgresCluster(directory / "c", settings={"unix_socket_directories": folder}) as cluster:
        read_over_sockets(cluster, folder)


def read_over_sockets(postgres: PostgresCluster, folder: str) -> None:
    login = made_login(postgres)
    for config in (
        login | {"host": folder, "port": postgres.port},
        login | {"host": folder, "port": postgres.port, "sslmode": "require"},
        {"url": f"postgresql:///places?host={folder}&port={postgres.port}", "user": "placed", "password": "secret"},
    ):
        warnings = asyncio.run(works(config))
        assert "no_tls" not in [each["code"] for each in warnings]
    with closed_port() as closed:
        asyncio.run(works(login | {"host": f"{folder},{folder}", "port": f"{closed},{postgres.port}"}))
    assert asyncio.run(fails(login | {"host": folder, "port": 1})) == "unreachable"

    async def refused() -> None:
        async with Asked("postgres", login | {"host": folder, "port": postgres.port}) as asked:
            with pytest.raises(LenswayError) as failed:
                await asked.rows(asked.declared("public.t", FIELDS))
            assert failed.value.failure.details["class"] == "forbidden_address"

    asyncio.run(refused())
