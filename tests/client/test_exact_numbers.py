"""Every digit of a number, from the caller to the database and back: over HTTP, through both clients and the command line."""

from __future__ import annotations

import asyncio
import decimal
import json

import pytest

from lensway.testing.deployment import Deployment
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance
NEAR = "12345678901234567890.1"
DOCUMENT = '{"a": 12345678901234567890.12, "b": [1e400, 0.1, 123456789012345678901234567890]}'
FIELDS = {
    "id": {"type": "integer", "primaryKey": True},
    "n": {"type": "decimal"},
    "d": {"type": "number"},
    "doc": {"type": "json"},
}


@pytest.fixture(scope="module")
def figures(server: Deployment, shop: Database) -> Deployment:
    """The shop's server with a lens of numbers that differ where doubles do not."""
    lines = ", ".join(f"({9007199254740990 + last}, {NEAR}{last}, {last}.5, '{DOCUMENT}')" for last in (2, 3, 4))
    asyncio.run(
        shop.execute(
            "CREATE TABLE IF NOT EXISTS figures (id bigint PRIMARY KEY, n numeric, d double precision, doc json)",
            f"INSERT INTO figures VALUES {lines} ON CONFLICT DO NOTHING",
            "GRANT SELECT ON figures TO shop_reader",
        )
    )
    lens = {"source": "shop", "table": "public.figures", "fields": FIELDS}
    assert server.client().put("/v1/lenses/figures", json=lens).status_code < 300
    return server


def post(figures: Deployment, path: str, body: str) -> tuple[int, dict]:
    answer = figures.client().post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    return answer.status_code, json.loads(answer.content)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (f'{{"n": {NEAR}3}}', [3]),
        (f'{{"n": {{"$gt": {NEAR}2, "$lt": {NEAR}4}}}}', [3]),
        (f'{{"n": {{"$nin": [{NEAR}2, {NEAR}40]}}}}', [3]),
        (f'{{"$not": {{"n": {{"$lte": {NEAR}3}}}}}}', [4]),
        ('{"n": {"$gte": 1e19, "$lt": 1234567890123456789013e-2}}', [2]),
        ('{"id": 9007199254740993}', [3]),
        ('{"id": 9007199254740993.0}', [3]),
        ('{"id": {"$gt": 9007199254740992.5, "$lt": 1e30}}', [3, 4]),
        ('{"id": 9007199254740992.5}', []),
        ('{"d": 25e-1}', [2]),
    ],
)
def test_http_queries_and_counts(figures: Deployment, where: str, ids: list[int]) -> None:
    status, answer = post(figures, "/v1/query/figures", f'{{"where": {where}, "select": ["id"]}}')
    assert (status, [row["id"] - 9007199254740990 for row in answer["rows"]]) == (200, ids)
    assert post(figures, "/v1/count/figures", f'{{"where": {where}}}') == (200, {"count": len(ids)})


@pytest.mark.parametrize("literal", ["1e99999999999999999999", "1" * 5_000, "1" * 2_000, "1" * 2_000 + ".5", "1e10000"])
def test_numbers_beyond_every_column_are_refused(figures: Deployment, literal: str) -> None:
    status, answer = post(figures, "/v1/query/figures", f'{{"where": {{"n": {literal}}}}}')
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "not JSON" not in answer["error"]["message"]


def test_limits_stay_whole_numbers(figures: Deployment) -> None:
    for body in (
        '{"limit": 1.5}',
        '{"limit": 1.0}',
        '{"timeoutMs": 1e3}',
        '{"offset": 0.0}',
        '{"limit": 1e99999999999999999999}',
    ):
        assert post(figures, "/v1/query/figures", body)[0] == 400, body


def test_clients_send_and_receive_every_digit(figures: Deployment, client) -> None:
    for last in (2, 3, 4):
        number = decimal.Decimal(f"{NEAR}{last}")
        found = client.query("figures", where={"n": number}).rows
        assert [(row["id"], row["n"]) for row in found] == [(9007199254740990 + last, str(number))]
        assert client.count("figures", where={"n": {"$in": [number, 10**30]}}) == 1
        assert (
            client.count(
                "figures", where={"d": decimal.Decimal(f"{last}.5"), "id": decimal.Decimal(9007199254740990 + last)}
            )
            == 1
        )
    assert client.count("figures", where={"n": {"$lt": decimal.Decimal("Infinity")}}) == 3
    exact = [decimal.Decimal("12345678901234567890.12"), decimal.Decimal("1e400"), 0.1, 123456789012345678901234567890]
    with client.export("figures") as stream:
        streamed = list(stream.rows())
    for row in (*client.query("figures").rows, *streamed):
        assert [row["doc"]["a"], *row["doc"]["b"]] == exact
        assert type(row["d"]) is float


def test_the_command_line_sends_and_shows_every_digit(figures: Deployment) -> None:
    where = f'{{"n": {NEAR}3, "d": 3.5, "id": 9007199254740993.0}}'
    for arguments in (("--format", "json"), ("--format", "table")):
        shown = figures.cli("query", "figures", "--where", where, *arguments)
        assert shown.returncode == 0, shown.stderr
        for digits in ("9007199254740993", f"{NEAR}3", "12345678901234567890.12", "123456789012345678901234567890"):
            assert digits in shown.stdout, (arguments, shown.stdout)
        assert "1e400" in shown.stdout.lower().replace("+", "")
    assert json.loads(figures.cli("count", "figures", "--where", f'{{"n": {{"$gt": {NEAR}3}}}}').stdout) == {"count": 1}
    refused = figures.cli("query", "figures", "--where", '{"n": 1e99999999999999999999}')
    assert refused.returncode != 0
    assert "where.n" in refused.stderr
