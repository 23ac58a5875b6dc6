"""A hostile runner beside good callers of an honest one: what it costs them, and what it costs the server.

A real server whose loop is metered, one honest runner with a source of its own, callers who ask it and `/healthz` at a fixed rate
and measure from when they meant to ask, and the program of `hostile_frames` with a good token. Some callers ask the hostile
runner too, so that it gets offers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import httpx2
import msgspec

from lensway.testing import garbage, hostile_callers, hostile_frames, hostile_parties, metered, silent_resolver
from lensway.testing.deployment import Deployment, RunnerIdentity, clean_environment, wait_until
from lensway.testing.steady_callers import Asked, calling, request_bytes

_RATE: Final = 40.0
_CROWD: Final = 36
"""Connections of callers without a key: two of each kind."""
_FIELDS: Final = {"id": {"type": "integer", "primaryKey": True}, "text": {"type": "text"}}


@dataclasses.dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run showed. Times in milliseconds."""

    calm_p99: float = 0.0
    p99: float = 0.0
    calm_health_p99: float = 0.0
    health_p99: float = 0.0
    asked: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    longest_turns: list[float] = dataclasses.field(default_factory=list)
    calm_longest_turns: list[float] = dataclasses.field(default_factory=list)
    loop_share: float = 0.0
    grown_mib: float = 0.0
    tracebacks: int = 0
    is_up: bool = True
    played: Counter[str] = dataclasses.field(default_factory=Counter)
    ended: Counter[str] = dataclasses.field(default_factory=Counter)
    sent_mib: float = 0.0
    provoked: Counter[str] = dataclasses.field(default_factory=Counter)
    unanswered: list[str] = dataclasses.field(default_factory=list)
    garbage: list[int] = dataclasses.field(default_factory=list)
    parties: Counter[str] = dataclasses.field(default_factory=Counter)
    are_runners_up: bool = True


def run_hostile(
    directory: pathlib.Path,
    *,
    seconds: float,
    seed: int = 1,
    acts: Sequence[str] = (),
    with_strangers: bool = False,
    rate: float = _RATE,
) -> Outcome:
    """Play for so long and measure. ``with_strangers``: all the others play too: crowds without a key, senders of garbage, and
    `hostile_parties`."""
    outcome = Outcome()
    meter = directory / "meter.json"
    with (
        _name_server(directory, is_there=with_strangers) as prefix,
        Deployment(
            directory,
            environment={metered.VARIABLE: str(meter)},
            server_program=(sys.executable, "-m", "lensway.testing.metered"),
            prefix=prefix,
        ) as deployment,
    ):
        hostile, parties = _staged(deployment, directory, with_strangers=with_strangers)
        server = deployment.server
        assert server is not None
        query = request_bytes("POST", "/v1/query/good", deployment.admin_key, b'{"limit":10}')
        good = Asked("good", deployment.http_port, rate, query, 10)
        health = Asked("health", deployment.http_port, _RATE / 2, request_bytes("GET", "/healthz"))
        with calling((good, health)) as callers:
            calm_from = time.monotonic()
            _sleep(max(3.0, min(20.0, seconds / 5)))
            calm_to = time.monotonic()
            outcome.calm_longest_turns = metered.read_times(meter).longest_ms
            before_mib, thread_before = _rss_mib(server.pid), metered.read_times(meter).thread_seconds
            meter.with_suffix(".reset").touch()
            wait_until(lambda: not meter.with_suffix(".reset").exists(), seconds=5, what="the meter to begin anew")
            hostile_from = time.monotonic()
            with (
                _provoked(deployment, outcome),
                _strangers(deployment, outcome, seconds, seed, parties),
            ):
                most_mib = _play(deployment, hostile.id, hostile.token, outcome, seconds=seconds, seed=seed, acts=acts)
            hostile_to = time.monotonic()
            _sleep(1.0)
        times = metered.read_times(meter)
        outcome.longest_turns = times.longest_ms
        outcome.loop_share = (times.thread_seconds - thread_before) / (hostile_to - hostile_from)
        outcome.grown_mib = most_mib - before_mib
        outcome.calm_p99, outcome.p99 = (
            _p99(callers.between("good", *between)) for between in ((calm_from, calm_to), (hostile_from, hostile_to))
        )
        outcome.calm_health_p99, outcome.health_p99 = (
            _p99(callers.between("health", *between)) for between in ((calm_from, calm_to), (hostile_from, hostile_to))
        )
        outcome.asked = sum(map(len, callers.answers.values()))
        outcome.wrong = callers.wrong()
        outcome.is_up = server.is_running
        outcome.are_runners_up = all(runner.is_running for runner in deployment.runners)
        text = deployment.emitted()
        outcome.tracebacks = text.count("Traceback") + text.count('"defect"')
        if outcome.tracebacks:
            outcome.unanswered += [line[:2000] for line in text.splitlines() if '"defect"' in line][:3]
    return outcome


