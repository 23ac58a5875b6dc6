"""Restarts, drains and rotations while queries run: nobody who asks notices."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import pathlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from lensway.testing.deployment import Deployment, paused, wait_until

pytestmark = pytest.mark.acceptance
FIELDS = {"id": {"type": "integer", "primaryKey": True}}


class Load:
    """Callers in a closed loop. They repeat what was cut before an answer, as every client may, and nothing else."""

    def __init__(self, deployment: Deployment, lens: str, *, callers: int = 3) -> None:
        self.answers: Counter[str] = Counter()
        self.cuts = 0
        self._deployment = deployment
        self._lens = lens
        self._is_over = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._running = [self._pool.submit(self._ask, deployment.client()) for _ in range(callers)]

    def stop(self) -> None:
        self._is_over.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()

    def wait_answers(self, count: int) -> None:
        """Return when so many more answers have come."""
        wanted = sum(self.answers.values()) + count
        wait_until(lambda: sum(self.answers.values()) >= wanted, seconds=30, what=f"{count} more answers")

    def _ask(self, client: httpx2.Client) -> None:
        while not self._is_over.is_set():
            try:
                answer = client.post(f"/v1/query/{self._lens}", json={"limit": 1})
            except (httpx2.ConnectError, httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                self.cuts += 1
                self._is_over.wait(0.05)
            else:
                self.answers["ok" if answer.status_code == 200 else answer.text] += 1


@contextlib.contextmanager
def load(deployment: Deployment, lens: str) -> Iterator[Load]:
    under = Load(deployment, lens)
    try:
        yield under
    finally:
        under.stop()
    assert set(under.answers) == {"ok"}


def test_both_runners_are_restarted_one_after_the_other_under_load(stage) -> None:
    processes = {name: stage.runner(name) for name in ("alpha", "beta")}
    for name in processes:
        stage.assign(name)
    with load(stage.deployment, stage.lens) as under:
        for name in ("alpha", "beta"):
            under.wait_answers(10)
            assert processes[name].stop() == 0
            under.wait_answers(10)
            processes[name] = stage.start(name)
        under.wait_answers(10)
    assert under.cuts == 0


def test_a_server_that_stops_says_so_first_and_finishes_what_it_has(orders, tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path, serve_options=["--lame-duck-seconds", "1"]) as deployment:
        client = deployment.client()
        client.post("/v1/sources", json={"name": "main", "bridge": "postgres", "config": {"url": orders.reader_url}})
        for lens in ("orders", "slow_orders"):
            client.put(f"/v1/lenses/{lens}", json={"source": "main", "table": f"public.{lens}", "fields": FIELDS})
        deployment.start_runner(deployment.create_runner("alpha"))
        deployment.assign("alpha", "main")
        with load(deployment, "orders") as under, concurrent.futures.ThreadPoolExecutor(1) as pool:
            under.wait_answers(10)
            slow = pool.submit(deployment.client().post, "/v1/query/slow_orders", json={"limit": 1})
            wait_until(
                lambda: client.get("/v1/runners/alpha").json()["instances"][0]["outstanding"] > 0, seconds=5, what="it"
            )
            deployment.server.signal(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503, seconds=1, what="readiness to be off")
            late = client.post("/v1/query/orders", json={"limit": 1})
            assert late.status_code == 200, "who did not notice is served all the same"
            assert slow.result().status_code == 200
            assert deployment.server.wait() == 0
            deployment.start_server()
            answer = deployment.client().post("/v1/query/orders", json={"limit": 1})
            assert answer.json()["meta"]["route"]["runner"] == "alpha", "it waits for the runner"
            under.wait_answers(10)
        assert under.cuts > 0
        # Asked a second time it does not wait for what it has.
        deployment.server.signal(signal.SIGTERM)
        deployment.server.wait_line("stopping")
        deployment.server.signal(signal.SIGTERM)
        assert deployment.server.wait(10) == 1


def test_a_server_that_stood_still_blames_nobody_and_serves_at_once(stage) -> None:
    process = stage.runner("alpha")
    stage.assign("alpha")
    assert stage.query().status_code == 200
    with paused(stage.deployment.server):
        # The runner has not been answered for so long that it gave the session up, and cancelled what it had.
        process.wait_line("connection lost (heartbeat_lost)")
    answer = stage.query()
    assert answer.status_code == 200, answer.text
    assert answer.json()["meta"]["route"]["runner"] == stage.name("alpha")
    wait_until(lambda: stage.status_of("alpha")["status"] == "healthy", seconds=5, what="alpha to be well")
    assert len(stage.status_of("alpha")["instances"]) == 1


def test_an_operator_drains_and_resumes(stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
        stage.assign(name)
    cli = stage.deployment.cli
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(stage.query, lens=stage.slow_lens, client=stage.deployment.client()) for _ in range(2)]
        wait_until(
            lambda: all(stage.status_of(name)["instances"][0]["outstanding"] for name in ("alpha", "beta")),
            seconds=5,
            what="both to execute something",
        )
        before = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        assert cli("runners", "drain", stage.name("alpha")).returncode == 0
        served = {stage.query().json()["meta"]["route"]["runner"] for _ in range(6)}
        assert served == {stage.name("beta")}
        assert {each.result().status_code for each in slow} == {200}, "what was begun is finished"
    row = next(
        each for each in stage.client.get("/v1/runners").json()["runners"] if each["name"] == stage.name("alpha")
    )
    assert (row["status"], row["cause"]) == ("draining", "drained by an operator")
    assert row["since"] > before, "it drains since it was drained"
    assert "resume" in row["hint"]
    shown = cli("runners", "list").stdout
    assert "draining" in shown
    assert "drained by an operator" in shown
    assert cli("runners", "drain", stage.name("beta")).returncode == 0
    started = time.monotonic()
    answer = stage.query()
    assert answer.status_code == 503
    assert time.monotonic() - started < 3.0
    assert "Retry-After" in answer.headers
    assert cli("runners", "resume", stage.name("alpha")).returncode == 0
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha")


def test_what_does_not_finish_in_time_is_handed_back_and_a_second_signal_aborts(stage) -> None:
    for name in ("alpha", "gamma"):
        stage.identities[name] = stage.deployment.create_runner(f"{stage.source}-{name}")
    hurried = stage.deployment.start_runner(stage.identities["alpha"], options=["--drain-seconds", "0.1"])
    stubborn = stage.deployment.start_runner(stage.identities["gamma"])
    stage.started += [hurried, stubborn]
    stage.runner("beta")
    for name, end in (("alpha", hurried.stop), ("gamma", lambda: abort(stubborn))):
        stage.assign(name)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(stage.query, lens=stage.slow_lens, client=stage.deployment.client())
            wait_until(lambda name=name: outstanding(stage, name) == 1, seconds=5, what="the job")
            stage.assign("beta")
            started = time.monotonic()
            code = end()
            assert time.monotonic() - started < 1.9, "before it could have finished"
            answer = slow.result()
        assert answer.status_code == 200, answer.text
        assert answer.json()["meta"]["route"]["runner"] == stage.name("beta")
        kept = stage.client.get(f"/v1/requests/{answer.headers['X-Request-Id']}").json()
        assert len(kept["attempts"]) == 2
        if name == "alpha":
            assert code == 0
            assert kept["attempts"][0]["outcome"] == "handed_back"
            assert kept["route"]["attempts"] == 1, "a job that is handed back has not been tried"
        else:
            assert code == 1
            assert kept["attempts"][0]["outcome"].startswith("lost")
        for each in ("beta", name):
            stage.unassign(each)


def outstanding(stage, name: str) -> int:
    return sum(each["outstanding"] for each in stage.status_of(name)["instances"])


def abort(process) -> int:
    process.signal(signal.SIGTERM)
    process.wait_line("draining")
    process.signal(signal.SIGTERM)
    return process.wait(10)


def test_a_token_is_rotated_without_a_gap(stage) -> None:
    old = stage.runner("alpha")
    stage.assign("alpha")
    with load(stage.deployment, stage.lens) as under:
        under.wait_answers(10)
        rotated = stage.client.post(f"/v1/runners/{stage.name('alpha')}/rotate").json()
        under.wait_answers(10)
        stage.start("alpha", environment={"LENSWAY_RUNNER_TOKEN": rotated["token"]})
        wait_until(lambda: len(stage.status_of("alpha")["instances"]) == 2, seconds=5, what="both to be connected")
        under.wait_answers(10)
        assert old.stop() == 0
        under.wait_answers(10)
    assert under.cuts == 0
    twice = stage.start("alpha")
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/rotate")
    assert twice.wait(5) == 1, "the oldest token ends at once when there is a third"
