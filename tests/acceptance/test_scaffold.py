"""From a database to lenses without writing one by hand, and what differs later: scaffold, push, query, check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tomllib
from collections.abc import Iterator

import pyarrow
import pytest

from lensway.testing.deployment import Deployment, RunnerIdentity
from lensway.testing.fixtures import fresh_database

pytestmark = pytest.mark.acceptance

POSTGRES = (
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE TYPE pair AS (a int, b int)",
    "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, email varchar(80) UNIQUE NOT NULL, mood mood,"
    " referrer_id bigint REFERENCES customers, search tsvector, seen box)",
    "CREATE TABLE addresses (customer_id bigint PRIMARY KEY REFERENCES customers, city text, place point)",
    "CREATE TABLE products (sku text, shop int, title text, tags text[], price numeric(10,2), about jsonb,"
    " PRIMARY KEY (shop, sku) INCLUDE (title))",
    "CREATE TABLE orders (id uuid PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, billed_to bigint"
    " REFERENCES customers, placed timestamptz NOT NULL, due date, at time, note text)",
    "CREATE TABLE items (order_id uuid REFERENCES orders, line int, shop int NOT NULL, sku text NOT NULL, amount int,"
    " PRIMARY KEY (order_id, line), FOREIGN KEY (shop, sku) REFERENCES products (shop, sku))",
    "CREATE TABLE every_type (id int PRIMARY KEY, a smallint, b bigint, c real, d double precision, e numeric, f boolean,"
    " g date, h time, i timetz, j timestamp, k timestamptz, l uuid, m json, n jsonb, o bytea, p inet, q interval, r bit(3),"
    " s xml, t int[], u uuid[], v char(4), w money, x macaddr, y pair, z box)",
    'CREATE TABLE "Order Items" ("Id" int PRIMARY KEY, "Unit Price" numeric, "unit_price" int, "Größe" text, "価格" int,'
    ' "1st" text, "constructor" text, "pri.ce" int, "$${x}" int)',
    'CREATE TABLE "Orders" (id int PRIMARY KEY)',
    'CREATE TABLE "dot.table" (id int PRIMARY KEY)',
    "CREATE TABLE no_key (a int, b text)",
    "CREATE TABLE unique_only (code text NOT NULL UNIQUE, maybe int UNIQUE)",
    'CREATE TABLE odd_key (id "char" PRIMARY KEY, note text)',
    "CREATE TABLE only_odd (a box, b pair)",
    "CREATE TABLE parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE parts_2024 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE SCHEMA sales",
    "CREATE TABLE sales.orders (id int PRIMARY KEY, order_id uuid REFERENCES public.orders)",
    "CREATE VIEW late AS SELECT id, due FROM orders",
    "CREATE MATERIALIZED VIEW totals AS SELECT customer_id, count(*) AS n FROM orders GROUP BY 1",
    "INSERT INTO customers VALUES (1, 'a', 'a@x', 'good', NULL, 'x', NULL), (2, 'b', 'b@x', NULL, 1, NULL, NULL)",
    "INSERT INTO products VALUES ('p', 1, 'tea', '{hot,green}', 1.50, '{}')",
    "INSERT INTO orders VALUES ('00000000-0000-0000-0000-000000000001', 1, 2, now(), '2024-01-02', '10:00', NULL)",
    "INSERT INTO items VALUES ('00000000-0000-0000-0000-000000000001', 1, 1, 'p', 3)",
    "INSERT INTO every_type (id) VALUES (1)",
    "INSERT INTO every_type VALUES (2, 1, 2, 1.5, 2.5, 3.50, true, '2024-01-01', '10:00', '10:00+02', now(), now(),"
    " gen_random_uuid(), '{}', '{}', 'x', '::1', '1 day', B'101', '<a/>', '{1}', '{}', 'ab', 3, '08:00:2b:01:02:03', (1, 2),"
    " '(1,2),(3,4)')",
    "INSERT INTO \"Order Items\" VALUES (1, 2.5, 3, 'x', 4, 'y', 'z', 5, 6)",
    "GRANT USAGE ON SCHEMA sales TO PUBLIC",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public, sales TO PUBLIC",
    "REFRESH MATERIALIZED VIEW totals",
)

SQLITE = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, odd);
CREATE TABLE Orders (id INTEGER PRIMARY KEY, customer_id INT REFERENCES CUSTOMERS, total DECIMAL, placed DATETIME,
  doubled REAL GENERATED ALWAYS AS (id * 2) VIRTUAL);
CREATE TABLE items (line INT, order_id INT REFERENCES orders (ID), note TEXT, PRIMARY KEY (order_id, line)) WITHOUT ROWID;
CREATE TABLE "Order Notes" ("Note Id" INTEGER PRIMARY KEY, "of" INT REFERENCES nowhere (id), body BLOB);
CREATE TABLE codes (code TEXT NOT NULL UNIQUE, day DATE, at TIME, ok BOOLEAN);
CREATE VIEW latest AS SELECT id, placed FROM Orders;
CREATE VIRTUAL TABLE texts USING fts5(body);
INSERT INTO customers VALUES (1, 'a', NULL);
INSERT INTO Orders (id, customer_id, total, placed) VALUES (1, 1, '1.50', '2024-01-01 10:00:00');
INSERT INTO items VALUES (1, 1, NULL);
INSERT INTO "Order Notes" VALUES (1, 1, x'00');
INSERT INTO codes VALUES ('a', '2024-01-01', '10:00:00', 1);
"""


