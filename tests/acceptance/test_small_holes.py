"""What answers tell browsers, scoped viewers and publishable keys; and what a crash leaves behind."""

from __future__ import annotations

import pathlib
import socket

import httpx2
import psutil
import pytest

from lensway.testing.deployment import Deployment

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/sources", 200),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/sources", 405),
        ("POST", "/v1/keys", 400),
        ("GET", "/metrics", 200),
        ("GET", "/console/login", 200),
    ],
)
def test_every_answer_has_its_type_and_is_not_stored(shared: Deployment, method: str, path: str, status: int) -> None:
    answer = shared.client().request(method, path)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in answer.headers, "without TLS it means nothing"


def test_events_and_what_is_no_http_have_them_too(shared: Deployment) -> None:
    with shared.client().stream("GET", "/v1/events") as answer:
        assert (answer.headers["X-Content-Type-Options"], answer.headers["Cache-Control"]) == ("nosniff", "no-store")
    with socket.create_connection(("127.0.0.1", shared.http_port), timeout=10) as caller:
        caller.sendall(b"rubbish\r\n\r\n")
        refusal = caller.recv(65536).lower()
    assert refusal.startswith(b"http/1.1 400 ")
    assert b"\r\nx-content-type-options: nosniff\r\n" in refusal
    assert b"\r\ncache-control: no-store\r\n" in refusal


def test_where_callers_use_tls_they_always_should(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path, serve_options=("--public-url", "https://lensway.example.org")) as deployment:
        answer = httpx2.get(f"{deployment.url}/v1/sources", trust_env=False)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_a_viewer_of_one_environment_sees_no_metrics_of_others(shared: Deployment) -> None:
    admin = shared.client()
    assert admin.post("/v1/environments", json={"name": "metered"}).status_code == 201
    there = shared.client(environment="metered")
    assert there.post("/v1/runners", json={"name": "metered-runner"}).status_code == 201
    assert admin.post("/v1/runners", json={"name": "hidden-runner"}).status_code == 201
    viewer = there.post("/v1/keys", json={"kind": "ak", "name": "viewer", "role": "viewer"}).json()["key"]
    seen = shared.client(viewer).get("/metrics").text
    assert 'lensway_runner_up{environment="metered",runner="metered-runner"} 0.0' in seen
    assert "hidden-runner" not in seen
    assert "default" not in seen
    assert "lensway_requests" not in seen, "sums over the server tell of the others"
    every = admin.get("/metrics").text
    assert "hidden-runner" in every
    assert "lensway_requests_total" in every


def test_a_publishable_key_learns_no_physical_names(shared: Deployment) -> None:
    admin = shared.client()
    config = {"url": "postgresql://secret_reader:secret@127.0.0.1:1/secret"}
    made = admin.post("/v1/sources", json={"name": "secret-source", "bridge": "postgres", "config": config})
    assert made.status_code == 201, made.text
    fields = {"id": {"type": "integer", "primaryKey": True, "column": "secret_column"}}
    lens = {"source": "secret-source", "table": "secret_table", "fields": fields, "grants": {"query": "public"}}
    assert admin.put("/v1/lenses/shown", json=lens).status_code in (200, 201)
    public = shared.client(admin.post("/v1/keys", json={"kind": "pk", "name": "page"}).json()["key"])
    explained = public.post("/v1/query/shown/explain", json={"where": {"id": 1}})
    assert explained.status_code == 200
    for body in ({}, {"where": {"id": "no number"}}, {"where": {"idd": 1}}):
        for path in ("query/shown", "query/shown/explain", "count/shown", "query/shown/export"):
            assert "secret" not in public.post(f"/v1/{path}", json=body).text, path
    assert explained.json()["route"]["via"] == "inline"
    assert "secret_table" in admin.post("/v1/query/shown/explain", json={}).json()["statement"]
    assert (
        shared.cli("explain", "shown", environment={"LENSWAY_API_KEY": public.headers["Authorization"][7:]}).returncode
        == 0
    )


def test_neither_program_writes_core_files(shared: Deployment) -> None:
    runner = shared.start_runner(shared.create_runner("no-dumps"))
    for process in (shared.server, runner):
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
