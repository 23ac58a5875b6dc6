"""What balancers, name servers and machines do to real processes: none of it ends a runner or fails what is healthy."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pathlib
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lensway.protocol.version import REFUSAL_HEADER, SUBPROTOCOL
from lensway.testing import silent_resolver
from lensway.testing.deployment import Deployment, Process, free_ports, wait_until
from lensway.testing.postgres import Database
from lensway.testing.silent_resolver import SilentResolver
from tests.acceptance.conftest import Stage

pytestmark = pytest.mark.acceptance


class Balancer:
    """A balancer in TCP mode: accepts always, and closes while there is no server behind it."""

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.target is None:
                client.close()
                continue
            server = socket.create_connection(self.target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            each.close()


@pytest.fixture
def balancer() -> Iterator[Balancer]:
    balancer = Balancer()
    yield balancer
    balancer.close()


def test_a_runner_behind_a_balancer_without_a_server_dials_until_there_is_one(stage, balancer: Balancer) -> None:
    stage.runner("alpha", start=False)
    stage.assign("alpha")
    url = f"ws://127.0.0.1:{balancer.port}/connect"
    runner = stage.deployment.start_runner(stage.identities["alpha"], gateway_url=url, wait=False)
    stage.started.append(runner)
    wait_until(lambda: balancer.accepted >= 5, seconds=20, what="five dials")
    assert runner.is_running
    balancer.target = ("127.0.0.1", stage.deployment.gateway_port)
    runner.wait_line("connected, awaiting jobs", seconds=5)
    assert stage.query().status_code == 200
    text = runner.output.text()
    assert "Traceback" not in text
    assert text.count("cannot connect") == 1, "one line for all dials that fail alike"


def test_the_gateway_marks_its_own_refusals(stage) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(
            stage.deployment.gateway_url,
            additional_headers={"Authorization": f"Bearer rk_{secrets.token_urlsafe(32)}"},
            subprotocols=[SUBPROTOCOL],
        )
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers[REFUSAL_HEADER] == "unauthenticated"


def test_a_runner_with_a_token_file_outlives_its_revocation(stage, tmp_path: pathlib.Path) -> None:
    stage.runner("alpha", start=False)
    token = tmp_path / "token"
    token.write_text(stage.identities["alpha"].token)
    runner = stage.start("alpha", environment={"LENSWAY_RUNNER_TOKEN": "", "LENSWAY_RUNNER_TOKEN_FILE": str(token)})
    assert stage.client.post(f"/v1/runners/{stage.name('alpha')}/revoke").status_code == 200
    runner.wait_line("dialling again when LENSWAY_RUNNER_TOKEN_FILE changes")
    rotated = stage.client.post(f"/v1/runners/{stage.name('alpha')}/rotate").json()
    stage.deployment.secrets["rotated token"] = rotated["token"]
    token.write_text(rotated["token"])
    runner.wait_line("connected, awaiting jobs", seconds=5, occurrences=2)
    assert runner.stop() == 0


# --- name servers -------------------------------------------------------------------------------------------------------------

DEAD, HEALTHY = 24, 8


def declare(stage: Stage, host: str, name: str) -> str:
    """A source at this host name, and its lens."""
    parts = urllib.parse.urlsplit(stage.database.reader_url)
    login = parts.netloc.rpartition("@")[0]
    url = parts._replace(netloc=f"{login}@{host}:{parts.port}", query="sslmode=disable").geturl()
    answer = stage.client.post("/v1/sources", json={"name": name, "bridge": "postgres", "config": {"url": url}})
    assert answer.status_code == 201, answer.text
    lens = {"source": name, "table": "public.orders", "fields": {"id": {"type": "integer", "primaryKey": True}}}
    assert stage.client.put(f"/v1/lenses/{name}", json=lens).status_code == 200
    return name


def ask_beside_dead_names(stage: Stage, healthy: list[str], dead: list[str]) -> list[httpx2.Response]:
    """What the healthy sources answer, each asked for the first time, while all the dead ones are asked all the time."""
    over = threading.Event()

    def bother(name: str) -> None:
        client = stage.deployment.client()
        while not over.is_set():
            assert stage.query(lens=name, client=client).status_code in (502, 503, 504)

    def ask(name: str) -> httpx2.Response:
        return stage.query(lens=name)

    with concurrent.futures.ThreadPoolExecutor(len(dead) + 1) as pool:
        bothering = [pool.submit(bother, name) for name in dead]
        answers = []
        for name in healthy:
            answers.append(pool.submit(ask, name).result())
            over.wait(0.1)
        over.set()
        for each in bothering:
            each.result()
    return answers


@pytest.mark.parametrize("place", ["inline", "runner"])
def test_a_zone_that_never_answers_fails_no_query_of_a_healthy_source_and_delays_no_end(
    tmp_path: pathlib.Path, orders: Database, stage_of, place: str
) -> None:
    if silent_resolver.why_unavailable():
        assert "root may" in silent_resolver.why_unavailable()
        return
    with (
        SilentResolver(tmp_path) as resolver,
        Deployment(tmp_path, prefix=resolver.prefix) as deployment,
        stage_of(deployment, orders) as stage,
    ):
        dead = [declare(stage, f"db{number}.zone.dead", f"dead{number}") for number in range(DEAD)]
        healthy = [declare(stage, f"db{number}.zone.test", f"healthy{number}") for number in range(HEALTHY)]
        processes = [deployment.server]
        if place == "runner":
            alpha = deployment.create_runner("alpha")
            for name in (*dead, *healthy):
                deployment.assign("alpha", name)
            processes.insert(0, deployment.start_runner(alpha, prefix=resolver.prefix))
        answers = ask_beside_dead_names(stage, healthy, dead)
        assert [answer.text for answer in answers if answer.status_code != 200] == []
        assert max(answer.elapsed.total_seconds() for answer in answers) < 1.5
        assert resolver.unanswered > DEAD
        for process in processes:
            began = time.monotonic()
            assert process.stop(seconds=10) == 0
            assert time.monotonic() - began < 2, process.name


# --- rotated secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["PASSWORD", "URL"])
def test_a_rotated_file_is_read_for_the_next_connection(
    stage, orders: Database, tmp_path: pathlib.Path, variable: str
) -> None:
    role = f"rotated_{secrets.token_hex(4)}"
    first, second = (secrets.token_hex(8) for _ in range(2))
    cluster = orders.cluster
    asyncio.run(orders.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{first}'", f"GRANT SELECT ON orders TO {role}"))

    def text(password: str) -> str:
        return password if variable == "PASSWORD" else cluster.url(role, password, "orders")

    file = tmp_path / "secret"
    file.write_text(text(first))
    base = f"LENSWAY_SOURCE_{stage.source.upper()}_"
    stage.runner("alpha", environment={base + "USER": role, f"{base}{variable}_FILE": str(file)})
    stage.assign("alpha")
    assert stage.query().status_code == 200
    # Either side may be first. Nothing waits in between, and every connection is lost.
    for password, is_file_first in ((second, False), (first, True)):
        change = f"ALTER ROLE {role} PASSWORD '{password}'"
        if is_file_first:
            file.write_text(text(password))
            assert stage.query().status_code == 200
        asyncio.run(
            orders.execute(change, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        )
        file.write_text(text(password))
        answers = [stage.query() for _ in range(3)]
        assert [answer.text for answer in answers if answer.status_code != 200] == []


# --- machines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o755, None])
def test_a_runner_without_a_private_state_directory_serves_and_says_what_is_missing(
    stage, tmp_path: pathlib.Path, mode: int | None
) -> None:
    state = tmp_path / "state"
    if mode is None:
        state.write_text("a file")
    else:
        state.mkdir()
        state.chmod(mode)
    runner = stage.runner("alpha", environment={"LENSWAY_RUNNER_STATE_DIR": str(state)})
    assert "`lensway runner status` will not answer" in runner.output.text()
    stage.assign("alpha")
    assert stage.query().json()["meta"]["route"]["via"] == "runner"
    assert runner.stop() == 0


def test_both_listeners_take_both_families_on_the_unspecified_address(tmp_path: pathlib.Path) -> None:
    http_port, gateway_port = free_ports(2)
    server = Process(
        "server",
        [
            "serve",
            "--data-dir",
            str(tmp_path / "data"),
            "--http",
            f"[::]:{http_port}",
            "--gateway",
            f"[::]:{gateway_port}",
        ],
        {"LENSWAY_ADMIN_KEY": "ak_" + secrets.token_urlsafe(32)},
        directory=tmp_path,
    )
    try:
        server.wait_line("Lensway serves")
        for port in (http_port, gateway_port):
            for host in ("127.0.0.1", "[::1]"):
                assert httpx2.get(f"http://{host}:{port}/healthz", trust_env=False).status_code in (200, 404)
        assert server.stop() == 0
    finally:
        server.kill()
