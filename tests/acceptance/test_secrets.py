"""I9: no credential in a log, an error, an answer, a page, a frame in clear, or a row at rest."""

from __future__ import annotations

import base64
import pathlib

import pytest

from lensway.testing.canaries import leaks
from lensway.testing.deployment import Deployment
from lensway.testing.tcp_tee import TcpTee

pytestmark = pytest.mark.acceptance


def test_the_search_finds_every_spelling() -> None:
    secret = "s3cret/with:specials@"
    for content in (
        secret.encode(),
        b"x" + base64.b64encode(b"user:" + secret.encode() + b"@host"),
        base64.urlsafe_b64encode(b"ab" + secret.encode() + b"!"),
        secret.encode().hex().encode(),
    ):
        assert leaks({"place": b"before " + content + b" after"}, {"it": secret}), content
    assert not leaks({"place": b"nothing here"}, {"it": secret})


def test_every_deployment_is_searched_at_its_end(tmp_path: pathlib.Path) -> None:
    def end_with(**secrets: str) -> None:
        with Deployment(tmp_path) as deployment:
            deployment.secrets |= secrets

    end_with(nowhere="stands nowhere at all")
    with pytest.raises(AssertionError, match="printed in output"):
        end_with(printed="Lensway serves")
    with pytest.raises(AssertionError, match=r"stored in lensway\.db"):
        end_with(stored="CREATE TABLE")


def test_i9_secrets_appear_nowhere(orders, canary, tmp_path: pathlib.Path) -> None:
    answers: list[bytes] = []
    with (
        Deployment(tmp_path, serve_options=("--log-level", "debug")) as deployment,
        TcpTee(deployment.gateway_port) as tee,
    ):
        client = deployment.client()

        def call(method: str, path: str, **options):
            answer = client.request(method, path, **options)
            answers.append(str(answer.headers).encode() + answer.content)
            return answer

        good = {"name": "main", "bridge": "postgres", "config": {"url": orders.reader_url}}
        assert call("POST", "/v1/sources", json=good).status_code == 201
        fields = {"id": {"type": "integer", "primaryKey": True}}
        call("PUT", "/v1/lenses/orders", json={"source": "main", "table": "public.orders", "fields": fields})
        for name, config in (
            ("wrong-port", {"url": orders.reader_url.replace(str(orders.cluster.port), "1")}),
            ("wrong-user", {"url": orders.reader_url.replace("orders_reader", "nobody")}),
            ("half-url", {"url": "postgresql://u:" + canary + "@127.0.0.1:1/x"}),
            ("bad-key", {"password": canary, "user": "u", "pasword": canary}),
            ("bad-type", {"password": canary, "user": "u", "port": canary}),
            ("bad-tls", {"password": canary, "user": "u", "sslmode": canary}),
        ):
            call("POST", "/v1/sources", json={"name": name, "bridge": "postgres", "config": config})
            call("PUT", f"/v1/lenses/{name}", json={"source": name, "table": "t", "fields": fields})
            call("POST", f"/v1/query/{name}", json={})
            call("POST", f"/v1/sources/{name}/test")
        push = {"sources": {"main": {"bridge": "postgres", "config": {"url": orders.reader_url + "?x=" + canary}}}}
        call("POST", "/v1/push", json=push)
        identity = deployment.create_runner("alpha")
        runner = deployment.start_runner(identity, gateway_url=f"ws://127.0.0.1:{tee.port}/connect")
        for source in ("main", "wrong-port", "wrong-user"):
            deployment.assign("alpha", source)
            call("POST", f"/v1/sources/{source}/test")
        assert call("POST", "/v1/query/orders", json={}).json()["meta"]["route"]["runner"] == "alpha"
        call("POST", "/v1/query/wrong-user", json={})
        rotated = client.post("/v1/runners/alpha/rotate").json()["token"]
        for path in ("sources", "runners", "config", "audit", "requests", "keys", "assignments"):
            call("GET", f"/v1/{path}")
        call("GET", "/metrics")
        key = client.post("/v1/keys", json={"kind": "sk", "name": "x"}).json()["key"]
        call("GET", "/v1/keys")
        for wrong in (key[:-1] + "!", "sk_" + canary):
            call("GET", "/v1/lenses", headers={"Authorization": f"Bearer {wrong}"})
        page = deployment.client()
        page.post("/console/login", data={"key": deployment.admin_key})
        answers.append(page.get("/console/e/default/runners").content)
        runner.stop()
        deployment.server.stop()
        files = {
            str(path.relative_to(tmp_path)): path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and path.name != "master.key"
        }
        printed = deployment.emitted().encode()
        wire = tee.seen()
    secrets = {
        "database password": canary,
        "service key": key,
        "admin key": deployment.admin_key,
        "rotated token": rotated,
    }
    places = {"answers": b"\n".join(answers), "output": printed, **files}
    assert len(wire) > 1000
    assert any(name.endswith("lensway.db") for name in files)
    assert leaks(places, {**secrets, "runner token": identity.token}) == []
    # The runner proves itself with its token on the wire, which is why that wire is TLS beyond loopback.
    assert leaks({"wire": wire}, secrets) == []
