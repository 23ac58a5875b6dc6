"""What goes wrong, and when: faults at random times, crashes at a given step, and the healing of it all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from lensway.catalog import rules
from lensway.fleet import Session
from lensway.limits import ASSIGNMENT_FORCE_SECONDS
from lensway.testing.simulation.callers import Callers
from lensway.testing.simulation.database import Weather
from lensway.testing.simulation.deployment import LATER, NOW, SOURCES, Deployment, Slot

_HEALED_WITHIN_SECONDS: Final = 40.0
"""After the faults end: the longest back-off of a runner, its drain, and the time until a dead session is known as such."""


class Nemesis:
    """The faults of one scenario: some kinds of them, so that each is met alone and with every other."""

    def __init__(self, deployment: Deployment, callers: Callers, rng: random.Random) -> None:
        self._deployment = deployment
        self._callers = callers
        self._random = rng
        self._note = deployment.witness.note
        kinds: tuple[Callable[[Slot], object], ...] = (
            self._kill,
            self._cut,
            self._freeze,
            self._pause,
            self._stop,
            self._spoil_weather,
            self._assign_or_not,
            self._drain_or_resume,
            self._revoke,
            self._rotate,
            self._restart_server,
            self._pause_server,
            self._mischief,
        )
        self._kinds = rng.sample(kinds, rng.randint(1, 5))
        self._crash_at = sorted(rng.randint(1, 900) for _ in range(rng.choice((0, 0, 1, 2))))
        self._crash_server = rng.random() < 0.3
        if self._crash_at:
            deployment.witness.step = self._step

    async def rage(self, seconds: float, pause: float) -> None:
        """Faults for so long."""
        loop, rng = self._deployment.loop, self._random
        until = loop.virtual_now + seconds
        while loop.virtual_now < until:
            await asyncio.sleep(rng.expovariate(1.0 / pause))
            slot = rng.choice(self._deployment.slots)
            if rng.random() < 0.35:
                self._deployment.start(slot)
                self._deployment.start_server()
            else:
                done = rng.choice(self._kinds)(slot)
                if asyncio.iscoroutine(done):
                    await done

    def _step(self, place: str) -> None:
        """One step of some process: perhaps its last."""
        witness = self._deployment.witness
        witness.steps += 1
        if not self._crash_at or witness.steps < self._crash_at[0]:
            return
        self._crash_at.pop(0)
        slot = self._deployment.slot_at(place)
        if slot is not None:
            self._note("crashed at a step")
            self._deployment.die(slot)
        elif self._crash_server:
            self._note("server crashed at a step")
            self._deployment.crash_server()

    # --- kinds ------------------------------------------------------------------------------------------------------------

    async def _kill(self, slot: Slot) -> None:
        await self._deployment.kill(slot)
        if self._random.random() < 0.5:
            self._deployment.start(slot)

    def _cut(self, slot: Slot) -> None:
        if slot.link is not None and slot.link.is_open:
            self._note("cut")
            slot.link.cut(arrived_is_kept=self._random.random() < 0.5)

    def _freeze(self, slot: Slot) -> None:
        if slot.link is None or not slot.link.is_open:
            return
        to_gateway, to_runner = self._random.choice(((True, True), (True, False), (False, True), (False, False)))
        self._note(" ".join(["frozen"] + ["to gateway"] * to_gateway + ["to runner"] * to_runner))
        slot.link.freeze(to_gateway=to_gateway, to_runner=to_runner)

    async def _pause(self, slot: Slot) -> None:
        self._deployment.pause(slot)
        await asyncio.sleep(self._random.choice((0.2, 0.7, 3.0, 12.0)))
        self._deployment.resume(slot)

    def _stop(self, slot: Slot) -> None:
        self._deployment.stop(slot)

    def _spoil_weather(self, slot: Slot) -> None:
        weather = self._random.choice(list(Weather))
        place = self._random.choice((slot.place, slot.place, "inline"))
        self._note(f"the database is {weather.value}", place)
        self._deployment.weather[place] = weather

    async def _assign_or_not(self, slot: Slot) -> None:
        rule = rules.assign if self._random.random() < 0.6 else rules.unassign
        for _ in range(self._random.choice((1, 1, 4))):
            await self.assign(slot, rule is rules.assign)

    async def assign(self, slot: Slot, is_assigned: bool) -> None:
        """Assign or unassign some of the sources."""
        names = self._random.sample(SOURCES, self._random.randint(1, 2))
        self._note("assigned" if is_assigned else "unassigned", slot.name)
        environment = self._deployment.environment
        await self._deployment.change(
            lambda snapshot: (
                rules.assign(snapshot, environment, slot.name, names, at="")
                if is_assigned
                else rules.unassign(snapshot, environment, slot.name, names)
            )
        )

    async def _drain_or_resume(self, slot: Slot) -> None:
        is_draining = self._deployment.record(slot).is_draining
        self._note("resumed by an operator" if is_draining else "drained by an operator", slot.name)
        rule = rules.resume_runner if is_draining else rules.drain_runner
        await self._deployment.change(lambda snapshot: rule(snapshot, self._deployment.environment, slot.name))

    async def _revoke(self, slot: Slot) -> None:
        self._note("revoked", slot.name)
        environment = self._deployment.environment
        await self._deployment.change(lambda snapshot: rules.revoke_runner(snapshot, environment, slot.name))
        server = self._deployment.server

        def look() -> None:
            if self._deployment.record(slot).is_revoked and server.process.paused_at is None:
                sessions = list(server.dispatcher.fleet.sessions_of(slot.id))
                self._deployment.witness.check(
                    not sessions or server.dispatcher.is_dead, "a revoked runner's session is closed within 1 s"
                )

        self._deployment.loop.call_later(1.0, look)
        if self._random.random() < 0.7:
            await asyncio.sleep(self._random.choice((0.0, 2.0)))
            await self._rotate(slot)

    async def _rotate(self, slot: Slot) -> None:
        self._note("rotated", slot.name)
        environment, token = self._deployment.environment, self._random.randbytes(32)
        await self._deployment.change(
            lambda snapshot: rules.rotate_runner(
                snapshot, environment, slot.name, token_hash=token, at=NOW, overlap_until=LATER
            )
        )

    async def _restart_server(self, _slot: Slot) -> None:
        if self._random.random() < 0.5:
            self._deployment.crash_server()
        else:
            await self._deployment.stop_server()
        await asyncio.sleep(self._random.choice((0.05, 1.0, 3.0)))
        self._deployment.start_server()

    async def _pause_server(self, _slot: Slot) -> None:
        self._deployment.pause_server()
        await asyncio.sleep(self._random.choice((0.05, 0.3, 2.0, 11.0)))
        self._deployment.resume_server()

    def _mischief(self, _slot: Slot) -> None:
        self._deployment.mischief_chance = self._random.choice((0.0, 0.02, 0.1))

    # --- healing ----------------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """One runner up, assigned and reachable; nothing is broken any more. Returns when the deployment has found that out."""
        deployment = self._deployment
        self._crash_at = []
        deployment.mischief_chance = 0.0
        deployment.weather.clear()
        deployment.resume_server()
        deployment.start_server()
        for slot in deployment.slots:
            deployment.resume(slot)
            if slot.link is not None:
                slot.link.freeze(to_gateway=False, to_runner=False)
        survivor = deployment.slots[0]
        if survivor.task is not None and survivor.agent is not None and survivor.agent.state == "draining":
            await asyncio.wait([survivor.task])
        environment = deployment.environment
        await self._rotate(survivor)
        await deployment.change(lambda snapshot: rules.resume_runner(snapshot, environment, survivor.name))
        await deployment.change(lambda snapshot: rules.assign(snapshot, environment, survivor.name, SOURCES, at=""))
        self._note("healed")

        def serves() -> bool:
            # It may have given up dialling (a revoked token), or be on its way out: the operator starts it again.
            deployment.start(survivor)
            return any(
                self._is_in_force(session) for session in deployment.server.dispatcher.fleet.sessions_of(survivor.id)
            )

        await self.until(serves, _HEALED_WITHIN_SECONDS, "liveness: a runner that may serve is live")
        self._note("serves again")
        fleet = deployment.server.dispatcher.fleet
        await self.until(
            lambda: all(self._is_in_force(session) for session in fleet.sessions.values() if not session.is_suspect),
            ASSIGNMENT_FORCE_SECONDS,
            "R10: assignments are in force within 25 s",
        )

    async def until(self, holds: Callable[[], bool], seconds: float, promise: str) -> None:
        """Wait until it has held for a moment: processes that were on their way out when the faults ended are then gone."""
        loop = self._deployment.loop
        until, since = loop.virtual_now + seconds, loop.virtual_now
        while loop.virtual_now - since < 1.0:
            await asyncio.sleep(0.25)
            if not holds():
                since = loop.virtual_now
                self._deployment.witness.check(since < until, promise)

    def _is_in_force(self, session: Session) -> bool:
        runner = self._deployment.store.current().runner_by_id(session.facts.runner)
        return runner is not None and not session.is_suspect and session.revision == runner.set_revision