def _staged(
    deployment: Deployment, directory: pathlib.Path, *, with_strangers: bool
) -> tuple[RunnerIdentity, hostile_parties.Parties | None]:
    """The hostile runner's identity and the other parties, beside an honest runner that answers."""
    _declare(deployment, directory)
    honest, hostile = deployment.create_runner("honest"), deployment.create_runner("hostile")
    deployment.assign("honest", "good")
    for number in range(50):
        deployment.assign("hostile", f"bad{number}")
    policy = directory / "policy.toml"
    policy.write_text(f"source_dirs = [{json.dumps(str(directory))}]\n")
    settings = {"LENSWAY_SOURCE_GOOD_PATH": str(directory / "good.db"), "LENSWAY_RUNNER_POLICY": str(policy)}
    deployment.start_runner(honest, environment=settings)
    client = deployment.client()
    parties = hostile_parties.prepare(deployment, "open") if with_strangers else None
    # Drivers and encoders are loaded when they are used first: their memory is not the attackers' doing.
    for path in ("/v1/query/good/export", "/v1/query/bad", "/v1/sources/bad0/tables"):
        client.request("GET" if path.endswith("tables") else "POST", path, timeout=20)
    if parties is not None:
        lost = f"ws://127.0.0.1:{parties.balancer_port}/connect"
        deployment.start_runner(deployment.create_runner("lost"), gateway_url=lost, wait=False)
    wait_until(lambda: client.post("/v1/query/good", json={}).status_code == 200, seconds=20, what="a good answer")
    return hostile, parties


@contextlib.contextmanager
def _name_server(directory: pathlib.Path, *, is_there: bool) -> Iterator[Sequence[str]]:
    """What stands before the server's command so that some names never resolve; without the rights for it they do not exist."""
    if not is_there or silent_resolver.why_unavailable():
        yield ()
        return
    with silent_resolver.SilentResolver(directory) as resolver:
        yield resolver.prefix


@contextlib.contextmanager
def _strangers(
    deployment: Deployment, outcome: Outcome, seconds: float, seed: int, parties: hostile_parties.Parties | None
) -> Iterator[None]:
    """Callers without a key that read nothing, senders of garbage to both listeners, and parties with a key or a network."""
    with contextlib.ExitStack() as stack:
        if parties is not None:
            kinds = tuple(hostile_callers.PAYLOADS)
            stack.enter_context(hostile_callers.attacked(deployment.http_port, _CROWD, kinds))
            stack.enter_context(hostile_parties.playing(parties, seconds, seed, outcome.parties))
            for number, port in enumerate((deployment.http_port, deployment.gateway_port)):
                stack.enter_context(garbage.garbage(port, seconds, seed + number, outcome.garbage))
        yield


def _declare(deployment: Deployment, directory: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(directory / "good.db")) as database:
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?)", ((n, f"row {n}") for n in range(1_000)))
        database.commit()
    client = deployment.client()
    for name in ("good", *(f"bad{number}" for number in range(50))):
        body = {"name": name, "bridge": "sqlite", "credentials": "runner-local"}
        assert client.post("/v1/sources", json=body).status_code == 201
    for name, source, granted in (("good", "good", "none"), ("open", "good", "public"), ("bad", "bad0", "none")):
        lens = {"source": source, "table": "rows", "fields": _FIELDS, "grants": {"query": granted}}
        assert client.put(f"/v1/lenses/{name}", json=lens).status_code == 200


