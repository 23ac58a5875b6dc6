"""Look-ups: shared per name, bounded, with a deadline; a name that is never answered takes nothing from the others."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from lensway import limits
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import resolve
from lensway.bridges.kit.lookups import Lookups
from lensway.errors import LenswayError


class Resolver:
    """Answers for names but those that end in `.dead`; these wait until the end of the test."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host: str, port: int, **_more: object) -> list:
        self.asked[host] += 1
        if host.endswith(".dead"):
            self.over.wait(30)
        if host.endswith(".unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        if host.endswith(".odd"):
            raise RuntimeError("a resolver's defect")
        self.gate.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))] * 2


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.over.set()
    resolver.gate.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESOLVE_SECONDS", 0.5)


@pytest.mark.usefixtures("quick")
def test_hundreds_of_names_that_are_never_answered_take_nothing_from_the_others(resolver: Resolver) -> None:
    lookups = Lookups(resolver)

    async def run() -> None:
        assert await lookups.addresses("known.test", 1) == ["192.0.2.1"]
        for turn in range(4):
            late = [asyncio.ensure_future(lookups.addresses(f"d{turn}-{number}.dead", 1)) for number in range(200)]
            again = [asyncio.ensure_future(lookups.addresses(f"d0-{number}.dead", 1)) for number in range(200)]
            await asyncio.sleep(0)
            began = time.monotonic()
            assert await lookups.addresses("known.test", 1) == ["192.0.2.1"]
            if turn == 0:
                assert await lookups.addresses("new.test", 1) == ["192.0.2.1"]
            assert time.monotonic() - began < limits.RESOLVE_SECONDS
            for failure in await asyncio.gather(*late, *again, return_exceptions=True):
                assert isinstance(failure, TimeoutError)
            assert lookups.thread_count <= limits.LOOKUPS_UNKNOWN_MAX
        resolver.over.set()

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_names_that_were_late_leave_room_for_names_never_looked_up(resolver: Resolver) -> None:
    lookups = Lookups(resolver)

    async def run() -> None:
        names = [f"d{number}.dead" for number in range(100)]
        for _ in range(4):
            await asyncio.gather(*(lookups.addresses(name, 1) for name in names), return_exceptions=True)
        assert lookups.thread_count == 100, "a name that is late gets no second thread while so many wait"
        assert await lookups.addresses("new.test", 1) == ["192.0.2.1"]

    asyncio.run(run())


def test_askers_of_one_name_share_its_look_up_and_nothing_is_kept(resolver: Resolver) -> None:
    lookups = Lookups(resolver)
    resolver.gate.clear()

    async def run() -> None:
        askers = [
            asyncio.ensure_future(lookups.addresses(name, 5432)) for name in ["db.test", "DB.test", "db.test."] * 20
        ]
        while not resolver.asked:
            await asyncio.sleep(0.001)
        askers[0].cancel()
        resolver.gate.set()
        answers = await asyncio.gather(*askers, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [["192.0.2.1"]] * 59
        assert resolver.asked == {"db.test": 1}
        assert await lookups.addresses("db.test", 5432) == ["192.0.2.1"]
        assert resolver.asked == {"db.test": 2}, "each dial looks again"
        assert lookups.thread_count == 0

    asyncio.run(run())


@pytest.mark.parametrize(("host", "kind"), [("x.unknown", socket.gaierror), ("x.odd", RuntimeError)])
def test_a_failure_is_shared_for_a_moment_only(
    resolver: Resolver, host: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOKUP_FAILED_SECONDS", 0.05)
    lookups = Lookups(resolver)

    async def run() -> None:
        for _ in range(5):
            with pytest.raises(kind):
                await lookups.addresses(host, 1)
        assert resolver.asked[host] == 1
        await asyncio.sleep(0.06)
        with pytest.raises(kind):
            await lookups.addresses(host, 1)
        assert resolver.asked[host] == 2

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_a_lost_answer_is_asked_for_again(resolver: Resolver) -> None:
    calls = 0

    def lose_the_first(host: str, port: int, **more: object) -> list:
        nonlocal calls
        calls += 1
        if calls == 1:
            resolver.over.wait(30)
        return resolver(host, port, **more)

    lookups = Lookups(lose_the_first)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await lookups.addresses("db.test", 1)
        assert await lookups.addresses("db.test", 1) == ["192.0.2.1"]
        for _ in range(3):
            assert await lookups.addresses("db.test", 1) == ["192.0.2.1"]

    asyncio.run(run())


def test_addresses_need_no_look_up(resolver: Resolver) -> None:
    async def run() -> None:
        lookups = Lookups(resolver)
        assert await lookups.addresses("192.0.2.7", 1) == ["192.0.2.7"]
        assert await lookups.addresses("2001:DB8::1", 1) == ["2001:db8::1"]
        assert not resolver.asked

    asyncio.run(run())


@pytest.mark.parametrize("host", ["a" * 300, "a..b", "\u2603" * 80, "x\0y", "", "no-such-host.invalid"])
def test_a_name_that_is_none_is_an_unknown_host(host: str) -> None:
    with pytest.raises(LenswayError) as caught:
        asyncio.run(resolve(host, 1, AddressPolicy()))
    assert caught.value.failure.details["stage"] == "dns"
