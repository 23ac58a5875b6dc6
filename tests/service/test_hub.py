"""Watchers of events: bounded for a key, an environment and the server, and each environment has room for some."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from lensway import limits
from lensway.clock import SystemClock
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId, KeyId
from lensway.usecases.events import EventHub, HubEvent


class Watchers:
    def __init__(self) -> None:
        self.hub = EventHub(SystemClock())
        self.open: list[tuple[AsyncIterator[HubEvent], asyncio.Future[HubEvent]]] = []

    async def watch(self, environment: str, key: str) -> bool:
        watch = self.hub.watch(EnvironmentId(environment), KeyId(key))
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        if waiting.done():
            with pytest.raises(LenswayError) as refused:
                waiting.result()
            assert refused.value.code is ErrorCode.OVERLOADED
            return False
        self.open.append((watch, waiting))
        return True

    async def close(self) -> None:
        while self.open:
            watch, waiting = self.open.pop()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            await watch.aclose()


def test_everything_taken_by_others_leaves_a_few_for_each_environment_and_comes_back() -> None:
    async def run() -> None:
        watchers = Watchers()
        per_key = limits.EVENT_SUBSCRIBERS_PER_KEY_MAX
        for number in range(limits.EVENT_SUBSCRIBERS_MAX):
            assert await watchers.watch(f"env_{number // per_key // 2}", f"key_{number // per_key}")
        late = [await watchers.watch("env_late", f"key_{number}") for number in range(10)]
        assert late == [True] * limits.EVENT_SUBSCRIBERS_RESERVED + [False] * (10 - limits.EVENT_SUBSCRIBERS_RESERVED)
        await watchers.close()
        assert all([await watchers.watch("env_late", "key") for _ in range(per_key)])
        assert not await watchers.watch("env_late", "key")
        watchers.hub.publish(EnvironmentId("env_other"), "runner", {})
        watchers.hub.publish(EnvironmentId("env_late"), "runner", {"name": "mine"})
        assert {(await waiting).data["name"] for _, waiting in watchers.open} == {"mine"}
        await watchers.close()

    asyncio.run(run())