@contextlib.contextmanager
def _provoked(deployment: Deployment, outcome: Outcome) -> Iterator[None]:
    """Callers whose requests only the hostile runner can serve: they get one outcome each, in time, of any kind."""
    asks: list[tuple[str, str, object]] = [
        ("POST", "/v1/query/bad", {"timeoutMs": 2000}),
        ("POST", "/v1/query/bad/export", {"timeoutMs": 2000}),
        ("POST", "/v1/count/bad", {"timeoutMs": 2000}),
        ("GET", "/v1/sources/bad0/tables", None),
        ("POST", "/v1/sources/bad0/test", None),
        ("GET", "/v1/runners", None),
        ("GET", "/v1/runners/hostile", None),
        ("GET", "/v1/requests", None),
    ]
    over = threading.Event()

    def ask_for_ever(start: int) -> None:
        with httpx2.Client(
            base_url=deployment.url,
            headers={"Authorization": f"Bearer {deployment.admin_key}", "Accept": "*/*"},
            timeout=25,
            trust_env=False,
        ) as client:
            number = start
            while not over.is_set():
                method, path, body = asks[number % len(asks)]
                number += 1
                headers = {"Accept": "application/x-ndjson"} if path.endswith("export") else {}
                try:
                    answer = client.request(method, path, json=body, headers=headers)
                    json.loads(answer.content) if not headers else None
                    outcome.provoked[f"{path.rpartition('/')[2]} {answer.status_code}"] += 1
                except httpx2.RemoteProtocolError:
                    outcome.provoked["cut"] += 1
                except (httpx2.HTTPError, ValueError) as error:
                    outcome.unanswered.append(f"{method} {path}: {type(error).__name__}")
                over.wait(0.05)

    threads = [threading.Thread(target=ask_for_ever, args=(start,), daemon=True) for start in (0, 3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
            if thread.is_alive():
                outcome.unanswered.append("a caller of the hostile runner was left waiting")


def _play(
    deployment: Deployment, runner: str, token: str, outcome: Outcome, *, seconds: float, seed: int, acts: Sequence[str]
) -> float:
    """Let the hostile runner play; the most memory of the server meanwhile."""
    assert deployment.server is not None
    arguments = [str(deployment.gateway_port), runner, str(seconds), str(seed), *acts]
    program = subprocess.Popen(
        [sys.executable, "-m", "lensway.testing.hostile_frames", *arguments],
        env=clean_environment() | {hostile_frames.TOKEN_VARIABLE: token},
        stdout=subprocess.PIPE,
        text=True,
    )
    most = 0.0
    over = threading.Event()

    def sample() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, _rss_mib(deployment.server.pid) if deployment.server else 0.0)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    assert program.stdout is not None
    for line in program.stdout:
        played = msgspec.json.decode(line, type=hostile_frames.Played)
        outcome.played[played.act] += 1
        outcome.ended[f"{played.act}: {played.ended}"] += 1
        outcome.sent_mib += played.bytes / 2**20
    program.stdout.close()
    code = program.wait(30)
    over.set()
    sampler.join(5)
    assert code == 0, "the hostile runner's program has a defect of its own"
    return most


def _rss_mib(pid: int) -> float:
    with contextlib.suppress(OSError):
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


def main(arguments: Sequence[str]) -> int:
    """Run and print, to look at some acts: SECONDS [ACT…]."""
    seconds, *acts = arguments
    with tempfile.TemporaryDirectory() as directory:
        outcome = run_hostile(pathlib.Path(directory), seconds=float(seconds), acts=acts)
    for field in dataclasses.fields(outcome):
        sys.stdout.write(f"{field.name}: {getattr(outcome, field.name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
