"""Asking for names that do not exist is cheap for the server, and no way around the limits of a key."""

from __future__ import annotations

import psutil
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance

FIELDS = {"id": {"type": "integer", "primaryKey": True}, "note": {"type": "text"}}
LENSES = 3_000
ASKED = 40


def test_unknown_names_cost_little_and_count(tmp_path) -> None:
    with Deployment(tmp_path, serve_options=("--source-dir", str(tmp_path))) as deployment:
        client = deployment.client()
        lenses = {
            f"customer-orders-{number}": {"source": "main", "table": "t", "fields": FIELDS} for number in range(LENSES)
        }
        source = {"bridge": "sqlite", "config": {"path": str(tmp_path / "nowhere.db")}}
        pushed = {"sources": {"main": source}, "lenses": lenses}
        answer = client.post("/v1/push", json=pushed)
        assert answer.status_code == 200, answer.text
        keys = {
            name: client.post("/v1/keys", json={"kind": "sk", "name": name, "limits": limits}).json()["key"]
            for name, limits in (("bounded", {"requestsPerMinute": 1}), ("free", {}))
        }
        process = psutil.Process(deployment.server.pid)

        def milliseconds_each(path: str, body: object, status: int) -> float:
            before = sum(process.cpu_times()[:2])
            for _ in range(ASKED):
                answer = free.post(path, json=body)
                assert answer.status_code == status, answer.text
                assert len(answer.content) < 2_000
            return (sum(process.cpu_times()[:2]) - before) / ASKED * 1e3

        free = deployment.client(keys["free"])
        lens = milliseconds_each("/v1/query/customer-ordrs-1700", {}, 404)
        field = milliseconds_each("/v1/query/customer-orders-7", {"where": {"n" * 1_000_000: 1}}, 400)
        key = milliseconds_each("/v1/query/customer-orders-7", {"w" * 1_000_000: 1}, 400)
        print(f"CPU for an unknown lens {lens:.1f} ms, a field of 1 MB {field:.1f} ms, a key of 1 MB {key:.1f} ms")
        assert max(lens, field, key) < 15
        assert "customer-orders-1700" in free.post("/v1/query/customer-ordrs-1700", json={}).text

        bounded = deployment.client(keys["bounded"])
        for path in ("query/x", "query/x/export", "query/x/explain", "count/x"):
            answers = [bounded.post(f"/v1/{path}", json={}).status_code for _ in range(3)]
            assert answers[1:] == [429, 429], path
