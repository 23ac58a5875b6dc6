"""What catalogs guarantee of keys, and what they do not: only a key that the order itself takes for unique needs no ranks."""

from __future__ import annotations

import asyncio
import sqlite3

import asyncpg
import pytest

from lensway.api.shapes import QueryRequest
from lensway.bridges.kit.orderings import Orderings
from lensway.bridges.postgres import keys as postgres_keys
from lensway.bridges.sqlite import keys as sqlite_keys
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import FieldType
from lensway.query.ordering import DECLARED, Ordering, TableFacts, judge
from lensway.query.plan import Shape, decode_shape
from lensway.query.planner import plan_rows
from lensway.testing.postgres import Database
from lensway.testing.walks import lens


def shape_of(table: str, *, bridge: str = "postgres", key: str = "a", **fields: str) -> Shape:
    definition = lens(table, key=key.split(","), **(fields or {"a": "integer", "b": "text"}))
    planned = plan_rows(definition, QueryRequest(), capabilities_of(bridge), cursor_key=b"k", environment="e")
    return decode_shape(planned.plan.shape)


POSTGRES_TABLES = [
    # Statements, the key, and whether the order is total.
    ("CREATE TABLE t (a int PRIMARY KEY, b text)", "a", True),
    ("CREATE TABLE t (a int PRIMARY KEY, b text)", "b,a", True),
    ("CREATE TABLE t (a int, b text, PRIMARY KEY (b, a))", "a,b", True),
    ("CREATE TABLE t (a int, b text, PRIMARY KEY (b, a))", "a", False),
    ("CREATE TABLE t (a int, b text)", "a", False),
    ("CREATE TABLE t (a int UNIQUE, b text)", "a", False),  # several NULLs
    ("CREATE TABLE t (a int UNIQUE NULLS NOT DISTINCT, b text)", "a", True),
    ("CREATE TABLE t (a int NOT NULL, b text); CREATE UNIQUE INDEX ON t (a) INCLUDE (b)", "a", True),
    ("CREATE TABLE t (a int NOT NULL, b text); CREATE UNIQUE INDEX ON t (a) WHERE b IS NULL", "a", False),
    ("CREATE TABLE t (a int NOT NULL, b text); CREATE UNIQUE INDEX ON t (abs(a))", "a", False),
    ("CREATE TABLE t (a int NOT NULL, b text); CREATE UNIQUE INDEX ON t (a, abs(a))", "a", False),
    ("CREATE TABLE t (a int NOT NULL, b text); CREATE INDEX ON t (a)", "a", False),
    ("CREATE TABLE t (a int NOT NULL, b text, UNIQUE (a) DEFERRABLE)", "a", True),
    ('CREATE TABLE t (a int, b text COLLATE "insensitive" PRIMARY KEY)', "b", True),
    ('CREATE TABLE t (a int, b text COLLATE "insensitive" NOT NULL); CREATE UNIQUE INDEX ON t (b COLLATE "C")', "b", False),
    ("CREATE TABLE t (a int, b citext PRIMARY KEY)", "b", True),
    ("CREATE TABLE t (a int, b citext NOT NULL); CREATE UNIQUE INDEX ON t (b text_ops)", "b", False),
    ("CREATE TABLE t (a int, b varchar(9) PRIMARY KEY)", "b", True),
    ("CREATE DOMAIN d AS text; CREATE TABLE t (a int, b d PRIMARY KEY)", "b", True),
    ("CREATE TYPE e AS ENUM ('x'); CREATE TABLE t (a int, b e PRIMARY KEY)", "b", True),
    ("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE TABLE child () INHERITS (t)", "a", False),
    ("CREATE TABLE t (a int PRIMARY KEY, b text) PARTITION BY HASH (a)", "a", True),
    ("CREATE TABLE o (a int PRIMARY KEY, b text); CREATE VIEW t AS TABLE o", "a", False),
    ("CREATE MATERIALIZED VIEW t AS SELECT 1 AS a, 'x'::text AS b; CREATE UNIQUE INDEX ON t (a)", "a", False),
]  # fmt: skip


@pytest.mark.parametrize(("statements", "key", "is_total"), POSTGRES_TABLES)
def test_postgres_calls_a_key_unique_only_where_the_order_does(
    database: Database, statements: str, key: str, is_total: bool
) -> None:
    async def run() -> tuple[TableFacts, postgres_keys.EqualKeys]:
        await database.execute(
            "CREATE EXTENSION citext",
            "CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            statements,
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
        )
        driver = await asyncpg.connect(database.reader_url)
        try:
            shape = shape_of("public.t" if "MATERIALIZED" in statements else "t", key=key)
            return await postgres_keys.table_facts(driver, shape), await postgres_keys.find_equal_keys(driver, shape)
        finally:
            await driver.close()

    facts, found = asyncio.run(run())
    ordering = judge(shape_of("t", key=key), facts)
    assert ordering.is_ranked is not is_total
    is_seen = "VIEW t AS TABLE" in statements
    expected = postgres_keys.EqualKeys.NONE if is_total or is_seen else postgres_keys.EqualKeys.POSSIBLE
    assert found is expected