@pytest.fixture(scope="module")
def shop(postgres):
    """A database of twenty tables and views, with everything that is odd."""
    database = asyncio.run(fresh_database(postgres))
    asyncio.run(database.execute(*POSTGRES))
    return database


@pytest.fixture
def site(shared, shop) -> Iterator[Site]:
    """An environment of its own with the database as source `main`."""
    with contextlib.closing(Site(shared)) as site:
        site.source("main", bridge="postgres", config={"url": shop.reader_url})
        shared.secrets["password of the shop"] = shop.reader_password
        yield site


class Site:
    """An environment of the shared deployment, and its command line."""

    _number = 0

    def __init__(self, deployment) -> None:
        Site._number += 1
        self.deployment, self.name, self.processes = deployment, f"scaffold{Site._number}", []
        self.client = deployment.client(environment=self.name)
        assert deployment.client().post("/v1/environments", json={"name": self.name}).status_code == 201

    def source(self, name: str, **body: object) -> None:
        answer = self.client.post("/v1/sources", json={"name": name, **body})
        assert answer.status_code == 201, answer.text

    def cli(self, *arguments: str, code: int = 0) -> str:
        done = self.deployment.cli(*arguments, environment={"LENSWAY_ENVIRONMENT": self.name})
        assert done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr)
        return done.stdout

    def scaffold(self, source: str, *tables: str) -> dict:
        body = {"tables": list(tables)} if tables else {}
        answer = self.client.post(f"/v1/sources/{source}/scaffold", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def push(self, declaration: dict, *, dry: bool = False) -> list[dict]:
        answer = self.client.post("/v1/push", json=declaration, params={"dryRun": "true"} if dry else {})
        assert answer.status_code == 200, answer.text
        return [change for change in answer.json()["changes"] if change["action"] != "unchanged"]

    def check(self, lens: str) -> dict:
        answer = self.client.post(f"/v1/lenses/{lens}/check")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def push_dry(self, file, code: int) -> list[dict]:
        changes = json.loads(self.cli("push", str(file), "--dry-run", "--exit-code", code=code))["changes"]
        return [change for change in changes if change["action"] != "unchanged"]

    def every_lens_answers(self, lenses, *, via: str) -> None:
        for lens in lenses:
            answer = self.client.post(f"/v1/query/{lens}", json={"limit": 5})
            assert answer.status_code == 200, (lens, answer.text)
            assert answer.json()["meta"]["route"]["via"] == via
            arrow = self.client.post(
                f"/v1/query/{lens}", json={"limit": 5}, headers={"Accept": "application/vnd.apache.arrow.stream"}
            )
            assert arrow.status_code == 200, (lens, arrow.text)
            with pyarrow.ipc.open_stream(arrow.content) as reader:
                assert reader.read_all().num_rows == len(answer.json()["rows"]), lens

    def run_through_a_runner(self, source: str, **environment: str) -> None:
        created = self.client.post("/v1/runners", json={"name": "r"}).json()
        identity = RunnerIdentity(name="r", id=created["id"], token=created["token"])
        self.deployment.secrets[f"token of {self.name}"] = created["token"]
        self.processes.append(self.deployment.start_runner(identity, environment=environment))
        assert self.client.put(f"/v1/runners/r/sources/{source}").status_code == 200

    def close(self) -> None:
        for process in self.processes:
            process.kill()


def test_a_database_becomes_lenses_that_answer_inline_and_through_a_runner(site, tmp_path) -> None:
    file = tmp_path / "lenses.toml"
    text = site.cli("lenses", "scaffold", "main")
    file.write_text(text)
    lenses = tomllib.loads(text)["lenses"]
    assert len(lenses) >= 16
    assert {change["action"] for change in site.push_dry(file, 3)} == {"created"}
    site.cli("push", str(file))
    site.every_lens_answers(lenses, via="inline")
    assert site.push_dry(file, 0) == []
    file.write_text(site.cli("pull"))
    assert site.push_dry(file, 0) == [], "a `$` in the name of a column is no variable"
    inline = site.cli("lenses", "scaffold", "main")
    file.write_text(inline)
    assert site.push_dry(file, 0) == [], "the scaffold of lenses that were pushed differs from them in nothing"
    site.run_through_a_runner("main")
    site.every_lens_answers(lenses, via="runner")
    assert site.cli("lenses", "scaffold", "main") == inline
    checked = json.loads(site.cli("lenses", "check"))
    assert {result["lens"] for result in checked} == set(lenses)
    assert [finding for result in checked for finding in result["findings"] if finding["level"] == "error"] == []


def test_names_keys_types_relations_and_what_is_left_out(site) -> None:
    found = site.scaffold("main")
    lenses, notes = found["declaration"]["lenses"], found["notes"]
    left_out = {(note["table"], note.get("column")): note["reason"] for note in notes}
    assert "box. No field type can show such a column. Cast it in a view" in left_out["public.every_type", "z"]
    assert "box" in left_out["public.customers", "seen"]
    assert "to be read only" in left_out["public.every_type", "s"], "xml has no order"
    assert "left out" in left_out["public.only_odd", None]
    for view in ("public.late", "public.totals", "public.no_key", "public.odd_key"):
        assert "no primary key" in left_out[view, None], view

    assert list(lenses["products"]["fields"])[:2] == ["shop", "sku"], "the order of the key, not of the table"
    keys = {name: [f for f, d in lens["fields"].items() if d.get("primaryKey")] for name, lens in lenses.items()}
    assert keys["products"] == ["shop", "sku"], "a column that the index only includes is no part of the key"
    assert keys["items"] == ["order_id", "line"]
    assert keys["unique_only"] == ["code"]
    assert keys["late"] == keys["no_key"] == keys["odd_key"] == []

    assert lenses["products"]["fields"]["tags"] == {"type": "text", "list": True}
    assert lenses["customers"]["fields"]["name"] == {"type": "text", "nullable": False}
    assert lenses["customers"]["fields"]["mood"] == {"type": "text"}
    assert lenses["public_orders"]["table"] == "public.orders"
    assert lenses["sales_orders"]["table"] == "sales.orders"
    assert lenses["Orders"]["table"] == "public.Orders"
    columns = {doc.get("column", name): name for name, doc in lenses["Order_Items"]["fields"].items()}
    assert columns["unit_price"] == "unit_price", "a column keeps its own name if it is valid"
    assert columns["Unit Price"] == "Unit_Price"
    assert columns["Größe"] == "Gro_e"
    assert columns["1st"] == "_1st"
    assert len(set(columns.values())) == 9

    relations = found["relations"]
    assert relations["items"]["order"] == {"lens": "public_orders", "kind": "one", "on": {"order_id": "id"}}
    assert relations["items"]["products"] == {"lens": "products", "kind": "one", "on": {"shop": "shop", "sku": "sku"}}
    assert relations["products"]["items"] == {"lens": "items", "kind": "many", "on": {"shop": "shop", "sku": "sku"}}
    assert relations["addresses"]["customer"]["kind"] == "one"
    assert relations["customers"]["addresses"]["kind"] == "one", "the foreign key is the key of its table"
    assert relations["customers"]["referrer"] == {"lens": "customers", "kind": "one", "on": {"referrer_id": "id"}}
    assert relations["customers"]["customers"]["on"] == {"id": "referrer_id"}
    to_orders = [each["on"] for each in relations["customers"].values() if each["lens"] == "public_orders"]
    assert sorted(map(str, to_orders)) == ["{'id': 'billed_to'}", "{'id': 'customer_id'}"]


def test_some_tables_a_prefix_and_a_file(site, tmp_path) -> None:
    file = tmp_path / "lenses.toml"
    site.cli("lenses", "scaffold", "main", "customers", "public.no_key", "--prefix", "raw_", "-o", str(file))
    assert list(tomllib.loads(file.read_text())["lenses"]) == ["raw_customers", "raw_no_key"]
    assert "# column seen: left out" in file.read_text()
    one = site.scaffold("main", "sales.orders")["declaration"]["lenses"]
    assert list(one) == ["sales_orders"], "one table is named as it is among all of them"
    answer = site.client.post("/v1/sources/main/scaffold", json={"tables": ["custmers"]})
    assert answer.status_code == 404
    assert "customers" in answer.json()["error"]["hint"]
    for body in ({"tables": "customers"}, {"tables": [1]}, {"prefix": "-"}, {"prefix": 1}, {"table": ["x"]}):
        assert site.client.post("/v1/sources/main/scaffold", json=body).status_code == 400, body
    viewer = site.client.post("/v1/keys", json={"kind": "ak", "name": "v", "role": "viewer"}).json()["key"]
    operator = site.client.post("/v1/keys", json={"kind": "ak", "name": "o", "role": "operator"}).json()["key"]
    assert site.deployment.client(viewer).post("/v1/sources/main/scaffold").status_code == 403
    answer = site.deployment.client(operator).post("/v1/sources/main/scaffold", json={"tables": ["no_key"]})
    assert answer.status_code == 200, answer.text
    assert site.cli("lenses", "scaffold", "main", "-o", str(tmp_path / "no" / "x"), code=2) == ""


def test_what_people_decided_stays_and_no_other_lens_is_replaced(site, shop) -> None:
    site.source("other", bridge="postgres", config={"url": shop.reader_url})
    taken = {"source": "other", "table": "public.products", "fields": {"sku": {"type": "text"}}}
    assert site.client.put("/v1/lenses/products", json=taken).status_code == 200
    own = {
        "source": "main",
        "table": "no_key",
        "grants": {"query": "public"},
        "limits": {"maxRows": 5},
        "fields": {"label": {"type": "text", "column": "b"}, "a": {"type": "decimal", "primaryKey": True}},
    }
    assert site.client.put("/v1/lenses/plain", json=own).status_code == 200
    lenses = site.scaffold("main", "products", "no_key")["declaration"]["lenses"]
    assert lenses == {
        "plain": own,
        "products_2": lenses["products_2"],
    }


def test_check_finds_what_has_drifted(site, shop) -> None:
    site.source("drifting", bridge="postgres", config={"url": shop.reader_url})
    asyncio.run(
        shop.execute(
            "CREATE TABLE steady (id int PRIMARY KEY, a int)",
            "CREATE TABLE gone (id int PRIMARY KEY)",
            "CREATE TABLE drifted (id int PRIMARY KEY, a int NOT NULL, b text, c int[], d text, old text)",
            "CREATE TABLE keyless (id int PRIMARY KEY)",
            "GRANT SELECT ON steady, gone, drifted, keyless TO PUBLIC",
        )
    )
    tables = ("steady", "gone", "drifted", "keyless")
    site.push(site.scaffold("drifting", *tables)["declaration"])
    assert json.loads(site.cli("lenses", "check", *tables))[0] == {
        "lens": "steady", "source": "drifting", "table": "public.steady", "ok": True, "findings": [],
    }  # fmt: skip
    asyncio.run(
        shop.execute(
            "DROP TABLE gone",
            "ALTER TABLE drifted ALTER a DROP NOT NULL, ALTER b TYPE int USING 1, ALTER c TYPE int USING 1, DROP old,"
            " ALTER d TYPE varchar(9), ADD fresh date, ADD odd int4range",
            "ALTER TABLE keyless DROP CONSTRAINT keyless_pkey, ALTER id DROP NOT NULL",
        )
    )
    found = {result["lens"]: result for result in json.loads(site.cli("lenses", "check", code=1))}
    assert {name: result["ok"] for name, result in found.items()} == {
        "steady": True, "gone": False, "drifted": False, "keyless": False,
    }  # fmt: skip
    codes = {
        name: [(each["code"], each.get("column"), each["level"]) for each in result["findings"]]
        for name, result in found.items()
    }
    assert codes["gone"] == [("table_missing", None, "error")]
    assert codes["drifted"] == [
        ("nullable", "a", "error"),
        ("list_differs", "c", "error"),
        ("column_missing", "old", "error"),
        ("column_unused", "fresh", "note"),
        ("column_unused", "odd", "note"),
    ], "a text field shows integers as well; varchar is text"
    assert codes["keyless"] == [("key_not_unique", None, "error"), ("key_nullable", "id", "error")]
    assert site.client.post("/v1/lenses/nothing/check").status_code == 404
    changes = site.push(site.scaffold("drifting", "drifted")["declaration"], dry=True)
    assert [change["name"] for change in changes] == ["drifted"]


def test_a_source_that_cannot_be_asked_fails_its_lenses_only(site) -> None:
    site.source("dead", bridge="postgres", config={"url": "postgresql://u:p@127.0.0.1:1/x"})
    fields = {"id": {"type": "integer", "primaryKey": True}}
    for name, source in (("alive", "main"), ("unreachable", "dead")):
        body = {"source": source, "table": "public.customers", "fields": fields}
        assert site.client.put(f"/v1/lenses/{name}", json=body).status_code == 200
    found = {result["lens"]: result for result in json.loads(site.cli("lenses", "check", code=1))}
    assert found["alive"]["ok"]
    assert [each["code"] for each in found["unreachable"]["findings"]] == ["SOURCE_UNREACHABLE"]
    answer = site.client.post("/v1/sources/dead/scaffold")
    assert answer.json()["error"]["code"] == "SOURCE_UNREACHABLE"


def test_a_file_of_sqlite_becomes_lenses(tmp_path) -> None:
    path = tmp_path / "shop.db"
    policy = tmp_path / "policy.toml"
    policy.write_text(f'source_dirs = ["{tmp_path}"]')
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE)
    (tmp_path / "deployment").mkdir()
    with (
        Deployment(tmp_path / "deployment", serve_options=["--source-dir", str(tmp_path)]) as deployment,
        contextlib.closing(Site(deployment)) as site,
    ):
        site.source("file", bridge="sqlite", config={"path": str(path)})
        found = site.scaffold("file")
        lenses = found["declaration"]["lenses"]
        assert set(lenses) >= {"customers", "Orders", "items", "Order_Notes", "codes", "latest"}
        assert list(lenses["items"]["fields"])[:2] == ["order_id", "line"]
        assert found["relations"]["items"]["order"] == {"lens": "Orders", "kind": "one", "on": {"order_id": "id"}}
        assert found["relations"]["Orders"]["customer"] == {
            "lens": "customers", "kind": "one", "on": {"customer_id": "id"},
        }  # fmt: skip
        assert "doubled" in lenses["Orders"]["fields"]
        assert lenses["codes"]["fields"]["code"] == {"type": "text", "primaryKey": True}
        assert ("customers", "odd") in {(note["table"], note.get("column")) for note in found["notes"]}
        site.push(found["declaration"])
        site.every_lens_answers(lenses, via="inline")
        assert site.push(site.scaffold("file")["declaration"], dry=True) == []
        assert all(site.check(lens)["ok"] for lens in lenses)
        site.run_through_a_runner("file", LENSWAY_RUNNER_POLICY=str(policy))
        site.every_lens_answers(lenses, via="runner")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                "ALTER TABLE customers DROP COLUMN name; ALTER TABLE customers ADD fresh TEXT; DROP TABLE codes;"
                " DROP VIEW latest; CREATE VIEW latest AS SELECT CAST(id AS TEXT) AS id, placed FROM Orders;"
                " CREATE TABLE codes (code INTEGER UNIQUE, day DATE, at TIME, ok TEXT)"
            )
        codes = [(each["code"], each.get("column")) for each in site.check("customers")["findings"]]
        assert codes == [("column_missing", "name"), ("column_unused", "odd"), ("column_unused", "fresh")]
        codes = [(each["code"], each.get("column")) for each in site.check("codes")["findings"]]
        assert codes == [("type_differs", "code"), ("type_differs", "ok"), ("key_nullable", "code")]
