"""The story that the demo tells: each chapter is something that a user can repeat by hand."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import signal
import threading
import time
from typing import Final

import httpx2

from demo.stage import Stage, StoryBrokenError, heading, say

_JFK_TO_LAX: Final = (
    "query",
    "flights",
    "--where",
    '{"origin": "JFK", "destination": "LAX"}',
    "--select",
    "departed,carrier,number,arrDelay",
    "--limit",
    "1",
    "--format",
    "json",
)
_STREAM_SECONDS: Final = 4.0
_STREAM_CALLERS: Final = 8


@dataclasses.dataclass(slots=True)
class Tally:
    """What callers saw."""

    by_place: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    slowest_ms: float = 0.0


def tell(stage: Stage) -> None:
    """Every chapter, in order. Raises StoryBrokenError where the system does not do what the story says."""
    declare(stage)
    inline(stage)
    assign(stage)
    redundancy(stage)
    nobody(stage)
    unreachable(stage)
    runner_local(stage)
    back_inline(stage)


def declare(stage: Stage) -> None:
    """Sources and lenses from a file."""
    heading("Declare sources and lenses")
    stage.command("push", "demo/lensway.toml")


def inline(stage: Stage) -> None:
    """A source without assignments is executed by the service."""
    heading("Nothing is assigned: the service executes the query itself")
    _expect_route(stage.command(*_JFK_TO_LAX), "inline")
    stage.command("sources", "test", "flights")


def assign(stage: Stage) -> None:
    """Assigning is the switch."""
    heading("Two runners dial out from a private network")
    for name in ("alpha", "beta"):
        stage.create_runner(name)
        stage.start_runner(name, stage.warehouse_settings() if name == "beta" else None)
    heading("Assigning is the switch, under load: not one query fails")
    tally = Tally()
    with _callers(stage, tally):
        _wait_answers(tally, "inline")
        stage.command("runners", "assign", "alpha", "flights", "--verify")
        _wait_answers(tally, "alpha")
    _report(tally)
    _expect_route(stage.command(*_JFK_TO_LAX), "alpha")
    heading("A second runner with the same assignments makes a redundant pair")
    stage.command("runners", "assign", "beta", "flights")
    stage.command("runners", "list")
    tally = Tally()
    with _callers(stage, tally):
        _wait_answers(tally, "alpha")
        _wait_answers(tally, "beta")
    _report(tally)


def redundancy(stage: Stage) -> None:
    """One of a pair dies without a word."""
    heading("One of the two is killed with SIGKILL in the middle of a stream of queries")
    tally = Tally()
    with _callers(stage, tally):
        _wait_answers(tally, "alpha")
        say(f"$ kill -9 {stage.running['alpha'].pid}        # alpha")
        stage.running["alpha"].signal(signal.SIGKILL)
        time.sleep(_STREAM_SECONDS / 2)
    _report(tally)


def nobody(stage: Stage) -> None:
    """Assigned, and nobody there: an error, never a silent fallback."""
    heading("The other one is stopped too: an honest error, never a silent fallback")
    say(f"$ kill {stage.running['beta'].pid}        # beta, gently: it finishes what it has")
    if stage.running["beta"].stop() != 0:
        raise StoryBrokenError("beta did not drain and exit 0")
    stage.command(*_JFK_TO_LAX, fails_with="no_runners_online")
    stage.command("runners", "list")


def unreachable(stage: Stage) -> None:
    """A database that the runner cannot reach."""
    heading("A database that the runner cannot reach")
    stage.start_runner("beta", stage.warehouse_settings())
    stage.command("runners", "assign", "beta", "unplugged")
    stage.command("query", "ghosts", fails_with="SOURCE_UNREACHABLE")
    stage.command("sources", "test", "unplugged", fails_with="refused")
    stage.command("runners", "unassign", "beta", "unplugged")


def runner_local(stage: Stage) -> None:
    """Credentials that the service never sees."""
    heading("A source whose credentials exist on the runner only")
    question = ("query", "weather", "--where", '{"temp": {"$gt": 97}}', "--limit", "2", "--format", "json")
    stage.command(*question, fails_with="source_requires_runner")
    stage.command("runners", "assign", "beta", "warehouse")
    _expect_route(stage.command(*question), "beta")


def back_inline(stage: Stage) -> None:
    """The way back."""
    heading("Unassign, and the service executes the source again")
    for name in ("alpha", "beta"):
        stage.command("runners", "unassign", name, "flights")
    _expect_route(stage.command(*_JFK_TO_LAX), "inline")


def keep_serving(stage: Stage) -> None:
    """Both runners up, everything assigned, and where to look."""
    heading("Both runners again, for you to try")
    stage.start_runner("alpha", stage.warehouse_settings())
    for name in ("alpha", "beta"):
        stage.command("runners", "assign", name, "flights", "warehouse")
    service_key = stage.command("keys", "create", "sk", "demo", quiet=True).strip()
    heading("Yours until Ctrl-C")
    say(f"  Console      {stage.deployment.url}/console/")
    say(f"  admin key    {stage.deployment.admin_key}")
    say(f"  service key  {service_key}")
    say("  try")
    say(f"    curl -s {stage.deployment.url}/v1/query/flights -H 'Authorization: Bearer {service_key}' \\")
    say("""      -H 'Content-Type: application/json' -d '{"where": {"origin": "EWR"}, "limit": 2}'""")
    say(f"    kill -9 {stage.running['alpha'].pid}        # alpha; nobody will notice")


class _callers:  # noqa: N801 - reads as a verb where it is used: with _callers(stage, tally)
    """Callers that ask without pause for the length of a block and note what they see."""

    def __init__(self, stage: Stage, tally: Tally) -> None:
        self._stage, self._tally = stage, tally
        self._is_over = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(_STREAM_CALLERS)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        for number in range(_STREAM_CALLERS):
            self._pool.submit(self._ask, number)

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._pool.shutdown()
        if self._tally.failures:
            raise StoryBrokenError(f"{len(self._tally.failures)} queries failed, e.g. {self._tally.failures[0]}")

    def _ask(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._stage.deployment.admin_key}"}
        with httpx2.Client(base_url=self._stage.deployment.url, headers=headers, timeout=30, trust_env=False) as client:
            while not self._is_over.is_set():
                number = number % 336_000 + 1
                started = time.monotonic()
                answer = client.post("/v1/query/flights", json={"where": {"id": number}})
                took_ms = (time.monotonic() - started) * 1000
                with self._lock:
                    self._note(answer, number, took_ms)

    def _note(self, answer: httpx2.Response, number: int, took_ms: float) -> None:
        self._tally.slowest_ms = max(self._tally.slowest_ms, took_ms)
        if answer.status_code != 200 or [row["id"] for row in answer.json()["rows"]] != [number]:
            self._tally.failures.append(answer.text[:300])
            return
        route = answer.json()["meta"]["route"]
        self._tally.by_place[route["runner"] or route["via"]] += 1


def _wait_answers(tally: Tally, place: str, *, count: int = 100, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while tally.by_place[place] < count and not tally.failures:
        if time.monotonic() > deadline:
            raise StoryBrokenError(
                f"{place} answered {tally.by_place[place]} queries only; all: {dict(tally.by_place)}"
            )
        time.sleep(0.02)


def _report(tally: Tally) -> None:
    places = ", ".join(
        f"{count:,} answered by {'the service' if place == 'inline' else place}"
        for place, count in sorted(tally.by_place.items())
    )
    say(
        f"  {_STREAM_CALLERS} callers meanwhile: {places}; {len(tally.failures)} failed; slowest {tally.slowest_ms:.0f} ms"
    )


def _expect_route(output: str, place: str) -> None:
    route = json.loads(output)["meta"]["route"]
    if (route.get("runner") or route["via"]) != place:
        raise StoryBrokenError(f"expected an answer by {place}, got {route}")
