"""A lens whose table does not exist: the error says how tables are written, and names the one that was probably meant."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator

import duckdb
import httpx2
import pytest

from lensway.testing.deployment import Deployment
from lensway.testing.postgres import Database, PostgresCluster

pytestmark = pytest.mark.acceptance

FIELDS = {"id": {"type": "integer", "primaryKey": True}}


@pytest.fixture(scope="module")
def shop(postgres: PostgresCluster) -> Database:
    password = "reader-of-odd-names"
    asyncio.run(postgres.create_role_and_database("odd_reader", password, "odd"))
    database = Database(
        cluster=postgres,
        name="odd",
        owner_url=postgres.superuser_dsn("odd"),
        reader_url=postgres.url("odd_reader", password, "odd"),
        reader_password=password,
    )
    asyncio.run(
        database.execute(
            'CREATE SCHEMA "my.schema"; CREATE SCHEMA sales; CREATE SCHEMA hidden',
            'CREATE TABLE "my.schema".orders (id bigint PRIMARY KEY)',
            'CREATE TABLE public."Customers" (id bigint PRIMARY KEY)',
            "CREATE TABLE sales.items (id bigint PRIMARY KEY)",
            "CREATE TABLE hidden.secrets (id bigint PRIMARY KEY)",
            'GRANT USAGE ON SCHEMA "my.schema", sales TO odd_reader',
            'GRANT SELECT ON "my.schema".orders, public."Customers", sales.items TO odd_reader',
        )
    )
    return database


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, shop: Database) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("missing")
    for name, connect in (("lite.db", sqlite3.connect), ("duck.db", duckdb.connect)):
        with contextlib.closing(connect(directory / name)) as made:
            made.execute('CREATE TABLE "odd.name" (id INTEGER PRIMARY KEY)')
    with Deployment(directory, serve_options=("--source-dir", str(directory))) as running:
        for name, bridge, config in (
            ("pg", "postgres", {"url": shop.reader_url}),
            ("lite", "sqlite", {"path": str(directory / "lite.db")}),
            ("duck", "duckdb", {"path": str(directory / "duck.db")}),
        ):
            body = {"name": name, "bridge": bridge, "config": config}
            assert running.client().post("/v1/sources", json=body).status_code == 201
        yield running


def asked(client: httpx2.Client, source: str, table: str, *, key: httpx2.Client | None = None) -> dict:
    definition = {"source": source, "table": table, "fields": FIELDS, "grants": {"query": "public"}}
    assert client.put("/v1/lenses/odd", json=definition).status_code == 200
    return (key or client).post("/v1/query/odd", json={}).json()["error"]


@pytest.mark.parametrize(
    ("table", "meant"),
    [
        ("my.schema.orders", None),
        ('"my.schema.orders"', '"my.schema".orders'),
        ('"my.schema".Orders', '"my.schema".orders'),
        ("public.customers", "public.Customers"),
        ("customers", "public.Customers"),
        ("CUSTOMERS", "public.Customers"),
        ("items", "sales.items"),
        ("public.items", "sales.items"),
        ("secrets", None),
        ("nosuchtable", None),
    ],
)
def test_postgresql_names_the_table_that_was_meant(deployment: Deployment, table: str, meant: str | None) -> None:
    client = deployment.client()
    definition = {"source": "pg", "table": table, "fields": FIELDS}
    put = client.put("/v1/lenses/odd", json=definition)
    if put.status_code == 400:
        assert "double quotes" in put.json()["error"]["hint"]
        return
    error = asked(client, "pg", table)
    assert (error["code"], error["details"]["class"]) == ("SOURCE_QUERY_FAILED", "undefined_table")
    assert (f"Did you mean {meant}? " in error["hint"]) == (meant is not None)
    assert "hidden" not in error["hint"]
    for part in ("`lensway sources tables SOURCE`", '"my.schema".orders', "case counts"):
        assert part in error["hint"]
    if meant is not None:
        assert client.put("/v1/lenses/odd", json=definition | {"table": meant}).status_code == 200
        assert client.post("/v1/query/odd", json={}).status_code == 200


@pytest.mark.parametrize("source", ["lite", "duck"])
def test_file_databases_say_how_tables_are_written(deployment: Deployment, source: str) -> None:
    client = deployment.client()
    error = asked(client, source, "odd.name")
    assert "`lensway sources tables SOURCE`" in error["hint"]
    assert asked_ok(client, source, '"odd.name"')
    described = client.get(f"/v1/sources/{source}/tables/nosuch").json()["error"]
    assert "double quotes" in described["hint"]


def asked_ok(client: httpx2.Client, source: str, table: str) -> bool:
    client.put("/v1/lenses/odd", json={"source": source, "table": table, "fields": FIELDS})
    return client.post("/v1/query/odd", json={}).status_code == 200


def test_a_publishable_key_does_not_learn_of_other_tables(deployment: Deployment) -> None:
    client = deployment.client()
    public = deployment.client(client.post("/v1/keys", json={"kind": "pk", "name": "w"}).json()["key"])
    assert "sales.items" in asked(client, "pg", "items")["hint"]
    assert "sales" not in repr(asked(client, "pg", "items", key=public))


def test_a_runner_says_the_same(deployment: Deployment) -> None:
    client = deployment.client()
    inline = asked(client, "pg", "items")
    deployment.start_runner(deployment.create_runner("alpha"))
    deployment.assign("alpha", "pg")
    dispatched = asked(client, "pg", "items")
    assert (dispatched["message"], dispatched["hint"]) == (inline["message"], inline["hint"])