SQLITE_TABLES = [
    ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)", "a", DECLARED),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY DESC, b TEXT)", "a", Ordering((True,), "rowid")),
    ("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", "a", Ordering((True,), "rowid")),
    ("CREATE TABLE t (a INT PRIMARY KEY NOT NULL, b TEXT)", "a", Ordering((False,), "rowid")),
    ("CREATE TABLE t (a INT, rowid TEXT, b TEXT)", "a", Ordering((True,), "oid")),
    ("CREATE TABLE t (a INT, RowId TEXT, OID INT, b TEXT)", "a", Ordering((True,), "_rowid_")),
    ("CREATE TABLE t (a INT, rowid, oid, _rowid_, b TEXT)", "a", Ordering((True,), None, True)),
    ("CREATE TABLE t (rowid, oid, _rowid_, a INT, b INTEGER PRIMARY KEY)", "a", Ordering((True,), "b")),
    ("CREATE TABLE t (a INT, b TEXT, rowid AS (1))", "a", Ordering((True,), "oid")),
    ("CREATE TABLE t (a INT PRIMARY KEY, b TEXT) WITHOUT ROWID", "a", DECLARED),
    ("CREATE TABLE t (a INT, b TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID", "a", Ordering((False,), None, True)),
    ("CREATE TABLE o (a INTEGER PRIMARY KEY, b TEXT); CREATE VIEW t AS SELECT * FROM o", "a", Ordering((True,), None, True)),
    ("CREATE VIRTUAL TABLE t USING fts5 (a, b)", "a", Ordering((True,), None, True)),
    ("CREATE VIRTUAL TABLE t USING rtree (a, x, y)", "a", Ordering((True,), None, True)),
]  # fmt: skip


@pytest.mark.parametrize(("statements", "key", "ordering"), SQLITE_TABLES)
def test_sqlite_orders_by_the_row_id_where_there_is_one(statements: str, key: str, ordering: Ordering) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(statements)
        facts = sqlite_keys.table_facts(connection, shape_of("t", bridge="sqlite", key=key))
        assert judge(shape_of("t", bridge="sqlite", key=key), facts) == ordering
        if facts.row_id is not None:
            connection.execute(f'SELECT t."{facts.row_id}" FROM t').fetchall()
    connection.close()


def test_a_key_compared_by_value_is_not_unique_because_its_texts_are() -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID")
        shape = shape_of("t", bridge="sqlite", a="decimal")
        assert judge(shape, sqlite_keys.table_facts(connection, shape)).is_ranked
    connection.close()


def test_what_the_catalog_said_holds_for_a_while_and_for_every_shape_of_the_table() -> None:
    orderings = Orderings("postgres", seconds=3600, are_exports_ordered=False)
    definition = lens("t", key=["a"], a="integer", b="text")

    def encoded(**asked: object) -> bytes:
        request = QueryRequest(**asked)  # type: ignore[arg-type]
        planned = plan_rows(definition, request, capabilities_of("postgres"), cursor_key=b"k", environment="e")
        return planned.plan.shape

    assert orderings.ready(encoded()) is None, "the catalog must be asked first"
    compiled = orderings.learned(encoded(), TableFacts())
    assert compiled.rank_position is not None
    assert orderings.ready(encoded()) is compiled
    other = orderings.ready(encoded(order_by={"field": "b"}))
    assert other is not None
    assert other.rank_position is not None
    orderings.forget()
    assert orderings.ready(encoded()) is None
    unique = TableFacts(not_null=frozenset({"a"}), unique=(frozenset({"a"}),))
    assert orderings.learned(encoded(), unique).rank_position is None
    expired = Orderings("postgres", seconds=0, are_exports_ordered=False)
    expired.learned(encoded(), unique)
    assert expired.ready(encoded()) is None


def test_unique_types_bound_what_a_unique_key_is_worth() -> None:
    facts = TableFacts(
        not_null=frozenset({"a"}), unique=(frozenset({"a"}),), unique_types=frozenset({FieldType.INTEGER})
    )
    assert judge(shape_of("t", a="integer"), facts) == DECLARED
    assert judge(shape_of("t", a="timestamp"), facts).is_ranked
