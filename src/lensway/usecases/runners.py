"""Use cases of runners and assignments: the switch between inline and dispatched."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Final

from lensway import limits
from lensway.auth import tokens
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.reading import Section
from lensway.catalog.records import Change, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import warnings_now
from lensway.ids import EnvironmentId, new_runner_id
from lensway.usecases.connection_tests import ConnectionTests
from lensway.usecases.desk import Changed, Desk, warning_document
from lensway.usecases.fleet_view import runner_document
from lensway.usecases.sources import not_verified

_RUNNER_KEYS = frozenset({"name", "network", "like"})


class Runners:
    """Runners: registered, looked at, assigned, rotated, drained, revoked, deleted."""

    def __init__(self, desk: Desk, tests: ConnectionTests) -> None:
        self._desk = desk
        self._tests = tests

    # --- looking ------------------------------------------------------------------------------------------------------------

    def list(self, caller: Caller) -> dict[str, Any]:
        """Every runner of the environment with its state."""
        snapshot = self._desk.snapshot()
        environment = caller.environment.id
        warnings = warnings_now(snapshot, environment=environment, fleet=self._desk.fleet)
        documents = [self._document(snapshot, runner) for runner in snapshot.runners(environment)]
        for document in documents:
            names = {source["name"] for source in document["sources"]}
            document["warnings"] = [
                warning_document(one)
                for one in warnings
                if one.runner == document["name"] or (one.runner is None and one.source in names)
            ]
        return {"runners": documents}

    def show(self, caller: Caller, name: str) -> dict[str, Any]:
        """One runner, by id or name. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        return self._document(snapshot, rules.require_runner(snapshot, caller.environment.id, name))

    def sources(self, caller: Caller, name: str) -> dict[str, Any]:
        """What a runner is assigned. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        runner = rules.require_runner(snapshot, caller.environment.id, name)
        names = [source.name for source in snapshot.sources_of(runner.environment, runner.id)]
        return {"runner": runner.name, "revision": runner.set_revision, "sources": names}

    def assignments(self, caller: Caller) -> dict[str, Any]:
        """The whole set with its revision."""
        snapshot = self._desk.snapshot()
        environment = caller.environment.id
        pairs = [
            {
                "source": rules.require_source(snapshot, environment, one.source).name,
                "runner": rules.require_runner(snapshot, environment, one.runner).name,
                "createdAt": one.created_at,
            }
            for one in snapshot.assignments(environment)
        ]
        return {"revision": snapshot.revision, "assignments": pairs}

    # --- registering ----------------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, body: object) -> dict[str, Any]:
        """A new runner with its token, once. Raises LenswayError INVALID_REQUEST, CONFLICT, NOT_FOUND."""
        section = Section(body, "", _RUNNER_KEYS)
        name, network = section.required("name"), section.get("network")
        like = section.text("like") if section.get("like") is not None else None
        id, at, token = new_runner_id(), self._desk.now_text(), tokens.mint("rk")
        hashed = tokens.hash_token(token.reveal())
        changed = await self._desk.change(
            caller,
            "runner.create",
            str(name)[: limits.NAME_CHARACTERS_MAX],
            lambda snapshot: rules.create_runner(
                snapshot, caller.environment.id, name, network=network, like=like, id=id, token_hash=hashed, at=at
            ),
        )
        runner = rules.require_runner(changed.snapshot, caller.environment.id, id)
        self._publish(caller, "runner", runner.name, "created")
        return self._created(runner, token.reveal()) | (_warnings(changed) if like is not None else {})

    async def patch(self, caller: Caller, name: str, body: object) -> dict[str, Any]:
        """The runner with another network label. Raises LenswayError NOT_FOUND, INVALID_REQUEST."""
        network = Section(body, "", frozenset({"network"})).required("network")
        changed = await self._change(
            caller, "runner.patch", name, lambda snapshot, env: rules.patch_runner(snapshot, env, name, network=network)
        )
        runner = rules.require_runner(changed.snapshot, caller.environment.id, name)
        return self._document(changed.snapshot, runner) | _warnings(changed)

    async def delete(self, caller: Caller, name: str, *, force: bool = False) -> dict[str, Any]:
        """The runner goes. Raises LenswayError NOT_FOUND, CONFLICT while it has assignments and not ``force``."""
        changed = await self._change(
            caller, "runner.delete", name, lambda snapshot, env: rules.delete_runner(snapshot, env, name, force=force)
        )
        return _warnings(changed)

    async def rotate(self, caller: Caller, name: str) -> dict[str, Any]:
        """A new token, once. Raises LenswayError NOT_FOUND."""
        wall = self._desk.clock.wall()
        until = (wall + datetime.timedelta(seconds=limits.TOKEN_OVERLAP_SECONDS)).isoformat()
        token = tokens.mint("rk")
        hashed = tokens.hash_token(token.reveal())
        changed = await self._change(
            caller,
            "runner.rotate",
            name,
            lambda snapshot, env: rules.rotate_runner(
                snapshot, env, name, token_hash=hashed, at=wall.isoformat(), overlap_until=until
            ),
        )
        runner = rules.require_runner(changed.snapshot, caller.environment.id, name)
        return self._created(runner, token.reveal())

    async def revoke(self, caller: Caller, name: str) -> dict[str, Any]:
        """End its tokens and sessions; assignments are kept. Raises LenswayError NOT_FOUND."""
        return await self._act(caller, "revoke", name, rules.revoke_runner)

    async def drain(self, caller: Caller, name: str) -> dict[str, Any]:
        """Give it no new work; assignments are kept. Raises LenswayError NOT_FOUND."""
        return await self._act(caller, "drain", name, rules.drain_runner)

    async def resume(self, caller: Caller, name: str) -> dict[str, Any]:
        """End a drain. Raises LenswayError NOT_FOUND, CONFLICT when it is revoked."""
        return await self._act(caller, "resume", name, rules.resume_runner)

    # --- assigning ------------------------------------------------------------------------------------------------------------

    async def assign(self, caller: Caller, name: str, source: str, *, verify: bool = False) -> dict[str, Any]:
        """The runner serves the source from now on.

        Raises:
            LenswayError: NOT_FOUND; with ``verify`` CONFLICT with the stages when the test from that runner fails.
        """
        if verify:
            await self._verify(caller, name, source)
        at = self._desk.now_text()
        changed = await self._change(
            caller,
            "assign",
            f"{source} -> {name}",
            lambda snapshot, env: rules.assign(snapshot, env, name, [source], at=at),
        )
        if changed.changes:
            self._publish_assignment(caller, name, source, "assigned")
        return self._set_answer(caller, name, changed)

    async def unassign(self, caller: Caller, name: str, source: str) -> dict[str, Any]:
        """The runner serves the source no more. Raises LenswayError NOT_FOUND."""
        changed = await self._change(
            caller,
            "unassign",
            f"{source} -> {name}",
            lambda snapshot, env: rules.unassign(snapshot, env, name, [source]),
        )
        if changed.changes:
            self._publish_assignment(caller, name, source, "unassigned")
        return self._set_answer(caller, name, changed)

    async def _verify(self, caller: Caller, name: str, source: str) -> None:
        snapshot = self._desk.snapshot()
        runner = rules.require_runner(snapshot, caller.environment.id, name)
        found = rules.require_source(snapshot, caller.environment.id, source)
        results = await self._tests.test(caller, found, runner=runner)
        if not all(result["ok"] for result in results):
            raise not_verified(runner.name, results)

    # --- parts ------------------------------------------------------------------------------------------------------------------

    async def _act(
        self, caller: Caller, action: str, name: str, rule: Callable[[Snapshot, EnvironmentId, str], Sequence[Change]]
    ) -> dict[str, Any]:
        changed = await self._change(caller, f"runner.{action}", name, lambda snapshot, env: rule(snapshot, env, name))
        runner = rules.require_runner(changed.snapshot, caller.environment.id, name)
        self._publish(caller, "drain" if action in ("drain", "resume") else "runner", runner.name, action)
        return self._document(changed.snapshot, runner) | _warnings(changed)

    async def _change(
        self, caller: Caller, action: str, object: str, rule: Callable[[Snapshot, EnvironmentId], Sequence[Change]]
    ) -> Changed:
        return await self._desk.change(caller, action, object, lambda snapshot: rule(snapshot, caller.environment.id))

    def _document(self, snapshot: Snapshot, runner: Runner) -> dict[str, Any]:
        return runner_document(snapshot, runner, self._desk.dispatcher, self._desk.clock)

    def _set_answer(self, caller: Caller, name: str, changed: Changed) -> dict[str, Any]:
        runner = rules.require_runner(changed.snapshot, caller.environment.id, name)
        return {"revision": runner.set_revision} | _warnings(changed)

    def _created(self, runner: Runner, token: str) -> dict[str, Any]:
        gateway = self._desk.gateway_url
        line = f"LENSWAY_GATEWAY_URL={gateway}" if gateway else _UNKNOWN_GATEWAY
        block = f"LENSWAY_RUNNER_ID={runner.id}\nLENSWAY_RUNNER_TOKEN={token}\n{line}\n"
        answer: dict[str, Any] = {"id": runner.id, "name": runner.name, "token": token, "env": block}
        return answer | ({"network": runner.network} if runner.network else {})

    def _publish(self, caller: Caller, kind: str, runner: str, change: str) -> None:
        self._desk.hub.publish(caller.environment.id, kind, {"runner": runner, "change": change})

    def _publish_assignment(self, caller: Caller, runner: str, source: str, change: str) -> None:
        data = {"runner": runner, "source": source, "change": change, "by": caller.identity.actor}
        self._desk.hub.publish(caller.environment.id, "assignment", data)


_UNKNOWN_GATEWAY: Final = (
    "# Set the address at which this runner reaches the gateway; `lensway serve --gateway-url` sets it in this block.\n"
    "# LENSWAY_GATEWAY_URL=wss://HOST:PORT/connect"
)


def _warnings(changed: Changed) -> dict[str, Any]:
    return {"warnings": [warning_document(warning) for warning in changed.warnings]}
