"""The link between runner and gateway breaks, in every way: no query fails, the status is right, nothing stale is believed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from lensway.testing.chaos.proxy import NONE, ChaosProxy, Faults, Way
from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance
SUSPECT_SECONDS = 7.5
OFFLINE_SECONDS = 13.0
"""Promised are 6 and 11; some for a busy machine."""


@pytest.fixture
def links(stage) -> Iterator[dict[str, ChaosProxy]]:
    """Three runners behind a proxy each, one directly connected, all assigned and used."""
    names = ("alpha", "beta", "gamma")
    with contextlib.ExitStack() as stack:
        proxies = {
            name: stack.enter_context(ChaosProxy(("127.0.0.1", stage.deployment.gateway_port))) for name in names
        }
        for name in (*names, "delta", "epsilon"):
            stage.identities[name] = stage.deployment.create_runner(f"{stage.source}-{name}")
            url = f"ws://127.0.0.1:{proxies[name].port}/connect" if name in proxies else None
            stage.started.append(stage.deployment.start_runner(stage.identities[name], gateway_url=url, wait=False))
        for process in stage.started:
            process.wait_line("connected, awaiting jobs")
        for name in stage.identities:
            stage.assign(name)
        yield proxies


def status(stage, name: str) -> str:
    return stage.status_of(name)["status"]


def test_silent_links_and_a_stopped_runner_are_found_and_cost_no_query(stage, links) -> None:
    used: set[str] = set()
    wait_until(lambda: used.add(served(stage)) or len(used) == 5, seconds=15, what="all five to serve")
    stopped = stage.started[4]
    before = {name: stage.status_of(name)["instances"][0]["since"] for name in stage.identities}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        clients = [stage.deployment.client() for _ in range(10)]
        running = [pool.submit(stage.query, {"limit": 1}, lens=stage.slow_lens, client=each) for each in clients]
        wait_until(
            lambda: all(stage.status_of(name)["instances"][0]["outstanding"] for name in stage.identities),
            seconds=5,
            what="each runner to execute something",
        )
        links["alpha"].stall()
        links["beta"].stall(Way.UP)
        links["gamma"].stall(Way.DOWN)
        stopped.signal(signal.SIGSTOP)
        broken_at = time.monotonic()
        silent = ("alpha", "beta", "gamma", "epsilon")
        for _ in range(20):
            started = time.monotonic()
            assert served(stage)
            assert time.monotonic() - started < 2.5, "new work is moved after half a second, four times at most"
        for name in silent:
            wait_until(
                lambda name=name: status(stage, name) in ("suspect", "offline"), seconds=SUSPECT_SECONDS, what=name
            )
        assert time.monotonic() - broken_at < SUSPECT_SECONDS
        for name in silent:
            wait_until(lambda name=name: status(stage, name) == "offline", seconds=OFFLINE_SECONDS, what=name)
        assert time.monotonic() - broken_at < OFFLINE_SECONDS
        for answer in [each.result() for each in running]:
            assert answer.status_code == 200, answer.text
        assert time.monotonic() - broken_at < OFFLINE_SECONDS + 2
    assert stage.status_of("alpha")["cause"] == "heartbeat_lost"
    assert served(stage) == stage.name("delta")
    assert status(stage, "delta") == "healthy", "nobody else is blamed"
    stopped.signal(signal.SIGCONT)
    for proxy in links.values():
        proxy.heal()
    for name in silent:
        wait_until(lambda name=name: status(stage, name) == "healthy", seconds=20, what=f"{name} to be back")
        assert stage.status_of(name)["instances"][0]["since"] > before[name]
    back: set[str] = set()
    wait_until(lambda: back.add(served(stage)) or len(back) == 5, seconds=15, what="all five to serve again")


def served(stage) -> str:
    answer = stage.query()
    assert answer.status_code == 200, answer.text
    return str(answer.json()["meta"]["route"]["runner"])


@pytest.fixture
def link(stage) -> Iterator[ChaosProxy]:
    """A runner behind a proxy, and nobody else."""
    with ChaosProxy(("127.0.0.1", stage.deployment.gateway_port)) as proxy:
        stage.identities["alpha"] = stage.deployment.create_runner(f"{stage.source}-alpha")
        url = f"ws://127.0.0.1:{proxy.port}/connect"
        stage.started.append(stage.deployment.start_runner(stage.identities["alpha"], gateway_url=url))
        stage.assign("alpha")
        yield proxy


def test_bytes_that_come_one_at_a_time_give_the_same_rows(stage, link: ChaosProxy) -> None:
    body = {"limit": 100}
    whole = stage.query(body).json()["rows"]
    link.set(up=Faults(slice_bytes=1), down=Faults(slice_bytes=1))
    answer = stage.query(body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == whole
    assert answer.json()["meta"]["route"]["attempts"] == 1


def test_a_link_that_breaks_after_any_byte_never_gives_half_a_result(stage, link: ChaosProxy) -> None:
    body = {"limit": 100}
    whole = stage.query(body).json()["rows"]
    for number, byte in enumerate((0, 1, 2, 7, 31, 200, 1_000, 4_000, 9_000)):
        faults = Faults(cut_after_bytes=byte)
        link.set(**({"up": faults} if number % 2 else {"down": faults}))
        # Until the link is mended nobody can serve; the query waits for the runner, or fails as a whole.
        mending = threading.Timer(0.2, lambda: link.set(up=NONE, down=NONE))
        mending.start()
        answer = stage.query(body)
        mending.join()
        if answer.status_code == 200:
            assert answer.json()["rows"] == whole
        else:
            assert answer.json()["error"]["code"] in ("no_runners_online", "runner_failed")
        wait_until(lambda: status(stage, "alpha") == "healthy", seconds=10, what="alpha to be back")


def test_heartbeats_pass_beside_rows_on_a_slow_link(stage, link: ChaosProxy) -> None:
    # Slower than what credit allows to be under way, so that heartbeats would wait behind rows for longer than anybody waits.
    link.set(up=Faults(bytes_per_second=25_000))
    seen: set[str] = set()
    path = f"/v1/query/{stage.lens}/export"
    with stage.deployment.client().stream(
        "POST", path, json={"select": ["id", "note"]}, headers={"Accept": "application/x-ndjson; end=record"}
    ) as answer:
        for number, line in enumerate(answer.iter_lines()):
            last = line
            if number % 100 == 0:
                seen |= {each["state"] for each in stage.status_of("alpha")["instances"]} or {"lost"}
    assert last == '{"$end":{"rows":5000}}'
    assert seen == {"live"}


def test_a_revoked_runner_is_cut_within_a_second_even_if_it_does_not_listen(stage, link: ChaosProxy) -> None:
    server = psutil.Process(stage.deployment.server.pid)

    def links() -> int:
        """Connections that the gateway holds and did not end itself."""
        port = stage.deployment.gateway_port
        return sum(each.laddr.port == port and each.status == "ESTABLISHED" for each in server.net_connections("tcp"))

    assert links() == 1
    stage.started[0].signal(signal.SIGSTOP)
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/revoke")
    took = wait_until(lambda: links() == 0, seconds=5, what="the socket to be closed")
    assert took < 1.5
    assert status(stage, "alpha") == "revoked"
    assert stage.query().json()["error"]["code"] == "no_runners_online"
    stage.started[0].signal(signal.SIGCONT)
    assert stage.started[0].wait(10) == 1, "dialling again cannot help"
