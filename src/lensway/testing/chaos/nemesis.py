"""The one who breaks things: kinds of faults on real processes and links, drawn at random, each healed and waited for.

Two runners at most are disturbed at the same time, so that one is always well: then callers must not notice. Reaching the
database is broken for one runner at a time, since two that cannot are two candidates that fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from lensway.testing.chaos.history import Disturbance
from lensway.testing.chaos.proxy import Faults, Way
from lensway.testing.chaos.site import SOURCE, Site, SiteRunner
from lensway.testing.deployment import ProcessFailedError

DISTURBED_MAX: Final = 2
_WELL_SECONDS: Final = 90.0
_BETWEEN_DATABASES_SECONDS: Final = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind: ``act`` breaks and heals. ``excuses`` is False for kinds that must never fail a request, on any lens."""

    name: str
    act: Callable[[Nemesis, str], None]
    excuses: bool = True
    is_of_database: bool = False
    needs_namespace: bool = False


class _Turns:
    """At most so many disturbances at a time, or one that needs all runners well; who waits for that goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._alone_wanted = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._most and not self._alone_wanted)
            self._taken += 1
        try:
            yield
        finally:
            self._give(1)

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        with self._changed:
            self._alone_wanted += 1
            self._changed.wait_for(lambda: self._taken == 0)
            self._alone_wanted -= 1
            self._taken = self._most
        try:
            yield
        finally:
            self._give(self._most)

    def _give(self, count: int) -> None:
        with self._changed:
            self._taken -= count
            self._changed.notify_all()


class Nemesis:
    """Disturbs a site until told to stop, and writes down what it did."""

    def __init__(self, site: Site, *, seed: int, note: Callable[[Disturbance], None]) -> None:
        self.site = site
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._note = note
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._turns = _Turns(DISTURBED_MAX)
        self._database = threading.Lock()
        self._database_well_at = 0.0
        self._queues: dict[str, list[Fault]] = {}
        self._threads: list[threading.Thread] = []

    # --- life -------------------------------------------------------------------------------------------------------------

    def start(self, *, pause_seconds: tuple[float, float] = (0.2, 1.5), restart_every: float | None = 45.0) -> None:
        """Begin: a thread for each runner, one for assignments, one for the server."""
        for name in self.site.names():
            self.spawn(f"nemesis of {name}", self._disturb_for_ever, name, pause_seconds)
        self.spawn("nemesis of assignments", self._flip_for_ever)
        if restart_every is not None:
            self.spawn("nemesis of the server", self._restart_for_ever, restart_every)

    def follow(self, script: Sequence[tuple[str, str]]) -> None:
        """Instead of `start`: do these (fault, runner) one after the other."""
        self.spawn("nemesis with a script", self._do_each, script)

    def stop(self) -> None:
        """No more faults; returns when all is well again. What did not come back is among the problems."""
        self._over.set()
        for thread in self._threads:
            thread.join(180)

    def once(self, fault: Fault, runner: str) -> None:
        """Do one thing to one runner now, and wait until it is well again."""
        guard: contextlib.AbstractContextManager[object] = (
            self._database if fault.is_of_database else contextlib.nullcontext()
        )
        with guard:
            if fault.is_of_database:
                # A query may last for seconds: it must not meet two places that cannot reach the database, one after the other.
                self._over.wait(max(0.0, self._database_well_at + _BETWEEN_DATABASES_SECONDS - time.time()))
            began = time.time()
            try:
                fault.act(self, runner)
                self.site.wait_well(runner, seconds=_WELL_SECONDS)
                if fault.is_of_database:
                    # Its session may never have suffered; it must not be the one that is always well too early, while it
                    # still takes the database for silent: a test that succeeds ends that.
                    self.site.wait_reaching(runner, seconds=_WELL_SECONDS)
            except (AssertionError, ProcessFailedError) as error:
                self.problems.append(f"after {fault.name} of {runner}: {str(error)[-300:]}")
            if fault.excuses:
                self._note(Disturbance(kind=fault.name, runner=runner, began_at=began, ended_at=time.time()))
            if fault.is_of_database:
                self._database_well_at = time.time()
            self.done[fault.name] += 1

    def wait(self, low: float, high: float) -> None:
        """Let it be broken for a random while."""
        time.sleep(self.between(low, high))

    def wait_short_or_long(self) -> None:
        """Mostly too short to be considered dead, sometimes long enough."""
        if self.between(0.0, 1.0) < 0.75:
            self.wait(0.3, 3.0)
        else:
            self.wait(10.5, 12.5)

    def between(self, low: float, high: float) -> float:
        """A random number."""
        with self._lock:
            return self.random.uniform(low, high)

    # --- loops ------------------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True once `stop` was called."""
        return self._over.is_set()

    def spawn(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        """Let it work in a thread that `stop` waits for."""

        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:  # noqa: BLE001 - a nemesis that dies silently would make a run look calm
                self.problems.append(f"{name} ended: {type(error).__name__}: {str(error)[-300:]}")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _do_each(self, script: Sequence[tuple[str, str]]) -> None:
        for name, runner in script:
            self.once(fault(name), runner)

    def _disturb_for_ever(self, runner: str, pause: tuple[float, float]) -> None:
        while not self._over.wait(self.between(*pause)):
            with self._turns.one():
                if not self._over.is_set():
                    self.once(self._draw(runner), runner)

    def _draw(self, runner: str) -> Fault:
        """Every kind comes once, in random order, before any comes again."""
        with self._lock:
            queue = self._queues.setdefault(runner, [])
            if not queue:
                queue += faults_for(self.site.runners[runner])
                self.random.shuffle(queue)
            return queue.pop()

    def _flip_for_ever(self) -> None:
        """Assignments come and go, to none at all and back: R7 and R11. No caller may notice, so nothing is excused."""
        while not self._over.wait(self.between(3.0, 8.0)):
            name = self.random.choice(self.site.names())
            is_all = self.random.random() < 0.3
            gone = self.site.names() if is_all else (name,)
            with self._turns.all():
                for each in gone:
                    self.site.deployment.unassign(each, SOURCE)
                self.wait(0.1, 1.5)
                for each in gone:
                    self.site.deployment.assign(each, SOURCE)
                for each in gone:
                    self.site.wait_well(each, seconds=_WELL_SECONDS)
                self.done["assignments to none and back" if is_all else "assignment flip"] += 1

    def _restart_for_ever(self, every: float) -> None:
        while not self._over.wait(self.between(every * 0.7, every * 1.3)):
            with self._turns.all():
                self.restart_server()

    def restart_server(self) -> None:
        """SIGTERM, and start again; returns when every runner is back."""
        began = time.time()
        try:
            server = self.site.deployment.server
            assert server is not None
            server.stop()
            self.site.deployment.start_server()
            for name in self.site.names():
                self.site.wait_well(name, seconds=_WELL_SECONDS)
            self.done["server restart"] += 1
        finally:
            self._note(Disturbance(kind="server restart", runner=None, began_at=began, ended_at=time.time()))


# --- the kinds ----------------------------------------------------------------------------------------------------------------


def _kill(nemesis: Nemesis, name: str) -> None:
    nemesis.site.runners[name].running.kill()
    nemesis.site.start(name)


def _drain(nemesis: Nemesis, name: str) -> None:
    code = nemesis.site.runners[name].running.stop()
    assert code == 0, f"a drained runner ended with {code}"
    nemesis.site.start(name)


def _pause(nemesis: Nemesis, name: str) -> None:
    process = nemesis.site.runners[name].running
    process.signal(signal.SIGSTOP)
    try:
        nemesis.wait_short_or_long()
    finally:
        process.signal(signal.SIGCONT)


def _cut(nemesis: Nemesis, name: str) -> None:
    nemesis.site.runners[name].gateway.cut()


def _cut_at_byte(nemesis: Nemesis, name: str) -> None:
    """The connection is reset in the middle of a frame."""
    link = nemesis.site.runners[name].gateway
    faults = Faults(cut_after_bytes=int(nemesis.between(0, 4096)))
    if nemesis.between(0, 1) < 0.5:
        link.set(up=faults)
    else:
        link.set(down=faults)
    nemesis.wait(0.2, 1.0)
    link.heal()


def _half_open(nemesis: Nemesis, name: str) -> None:
    link = nemesis.site.runners[name].gateway
    link.swallow()
    nemesis.wait_short_or_long()
    link.heal()


def _stall(*ways: Way) -> Callable[[Nemesis, str], None]:
    def act(nemesis: Nemesis, name: str) -> None:
        link = nemesis.site.runners[name].gateway
        link.stall(*ways)
        nemesis.wait_short_or_long()
        link.heal()

    return act


def _shaped(low: float, high: float, faults: Faults, *, of_database: bool = False) -> Callable[[Nemesis, str], None]:
    def act(nemesis: Nemesis, name: str) -> None:
        runner = nemesis.site.runners[name]
        link = runner.database if of_database else runner.gateway
        link.set(up=faults, down=faults)
        nemesis.wait(low, high)
        link.heal()

    return act


def _refuse_database(nemesis: Nemesis, name: str) -> None:
    link = nemesis.site.runners[name].database
    link.refuse()
    link.cut()
    nemesis.wait(1.0, 5.0)
    link.heal()


def _drop_database(nemesis: Nemesis, name: str) -> None:
    link = nemesis.site.runners[name].database
    link.swallow()
    nemesis.wait(1.0, 8.0)
    link.heal()


def _operator_drain(nemesis: Nemesis, name: str) -> None:
    client = nemesis.site.client
    assert client.post(f"/v1/runners/{name}/drain").status_code == 200
    nemesis.wait(0.2, 3.0)
    assert client.post(f"/v1/runners/{name}/resume").status_code == 200


def _revoke(nemesis: Nemesis, name: str) -> None:
    """The token is withdrawn; the runner ends by itself; it gets another token and is started again."""
    runner, client = nemesis.site.runners[name], nemesis.site.client
    assert client.post(f"/v1/runners/{name}/revoke").status_code == 200
    code = runner.running.wait(20)
    assert code == 1, f"a revoked runner ended with {code}"
    runner.token_file.write_text(client.post(f"/v1/runners/{name}/rotate").json()["token"])
    nemesis.site.start(name)


def _rotate(nemesis: Nemesis, name: str) -> None:
    """A new token while the old one is good: no caller may notice, and the next connection uses it."""
    runner = nemesis.site.runners[name]
    runner.token_file.write_text(nemesis.site.client.post(f"/v1/runners/{name}/rotate").json()["token"])


def _dropped_cable(*, up: bool, down: bool) -> Callable[[Nemesis, str], None]:
    def act(nemesis: Nemesis, name: str) -> None:
        namespace = nemesis.site.runners[name].namespace
        assert namespace is not None
        namespace.drop(up=up, down=down)
        try:
            nemesis.wait_short_or_long()
        finally:
            namespace.heal()

    return act


def _unplugged(nemesis: Nemesis, name: str) -> None:
    namespace = nemesis.site.runners[name].namespace
    assert namespace is not None
    namespace.unplug()
    try:
        nemesis.wait_short_or_long()
    finally:
        namespace.heal()


def _thin_cable(nemesis: Nemesis, name: str) -> None:
    namespace = nemesis.site.runners[name].namespace
    assert namespace is not None
    namespace.slow(2_000_000)
    try:
        nemesis.wait(2.0, 6.0)
    finally:
        namespace.heal()


FAULTS: Final = (
    Fault(name="SIGKILL", act=_kill),
    Fault(name="SIGTERM", act=_drain),
    Fault(name="SIGSTOP and SIGCONT", act=_pause),
    Fault(name="cut link", act=_cut),
    Fault(name="link cut at a byte", act=_cut_at_byte),
    Fault(name="half-open link", act=_half_open),
    Fault(name="one-way to the runner only", act=_stall(Way.UP)),
    Fault(name="one-way to the server only", act=_stall(Way.DOWN)),
    Fault(name="link stalled both ways", act=_stall()),
    Fault(
        name="slow link",
        act=_shaped(2.0, 6.0, Faults(latency_seconds=0.08, jitter_seconds=0.05, bytes_per_second=300_000)),
    ),
    Fault(name="byte-by-byte link", act=_shaped(0.5, 2.0, Faults(slice_bytes=1))),
    Fault(name="database refused", act=_refuse_database, is_of_database=True),
    Fault(name="database dropped silently", act=_drop_database, is_of_database=True),
    Fault(name="slow database", act=_shaped(2.0, 6.0, Faults(latency_seconds=0.1), of_database=True)),
    Fault(name="operator drain and resume", act=_operator_drain, excuses=False),
    Fault(name="revoke and rotate", act=_revoke),
    Fault(name="rotate", act=_rotate, excuses=False),
    Fault(name="cable dropped", act=_dropped_cable(up=True, down=True), needs_namespace=True, is_of_database=True),
    Fault(name="cable dropped up", act=_dropped_cable(up=True, down=False), needs_namespace=True, is_of_database=True),
    Fault(
        name="cable dropped down", act=_dropped_cable(up=False, down=True), needs_namespace=True, is_of_database=True
    ),
    Fault(name="cable unplugged", act=_unplugged, needs_namespace=True, is_of_database=True),
    Fault(name="thin cable", act=_thin_cable, needs_namespace=True),
)


def faults_for(runner: SiteRunner) -> Sequence[Fault]:
    """The kinds that can be done to this runner."""
    return [each for each in FAULTS if runner.namespace is not None or not each.needs_namespace]


def fault(name: str) -> Fault:
    """The kind of this name."""
    return next(each for each in FAULTS if each.name == name)
