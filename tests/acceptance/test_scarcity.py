"""Runners that lack something: descriptors, speed, a disk, the right time. And a request that kills whoever takes it."""

from __future__ import annotations

import concurrent.futures
import pathlib
import urllib.parse
from collections import Counter

import psutil
import pytest

from lensway.testing.chaos.proxy import ChaosProxy, Faults
from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance


def served(stage, **options) -> str:
    answer = stage.query(**options)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["meta"]["route"]["runner"])


def test_a_runner_out_of_descriptors_hands_work_to_another_and_does_not_spin(stage) -> None:
    stage.identities["alpha"] = stage.deployment.create_runner(f"{stage.source}-alpha")
    poor = stage.deployment.start_runner(
        stage.identities["alpha"], prefix=["sh", "-c", 'ulimit -n 20; exec "$@"', "sh"]
    )
    stage.started.append(poor)
    stage.runner("beta")
    for name in ("alpha", "beta"):
        stage.assign(name)
    process = psutil.Process(poor.pid)
    before = sum(process.cpu_times()[:2])
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        clients = [stage.deployment.client() for _ in range(30)]
        found = Counter(pool.map(lambda client: served(stage, lens=stage.slow_lens, client=client), clients))
    assert found[stage.name("beta")] >= 10
    assert sum(process.cpu_times()[:2]) - before < 1.5
    kept = stage.client.get("/v1/requests", params={"limit": 30}).json()["requests"]
    assert any("overloaded" in attempt["outcome"] for each in kept for attempt in each["attempts"])
    wait_until(lambda: served(stage) == stage.name("alpha"), seconds=10, what="alpha to serve again")


def test_a_request_that_kills_two_runners_is_not_given_to_a_third(stage) -> None:
    names = ("alpha", "beta", "gamma")
    for name in names:
        stage.identities[name] = stage.deployment.create_runner(f"{stage.source}-{name}")
        stage.start(name, wait=False)
    for process in stage.started:
        process.wait_line("connected, awaiting jobs")
    processes = dict(zip(names, stage.started, strict=True))
    for name in names:
        stage.assign(name)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        poison = pool.submit(stage.query, lens=stage.slow_lens, client=stage.deployment.client())
        for _ in range(2):
            wait_until(lambda: executing(stage, processes) is not None, seconds=5, what="somebody to execute it")
            processes.pop(executing(stage, processes)).kill()
        answer = poison.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "runner_failed")
    survivor = next(iter(processes))
    assert processes[survivor].is_running
    assert served(stage) == stage.name(survivor)
    attempts = stage.client.get(f"/v1/requests/{answer.headers['X-Request-Id']}").json()["attempts"]
    assert [each["outcome"].partition(":")[0] for each in attempts] == ["lost", "lost"]
    for each in attempts:
        assert each["offeredMs"] <= each["acceptedMs"] <= each["endedMs"]
        assert {note["verdict"] for note in each["candidates"]} >= {"chosen"}
        assert len(each["candidates"]) == 3


def holders(stage, processes: dict) -> list[str]:
    """The runners that were offered something or execute it."""
    return [name for name in processes if any(each["outstanding"] for each in stage.status_of(name)["instances"])]


def executing(stage, processes: dict) -> str | None:
    """Which of the runners has accepted the newest request. One that dies before that executed nothing, and is no loss."""
    requests = stage.client.get("/v1/requests", params={"limit": 1}).json()["requests"]
    attempts = requests[0]["attempts"] if requests else []
    last = attempts[-1] if attempts else None
    if last is None or last["acceptedMs"] is None or last["endedMs"] is not None:
        return None
    return next((name for name in processes if stage.name(name) == last["runner"]), None)


def test_a_full_runner_makes_others_wait_their_turn_and_then_says_overloaded(stage) -> None:
    stage.runner("alpha", environment={"LENSWAY_RUNNER_CAPACITY": "1"})
    stage.assign("alpha")

    def ask(milliseconds: int) -> tuple[int, str, str | None]:
        body = {"limit": 1, "timeoutMs": milliseconds}
        answer = stage.query(body, lens=stage.slow_lens, client=stage.deployment.client())
        code = answer.json()["error"]["code"] if answer.status_code != 200 else ""
        return answer.status_code, code, answer.headers.get("Retry-After")

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        # Two seconds each, one at a time: some are done, and who has waited ten seconds is told to come back.
        asking = [pool.submit(ask, 30_000) for _ in range(8)]
        wait_until(lambda: bool(holders(stage, {"alpha": None})), seconds=5, what="the first to be executed")
        assert pool.submit(ask, 500).result()[:2] == (504, "QUERY_TIMEOUT"), "a deadline holds in the queue too"
        found = Counter(each.result() for each in asking)
    done = found.pop((200, "", None))
    assert 3 <= done <= 6
    ((status, code, again), refused) = found.popitem()
    assert (status, code, refused) == (503, "overloaded", 8 - done)
    assert int(again) >= 1
    assert not found


def test_a_slow_runner_gets_little_of_the_work_and_is_never_left_out_alone(stage) -> None:
    database = stage.database
    with ChaosProxy(("127.0.0.1", database.cluster.port)) as proxy:
        parts = urllib.parse.urlsplit(database.reader_url)
        url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
        stage.runner("alpha", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_URL": url})
        stage.runner("beta")
        for name in ("alpha", "beta"):
            stage.assign(name)
        proxy.set(down=Faults(latency_seconds=0.15))
        found = Counter(served(stage) for _ in range(120))
        assert found[stage.name("alpha")] <= 18, "one in ten while it becomes known, next to nothing later"
        stage.unassign("beta")
        assert served(stage) == stage.name("alpha")


def test_assignments_that_flip_all_the_time_lose_nothing(stage) -> None:
    for name in ("alpha", "beta"):
        stage.runner(name)
    stage.assign("alpha")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        clients = [stage.deployment.client() for _ in range(2)]
        asking = [pool.submit(lambda c: [served(stage, client=c) for _ in range(60)], client) for client in clients]
        for _ in range(8):
            stage.assign("beta")
            stage.unassign("alpha")
            stage.assign("alpha")
            stage.unassign("beta")
        found = Counter(name for each in asking for name in each.result())
    assert sum(found.values()) == 120


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wrong_clock_and_no_disk_keep_no_runner_from_serving(stage, tmp_path: pathlib.Path, days: int) -> None:
    # The wall clock of this process only; durations are on the monotonic clock, and seals expire by the gateway's time.
    (tmp_path / "sitecustomize.py").write_text(
        "import datetime, time\n"
        f"_shift = {days} * 86400\n"
        "_time = time.time\n"
        "time.time = lambda: _time() + _shift\n"
        "import lensway.clock as clock\n"
        "clock.SystemClock.wall = lambda self: datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=_shift)\n"
    )
    process = stage.runner(
        "alpha", environment={"PYTHONPATH": str(tmp_path), "LENSWAY_RUNNER_STATE_DIR": "/proc/nowhere"}
    )
    stage.assign("alpha")
    assert served(stage) == stage.name("alpha")
    assert "will not answer" in process.output.text()
