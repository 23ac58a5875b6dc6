"""The problems of an environment by cause, worst first: one line for an offline runner, however many sources it serves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lensway import limits
from lensway.auth.caller import Caller
from lensway.catalog.records import Credentials, ExecutionMode, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import WarningCode
from lensway.fleet import RunnerState
from lensway.ids import EnvironmentId
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_pages import ADVICE, SOUND, FleetPages, Pace, Standing, natural
from lensway.usecases.fleet_view import since_text

_RANKS: Final = {
    state: number
    for number, state in enumerate(
        (
            RunnerState.OFFLINE,
            RunnerState.REVOKED,
            RunnerState.SUSPECT,
            RunnerState.DEGRADED,
            RunnerState.NEVER_CONNECTED,
            RunnerState.DRAINING,
        )
    )
}
_OF_LIVE: Final = (WarningCode.BRIDGE_MISSING, WarningCode.CREDENTIALS_MISSING, WarningCode.RUNNER_UNREACHABLE)
"""Faults of a runner that is there."""


class Overview:
    """The problems of an environment with its counts."""

    def __init__(self, desk: Desk, fleet: FleetPages) -> None:
        self._desk = desk
        self._fleet = fleet

    async def show(self, caller: Caller) -> dict[str, Any]:
        """Problems by cause, worst first, advice, and how much there is of everything."""
        pace = Pace(self._desk.clock)
        environment = caller.environment.id
        standing = await self._fleet.standing(environment)
        snapshot = standing.snapshot
        down = {
            name
            for name, warnings in standing.of_source.items()
            if any(warning.code is WarningCode.NO_LIVE_RUNNER_LEFT for warning in warnings)
        }
        problems: list[dict[str, Any]] = []
        for runner in snapshot.runners(environment):
            problems += self._of_runner(standing, runner, down)
            await pace.give_way()
        problems += await _without_runner(snapshot, environment, pace)
        problems.sort(key=lambda one: (not one["down"], one["rank"], -one["down"], natural(one["runner"] or "")))
        states: dict[str, int] = {}
        for status in standing.statuses.values():
            states[status.state.value] = states.get(status.state.value, 0) + 1
        return {
            "problems": problems[: limits.CONSOLE_PROBLEMS_MAX],
            "more": max(0, len(problems) - limits.CONSOLE_PROBLEMS_MAX),
            "advice": await _advice(standing, pace),
            "counts": {
                "runners": len(standing.statuses),
                "sources": len(snapshot.sources(environment)),
                "lenses": len(snapshot.lenses(environment)),
                "states": states,
                "down": len(down),
            },
        }

    def _of_runner(self, standing: Standing, runner: Runner, down: set[str]) -> Iterable[dict[str, Any]]:
        snapshot, status = standing.snapshot, standing.statuses[runner.id]
        names = [source.name for source in snapshot.sources_of(runner.environment, runner.id)]
        by_code: defaultdict[WarningCode, list[str]] = defaultdict(list)
        for warning in standing.of_runner.get(runner.name, ()):
            if warning.code in _OF_LIVE and warning.source is not None:
                by_code[warning.code].append(warning.source)
        for code, sources in by_code.items():
            affected = [name for name in sources if name in down]
            yield {
                "kind": code.value,
                "runner": runner.name,
                "state": status.state.value,
                "since": None,
                "cause": "",
                "hint": "",
                "sources": sorted(sources, key=natural),
                "down": len(affected),
                "rank": _RANKS[RunnerState.DEGRADED],
            }
        is_idle = status.state is RunnerState.NEVER_CONNECTED and not names
        if status.state in SOUND or is_idle or (status.state is RunnerState.DEGRADED and by_code):
            return
        yield {
            "kind": "runner",
            "runner": runner.name,
            "state": status.state.value,
            "since": since_text(status, self._desk.clock),
            "cause": status.cause,
            "hint": status.hint,
            "sources": sorted(names, key=natural),
            "down": sum(name in down for name in names),
            "rank": _RANKS.get(status.state, len(_RANKS)),
        }


async def _without_runner(snapshot: Snapshot, environment: EnvironmentId, pace: Pace) -> Sequence[dict[str, Any]]:
    """Sources that only a runner can execute and that have none, as one problem."""
    names = []
    for source in snapshot.sources(environment):
        is_bound = source.credentials is Credentials.RUNNER_LOCAL or source.execution is ExecutionMode.RUNNER_REQUIRED
        if is_bound and not snapshot.runners_of(environment, source.id):
            names.append(source.name)
        await pace.give_way()
    if not names:
        return ()
    return (
        {
            "kind": "no_runner_assigned",
            "runner": None,
            "state": "",
            "since": None,
            "cause": "",
            "hint": "",
            "sources": sorted(names, key=natural),
            "down": len(names),
            "rank": 0,
        },
    )


async def _advice(standing: Standing, pace: Pace) -> Sequence[Mapping[str, Any]]:
    """What may go wrong: how many sources or runners each kind of advice is about."""
    subjects: defaultdict[WarningCode, set[str]] = defaultdict(set)
    for found in (*standing.of_runner.values(), *standing.of_source.values()):
        for warning in found:
            if warning.code in ADVICE:
                subjects[warning.code].add(warning.source or warning.runner or "")
        await pace.give_way()
    return [{"code": code.value, "names": sorted(names, key=natural)} for code, names in sorted(subjects.items())]
