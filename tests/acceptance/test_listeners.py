"""Who asks, behind proxies: the peer, or what --trusted-proxies say, never a caller. And the listener of metrics."""

from __future__ import annotations

import contextlib
import http.client
import select

import httpx2
import pytest

from lensway.testing.deployment import Deployment, free_ports

pytestmark = pytest.mark.acceptance


def noted(client: httpx2.Client, name: str, headers: list[tuple[str, str]]) -> str:
    """The address that the audit has of a change that was sent with these headers."""
    made = client.post("/v1/keys", json={"kind": "sk", "name": name}, headers=[*client.headers.items(), *headers])
    assert made.status_code == 201, made.text
    # Entries of what others do, such as a runner that leaves, come in between.
    entries = client.get("/v1/audit", params={"limit": "100"}).json()["entries"]
    (address,) = (entry["address"] for entry in entries if entry["object"] == made.json()["id"])
    return str(address)


def test_a_callers_word_for_its_address_is_not_taken(shared: Deployment) -> None:
    assert noted(shared.client(), "forwarded", [("X-Forwarded-For", "203.0.113.9")]) == "127.0.0.1"


def test_behind_a_trusted_proxy_the_caller_is_who_it_says_and_one_is_limited_alone(tmp_path) -> None:
    with Deployment(tmp_path, serve_options=("--trusted-proxies", "127.0.0.0/8")) as deployment:
        client = deployment.client()
        assert (
            noted(client, "one", [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "203.0.113.9")]) == "203.0.113.9"
        )
        evil, good = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
        with httpx2.Client(base_url=deployment.url, trust_env=False) as browser:
            wrong = {"key": "ak_" + "x" * 40}
            tried = [browser.post("/console/login", data=wrong, headers=evil).status_code for _ in range(150)]
            assert (tried[0], tried[-1]) == (401, 429)
            signed_in = browser.post("/console/login", data={"key": deployment.admin_key}, headers=good)
            assert signed_in.status_code == 303, "somebody else behind the same proxy signs in all the same"


def test_metrics_have_a_listener_of_their_own_that_takes_no_key(tmp_path) -> None:
    (port,) = free_ports(1)
    with Deployment(tmp_path, serve_options=("--metrics", f"127.0.0.1:{port}")) as deployment:
        assert httpx2.get(f"{deployment.url}/metrics", trust_env=False).status_code == 401
        own = f"http://127.0.0.1:{port}"
        scraped = httpx2.get(f"{own}/metrics", trust_env=False)
        assert scraped.headers["Content-Type"].startswith("text/plain")
        assert 'lensway_requests_total{code="unauthenticated"} 1.0' in scraped.text
        assert httpx2.get(f"{own}/v1/sources", trust_env=False).status_code == 404, "and nothing else is there"
        assert deployment.server.stop() == 0


def test_a_connection_that_pauses_is_kept_so_that_no_pool_is_surprised(shared: Deployment) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.http_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        used = connection.sock
        closed, _, _ = select.select([used], [], [], 6.0)
        assert not closed, "a pool that keeps it for half a minute may use it again"
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        assert connection.sock is used
