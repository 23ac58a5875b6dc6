"""A DuckDB file inline and through a runner: the same rows in every format, and a file that the policy forbids."""

from __future__ import annotations

import pathlib

import duckdb
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance
FORMATS = (
    ("", "text/csv"),
    ("/export", "application/x-ndjson"),
    ("", "application/vnd.apache.arrow.stream"),
    ("/export", "application/vnd.apache.parquet"),
)


def test_a_duckdb_file_is_served_inline_and_through_a_runner(tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with duckdb.connect(str(data / "sales.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE sales AS SELECT i AS id, (i * 1.25)::DECIMAL(10,2) AS total, 'note ' || i AS note,"
            " TIMESTAMP '2013-01-31 17:05:00' + to_hours(i::INTEGER) AS sold FROM range(5000) t(i)"
        )
    (tmp_path / "deployment").mkdir()
    with Deployment(tmp_path / "deployment", serve_options=["--source-dir", str(data)]) as deployment:
        client = deployment.client()
        source = {"name": "sales", "bridge": "duckdb", "config": {"path": str(data / "sales.duckdb")}}
        assert client.post("/v1/sources", json=source).status_code == 201
        fields = {
            "id": {"type": "integer", "primaryKey": True},
            "total": {"type": "decimal"},
            "note": {"type": "text"},
            "sold": {"type": "timestamp"},
        }
        lens = {"source": "sales", "table": "sales", "fields": fields}
        assert client.put("/v1/lenses/sales", json=lens).status_code == 200
        outside = {**source, "name": "outside", "config": {"path": str(tmp_path / "other.duckdb")}}
        assert client.post("/v1/sources", json=outside).status_code == 403

        def asked() -> list[bytes]:
            found = []
            for path, accept in FORMATS:
                body = {"where": {"total": {"$gte": "1000"}}, "orderBy": {"field": "sold", "dir": "desc"}}
                answer = client.post(f"/v1/query/sales{path}", json=body, headers={"Accept": accept})
                assert answer.status_code == 200, answer.text
                found.append(answer.content)
            return found

        inline = asked()
        runner = deployment.create_runner("alpha")
        policy = tmp_path / "policy.toml"
        policy.write_text(f'source_dirs = ["{data}"]')
        deployment.start_runner(runner, environment={"LENSWAY_RUNNER_POLICY": str(policy)})
        deployment.assign("alpha", "sales")
        assert asked() == inline
        page = client.post("/v1/query/sales", json={"limit": 1}).json()
        assert page["rows"] == [{"id": 0, "total": "0.00", "note": "note 0", "sold": "2013-01-31T17:05:00.000000"}]
        assert page["meta"]["route"]["via"] == "runner"
        tested = client.post("/v1/sources/sales/test").json()
        assert tested["results"][0]["ok"], tested
